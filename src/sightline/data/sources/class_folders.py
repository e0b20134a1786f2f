"""What the folders of a set are: splits, classes, folders around them, or images without a class. Names alone are read.

The folders at the top are the classes, or splits with the classes below them. A folder whose name is a split's never becomes
a class by itself: what does not fit is refused, with both ways to read it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from sightline.data.sources.split_names import (
    SPLIT_NAMES,
    UNLABELED,
    is_affix,
    is_split_name,
    speaks_of_split,
    split_of_name,
    splits_among,
)
from sightline.errors import DataError

__all__ = ["OUTSIDE", "Arrangement", "Classes", "arrange"]

OUTSIDE = "images outside the class folders"
PLACEHOLDERS = frozenset(("unknown", "all", "all_classes", "none", "dummy"))  # folders of images whose class is unknown
SHOWN = 5  # folders that a sentence names

Classes = Literal["top", "leaf"]
Folder = tuple[str, ...]
Place = tuple[str, str | None]  # class and split


@dataclass
class Arrangement:
    """The class and split of each folder that holds images."""

    places: dict[Folder, Place | str] = field(default_factory=dict)
    """The class and the split of its images, or why they are left out."""
    expected: set[str] = field(default_factory=set)
    """Classes that have a folder, whether or not it holds images."""
    notes: list[str] = field(default_factory=list)
    doubt: str = ""
    """What may be the reason where there are too few classes."""


def arrange(folders: set[Folder], visible: set[Folder], location: str, classes: Classes | None) -> Arrangement:
    """Find out what the folders of a set are.

    Args:
        folders: those that hold images themselves, as the parts of their names.
        visible: all that are not hidden, also empty ones.
        location: of the set, for messages.
        classes: ``top`` takes every folder at the top for a class; ``leaf`` every folder that holds images, but for splits;
            None those at the top, but for splits.
    Raises:
        DataError: the folders can be read in two ways.
    """
    depth = _wrapper_depth(folders, visible)
    inside = [folder for folder in folders if len(folder) > depth]
    arranged = Arrangement({folder: OUTSIDE for folder in folders if len(folder) <= depth})
    tops = {folder[depth] for folder in inside}
    splits = {} if classes == "top" else splits_among(tops)
    named = {top for top, split in splits.items() if split != UNLABELED}
    around = {top: _look_through(inside, top, depth, splits) for top in splits}
    labelled = {top for top in splits if any(len(folder) > len(around[top]) for folder in _of(inside, around[top]))}
    others = tops - splits.keys()
    labelled -= {top for top in splits if splits[top] == UNLABELED}
    if others:
        _refuse_misfits(others, splits, labelled, inside, around, location)
    elif splits and not named & labelled:
        arranged.doubt = (
            f"{_list(splits)} {'look' if len(splits) > 1 else 'looks'} like splits, which hold class folders"
        )
    elif any(splits[top] == "train" for top in named - labelled):
        flat = next(top for top in sorted(named - labelled) if splits[top] == "train")
        raise DataError(
            f"{location} holds the split {flat!r} without class folders beside {_list(named & labelled)} with class folders;"
            f" sort the images of {flat} into folders named after the classes."
        )
    _place(arranged, inside, splits, around, others, labelled, depth, location, classes)
    _expect(arranged, visible, around, others, labelled, depth, classes)
    _note(arranged, splits, others, named & labelled)
    return arranged


# ── what lies around the classes ─────────────────────────────────────────────────────────────────────────────────────


OLD_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))


def _wrapper_depth(folders: set[Folder], visible: set[Folder]) -> int:
    """Count the folders that merely wrap the set, as in an archive of one folder; a single ``test/`` stays a split.

    Images that lie loose beside the next folder are no reason to stop where several folders follow further down.
    """
    depth = 0
    strict: int | None = None
    while True:
        tops = {folder[depth] for folder in folders if len(folder) > depth}
        siblings = {folder[depth] for folder in visible if len(folder) > depth}
        if strict is None and not all(len(folder) > depth + 1 for folder in folders):
            strict = depth
        split = len(tops) == 1 and next(iter(tops)).lower() in OLD_NAMES
        stop = split or len(tops) != 1
        if not stop and siblings - tops:  # beside it folders without images: annotations, say
            within = {folder[depth + 1] for folder in folders if len(folder) > depth + 1}
            stop = splits_among(within).keys() != within
        if stop:
            return depth if strict is None or split or len(tops) > 1 else strict
        depth += 1


def _look_through(folders: list[Folder], top: str, depth: int, splits: dict[str, str]) -> Folder:
    """The folder of a split in which its classes lie: itself, or one within that is doubled (``seg_train/seg_train``).

    A folder whose name says nothing (``train/images/``) is looked through, too, unless another split has a class of that name.
    """
    start: Folder = next(folder[: depth + 1] for folder in folders if folder[depth] == top)
    elsewhere = {
        folder[depth + 1]
        for folder in folders
        if len(folder) > depth + 1 and folder[depth] != top and folder[depth] in splits
    }
    while True:
        within = {folder[len(start)] for folder in _of(folders, start) if len(folder) > len(start)}
        if len(within) != 1:
            return start
        (only,) = within
        doubled = only.casefold() == start[-1].casefold() or split_of_name(only) == splits[top]
        says_nothing = is_affix(only) or only.lower() in PLACEHOLDERS
        if not doubled and not (says_nothing and _alone(folders, only, depth, splits, elsewhere)):
            return start
        start = (*start, only)


def _alone(folders: list[Folder], name: str, depth: int, splits: dict[str, str], elsewhere: set[str]) -> bool:
    """Whether no split holds a folder of this name beside others, which would make it a class."""
    if name not in elsewhere:
        return True
    within: dict[str, set[str]] = defaultdict(set)
    for folder in folders:
        if len(folder) > depth + 1 and folder[depth] in splits:
            within[folder[depth]].add(folder[depth + 1])
    return all(len(names) == 1 for names in within.values() if name in names)


def _of(folders: Iterable[Folder], start: Folder) -> Iterator[Folder]:
    """Those of some folders that are a folder, or lie in it."""
    return (folder for folder in folders if folder[: len(start)] == start)


def _refuse_misfits(
    others: set[str],
    splits: dict[str, str],
    labelled: set[str],
    folders: list[Folder],
    around: dict[str, Folder],
    location: str,
) -> None:
    """Refuse splits beside other folders, unless those are the classes and the splits hold more of them, or no classes."""
    misfits = []
    for top, split in splits.items():
        if top in others:
            continue
        if top not in labelled:
            if split in ("train", "val"):
                misfits.append(top)
            continue
        within = {folder[len(around[top])] for folder in _of(folders, around[top]) if len(folder) > len(around[top])}
        if split == "train" or not within <= others:
            misfits.append(top)
    if not misfits:
        return
    several = len(misfits) > 1
    raise DataError(
        f"{location} holds {_list(misfits)} beside other folders of images ({_list(others)}); wanted either splits or classes."
        f" If {_list(misfits)} {'are splits' if several else f'is the {splits[misfits[0]]} split'}, move"
        f" {_list(others)} into the splits or away; if {'they are classes' if several else 'it is a class'}, rename"
        f" {'them' if several else 'it'}, or say --data.classes top, which takes every folder at the top for a class."
    )


# ── classes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _place(
    arranged: Arrangement,
    folders: list[Folder],
    splits: dict[str, str],
    around: dict[str, Folder],
    others: set[str],
    labelled: set[str],
    depth: int,
    location: str,
    classes: Classes | None,
) -> None:
    """Give each folder its class and split, or the reason why its images are left out."""
    chains: dict[Folder, tuple[Folder, str | None]] = {}
    for folder in folders:
        top = folder[depth]
        if top in others:
            chains[folder] = folder[depth:], None
        elif top not in labelled:
            flat = not any(len(within) > len(around[top]) for within in _of(folders, around[top]))
            why = "has no class folders" if flat else "is unlabeled by its name"
            arranged.places[folder] = f"images in {top}/, which {why}"
        elif len(folder) > len(around[top]) and folder[: len(around[top])] == around[top]:
            chains[folder] = folder[len(around[top]) :], splits[top]
        else:
            arranged.places[folder] = OUTSIDE
    _refuse_nested(chains, depth, location)
    if splits.keys() <= others or not any(split for _, split in chains.values()):
        before, chains = chains, _splits_within(chains, location, classes)
        if chains is not before:
            arranged.notes.append("folders taken for splits: those within each class folder")
    chains = {folder: (_undoubled(chain), split) for folder, (chain, split) in chains.items()}
    distinct = {chain for chain, _ in chains.values()}
    leaves = _leaf_names(distinct)
    if classes == "leaf":
        bad = sorted(name for name in leaves.values() if is_split_name(name.rpartition("/")[2]))
        if bad:
            raise DataError(
                f"{location} holds a folder {bad[0]!r} that looks like a split, and images that lie in none; as a class, it"
                " needs another name; as a split, every image must lie in one."
            )
    elif len(deeper := {chain for chain in distinct if len(chain) > 1}) and len(distinct) != len(
        {c[0] for c in distinct}
    ):
        arranged.notes.append(
            f"{len(deeper):,} deeper folder{'s hold' if len(deeper) > 1 else ' holds'} images, which count for the"
            f" {len({c[0] for c in distinct}):,} classes at the top; --data.classes leaf makes each of the"
            f" {len(distinct):,} folders that hold images a class"
        )
    for folder, (chain, split) in chains.items():
        arranged.places[folder] = (leaves[chain] if classes == "leaf" else chain[0]), split


def _refuse_nested(chains: dict[Folder, tuple[Folder, str | None]], depth: int, location: str) -> None:
    """Refuse splits in splits; one class that is called like a split may lie among others in all of them (a train, say)."""
    within: dict[str, set[str]] = defaultdict(set)
    for folder, (chain, split) in chains.items():
        if split is not None:
            within[folder[depth]].add(chain[0])
    every = set().union(*within.values())
    nested = {name for name in every if is_split_name(name)}
    if not nested or (len(nested) == 1 and every != nested and all(nested <= names for names in within.values())):
        return
    top, name = min((top, name) for top, names in within.items() for name in names & nested)
    raise DataError(
        f"{location} holds {top}/{name}/, a split within a split; as a split, {name} has to lie beside {top}; as a class, it"
        " needs another name, or has to be there in every split, among others."
    )


def _splits_within(
    chains: dict[Folder, tuple[Folder, str | None]], location: str, classes: Classes | None
) -> dict[Folder, tuple[Folder, str | None]]:
    """The same where every class folder holds its splits (``cat/train``, ``cat/test``): these are taken off the chain."""
    if classes == "top":
        return chains
    looks = splits_among({name for chain, _ in chains.values() for name in chain[1:]})
    looks = {name: split for name, split in looks.items() if split != UNLABELED}
    found = {folder: {looks[name] for name in chain[1:] if name in looks} for folder, (chain, _) in chains.items()}
    if found and all(len(kinds) == 1 for kinds in found.values()):
        return {
            folder: (
                tuple(name for place, name in enumerate(chain) if not place or name not in looks),
                next(iter(found[folder])),
            )
            for folder, (chain, _) in chains.items()
        }
    suspect = sorted(
        chain for chain, _ in chains.values() if len(chain) > 1 and split_of_name(chain[1]) in ("val", "test")
    )
    if suspect:
        one = "/".join(suspect[0][:2])
        raise DataError(
            f"{location} holds {one}/, which looks like the {split_of_name(suspect[0][1])} split of its class, beside images"
            f" that lie in no split; wanted either every image in a split, or none. If it is a split, sort the other images"
            f" into splits, too; if it is a part of the class like any other, rename it, or say --data.classes top."
        )
    return chains


def _undoubled(chain: Folder) -> Folder:
    """Names of folders from the class on, a folder in one of the same name once."""
    return tuple(name for place, name in enumerate(chain) if not place or name != chain[place - 1])


def _leaf_names(chains: set[Folder]) -> dict[Folder, str]:
    """A class for each folder that holds images: its own name, with those above it where another has the same."""
    same: dict[str, int] = defaultdict(int)
    for chain in chains:
        same[chain[-1]] += 1
    return {chain: chain[-1] if same[chain[-1]] == 1 else "/".join(chain) for chain in chains}


def _expect(
    arranged: Arrangement,
    visible: set[Folder],
    around: dict[str, Folder],
    others: set[str],
    labelled: set[str],
    depth: int,
    classes: Classes | None,
) -> None:
    """Note the classes that have a folder, and splits that hold nothing."""
    known = {folder[depth] for folder in visible if len(folder) > depth} | others
    looks = {} if classes == "top" else splits_among(known)
    above = {folder[:-1] for folder in visible}
    for folder in visible:
        if len(folder) <= depth:
            continue
        top = folder[depth]
        if top in others or (others and top not in looks):
            chain = folder[depth:]
        elif top in labelled and len(folder) > len(around[top]) and folder[: len(around[top])] == around[top]:
            chain = folder[len(around[top]) :]
        else:
            continue
        if classes != "leaf":
            arranged.expected.add(chain[0])
        elif folder not in above and folder not in arranged.places:
            arranged.expected.add("/".join(chain))
    empty = {top for top in looks if top not in around and top not in others}
    if empty:
        arranged.notes.append(f"no images in {', '.join(f'{top}/' for top in sorted(empty))}")


def _note(arranged: Arrangement, splits: dict[str, str], others: set[str], named: set[str]) -> None:
    """Note which folders were taken for which split, where that is not plain from their names."""
    unusual = [top for top in sorted(named) if top.lower() not in OLD_NAMES]
    kinds = [splits[top] for top in named]
    if named - others and (unusual or others or len(set(kinds)) < len(kinds)):
        parts = [
            f"{split} {_list(top for top in named if splits[top] == split)}"
            for split in dict.fromkeys(SPLIT_NAMES.values())
        ]
        told = "; ".join(part for part in parts if not part.endswith(" "))
        arranged.notes.append(
            f"folders taken for splits: {told}" + ("; the class folders beside them train" if others else "")
        )
    loose = sorted(top for top in others if speaks_of_split(top))
    if loose and len(loose) < len(others):
        arranged.notes.append(
            f"{_list(loose)} {'were' if len(loose) > 1 else 'was'} taken for {'classes' if len(loose) > 1 else 'a class'}; move"
            f" {'them' if len(loose) > 1 else 'it'} away, or rename {'them' if len(loose) > 1 else 'it'} (test, val), if"
            f" {'they are splits' if len(loose) > 1 else 'it is a split'}"
        )
    left = sorted(top for top in splits if top not in named and top not in others)
    if left and not arranged.doubt:
        arranged.doubt = (
            f"{_list(left)} {'were' if len(left) > 1 else 'was'} taken for images without a class (--data.classes top takes"
            " every folder at the top for a class)"
        )


def _list(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN]) + (f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else "")
