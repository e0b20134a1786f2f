"""Studies: recipes that are compared, each trained with the same seeds. Nothing here loads torch."""

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec

from sightline.config.building import Block, build
from sightline.config.checks import Count, ShareAboveZero, ZeroOrMore, nearest, shown
from sightline.config.resolving import flatten, merge, read_recipe, resolve, spell_out, to_mapping
from sightline.config.settings import Recipe
from sightline.config.trust import without_trust
from sightline.config.yaml_texts import named_texts, read_named, yaml_text
from sightline.errors import ConfigError

__all__ = ["Study", "Variant", "differences", "named_studies", "read_study", "study_to_yaml"]

RUN = "run"  # the kind of network that an earlier run is
UNSAFE = frozenset('/\\\0:*?"<>|')  # in names of folders, on some system
STUDY_OWN = ("name", "about", "image_set", "fit.seed")  # of a recipe; a study sets these itself
# would cut other test or validation images, label them otherwise, or tell other classes apart
ONE_SPLIT = (
    "data.split_seed",
    "data.validation",
    "data.exclude",
    "data.corrections",
    "data.correct_test",
    "data.merge",
)


class Variant(Block, frozen=True, kw_only=True):
    """One of the recipes of a study."""

    name: str
    """What it is called, and its runs."""
    about: str = ""
    """What it is for."""
    recipe: dict[str, Any] | None = None
    """Content of the recipe that it starts from; None: the study's."""
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    """What it sets over the study's settings."""
    backbone: str | None = None
    """The variant or backbone whose run with the same seed this one's network and weights come from."""
    data: str | None = None
    """An image set of its own, which only a backbone may have; None: the study's."""


