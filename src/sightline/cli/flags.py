"""From settings to flags, and back: the parser of the command line, with one flag for each setting of a recipe."""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from sightline.config import AnyRecipe, Recipe
from sightline.config.backbones import BACKBONES
from sightline.config.building import AUTO, SEARCHED, blocks_in, fields_of, listed_block, members, required
from sightline.config.resolving import field_texts, spell_out
from sightline.errors import ConfigError
from sightline.machine.extras import own_version

__all__ = ["application", "every_setting", "nest"]

SETTINGS = Group("Settings", help="Each overrides the recipe; sightline recipes shows what a recipe sets.", sort_key=2)

BACKBONE = (
    "backbone",
    str,
    f"The network and its pretrained weights in a word: {', '.join(BACKBONES)}, or a name of timm; in place of --network.",
)
TRAINS_ALL = "train"  # the verb that takes the settings of generators, too


def application(verbs: Mapping[str, Callable[..., None]], arguments: list[str]) -> App:
    """Return the parser of the verbs, of which only the one that the arguments call is built in full."""
    app = App(
        name="sightline",
        help="A set of images in, a classifier out: fast to train, accurate, explained and safe to share.",
        version=own_version,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # it would end the process before main can say what to do
    )
    words = [argument for argument in arguments if not argument.startswith("-")]
    called = next((name for name in verbs if words[: name.count(" ") + 1] == name.split()), None)
    for name, verb in verbs.items():
        block = AnyRecipe if name == TRAINS_ALL else Recipe
        # only the called verb's parser is built in full
        settings = [BACKBONE, *every_setting(block)] if name == called else []
        group, _, last = name.rpartition(" ")
        if group and group not in app:
            app.command(App(name=group, help=f"{group.capitalize()} what a training needs.", help_format="plaintext"))
        (app[group] if group else app).command(_command(verb, settings), name=last)
    return app


def _command(verb: Callable[..., None], settings: list[tuple[str, Any, str]]) -> Callable[..., None]:
    """Return the verb with a flag for each setting of a recipe in place of its ``**settings``."""
    plain = inspect.signature(verb)
    own = [parameter for parameter in plain.parameters.values() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(own) == len(plain.parameters):
        return verb
    flags = {f"setting_{index}": setting for index, setting in enumerate(settings)}

    def call(*positional: Any, **named: Any) -> None:
        settings = {flags[name][0]: _value(flags[name], value) for name, value in named.items() if name in flags}
        verb(*positional, **{name: value for name, value in named.items() if name not in flags}, **settings)

    call.__doc__, call.__name__ = verb.__doc__, verb.__name__
    call.__signature__ = plain.replace(  # type: ignore[attr-defined]
        parameters=own + [_flag(name, *setting) for name, setting in flags.items()]
    )
    return call


def _flag(parameter: str, dotted: str, kind: Any, text: str) -> inspect.Parameter:
    hyphened = dotted.replace("_", "-")
    block, _, name = hyphened.rpartition(".")
    listed = _listed(kind)
    if listed and kind is not _Pairs:
        kind = list[typing.get_args(kind)[0]]  # type: ignore[misc]  # cyclopts lets it be emptied, and no tuple
    negative: Any = f"--{block}.no-{name}" if kind is bool or typing.get_origin(kind) is list else ()
    how = Parameter(
        name=f"--{hyphened}",
        negative=negative,
        help=text,
        group=SETTINGS,
        show_default=False,
        consume_multiple=listed,
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


def _words(blocks: list[Any]) -> str:
    """Say how each kind is written as a word: ``resnet34, timm:NAME``."""
    return ", ".join(":".join([kind.kind, *(name.upper() for name in required(kind))]) for kind in blocks) + "."


def _flag_type(annotation: Any) -> Any:
    """Return the type of a flag, without the None of an optional setting, for which the word none stands."""
    plain = [member for member in members(annotation) if member is not type(None)]
    if any(typing.get_origin(member) is dict for member in plain):
        return _Pairs
    return plain[0] if len(plain) == 1 else annotation


_Pairs = tuple[str, ...]  # how a setting that is a number, or pairs such as {0: 8, 4: 4}, is typed: 8, or 0:8 4:4


def _listed(kind: Any) -> bool:
    return Ellipsis in typing.get_args(kind)


def _value(setting: tuple[str, Any, str], typed: Any) -> Any:
    """Return the value that a flag sets: pairs as a mapping, and ``none`` for a list as an empty one."""
    dotted, kind, _ = setting
    if typed is None:
        return [] if _listed(kind) and kind is not _Pairs else None
    return _pairs(dotted, typed) if kind is _Pairs else typed


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
    """Turn ``{"fit.epochs": 3}`` into ``{"fit": {"epochs": 3}}``; the word of a block comes before the block's settings."""
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
