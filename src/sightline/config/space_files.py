"""Reads the space of a tuning, and refuses what is unknown, does not vary, is fixed as well, or can never be."""

import json
import math
import os
import random
from collections.abc import Iterator, Mapping
from typing import Any

from sightline.config.building import bare, block_of_kind, blocks_in, build, fields_of, members, required, types_of
from sightline.config.checks import Whole, nearest, shown
from sightline.config.resolving import flatten, resolve, spell_out, to_mapping
from sightline.config.settings import Recipe
from sightline.config.spaces import Choice, Dimension, Option, Range, Space
from sightline.config.yaml_texts import parse_yaml, read_text
from sightline.errors import ConfigError

__all__ = ["build_space", "read_space"]

UNFIT = {
    "fit.seed": "it would choose luck in place of settings",
    "fit.validate_every": "it says when a trial is validated, and changes no weight",
    "fit.checkpoint_seconds": "it changes no weight",
    "fit.processes": "a trial is trained by one process",
    "fit.deterministic": "it does not make a classifier better",
    "fit.compile": "it changes no more than the last digits",
    "data.split_seed": "trials that are validated on different images cannot be compared",
    "data.validation": "trials that are validated on different images cannot be compared",
    "data.exclude": "trials that are validated on different images cannot be compared",
    **dict.fromkeys(
        ("data.corrections", "data.correct_test", "data.add_classes"),
        "trials that are validated on different labels cannot be compared",
    ),
    "data.merge": "trials that tell other classes apart cannot be compared",
    "evaluation": "trials are validated while they train",
    "track": "it changes no weight",
}
"""What cannot be tuned, and why."""

PROBES = 32  # drawings of all else that are tried with each end of a range and each option
ENOUGH = 4  # of them that are possible