class Study(Block, frozen=True, kw_only=True, dict=True):
    """Recipes × seeds: every variant is trained with every seed, on the same images.

    Raises:
        ConfigError: a name is missing, unknown or twice there, a setting is wrong, or a comparison would mean nothing.
    """

    name: str
    """What the study is called."""
    about: str = ""
    """What it asks."""
    data: str | None = None
    """The image set; None where the command line names it."""
    recipe: dict[str, Any]
    """Content of the recipe that all variants start from."""
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    """What all variants set over it."""
    fraction: ShareAboveZero | None = None
    """Share of the training images to use; None: what the settings say. A backbone with images of its own uses them
    all."""
    seeds: tuple[ZeroOrMore, ...] = (0, 1, 2)
    """Seeds of the runs. The images of train, validation and test are the same for all."""
    variants: tuple[Variant, ...]
    """What is compared, the baseline among them."""
    baseline: str
    """The variant that the others are compared with."""
    backbones: tuple[Variant, ...] = ()
    """What is trained for variants to start from, and not compared."""
    unequal: str = ""
    """Why the variants take different numbers of operations on purpose; empty: they are meant to take the same."""

    def _check(self) -> None:
        self._check_names()
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds are {list(self.seeds)}; wanted one or more, each once.")
        self._check_backbones()
        for variant in self.trained:
            self._check_settings(variant)
        self._check_differences()

    @cached_property
    def trained(self) -> tuple[Variant, ...]:
        """Backbones and variants, each after the one that it starts from."""
        known = {variant.name: variant for variant in (*self.backbones, *self.variants)}
        ordered: dict[str, Variant] = {}

        def place(variant: Variant) -> None:
            if variant.backbone is not None and variant.backbone not in ordered:
                place(known[variant.backbone])
            ordered.setdefault(variant.name, variant)

        for variant in known.values():
            place(variant)
        return tuple(ordered.values())

    def base(self, variant: Variant) -> Recipe:
        """Return the recipe below a variant's own settings."""
        whole = self.fraction is None or variant.data is not None
        fraction = {} if whole else {"data": {"fraction": self.fraction}}
        return resolve(self.recipe if variant.recipe is None else variant.recipe, self.settings, fraction)

    def overrides(self, variant: Variant, seed: int, backbone: str | None) -> dict[str, Any]:
        """Return what one run of a variant sets over ``base``.

        Args:
            backbone: folder of the run that it starts from.
        """
        network = {} if backbone is None else {"network": {"kind": RUN, "folder": backbone}}
        own = {"name": variant.name, "about": variant.about or self.about, "fit": {"seed": seed}}
        return merge(merge(network, variant.settings), own)

    def recipe_of(self, variant: Variant, seed: int = 0, backbone: str | None = None) -> Recipe:
        """Return the whole recipe of one run."""
        backbone = variant.backbone if backbone is None else backbone
        return resolve(to_mapping(self.base(variant)), self.overrides(variant, seed, backbone))

    # ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _check_names(self) -> None:
        names = [variant.name for variant in (*self.backbones, *self.variants)]
        for name in (self.name, *names):
            if not name.strip(". ") or set(name) & UNSAFE or name.startswith(".") or name.endswith((".", " ")):
                letters = "".join(sorted(UNSAFE - {"\0"}))
                raise ConfigError(
                    f"{shown(name)} is no name for a folder on every system; use a word without {letters}, and no"
                    " dot at its ends."
                )
        folded = [name.casefold() for name in names]  # some systems take A and a for the same folder
        twice = next((name for name in names if folded.count(name.casefold()) > 1), None)
        if twice is not None:
            raise ConfigError(
                f"two recipes are called {shown(twice)}; give each a name of its own, also in lower case."
            )
        if len(self.variants) < 2:
            raise ConfigError(f"there are {len(self.variants)} variants; wanted two or more to compare.")
        compared = [variant.name for variant in self.variants]
        if self.baseline not in compared:
            raise ConfigError(
                f"there is no variant {shown(self.baseline)} to be the baseline; {nearest(self.baseline, compared)}"
            )

    def _check_backbones(self) -> None:
        known = {variant.name: variant for variant in (*self.backbones, *self.variants)}
        for variant in known.values():
            name = variant.backbone
            if name is not None and name not in known:
                raise ConfigError(
                    f"{shown(variant.name)} starts from {shown(name)}, which is not there; {nearest(name, known)}"
                )
            path = [variant.name]
            while (step := known[path[-1]].backbone) is not None and len(path) <= len(known):
                path.append(step)
                if step == variant.name:
                    way = " from ".join(repr(name) for name in path)
                    raise ConfigError(f"{way} is a circle; let one of them start from nothing.")
            if variant.data is not None and variant not in self.backbones:
                raise ConfigError(
                    f"{shown(variant.name)} has images of its own, and would be compared on others than the rest;"
                    " move it to backbones, or leave its data out."
                )
        used = {variant.backbone for variant in known.values()}
        idle = next((backbone.name for backbone in self.backbones if backbone.name not in used), None)
        if idle is not None:
            raise ConfigError(f"no variant starts from the backbone {shown(idle)}; leave it out.")

    def _check_settings(self, variant: Variant) -> None:
        try:
            for owner, settings in (("the study", self.settings), (repr(variant.name), variant.settings)):
                set_here = next((name for name in flatten(settings) if name in STUDY_OWN), None)
                if set_here is not None:
                    raise ConfigError(f"{owner} sets {set_here}, which the study gives every run; leave it out.")
            network = variant.settings.get("network")
            if variant.backbone is not None and (isinstance(network, str) or "kind" in (network or {})):
                raise ConfigError(f"the network comes from {shown(variant.backbone)}; leave network out.")
            self.recipe_of(variant)
        except ConfigError as error:
            raise ConfigError(f"{shown(variant.name)}: {error}") from error

    def _check_differences(self) -> None:
        """Refuse variants that are the same, and such as would be measured on other images."""
        seen: dict[str, str] = {}
        first: dict[str, Any] = {}
        for variant in self.trained:
            settings = flatten(to_mapping(self.recipe_of(variant)))
            settings = {name: value for name, value in settings.items() if name not in STUDY_OWN}
            twin = seen.setdefault(repr((settings, variant.data)), variant.name)
            if twin != variant.name:
                raise ConfigError(f"{shown(twin)} and {shown(variant.name)} have the same settings; leave one out.")
            if variant.data is not None:
                continue
            for name in ONE_SPLIT:
                if settings[name] != first.setdefault(name, settings[name]):
                    raise ConfigError(
                        f"{name} is {settings[name]} in {shown(variant.name)} and {first[name]} in others, which"
                        " would then be measured on other images or labels; set it in the settings of the study, for"
                        " all."
                    )


