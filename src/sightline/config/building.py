"""Blocks of settings, and how they are made from plain YAML values: by msgspec, its errors said in our sentences.

A block is a frozen ``msgspec.Struct``: types, ranges (``Annotated``) and, where one of several techniques is chosen, a
``kind`` (its tag). msgspec checks a block that is read; a block that Python makes is checked at birth by the same
types.
"""

import math
import re
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar, Literal, Union

import msgspec

from sightline.config.checks import LARGEST, nearest, out_of_range, shown
from sightline.errors import ConfigError

__all__ = [
    "AUTO",
    "SEARCHED",
    "Block",
    "Kind",
    "bare",
    "block_of_kind",
    "blocks_in",
    "build",
    "fields_of",
    "listed_block",
    "members",
    "required",
    "types_of",
]

AUTO = "auto"
SEARCHED = ("fit.batch_size", "optimizer.learning_rate")
"""Settings that may be ``auto``: before the training a number is searched for, in this order."""

# What YAML 1.1 reads as a word and everyone means as a number: 1e-4 has no point, 1.0e4 no sign.
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}


class _KindOfClass:
    """The tag of a block, for the class and for its instances; empty where there is no choice."""

    def __get__(self, instance: Any, owner: Any) -> str:
        return str(owner.__struct_config__.tag or "")


class Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings that belong together, checked at birth."""

    kind: ClassVar[str] = _KindOfClass()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name, annotation in _plain_fields(type(self)).items():
            value = getattr(self, name)
            try:
                msgspec.convert(value, annotation)
            except msgspec.ValidationError:
                build(annotation, value, f"{_place_of(type(self))}{name}")
        self._check()

    def _check(self) -> None:
        """Refuse settings of this block that do not go together."""


class Kind(Block, frozen=True, kw_only=True, tag_field="kind"):
    """A block that is one of several techniques, or the only one of a block that can be off."""


# ── what a block holds ───────────────────────────────────────────────────────────────────────────────────────────────


@cache
def fields_of(block: Any) -> dict[str, Any]:
    """Return names and types of a block's settings, without their ranges; its kind comes first."""
    hints = typing.get_type_hints(block)
    kind = {"kind": Literal[block.kind]} if block.kind else {}
    return kind | {name: hints[name] for name in block.__struct_fields__}


@cache
def types_of(block: Any) -> dict[str, Any]:
    """Return names and types of a block's settings, with their ranges."""
    return {item.name: item.type for item in msgspec.structs.fields(block)}


@cache
def _plain_fields(block: Any) -> dict[str, Any]:
    """Return the types of the settings of a block that are no blocks themselves."""
    return {name: kind for name, kind in types_of(block).items() if not blocks_in(kind) and not listed_block(kind)}


def required(block: Any) -> list[str]:
    """Return the names of the settings that have no default."""
    return [item.name for item in msgspec.structs.fields(block) if item.required]


