"""Read what a training is asked for, and refuse what can be refused before torch is loaded."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.config.backbones import PACKAGE
from sightline.config.generating import AnyRecipe
from sightline.config.networks import RunConfig
from sightline.config.resolving import merge, read_recipe, refuse_hopeless, resolve, resolve_any, spell_out
from sightline.config.trust import refuse_untrusted
from sightline.data.corrections import read_corrections
from sightline.data.excluding import read_excluded
from sightline.data.seen import read_kept
from sightline.data.sources.find_source import find_source
from sightline.data.sources.source import ImageSource
from sightline.data.splits import RULE
from sightline.data.synthetic import find_generated
from sightline.errors import DataError, RunError
from sightline.machine.extras import packaged_weights, refuse_missing_trackers
from sightline.runs.folder import read_model_of_finished
from sightline.runs.hub import fetched, on_hub, pinned

__all__ = ["Request", "read_request"]


@dataclass(frozen=True)
class Request:
    """The recipe, settings and image set that a training was asked for."""

    named: dict[str, Any] | None
    """The content of the recipe that was named; None where it is chosen by the images."""
    settings: dict[str, Any]
    """What is set over it, each technique spelled out as a block."""
    source: ImageSource
    by_default: bool
    """Whether no image set was named, and the source is the one to fall back on."""
    recipe: AnyRecipe | None
    """Every setting; None where the recipe is chosen by the images."""
    split_rule: int = RULE
    """By which the images are dealt; that of a run that is continued."""
    repeats: Path | None = None
    """The run whose recipe is trained again; None: it is that of no run, or of the run that is continued."""


def read_request(
    data: str | os.PathLike[str] | None,
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    begun: Path | None = None,
    otherwise: str | None = None,
    *,
    generators: bool = False,
    say: Callable[[str], None] | None = None,
) -> Request:
    """Read what a training is asked for, and refuse what no images could make possible.

    Args:
        data: an image set, as ``sightline.train`` has it; so are ``recipe`` and ``settings``.
        recipe: its name, a file, its content, or ``auto``.
        settings: what is set over it.
        begun: the run to continue, whose own recipe is taken where nothing else is named.
        otherwise: the image set where none is named; None refuses.
        generators: the recipe may be that of a generator.
        say: hears sentences, as ``runs.hub.fetched`` has it.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do.
    """
    flags = spell_out(settings or {})
    if begun is not None and data is None and recipe == "auto":
        if not (begun / "recipe.yaml").exists():
            raise RunError(
                f"{begun} is no run that could be continued: it has no recipe.yaml; name the image set to start it."
            )
        recipe = begun / "recipe.yaml"
    named = None if recipe == "auto" else dict(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe)
    named_set = data if data is not None else (named or {}).get("image_set")
    location = otherwise if named_set is None else named_set
    if location is None:
        raise DataError("no image set was named; give a folder, an archive, a manifest, or a name such as groceries.")
    flags = _with_commit(named, flags, say)
    classes = (merge(named or {}, flags).get("data") or {}).get("classes")
    layers = merge(spell_out(named or {}), flags)
    refuse_untrusted(layers)
    try:
        source = find_source(location, classes)
    except DataError as error:
        if data is not None or named_set is None or os.path.exists(os.path.expanduser(str(location))):
            raise
        raise DataError(
            f"there is no image set at {str(location)!r}, which the recipe names, on this machine; name your copy of it"
            " before the options: sightline train DATA --config ..., in Python train(DATA, recipe=...)."
        ) from error
    settled = None
    if named is None:
        refuse_hopeless(flags)
    else:
        settled = (resolve_any if generators else resolve)(named, flags)
    network, images = layers.get("network") or {}, layers.get("data") or {}
    if network.get("kind") == "timm" and network.get("weights") == PACKAGE:
        packaged_weights(network["name"])
    if network.get("kind") == "run" and network.get("folder"):
        read_model_of_finished(fetched(network["folder"], say))
    for name, read in (
        ("exclude", read_excluded),
        ("corrections", read_corrections),
        ("keep_split", read_kept),
        ("synthetic", find_generated),
    ):
        if images.get(name) is not None:
            read(images[name])
    source.merge = settled.data.merge if settled else tuple(images.get("merge") or ())
    refuse_missing_trackers(settled.track.to if settled else (flags.get("track") or {}).get("to") or ())
    repeats = None if isinstance(recipe, Mapping) or begun is not None else Path(recipe)
    if repeats is not None:
        repeats = repeats.parent if repeats.is_file() and (repeats.parent / "model.json").is_file() else None
    return Request(named, flags, source, named_set is None, settled, repeats=repeats)


def _with_commit(
    named: Mapping[str, Any] | None, flags: dict[str, Any], say: Callable[[str], None] | None
) -> dict[str, Any]:
    """Return settings that name the commit of a network on the hub, which may change before its run is resumed."""
    network = merge(spell_out(named or {}), flags).get("network")
    if not isinstance(network, Mapping) or network.get("kind") != RunConfig.kind or not on_hub(network.get("folder")):
        return flags
    return merge(flags, {"network": {"kind": RunConfig.kind, "folder": pinned(network["folder"], say)}})
