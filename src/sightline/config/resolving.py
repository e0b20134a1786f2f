"""Puts settings together: defaults < recipe < file < flags, in whatever order they were typed."""

import ast
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import cache, reduce
from typing import Any, TypeVar

from sightline.config.backbones import spell_backbone
from sightline.config.building import AUTO, SEARCHED, Block, block_of_kind, blocks_in, build, fields_of, required
from sightline.config.checks import shown
from sightline.config.generating import AnyRecipe, GeneratorRecipe
from sightline.config.networks import RunConfig
from sightline.config.settings import Recipe
from sightline.config.yaml_texts import named_texts, read_named, yaml_text
from sightline.errors import ConfigError

__all__ = [
    "field_texts",
    "flatten",
    "merge",
    "named_recipes",
    "read_recipe",
    "refuse_hopeless",
    "refuse_unless_one_fits",
    "resolve",
    "resolve_any",
    "resolve_generator",
    "searches",
    "spell_out",
    "to_mapping",
    "to_yaml",
    "trains_generator",
]

R = TypeVar("R", Recipe, GeneratorRecipe)


def resolve(*layers: Mapping[str, Any]) -> Recipe:
    """Merge layers of settings, the later ones over the earlier, and check the result.

    Args:
        layers: nested mappings as a recipe's YAML holds them, lowest first. A block that names another ``kind`` than
            the layers below starts from that kind's defaults; ``null`` or ``{kind: none}`` turns an optional block off.
            A block with kinds may be a word (see ``spell_out``). A setting that is ``auto`` stays what the layers below
            say, from where a training searches (see ``searches``).
    Raises:
        ConfigError: a setting is unknown (the nearest known one is named), of the wrong type, or out of range; or the
            layers train a generator.
    """
    if trains_generator(*layers):
        raise ConfigError(
            "these settings train a generator, which only `sightline train` does, by a recipe such as --recipe ddpm;"
            " name a classifier's recipe here."
        )
    return _resolved(Recipe(), layers)


def resolve_generator(*layers: Mapping[str, Any]) -> GeneratorRecipe:
    """Merge layers as ``resolve`` does, for layers of which one names a ``generator``.

    Raises:
        ConfigError: also where a block is a classifier's, or a setting is left to a search.
    """
    searched = searches(*layers)
    if searched:
        raise ConfigError(
            f"{searched[0]} is {AUTO}, and nothing is searched for before a generator is trained; name a number."
        )
    known = fields_of(GeneratorRecipe)
    for name in (name for layer in layers for name in layer if name in fields_of(Recipe) and name not in known):
        raise ConfigError(
            f"--{name.replace('_', '-')} has no effect on a generator, which tells no classes apart; leave it out."
        )
    return _resolved(GeneratorRecipe(), layers)


def resolve_any(*layers: Mapping[str, Any]) -> AnyRecipe:
    """Return the recipe of a classifier or of a generator, whichever the layers train."""
    return resolve_generator(*layers) if trains_generator(*layers) else resolve(*layers)


def trains_generator(*layers: Mapping[str, Any]) -> bool:
    """Return whether layers of settings train a generator: one of them names it."""
    return any(layer.get("generator") is not None for layer in layers)


def _resolved(below: R, layers: Iterable[Mapping[str, Any]]) -> R:
    layers = map(_without_auto, map(spell_out, layers))
    recipe: R = build(type(below), reduce(merge, layers, to_mapping(below)), "")
    return recipe