def read_space(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of a space, as the mapping that it holds.

    Raises:
        ConfigError: there is no such file, it is not YAML, or nothing varies.
    """
    return parse_yaml(read_text(path, f"the space {shown(str(path))}"), str(path))


def build_space(written: Mapping[str, Any], base: Recipe, fixed: Mapping[str, Any]) -> Space:
    """Make a space from what its YAML says.

    Args:
        written: blocks of settings, each a choice or a range in place of its value.
        base: the recipe that is tuned.
        fixed: what was set over the recipe by flags or a file, nested as in its YAML.
    Raises:
        ConfigError: a setting is unknown, does not vary, cannot be tuned, is fixed as well, or can never be what the
            space says.
    """
    dimensions = tuple(_within_block(Recipe, written, to_mapping(base), (), ""))
    if not dimensions:
        raise ConfigError("nothing varies in the space; name a setting, such as augment: {flip: [none, random]}.")
    if base.fit.processes > 1:
        raise ConfigError(
            f"--fit.processes {base.fit.processes} has no place in a tuning: a trial is trained by one process; train"
            f" several side by side with --workers {base.fit.processes}."
        )
    space = Space(dimensions)
    _refuse_unfit(space)
    _refuse_fixed(space, flatten(spell_out(fixed)))
    _refuse_impossible(space, base)
    return space


def _within_block(
    block: Any,
    written: Mapping[str, Any],
    base: Mapping[str, Any],
    place: tuple[str, ...],
    prefix: str,
    fixed: dict[str, Any] | None = None,
) -> Iterator[Dimension]:
    """Yield what varies in a block.

    Args:
        block: the dataclass of its settings.
        written: what the space says of it.
        base: its settings in the recipe.
        place: the names of the blocks around its settings.
        prefix: what the names of its dimensions begin with.
        fixed: takes the settings with one value, which are refused where it is None.
    """
    kinds_of = types_of(block)
    for name, value in written.items():
        here, dotted = (*place, str(name)), ".".join((*place, str(name)))
        known = [setting for setting, kind in kinds_of.items() if place or blocks_in(kind)]  # not a recipe's name
        if name not in known:
            of = f" of kind {shown(block.kind)}" if block.kind else ""
            raise ConfigError(f"unknown setting {shown(dotted)}{of} in the space; {nearest(str(name), known)}")
        if not blocks_in(kinds_of[name]):
            drawn = _drawn(kinds_of[name], value, here, prefix + name)
            if drawn is not None:
                yield drawn
            elif fixed is not None:
                fixed[name] = value
            else:
                raise ConfigError(_does_not_vary(dotted, value))
        elif isinstance(value, list) or (isinstance(value, Mapping) and isinstance(value.get("kind"), list)):
            yield _choice_of_blocks(block, value, here, prefix + name)
        elif not isinstance(value, Mapping) or "kind" in value:
            raise ConfigError(_does_not_vary(dotted, value if not isinstance(value, Mapping) else value["kind"]))
        else:
            if base.get(name) is None:
                raise ConfigError(
                    f"{dotted} is off in the recipe, so nothing in it can be drawn; choose a"
                    f" --{dotted.replace('_', '-')}.kind, or draw the block: {name}: [null, {{kind: ...}}]."
                )
            inner = block_of_kind(blocks_in(kinds_of[name]), base[name], dotted)
            yield from _within_block(inner, value, base[name], here, f"{prefix}{name}.")


def _does_not_vary(dotted: str, value: Any) -> str:
    return (
        f"{dotted} is {shown(value)} in the space, and one value does not vary; name several in a list, give a range"
        f" such as {{low: 1, high: 8}}, or set it in the recipe or by a flag."
    )


# ── numbers and words ────────────────────────────────────────────────────────────────────────────────────────────────


def _drawn(annotation: Any, value: Any, place: tuple[str, ...], name: str) -> Dimension | None:
    """Return how a plain setting is drawn; None where the space gives it one value."""
    dotted = ".".join(place)
    try:
        build(annotation, value, dotted)
        return None
    except ConfigError:
        if isinstance(value, Mapping):
            return _range(annotation, value, place, name)
        if not isinstance(value, list):
            raise
    values = [to_mapping(build(annotation, item, dotted)) for item in value]
    return Choice(name, place, _options([(_label(item), Option(item)) for item in values], value, dotted))


def _range(annotation: Any, value: Mapping[str, Any], place: tuple[str, ...], name: str) -> Range:
    dotted = ".".join(place)
    kind = next((kind for kind in map(bare, members(annotation)) if kind in (float, int)), None)
    if kind is None:
        raise ConfigError(f"{dotted} has a range in the space and is no number; name values in a list.")
    words = ("low", "high", "step", "log")
    for word in value:
        if word not in words:
            raise ConfigError(f"{dotted} says {shown(word)} in the space; {nearest(str(word), words)}")
    if not {"low", "high"} <= set(value):
        raise ConfigError(f"{dotted} lacks its low or its high in the space; write {{low: 1, high: 8}}.")
    number: Any = Whole if kind is int else float
    low, high = (build(number, value[word], f"{dotted}.{word}") for word in ("low", "high"))
    step = build(number | None, value.get("step"), f"{dotted}.step")
    log = build(bool, value.get("log", False), f"{dotted}.log")
    if not low < high < math.inf:
        raise ConfigError(f"{dotted} goes from {low:g} to {high:g} in the space; its low must be less than its high.")
    if log and (low <= 0 or step is not None):
        raise ConfigError(
            f"{dotted} is drawn by its logarithm in the space; its low must be above 0, and it takes no step."
        )
    if step is not None and (step <= 0 or abs((high - low) / step - round((high - low) / step)) > 1e-9):
        raise ConfigError(f"{dotted} does not come from {low:g} to {high:g} in steps of {step:g} in the space.")
    return Range(name, place, low, high, step, log, kind is int)


def _label(value: Any) -> str:
    """Name a value as its YAML has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def _options(named: list[tuple[str, Option]], value: Any, dotted: str) -> dict[str, Option]:
    """Return options by their names, of which there must be two or more, each once."""
    options = dict(named)
    for name in options:
        if [other for other, _ in named].count(name) > 1:
            raise ConfigError(f"{dotted} names {name} twice in the space; once is enough.")
    if len(options) < 2:
        raise ConfigError(_does_not_vary(dotted, value))
    return options


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _choice_of_blocks(parent: Any, value: Any, place: tuple[str, ...], name: str) -> Choice:
    """Return the blocks to choose from: a list of them, or several kinds with what all of them have."""
    dotted, hint = ".".join(place), types_of(parent)[place[-1]]
    blocks = blocks_in(hint)
    if not blocks[0].kind:
        raise ConfigError(
            f"{dotted} is a list in the space, and has no kinds; name its settings, each with its own list."
        )
    options: list[tuple[str, Option]] = []
    for entry in value if isinstance(value, list) else _blocks_of_kinds(blocks, value, dotted):
        written = spell_out({place[-1]: entry}, parent, ".".join(place[:-1]))[place[-1]]
        if written is None or written == {"kind": "none"}:
            build(hint, None, dotted)  # refuses where the block cannot be off
            options.append(("none", Option(None)))
            continue
        if not isinstance(written, Mapping):
            raise ConfigError(f"{dotted} names {shown(entry)} in the space; wanted blocks of settings, or their kinds.")
        block = block_of_kind(blocks, written, dotted)
        label = ":".join([block.kind, *(str(written.get(setting)) for setting in required(block))])
        fixed = {"kind": block.kind}
        inner = {setting: item for setting, item in written.items() if setting != "kind"}
        prefix = f"{name}.{label}." if len(blocks) > 1 else f"{name}."
        options.append((label, Option(fixed, tuple(_within_block(block, inner, {}, place, prefix, fixed)))))
    return Choice(name, place, _options(options, value, dotted))


def _blocks_of_kinds(blocks: tuple[Any, ...], value: Mapping[str, Any], dotted: str) -> list[dict[str, Any]]:
    """Turn ``{kind: [sgd, adamw], weight_decay: ...}`` into two blocks."""
    for kind in value["kind"]:
        known = next((fields_of(block) for block in blocks if block.kind == kind), value)
        for name in value:
            if name not in known:
                raise ConfigError(
                    f"{dotted}.{name} is no setting of kind {shown(kind)}; draw a list of blocks in the space, each"
                    f" with its own settings: {dotted.split('.')[-1]}: [{{kind: {kind}, ...}}, ...]."
                )
    return [{**value, "kind": kind} for kind in value["kind"]]


# ── refusing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _refuse_unfit(space: Space) -> None:
    for dotted in space.places:
        for unfit, why in UNFIT.items():
            if dotted == unfit or dotted.startswith(f"{unfit}."):
                raise ConfigError(f"{dotted} cannot be tuned: {why}; leave it out of the space.")


def _refuse_fixed(space: Space, fixed: Mapping[str, Any]) -> None:
    for dotted in space.places:
        for name, value in fixed.items():
            if name == dotted or name.startswith(f"{dotted}."):
                raise ConfigError(
                    f"{dotted} is in the space, and --{name.replace('_', '-')} {value} fixes it; leave one of them out."
                )


def _refuse_impossible(space: Space, base: Recipe) -> None:
    """Refuse an end of a range, or an option, that goes with no drawing of the rest; and trials that cannot be
    compared.
    """
    generator, settings = random.Random(0), to_mapping(base)
    choosing = set()
    for chosen, dimension in space.everywhere():
        for end in _ends(dimension):
            fixed = {**chosen, dimension.name: end}
            problem, possible = None, 0

            def draw(other: Dimension, fixed: Mapping[str, Any] = fixed) -> Any:
                return fixed[other.name] if other.name in fixed else generator.choice(_ends(other))

            for _ in range(PROBES):
                try:
                    choosing.add(resolve(settings, space.settings(draw)).selects)
                    possible += 1
                except ConfigError as error:
                    problem = error
                if possible == ENOUGH:
                    break
            if not possible:
                raise ConfigError(f"the space asks for what cannot be: {problem}")
    if len(choosing) > 1:
        raise ConfigError(
            "some trials of the space choose by validation while they train (fit.keep, early_stopping, or plateau on"
            " validation) and see half of it, others see all of it, which cannot be compared; let all of them choose,"
            " or none."
        )


def _ends(dimension: Dimension) -> list[Any]:
    """Return what is tried of a dimension: each option, or both ends of a range, and its middle."""
    if isinstance(dimension, Choice):
        return list(dimension.options)
    low, high, numbers = dimension.low, dimension.high, dimension.numbers
    if numbers is not None:
        return [numbers[0], numbers[-1], numbers[len(numbers) // 2]]
    return [low, high, math.sqrt(low * high) if dimension.log else (low + high) / 2]
