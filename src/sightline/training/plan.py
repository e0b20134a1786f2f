"""Plan a fine-tuning: an image set and a network in, an editable schedule of phases out."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sightline.config.finetuning import ALL, lies_in
from sightline.config.resolving import merge, read_recipe, spell_out, to_mapping
from sightline.display.reporting import Listener, ignore, reporting
from sightline.runs.folder import refuse_to_overwrite
from sightline.runs.writing import write_atomically
from sightline.training.request import read_request
from sightline_runtime.sentences import quoted

if TYPE_CHECKING:
    from sightline.training.classifier_plan import ClassifierPlan
    from sightline.training.phases import Phase

__all__ = ["plan"]


@reporting
def plan(
    data: str | os.PathLike[str] | None = None,
    *,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    on_event: Listener = ignore,
) -> str:
    """Write out which layers of a network learn in which epochs, as YAML to edit and to train with.

    The phases are those of the recipe's ``finetune``, or of ``gradual`` where it has none, with the real names of the
    network's layers and, as comments, how many parameters learn in each. Trained unedited, they give the same weights.

    Args:
        data: An image set, as for sightline train; so are the recipe and the settings of the training.
        recipe: A recipe's name, a YAML file of one, or auto to choose by the images.
        settings: What to set over the recipe, nested as in its YAML; it becomes part of what is written.
        out: File to write (.yaml), for sightline train --config; without it the schedule is printed.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Returns:
        The YAML text.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do.
    """
    given = spell_out(settings or {})
    named = {} if recipe == "auto" else spell_out(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe)
    if merge(named, given).get("finetune") in (None, {"kind": "none"}):
        given = merge(given, {"finetune": {"kind": "gradual"}})
    request = read_request(data, recipe, given, say=on_event)
    if out is not None:
        refuse_to_overwrite(out)
    from sightline.training.preparation import prepare_classifier

    settled = prepare_classifier(request, on_event)
    name = None if recipe == "auto" or isinstance(recipe, Mapping) else os.fspath(recipe)
    text = _written(settled, given, name, None if data is None else os.fspath(data), out)
    if out is not None:
        write_atomically(Path(out), text.encode())
    return text


def _written(
    settled: "ClassifierPlan",
    given: Mapping[str, Any],
    recipe: str | None,
    data: str | None,
    out: str | os.PathLike[str] | None,
) -> str:
    """Return the whole text: how to use it, what else was set, and the phases, a layer a line."""
    from sightline.training.phases import phases_of

    chosen = settled.recipe
    others = merge(given, {"network": to_mapping(chosen.network), "fit": {"epochs": chosen.fit.epochs}})
    others = {name: value for name, value in others.items() if name != "finetune"}
    command = ["sightline", "train", *([data] if data else []), *(["--recipe", recipe] if recipe else [])]
    parameters = sum(parameter.numel() for parameter in settled.network.parameters())
    return "\n".join(
        [
            f"# A schedule of fine-tuning for {settled.images.name}, made for the recipe {chosen.name}. Edit it, then:",
            f"#   {quoted(*command, '--config', os.fspath(out) if out else 'plan.yaml')}",
            "# A layer that a phase does not name is frozen in it. Each phase goes through the learning-rate schedule"
            " anew, up to",
            "# rate times its peak. A name stands for all that lies below it: layer4 for layer4.0 and layer4.1.",
            yaml.safe_dump(others, sort_keys=False, allow_unicode=True, width=110).rstrip(),
            "finetune:",
            "  kind: phases",
            *(f"  {name}: {_plain(value)}" for name, value in _of_all_phases(chosen.finetune)),
            f"  phases: # of a network of {parameters:,} parameters",
            *(line for phase in phases_of(chosen, settled.network) for line in _lines(settled, phase)),
            "",
        ]
    )


def _of_all_phases(finetune: Any) -> Iterator[tuple[str, Any]]:
    yield "layer_decay", getattr(finetune, "layer_decay", None)
    yield "restore_best", getattr(finetune, "restore_best", "none")


def _lines(settled: "ClassifierPlan", phase: "Phase") -> Iterator[str]:
    """Yield a phase as YAML, with the parameters that learn in each of its layers."""
    from sightline.training.phases import layers_of

    sizes = {name: item.numel() for name, item in settled.network.named_parameters() if name in phase.trained}
    layers = phase.layers
    if layers == (ALL,):
        layers = tuple(name for layer in reversed(layers_of(settled.network)) for name in layer.names)
    yield f"    - epochs: {phase.epochs} # {phase.when}; {sum(sizes.values()):,} parameters learn"
    yield f"      rate: {_plain(phase.rate)}"
    yield "      train:"
    for layer in layers:
        count = sum(size for name, size in sizes.items() if lies_in(name, layer))
        if count:  # whitening may have ended
            yield f"        - {_plain(layer)} # {count:,}"


def _plain(value: Any) -> str:
    """Return a value as YAML has it in a line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True).removesuffix("...\n").strip()