@cache
def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation by itself."""
    return typing.get_args(annotation) if typing.get_origin(annotation) in (Union, types.UnionType) else (annotation,)


@cache
def blocks_in(annotation: Any) -> tuple[Any, ...]:
    """Return the blocks of which a setting is one; none where it is a plain value."""
    return tuple(choice for choice in members(annotation) if isinstance(choice, type) and issubclass(choice, Block))


@cache
def listed_block(annotation: Any) -> Any:
    """Return the block of a setting that is a list of them, such as ``tuple[PhaseConfig, ...]``; None of any other."""
    return (
        next(iter(blocks_in(typing.get_args(annotation)[0])), None) if typing.get_origin(annotation) is tuple else None
    )


def block_of_kind(blocks: tuple[Any, ...], value: Mapping[str, Any], where: str) -> Any:
    """Return the block that the ``kind`` in a mapping names; the only one needs no name.

    Raises:
        ConfigError: no kind is named, or an unknown one.
    """
    by_kind = {block.kind: block for block in blocks}
    kind = value.get("kind", next(iter(by_kind)) if len(by_kind) == 1 else None)
    if kind is None:
        raise ConfigError(f"{where} names no kind; add one of: kind: {', '.join(by_kind)}.")
    if not isinstance(kind, str) or kind not in by_kind:
        raise ConfigError(f"unknown {where}.kind {shown(kind)}; {nearest(str(kind), by_kind)}")
    return by_kind[kind]


def bare(annotation: Any) -> Any:
    """Return a type without its range."""
    return typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _place_of(block: Any) -> str:
    """Return the dotted place of a block in a recipe, as ``augment.crop.``; empty where it is in none."""
    unseen: list[Any] = [Block]
    while unseen:
        owner = unseen.pop()
        unseen += owner.__subclasses__()
        name = next((name for name, kind in fields_of(owner).items() if block in members(kind)), None)
        if name is not None:
            return f"{_place_of(owner)}{name}."
    return ""


# ── from plain values to settings ────────────────────────────────────────────────────────────────────────────────────


def build(annotation: Any, value: Any, where: str) -> Any:
    """Make one setting, or a block of them, from plain YAML values.

    Args:
        annotation: the type: a block, a union of blocks told apart by ``kind``, or a plain type, with its range.
        value: a value as YAML holds it.
        where: the dotted name of the setting, for messages.
    Raises:
        ConfigError: a setting is unknown, missing, of a wrong type or out of range; a string is never taken for a
            number.
    """
    with suppress(msgspec.ValidationError):
        return msgspec.convert(value, annotation)
    value = _readable(annotation, value)
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        raise ConfigError(_problem(annotation, value, where)) from error


def _parts(annotation: Any, value: Any, where: str) -> Iterator[tuple[Any, Any, Any, str]]:
    """Yield (type, name or index, value, dotted name) of each known part of a value; blocks in a list are counted from
    1.
    """
    blocks = blocks_in(annotation)
    if isinstance(value, Mapping) and blocks:
        kind = value.get("kind")
        block = blocks[0] if len(blocks) == 1 else next((block for block in blocks if block.kind == kind), None)
        for name, kind in types_of(block).items() if block else ():
            if name in value:
                yield kind, name, value[name], f"{where}.{name}".strip(".")
    for choice in members(annotation):
        kinds = typing.get_args(choice)
        if isinstance(value, Mapping) and typing.get_origin(choice) is dict:
            for key, item in value.items():
                yield kinds[1], key, item, where
        elif isinstance(value, list | tuple) and typing.get_origin(choice) is tuple:
            for index, item in enumerate(value if Ellipsis in kinds or len(value) == len(kinds) else ()):
                kind = kinds[0] if Ellipsis in kinds else kinds[index]
                yield kind, index, item, f"{where}.{index + 1}" if blocks_in(kind) else where


def _readable(annotation: Any, value: Any) -> Any:
    """Return the value as msgspec reads it: a block of kind none is None, and 1e-4 a number where a number belongs."""
    parts = {key: _readable(kind, item) for kind, key, item, _ in _parts(annotation, value, "")}
    if isinstance(value, Mapping):
        return None if value == {"kind": "none"} and types.NoneType in members(annotation) else {**value, **parts}
    if isinstance(value, list | tuple):
        return [parts.get(index, item) for index, item in enumerate(value)]
    if float in map(bare, members(annotation)):
        if isinstance(value, float) or (isinstance(value, str) and _EXPONENT.fullmatch(value)):
            return float(value)
        if isinstance(value, int) and abs(value) > 1e300:  # may be too long for a float
            return math.inf
    return value


def _problem(annotation: Any, value: Any, where: str) -> str:
    """Say what is wrong with a value that msgspec refuses, about the innermost part that is wrong."""
    if blocks_in(annotation):
        problem = _problem_of_block(blocks_in(annotation), value, where)
        if problem:
            return problem
    for kind, _, item, dotted in _parts(annotation, value, where):
        try:
            msgspec.convert(item, kind)
        except msgspec.ValidationError:
            return _problem(kind, item, dotted)
    if listed_block(annotation):
        fields = ", ".join(f"{name}: ..." for name in fields_of(listed_block(annotation)))
        return f"{where} is {shown(value)}; wanted a list of blocks, as YAML has it: [{{{fields}}}, ...]."
    for choice in members(annotation):
        if type(value) in (int, float) and hasattr(choice, "__metadata__") and bare(choice) in (float, type(value)):
            return _out_of_range(choice.__metadata__[0], value, where)
    return f"{where} is {shown(value)}; wanted {_spoken(annotation)}{' or auto' if where in SEARCHED else ''}."


def _problem_of_block(blocks: tuple[Any, ...], value: Any, where: str) -> str:
    """Say what is wrong with a block itself; empty where it is one of its settings."""
    if not isinstance(value, Mapping):
        return f"{where or 'the recipe'} is {shown(value)}; wanted a block of settings."
    block = blocks[0] if not blocks[0].kind else block_of_kind(blocks, value, where)
    kind = f" of kind {shown(value['kind'])}" if "kind" in value else ""
    for name in value:
        if name not in fields_of(block):
            dotted = f"{where}.{name}" if where else str(name)
            return f"unknown setting {shown(dotted)}{kind}; {nearest(str(name), fields_of(block))}"
    missing = [name for name in required(block) if name not in value]
    if not missing:
        return ""
    lacks = f"{where or 'it'}{kind} lacks the {' and the '.join(missing)}"
    if not block.kind:  # one of a list, which is written in YAML only
        return f"{lacks}; add {' and '.join(f'{name}: ...' for name in missing)}."
    return f"{lacks}; add {' and '.join(f'--{where}.{name}'.replace('_', '-') for name in missing)}."


def _out_of_range(limits: Any, value: float, where: str) -> str:
    low = limits.ge if limits.gt is None else limits.gt
    high = math.inf if limits.le == LARGEST and value <= LARGEST else limits.le
    flag = f"--{(limits.extra or {}).get('flag') or where.replace('_', '-')}"
    name = where if re.search(r"\.\d", where) else flag  # what is written in YAML only has no flag
    return out_of_range(name, value, low, high, open_low=limits.gt is not None)


def _spoken(annotation: Any) -> str:
    """Say a type in words."""
    spoken = []
    for choice in map(bare, members(annotation)):
        origin, arguments = typing.get_origin(choice), typing.get_args(choice)
        if origin is Literal:
            spoken.append("one of " + ", ".join(map(str, arguments)))
        elif origin is tuple:
            count = "any number" if Ellipsis in arguments else str(len(arguments))
            spoken.append(f"a list of {count}, each {_spoken(arguments[0])}")
        elif origin is dict:
            spoken.append(
                "pairs such as {0: 8, 4: 4}" if bare(arguments[0]) is int else "settings as 'block: {name: value}'"
            )
        else:
            spoken.append(_WORDS.get(choice, str(choice)))
    return " or ".join(spoken)
