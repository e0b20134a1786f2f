"""From plain YAML values to settings: each block by its kind, each value by its type, without guessing."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Union

from sightline.config.checks import nearest, shown
from sightline.errors import ConfigError

__all__ = [
    "AUTO",
    "SEARCHED",
    "block_of_kind",
    "build",
    "fields_of",
    "kind_of",
    "listed_block",
    "members",
    "required",
]

AUTO = "auto"
LARGEST = 2**63
SEARCHED = ("fit.batch_size", "optimizer.learning_rate")
"""Settings that may be ``auto``: before the training a number is searched for, in this order."""

# What YAML 1.1 reads as a word and everyone means as a number: 1e-4 has no point, 1.0e4 no sign.
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def build(annotation: Any, value: Any, where: str) -> Any:
    """Make one setting, or a block of them, from plain YAML values.

    Args:
        annotation: what is wanted: a dataclass, a union of dataclasses told apart by ``kind``, or a plain type.
        value: what was found.
        where: the dotted name of the setting, for messages.
    """
    choices = members(annotation)
    if types.NoneType in choices and (value is None or value == {"kind": "none"}):
        return None
    blocks: list[Any] = [choice for choice in choices if dataclasses.is_dataclass(choice)]
    listed = listed_block(annotation)
    if listed is not None:
        return _built_list(listed, value, where)
    if not blocks:
        return _plain(annotation, value, where)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where or 'the recipe'} is {shown(value)}; wanted a block of settings.")
    block = blocks[0] if "kind" not in fields_of(blocks[0]) else block_of_kind(blocks, value, where)
    fields, made = fields_of(block), {}
    for name, item in value.items():
        dotted = f"{where}.{name}" if where else str(name)
        if name not in fields:
            kind = f" of kind {shown(value['kind'])}" if "kind" in value else ""
            raise ConfigError(f"unknown setting {shown(dotted)}{kind}; {nearest(str(name), fields)}")
        made[name] = build(fields[name], item, dotted)
    missing = [name for name in required(block) if name not in made]
    if missing:
        lacks = f"lacks the {' and the '.join(missing)}"
        if "kind" not in fields:  # one of a list, which is written in YAML only
            raise ConfigError(f"{where} {lacks}; add {' and '.join(f'{name}: ...' for name in missing)}.")
        flags = " and ".join(f"--{where}.{name}".replace("_", "-") for name in missing)
        raise ConfigError(f"{where} of kind {shown(value.get('kind'))} {lacks}; add {flags}.")
    return block(**made)


def _built_list(block: Any, value: Any, where: str) -> tuple[Any, ...]:
    """A list of blocks, each of which is called by its number, counted from 1, in messages."""
    if not isinstance(value, list | tuple):
        fields = ", ".join(f"{name}: ..." for name in fields_of(block))
        raise ConfigError(f"{where} is {shown(value)}; wanted a list of blocks, as YAML has it: [{{{fields}}}, ...].")
    return tuple(build(block, item, f"{where}.{number}") for number, item in enumerate(value, start=1))


def block_of_kind(blocks: list[Any], value: Mapping[str, Any], where: str) -> Any:
    by_kind = {typing.get_args(fields_of(block)["kind"])[0]: block for block in blocks}
    kind = value.get("kind", next(iter(by_kind)) if len(by_kind) == 1 else None)
    if kind is None:
        raise ConfigError(f"{where} names no kind; add one of: kind: {', '.join(by_kind)}.")
    if not isinstance(kind, str) or kind not in by_kind:
        raise ConfigError(f"unknown {where}.kind {shown(kind)}; {nearest(str(kind), by_kind)}")
    return by_kind[kind]


@cache
def fields_of(block: Any) -> dict[str, Any]:
    """Names and types of a block's settings."""
    hints = typing.get_type_hints(block)
    return {item.name: hints[item.name] for item in dataclasses.fields(block)}


def _plain(annotation: Any, value: Any, where: str) -> Any:
    """A number, word, switch or short list, without guessing: a string is never taken for a number."""
    for choice in members(annotation):
        origin = typing.get_origin(choice)
        if origin is Literal and value in typing.get_args(choice):
            return value
        kinds = typing.get_args(choice)
        if origin is tuple and Ellipsis in kinds and isinstance(value, list | tuple):
            return tuple(_plain(kinds[0], item, where) for item in value)
        if origin is tuple and isinstance(value, list | tuple) and len(value) == len(kinds):
            return tuple(_plain(kind, item, where) for kind, item in zip(kinds, value, strict=True))
        if origin is dict and isinstance(value, Mapping):
            return {_plain(kinds[0], key, where): _plain(kinds[1], item, where) for key, item in value.items()}
        if choice is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
            return float(value)
        if choice is float and isinstance(value, int | float) and not isinstance(value, bool):
            return math.inf if abs(value) > 1e300 else float(value)  # a whole number may be too long for a float
        if choice is int and isinstance(value, int) and not isinstance(value, bool):
            if abs(value) >= LARGEST:  # which neither PyTorch nor NumPy can hold
                raise ConfigError(f"{where} is {shown(value)}; wanted a whole number of less than 19 digits.")
            return value
        if choice in (bool, str) and isinstance(value, choice):
            return value
    raise ConfigError(
        f"{where} is {shown(value)}; wanted {_spoken(annotation)}{' or auto' if where in SEARCHED else ''}."
    )


def _spoken(annotation: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    spoken = []
    for choice in members(annotation):
        origin, arguments = typing.get_origin(choice), typing.get_args(choice)
        if origin is Literal:
            spoken.append("one of " + ", ".join(map(str, arguments)))
        elif origin is tuple:
            count = "any number" if Ellipsis in arguments else str(len(arguments))
            spoken.append(f"a list of {count}, each {_spoken(arguments[0])}")
        elif origin is dict:
            spoken.append("pairs such as {0: 8, 4: 4}")
        else:
            spoken.append(words.get(choice, str(choice)))
    return " or ".join(spoken)


def members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation by itself."""
    return typing.get_args(annotation) if typing.get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def listed_block(annotation: Any) -> Any:
    """The dataclass of a setting that is a list of blocks, such as ``tuple[PhaseConfig, ...]``; None of any other."""
    inner = typing.get_args(annotation)[:1] if typing.get_origin(annotation) is tuple else ()
    return next((block for block in inner if dataclasses.is_dataclass(block)), None)


def kind_of(block: Any) -> str:
    """Return the kind of a block where one of several may be chosen; empty where there is no choice."""
    return str(getattr(block, "kind", ""))


def required(block: Any) -> list[str]:
    """Names of the settings that have no default."""
    return [
        item.name
        for item in dataclasses.fields(block)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
