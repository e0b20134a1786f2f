"""The space of a tuning: which settings vary, and how each is drawn. Nothing here loads torch, or draws.

A space is YAML with the blocks and the names of a recipe; in place of a value stands how it is drawn (``NOTATION``):

    optimizer: {learning_rate: {low: 0.001, high: 1, log: true}}
    augment: {flip: [none, random], crop: [null, {kind: pad_crop, padding: {low: 1, high: 4}}]}
    schedule: {kind: [linear, cosine], warmup_epochs: [0, 1, 2]}

What belongs to a kind of a block that is itself drawn is drawn only with it, under a name of its own
(``augment.crop.pad_crop.padding``).
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sightline.config.resolving import merge, to_mapping
from sightline.config.settings import Recipe

__all__ = ["NOTATION", "Choice", "Dimension", "Option", "Range", "Space"]

NOTATION = {
    "flip: [none, random]": "One of these values.",
    "momentum: {low: 0.5, high: 0.9}": "A number from the one to the other, both included.",
    "momentum: {low: 0.5, high: 0.9, step: 0.1}": "One of 0.5, 0.6, ... 0.9.",
    "learning_rate: {low: 0.001, high: 1, log: true}": "A number between the two, each power of ten as often.",
    "widths: [[32, 64, 64], [64, 256, 256]]": "One of these lists, where the setting is a list itself.",
    "optimizer: [sgd, {kind: adamw, weight_decay: [0, 0.01]}]": "One of these blocks, each with what is drawn, or"
    " fixed, in it; `null` turns a block off.",
    "optimizer: {kind: [sgd, adamw], weight_decay: [0, 0.001]}": "One of these kinds, and other settings that each of"
    " them has.",
}
"""How a space says that a setting is drawn, and what it means."""


@dataclass(frozen=True)
class Range:
    """A number that is drawn."""

    name: str
    place: tuple[str, ...]
    low: float
    high: float
    step: float | None
    log: bool
    whole: bool
    """Whether it is a whole number."""

    @property
    def numbers(self) -> Sequence[float] | None:
        """All numbers of the range; None where they cannot be counted."""
        if self.whole:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is None:
            return None
        return [self.low + index * self.step for index in range(round((self.high - self.low) / self.step) + 1)]


@dataclass(frozen=True)
class Option:
    """One of the values that are chosen from, and what is drawn only with it."""

    value: Any
    dimensions: "tuple[Dimension, ...]" = ()


@dataclass(frozen=True)
class Choice:
    """A value, or a block of settings, that is chosen."""

    name: str
    place: tuple[str, ...]
    options: dict[str, Option]
    """By what each is called."""


Dimension = Range | Choice


@dataclass(frozen=True)
class Space:
    """All that is drawn for a trial. A drawing has a number, or what an option is called, for each name."""

    dimensions: tuple[Dimension, ...]

    def settings(self, draw: Callable[[Dimension], Any]) -> dict[str, Any]:
        """Return the settings of one drawing, nested as in a recipe; ``draw`` is asked for each dimension that belongs
        to it.
        """
        settings: dict[str, Any] = {}
        for dimension in self.dimensions:
            drawn = draw(dimension)
            option = Option(drawn) if isinstance(dimension, Range) else dimension.options[drawn]
            value = copy.deepcopy(option.value)
            for name in reversed(dimension.place):
                value = {name: value}
            settings = merge(merge(settings, value), Space(option.dimensions).settings(draw))
        return settings

    def drawings(self) -> Iterator[dict[str, Any]]:
        """Yield all drawings of a space of finite size."""
        if not self.dimensions:
            yield {}
            return
        first, *rest = self.dimensions
        nothing = Option(None)
        options: Mapping[Any, Option] = (
            first.options if isinstance(first, Choice) else dict.fromkeys(first.numbers or (), nothing)
        )
        for value, option in options.items():
            for others in Space((*option.dimensions, *rest)).drawings():
                yield {first.name: value, **others}

    def drawing_of(self, recipe: Recipe) -> dict[str, Any] | None:
        """Return the drawing that leaves a recipe as it is; None where there is none."""
        drawing: dict[str, Any] = {}
        settings = to_mapping(recipe)

        def look_up(dimension: Dimension) -> Any:
            drawing[dimension.name] = _look_up(dimension, settings)
            return drawing[dimension.name]

        try:
            self.settings(look_up)
        except LookupError:
            return None
        return drawing

    @property
    def size(self) -> float:
        """The number of drawings that there are; infinite where a number is drawn without steps."""

        def size(dimension: Dimension) -> float:
            if isinstance(dimension, Choice):
                return sum(Space(option.dimensions).size for option in dimension.options.values())
            return math.inf if dimension.numbers is None else len(dimension.numbers)

        return math.prod(map(size, self.dimensions))

    @property
    def names(self) -> list[str]:
        """The names of all dimensions, in their order."""
        return [dimension.name for _, dimension in self.everywhere()]

    @property
    def places(self) -> list[str]:
        """The settings that vary, by their dotted names."""
        return [".".join(dimension.place) for _, dimension in self.everywhere()]

    def everywhere(self, **chosen: str) -> Iterator[tuple[Mapping[str, str], Dimension]]:
        """Yield every dimension, after what must be chosen for it to be drawn."""
        for dimension in self.dimensions:
            yield chosen, dimension
            for name, option in dimension.options.items() if isinstance(dimension, Choice) else ():
                yield from Space(option.dimensions).everywhere(**chosen, **{dimension.name: name})


def _look_up(dimension: Dimension, settings: Mapping[str, Any]) -> Any:
    """Return what a dimension is drawn as where settings stay as they are; LookupError where it cannot be."""
    value: Any = settings
    for name in dimension.place:
        value = value[name]
    if isinstance(dimension, Choice):
        for name, option in dimension.options.items():
            block = isinstance(option.value, Mapping) and "kind" in option.value and isinstance(value, Mapping)
            if option.value == ({key: value.get(key) for key in option.value} if block else value):
                return name
    elif isinstance(value, int | float) and dimension.low <= value <= dimension.high:
        for number in (value,) if dimension.numbers is None else dimension.numbers:
            if math.isclose(number, value, abs_tol=1e-12):
                return number
    raise LookupError(dimension.name)
