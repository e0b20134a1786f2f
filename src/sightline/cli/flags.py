"""From settings to flags, and back: one flag for each setting of a recipe."""

import inspect
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from sightline.config.backbones import BACKBONES
from sightline.config.building import AUTO, SEARCHED, blocks_in, fields_of, listed_block, members, required
from sightline.config.generating import AnyRecipe
from sightline.config.resolving import field_texts, spell_out
from sightline.errors import ConfigError

__all__ = ["BACKBONE", "SETTINGS", "every_setting", "nest", "setting_flag", "setting_value"]

SETTINGS = Group(
    "Settings", help="Each overrides the recipe; sightline recipes NAME shows what a recipe sets.", sort_key=2
)

BACKBONE = (
    "backbone",
    str,
    f"The network and its pretrained weights in a word: {', '.join(BACKBONES)}, or a name of timm; in place of"
    " --network.",
)


def setting_flag(
    parameter: str, dotted: str, kind: Any, text: str, *, short: str = "", shown: bool = True
) -> inspect.Parameter:
    """Return the flag of a setting.

    Args:
        parameter: what the flag's value is passed as.
        dotted: the setting's name.
        kind: its type.
        text: its help.
        short: another name of the flag, by which it stands among the flags of the verb.
        shown: list it in the help.
    """
    hyphened = short or dotted.replace("_", "-")
    block, _, name = hyphened.rpartition(".")
    listed = _listed(kind)
    if listed and kind != _Pairs:
        kind = list[typing.get_args(kind)[0]]  # type: ignore[misc]  # cyclopts lets it be emptied, and no tuple
    negative: Any = f"--{block}.no-{name}" if block and (kind is bool or typing.get_origin(kind) is list) else ()
    place: dict[str, Any] = {} if short else {"group": SETTINGS}
    how = Parameter(
        name=f"--{hyphened}",
        negative=negative,
        help=text,
        show=shown,
        show_default=False,
        consume_multiple=listed,
        **place,
    )
    return inspect.Parameter(
        parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, how]
    )


def every_setting(block: Any = AnyRecipe, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted name, type, help) of every setting; one name may serve several kinds of a block."""
    rows: dict[str, tuple[Any, list[str], str]] = {}
    blocks = blocks_in(block)
    for kind in blocks:
        texts = field_texts(kind)
        for field, hint in fields_of(kind).items():
            name = f"{prefix}{field}"
            if listed_block(hint) is not None:
                continue  # a list of blocks is written in YAML only
            if blocks_in(hint):
                for inner, annotation, text in every_setting(hint, f"{name}."):
                    rows.setdefault(inner, (annotation, [], text))  # a classifier's kinds are a generator's and more
            elif prefix:  # the recipe's own name and text are no settings
                annotation, kinds, text = rows.get(name, (hint, [], texts.get(field, "")))
                rows[name] = (annotation, [*kinds, kind.kind], text)
    for name, (annotation, kinds, text) in rows.items():
        if name.endswith(".kind") and name.count(".") == prefix.count("."):
            choices = tuple(kind.kind for kind in blocks) + (("none",) if type(None) in members(block) else ())
            yield name.removesuffix(".kind"), str, "The technique in a word, with what it needs: " + _words(blocks)
            yield name, Literal[choices], "Which technique: " + ", ".join(choices) + "."
        else:
            of = f" ({', '.join(kinds)})" if len(blocks) > 1 and any(kinds) and len(kinds) < len(blocks) else ""
            kind = _flag_type(annotation)
            yield name, (kind | Literal[AUTO] if name in SEARCHED else kind), text + of


def _words(blocks: tuple[Any, ...]) -> str:
    """Say how each kind is written as a word: ``resnet34, timm:NAME``."""
    return ", ".join(":".join([kind.kind, *(name.upper() for name in required(kind))]) for kind in blocks) + "."


def _flag_type(annotation: Any) -> Any:
    """Return the type of a flag, without the None of an optional setting, for which the word none stands."""
    plain = [member for member in members(annotation) if member is not type(None)]
    if any(typing.get_origin(member) is dict for member in plain):
        return _Pairs
    return plain[0] if len(plain) == 1 else annotation


# how a setting that is a number, or pairs such as {0: 8, 4: 4}, is typed: 8, or 0:8 4:4; other lists hold plain words
_Pairs = tuple[Annotated[str, "pair"], ...]


def _listed(kind: Any) -> bool:
    return Ellipsis in typing.get_args(kind)


def setting_value(setting: tuple[str, Any, str], typed: Any) -> Any:
    """Return what a flag sets: pairs as a mapping, and ``none`` for a list as an empty one."""
    dotted, kind, _ = setting
    if typed is None:
        return [] if _listed(kind) and kind != _Pairs else None
    return _pairs(dotted, typed) if kind == _Pairs else typed


def _pairs(dotted: str, words: tuple[str, ...]) -> int | dict[int, int]:
    """Turn ``("8",)`` into 8, and ``("0:8", "4:4")`` into {0: 8, 4: 4}."""
    if len(words) == 1 and _is_whole(words[0]):
        return int(words[0])
    halves = [word.split(":") for word in words]
    if all(len(half) == 2 and all(map(_is_whole, half)) for half in halves):
        pairs = {int(epoch): int(number) for epoch, number in halves}
        if len(pairs) == len(words):
            return pairs
    raise ConfigError(
        f"--{dotted.replace('_', '-')} is {' '.join(words)}; wanted a whole number, or pairs such as 0:8 4:4."
    )


def _is_whole(word: str) -> bool:
    """Return whether a word is a number that is held by 64 bits, however long it is."""
    return word.isdecimal() and len(word) < 19


def nest(settings: dict[str, Any]) -> dict[str, Any]:
    """Turn ``{"fit.epochs": 3}`` into ``{"fit": {"epochs": 3}}``; the word of a block comes before the block's
    settings.
    """
    if "backbone" in settings and (beside := next((name for name in settings if name.startswith("network")), None)):
        raise ConfigError(f"--backbone and --{beside.replace('_', '-')} both name the network; leave one of them out.")
    nested: dict[str, Any] = {}
    for dotted, value in sorted(settings.items(), key=lambda item: item[0].count(".")):
        *blocks, name = dotted.split(".")
        block = ".".join(blocks)
        if name == "kind" and block in settings:
            raise ConfigError(f"--{block} and --{block}.kind both name the technique; leave one of them out.")
        place = nested
        for part in blocks:
            place = place.setdefault(part, {})
        place[name] = value
        nested = spell_out(nested)
    return nested