def searches(*layers: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the settings that layers, lowest first, leave to a search, in the order of the searches.

    A recipe itself holds numbers only: for such a setting the one below the ``auto``, until ``train`` has found
    another.
    """
    nothing: Mapping[str, Any] = {}
    merged = flatten(reduce(merge, map(spell_out, layers), nothing))
    return tuple(name for name in SEARCHED if merged.get(name) == AUTO)


def _without_auto(layer: Mapping[str, Any]) -> dict[str, Any]:
    def kept(block: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if value != AUTO or f"{block}.{name}" not in SEARCHED}

    return {block: kept(block, value) if isinstance(value, Mapping) else value for block, value in layer.items()}


def refuse_hopeless(settings: Mapping[str, Any]) -> None:
    """Refuse settings that fit none of the named recipes, before an image set is read or downloaded to choose among
    them.

    Raises:
        ConfigError: what the last of them says.
    """
    recipes = map(read_recipe, named_recipes())  # of which no generator's is chosen unless it is named
    refuse_unless_one_fits(
        (recipe for recipe in recipes if not trains_generator(recipe)), lambda it: resolve(it, settings)
    )


def refuse_unless_one_fits(
    recipes: Iterable[Mapping[str, Any]], attempt: Callable[[Mapping[str, Any]], object]
) -> None:
    """Refuse what can be done with none of some recipes.

    Raises:
        ConfigError: what the attempt with the last of them says.
    """
    problem = ConfigError("there is no recipe to try; name one.")
    for recipe in recipes:
        try:
            attempt(recipe)
            return
        except ConfigError as error:
            problem = error
    raise problem


def named_recipes() -> dict[str, str]:
    """Return the names of the recipes that come with sightline, with the text of each."""
    return named_texts("recipes")


def read_recipe(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a recipe by its name or from a YAML file, as the mapping that it holds.

    Raises:
        ConfigError: there is no such recipe or file, or it is not a YAML mapping.
    """
    return spell_out(read_named("recipe", named_recipes(), name_or_path, "auto"))


def spell_out(layer: Mapping[str, Any], block: Any = None, where: str = "") -> dict[str, Any]:
    """Write blocks that are given as a word in full: ``network: timm:resnet18`` is ``{kind: timm, name: resnet18}``.

    Behind the kind follow the settings that the kind cannot do without, in their order; the last takes the rest, with
    its colons. ``network: hf:OWNER/NAME`` is a run of the hub. ``backbone`` at the top of a recipe becomes the network
    that it is short for.

    Args:
        layer: some settings of a block.
        block: the dataclass, or union of them, that the settings are of; None: the recipe that they are of.
        where: the dotted name of the block, for messages.
    Raises:
        ConfigError: a setting is missing behind the kind, or there are none to give; or ``backbone`` is no word, or
            stands beside ``network``.
    """
    if block is None:
        layer = spell_backbone(layer)
        block = GeneratorRecipe if "generator" in layer else Recipe
    hints = {name: hint for kind in blocks_in(block) for name, hint in fields_of(kind).items()}
    written = dict(layer)
    for name, value in layer.items():
        blocks = blocks_in(hints.get(name))
        dotted = f"{where}.{name}" if where else str(name)
        if isinstance(value, str) and blocks and blocks[0].kind:
            written[name] = _spelt_word(blocks, value, dotted)
        elif isinstance(value, Mapping) and blocks:
            written[name] = spell_out(value, hints[name], dotted)
    return written


def _spelt_word(blocks: tuple[Any, ...], word: str, where: str) -> dict[str, Any]:
    if word.startswith("hf:") and RunConfig in blocks:
        return {"kind": RunConfig.kind, "folder": word}
    kind, *rest = word.split(":", 1)
    if kind == "none":
        return {"kind": kind}
    block = block_of_kind(blocks, {"kind": kind}, where)
    names = required(block)
    if rest and not names:
        raise ConfigError(f"{where} is {shown(word)}, and {kind} takes nothing behind a colon; write {kind}.")
    values = rest[0].split(":", len(names) - 1) if rest else []
    missing = [name for name, text in itertools.zip_longest(names, values) if not text]
    if missing:
        whole = ":".join([kind, *(name.upper() for name in names)])
        raise ConfigError(f"{where} is {shown(word)}, which lacks the {' and the '.join(missing)}; write {whole}.")
    return {"kind": kind, **dict(zip(names, values, strict=True))}


def to_mapping(settings: Any) -> Any:
    """Turn settings into plain mappings, lists, strings and numbers: what JSON and YAML can hold."""
    if isinstance(settings, Block):
        return {name: to_mapping(getattr(settings, name)) for name in fields_of(type(settings))}
    return [to_mapping(value) for value in settings] if isinstance(settings, tuple) else settings


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Turn nested mappings into one: ``{"fit": {"epochs": 3}}`` into ``{"fit.epochs": 3}``."""
    if not isinstance(value, Mapping):
        return {name: value}
    return {
        key: item for part, inner in value.items() for key, item in flatten(inner, f"{name}.{part}".strip(".")).items()
    }


def to_yaml(recipe: AnyRecipe) -> str:
    """Write a recipe as the YAML text that ``read_recipe`` reads back to the same settings."""
    return yaml_text(to_mapping(recipe))


def field_texts(block: Any) -> dict[str, str]:
    """Return the docstring under each setting of a block."""
    above = [base for base in block.__bases__ if issubclass(base, Block) or is_dataclass(base)]
    texts = {name: text for base in above for name, text in field_texts(base).items()}
    for field, text in itertools.pairwise(_class_bodies(block.__module__)[block.__name__]):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts


@cache
def _class_bodies(module: str) -> dict[str, list[ast.stmt]]:
    """Return the statements in each class of a module; parsed once, where ``inspect.getsource`` does so for each
    class.
    """
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over others; a block of another ``kind`` replaces the one below as a whole."""
    if "kind" in above and above["kind"] != below.get("kind"):
        below = {}  # another technique: nothing of the old one's settings applies
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = merge(old if isinstance(old, Mapping) else {}, value) if _is_block(value) else value
    return merged


def _is_block(value: Any) -> bool:
    """Return whether a mapping is a block of settings, and not one setting such as ``{0: 8, 4: 4}``."""
    return isinstance(value, Mapping) and not any(isinstance(key, int) for key in value)
