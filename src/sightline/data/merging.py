"""Classes that are told apart no more: images of several become those of one. N images. Nothing here loads torch.

What is merged is said by texts such as ``cat+dog`` or ``pet=cat+dog``. Names may hold either sign, so a text is read
in every way in which its parts are classes, and must have one such reading.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sightline.config.checks import nearest, shown
from sightline.errors import ConfigError

if TYPE_CHECKING:
    from sightline.data.cache import CachedImages

__all__ = ["merge_names", "merged"]

MOST = 1000  # letters of a text; the ways to read it grow with its signs


def merged(images: "CachedImages", merge: Sequence[str] | Mapping[str, str]) -> "CachedImages":
    """Return a set whose images of several classes are of one; pixels, paths and splits stay what they are.

    Args:
        images: the set.
        merge: texts, as ``--data.merge`` has them; or what became of them in a run, the new name by the old one, of
            which the set need not have every class.
    Raises:
        ConfigError: a text names no classes of the set, or can be read in two ways, or one class alone would be left.
    """
    names = dict(merge) if isinstance(merge, Mapping) else merge_names(images.classes, merge)
    names = {old: new for old, new in names.items() if old in images.classes}
    if not names:
        return images
    classes = sorted({names.get(name, name) for name in images.classes})
    if len(classes) < 2 and len(images.classes) > 1 and not isinstance(merge, Mapping):
        raise ConfigError(
            f"--data.merge {' '.join(merge)} leaves one class of {images.name}, and nothing to tell apart; merge fewer."
        )
    index_of = {name: index for index, name in enumerate(classes)}
    table = np.array([*(index_of[names.get(name, name)] for name in images.classes), -1], np.int64)  # -1: unreadable
    notes = [f"merged as asked: {_listed(names, new)} are {new}" for new in sorted(set(names.values()))]
    return replace(
        images,
        classes=classes,
        labels=table[images.labels],
        notes=[*images.notes, *notes],
        merged=names,
        unmerged=images.labels,
    )


def merge_names(classes: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """Read what is to be merged: the new name of each class that gets another one.

    Args:
        classes: of the set.
        texts: ``A+B``, a class of that name; or ``NAME=A+B``.
    Raises:
        ConfigError: as ``merged`` raises it.
    """
    names: dict[str, str] = {}
    for text in texts:
        if len(text) > MOST:
            raise ConfigError(f"--data.merge {shown(text)} is longer than {MOST:,} letters; merge fewer classes.")
        readings = list(islice(_readings(frozenset(classes), text), 2))
        if not readings:
            raise ConfigError(_problem(classes, text))
        if len(readings) > 1:
            first, second = (f"{shown(new)} of {', '.join(map(shown, parts))}" for new, parts in readings)
            raise ConfigError(
                f"--data.merge {shown(text)} can be read as {first}, or as {second}; rename one of these classes."
            )
        new, parts = readings[0]
        if new in classes and new not in parts:
            raise ConfigError(
                f"--data.merge {shown(text)} would name a class {shown(new)}, which is there already; name it as well"
                " as one to merge, or choose another name."
            )
        for part in parts:
            if part in names or list(parts).count(part) > 1:
                raise ConfigError(f"--data.merge names class {shown(part)} twice; name each once.")
        if new in names.values():
            raise ConfigError(f"--data.merge makes two classes of the name {shown(new)}; choose another one.")
        names |= dict.fromkeys(parts, new)
    return names


def _readings(classes: frozenset[str], text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each way to read a text: the new name, and the classes that become it, two at least."""
    for parts in _partitions(classes, text.split("+")):
        yield text, parts
    for place, letter in enumerate(text):
        if letter == "=" and text[:place].strip():
            for parts in _partitions(classes, text[place + 1 :].split("+")):
                yield text[:place].strip(), parts


def _partitions(classes: frozenset[str], pieces: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield each way to join neighboring pieces to names of classes, of which there are then two or more."""
    ends: list[list[int]] = [[] for _ in range(len(pieces) + 1)]  # of names that begin there, and lead to the end
    reaches = [False] * len(pieces) + [True]
    for start in reversed(range(len(pieces))):
        for end in range(start + 1, len(pieces) + 1):
            if reaches[end] and "+".join(pieces[start:end]) in classes:
                ends[start].append(end)
        reaches[start] = bool(ends[start])

    def following(start: int) -> Iterator[tuple[str, ...]]:
        if start == len(pieces):
            yield ()
        for end in ends[start] if start < len(pieces) else ():
            for rest in following(end):
                yield ("+".join(pieces[start:end]), *rest)

    return (parts for parts in following(0) if len(parts) > 1)


def _problem(classes: Sequence[str], text: str) -> str:
    """Say why a text cannot be read."""
    pieces = text.partition("=")[2].split("+") if "=" in text else text.split("+")
    unknown = next((piece for piece in pieces if piece not in classes), None)
    if "+" not in text or unknown is None:
        return f"--data.merge {shown(text)} merges nothing; wanted the names of two classes or more, such as cat+dog."
    return f"--data.merge {shown(text)} names {shown(unknown)}, which is no class; {nearest(unknown, classes)}"


def _listed(names: Mapping[str, str], new: str) -> str:
    *parts, last = (old for old in names if names[old] == new)
    return f"{', '.join(parts)} and {last}" if parts else last