# ── reading and writing ──────────────────────────────────────────────────────────────────────────────────────────────


def named_studies() -> dict[str, str]:
    """Return the names of the studies that come with sightline, with the text of each."""
    return named_texts("studies")


def read_study(
    name_or_path: str | os.PathLike[str],
    *,
    data: str | None = None,
    seeds: int | None = None,
    fraction: float | None = None,
) -> Study:
    """Read a study by its name or from a YAML file.

    Args:
        data: the image set, in place of the study's.
        seeds: their number, counted from 0, in place of the study's.
        fraction: share of the training images, in place of the study's.
    Raises:
        ConfigError: there is no such study or file, or it is not a study (see ``Study``).
    """
    content = read_named("study", named_studies(), name_or_path)
    replaced = {"data": data, "seeds": seeds, "fraction": fraction}
    return _study(content | {name: value for name, value in replaced.items() if value is not None})


def study_to_yaml(study: Study) -> str:
    """Write a study, with the content of its recipes, as the YAML text that ``read_study`` reads back to the same."""
    return yaml_text(_mapping(study))


def differences(before: Study, now: Study) -> list[str]:
    """Say what a study has otherwise than before, as ``seeds was [0, 1] and is [0, 1, 2]``, but for its
    descriptions.
    """
    old, new = (dict(_flat(without_trust(_mapping(study)))) for study in (before, now))
    names = [name for name in {**old, **new} if not name.endswith("about")]
    return [f"{name} was {old.get(name)} and is {new.get(name)}" for name in names if old.get(name) != new.get(name)]


def _flat(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of all that a study holds; variants by their names."""
    for name, value in content.items():
        if name in ("variants", "backbones"):
            for variant in value:
                yield from flatten(variant, f"{name}.{variant['name']}").items()
        else:
            yield from flatten(value, name).items()


def _mapping(study: Study) -> dict[str, Any]:
    """Turn a study into plain mappings and lists, with all settings of its recipes."""
    content: dict[str, Any] = to_mapping(study)
    for part in (content, *content["variants"], *content["backbones"]):
        part["recipe"] = None if part["recipe"] is None else _whole(part["recipe"])
    return content


def _study(content: Mapping[str, Any]) -> Study:
    """Make a study from the mapping that its YAML holds."""
    try:
        filled = {"name": ""} | _filled(content)
        variants = filled.get("variants")
        first = variants[0] if isinstance(variants, list) and variants else None
        filled.setdefault("baseline", first.get("name", "") if isinstance(first, Mapping) else "")
        seeds = build(Count | tuple[ZeroOrMore, ...], filled.get("seeds", 3), "seeds")
        filled["seeds"] = list(range(seeds)) if isinstance(seeds, int) else seeds
        study: Study = build(Study, filled, "")
        return study
    except ConfigError as error:
        raise ConfigError(f"study {shown(content.get('name', ''))}: {error}") from error


def _filled(content: Any) -> Any:
    """Return the content of a study or variant with its settings and recipes written in full; what is neither, as it
    is.
    """
    if not isinstance(content, Mapping):
        return content
    filled = dict(content)
    filled["settings"] = {} if filled.get("settings") is None else filled["settings"]
    if isinstance(filled["settings"], Mapping):
        filled["settings"] = spell_out(filled["settings"])
    recipe = filled.get("recipe")
    if recipe is not None:
        filled["recipe"] = _whole(recipe if isinstance(recipe, Mapping) else read_recipe(build(str, recipe, "recipe")))
    for part in ("variants", "backbones"):
        if isinstance(filled.get(part), list):
            filled[part] = [_filled(variant) for variant in filled[part]]
    return filled


def _whole(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with all its settings: what the defaults were when a study began is part of the study."""
    return {name: value for name, value in to_mapping(resolve(recipe)).items() if name not in STUDY_OWN}
