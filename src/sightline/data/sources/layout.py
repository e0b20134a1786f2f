"""The layout of a set: which folders are splits, classes, around them, or hold images without a class, by names alone.

The folders at the top are the classes, or splits with the classes below them. A folder whose name is a split's never
becomes a class by itself: what does not fit is refused, with both ways to read it.
"""

from collections import defaultdict
from collections.abc import Iterable
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

OLD_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))  # plain names of splits
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
        classes: ``top`` takes every folder at the top for a class; ``leaf`` every folder that holds images, but for
            splits; None those at the top, but for splits.
    Raises:
        DataError: the folders can be read in two ways.
    """
    reading = _Reading(folders, visible, location, classes)
    reading.refuse_conflicts()
    reading.place()
    reading.expect(visible)
    reading.note()
    return reading.arranged


class _Reading:
    """A reading of the folders at the top of a set, below those that merely wrap it, and the arrangement that
    follows.
    """

    def __init__(self, folders: set[Folder], visible: set[Folder], location: str, classes: Classes | None) -> None:
        self.location, self.classes = location, classes
        self.depth = depth = _wrapper_depth(folders, visible)
        self.folders = [folder for folder in folders if len(folder) > depth]
        self.arranged = Arrangement({folder: OUTSIDE for folder in folders if len(folder) <= depth})
        tops = {folder[depth] for folder in self.folders}
        self.splits = {} if classes == "top" else splits_among(tops)
        """The split that each folder looks like."""
        self.around = {top: self._look_through(top) for top in self.splits}
        """The folder in which the classes of a split lie."""
        self.named = {top for top, split in self.splits.items() if split != UNLABELED}
        self.labeled = {top for top in self.named if _within(self.folders, self.around[top])}
        """Splits that hold class folders."""
        self.others = tops - self.splits.keys()

    def _look_through(self, top: str) -> Folder:
        """Return the folder of a split in which its classes lie: itself, or a doubled one (``seg_train/seg_train``).

        A folder whose name says nothing (``train/images/``) is looked through, too, unless another split has a class of
        that name.
        """
        start: Folder = next(folder[: self.depth + 1] for folder in self.folders if folder[self.depth] == top)
        while len(within := _within(self.folders, start)) == 1:
            (only,) = within
            doubled = only.casefold() == start[-1].casefold() or split_of_name(only) == self.splits[top]
            says_nothing = is_affix(only) or only.lower() in PLACEHOLDERS
            if not doubled and not (says_nothing and self._is_no_class(only, top)):
                break
            start = (*start, only)
        return start

    def _is_no_class(self, name: str, top: str) -> bool:
        """Return whether no split but one holds a folder of a name, or every split that does holds it alone."""
        within: dict[str, set[str]] = defaultdict(set)
        for folder in self.folders:
            if len(folder) > self.depth + 1 and folder[self.depth] in self.splits:
                within[folder[self.depth]].add(folder[self.depth + 1])
        elsewhere = any(name in names for split, names in within.items() if split != top)
        return not elsewhere or all(len(names) == 1 for names in within.values() if name in names)

    def refuse_conflicts(self) -> None:
        """Refuse folders that can be read as splits and as classes."""
        if self.others:
            self._refuse_splits_beside_others()
        elif self.splits and not self.named & self.labeled:
            look = "look" if len(self.splits) > 1 else "looks"
            self.arranged.doubt = f"{_list(self.splits)} {look} like splits, which hold class folders"
        else:
            flat = sorted(top for top in self.named - self.labeled if self.splits[top] == "train")
            if flat:
                raise DataError(
                    f"{self.location} holds the split {flat[0]!r} without class folders beside {_list(self.labeled)}"
                    f" with class folders; sort the images of {flat[0]} into folders named after the classes."
                )

    def _refuse_splits_beside_others(self) -> None:
        """Refuse splits beside others, unless those are the classes and the splits hold more of them, or none."""
        conflicts = []
        for top, split in self.splits.items():
            if top not in self.labeled:
                if split in ("train", "val"):
                    conflicts.append(top)
            elif split == "train" or not _within(self.folders, self.around[top]) <= self.others:
                conflicts.append(top)
        if not conflicts:
            return
        listed, others = _list(conflicts), _list(self.others)
        if len(conflicts) > 1:
            as_splits, as_classes = "are splits", "they are classes, rename them"
        else:
            as_splits, as_classes = f"is the {self.splits[conflicts[0]]} split", "it is a class, rename it"
        raise DataError(
            f"{self.location} holds {listed} beside other folders of images ({others}); wanted either splits or"
            f" classes. If {listed} {as_splits}, move {others} into the splits or away; if {as_classes}, or say"
            " --data.classes top, which takes every folder at the top for a class."
        )

    # ── classes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def place(self) -> None:
        """Give each folder its class and split, or the reason why its images are left out."""
        notes, classes = self.arranged.notes, self.classes
        chains = self._chains()
        _refuse_nested(chains, self.depth, self.location)
        if self.splits.keys() <= self.others or not any(split for _, split in chains.values()):
            before, chains = chains, _splits_within(chains, self.location, classes)
            if chains is not before:
                notes.append("folders taken for splits: those within each class folder")
        chains = {folder: (_undoubled(chain), split) for folder, (chain, split) in chains.items()}
        distinct = {chain for chain, _ in chains.values()}
        leaves = _leaf_names(distinct)
        tops = {chain[0] for chain in distinct}
        deeper = {chain for chain in distinct if len(chain) > 1}
        if classes == "leaf":
            bad = sorted(name for name in leaves.values() if is_split_name(name.rpartition("/")[2]))
            if bad:
                raise DataError(
                    f"{self.location} holds a folder {bad[0]!r} that looks like a split, and images that lie in none;"
                    " as a class, it needs another name; as a split, every image must lie in one."
                )
        elif deeper and len(distinct) != len(tops):
            notes.append(
                f"{len(deeper):,} deeper folder{'s hold' if len(deeper) > 1 else ' holds'} images, which count for the"
                f" {len(tops):,} classes at the top; --data.classes leaf makes each of the {len(distinct):,} folders"
                " that hold images a class"
            )
        for folder, (chain, split) in chains.items():
            self.arranged.places[folder] = (leaves[chain] if classes == "leaf" else chain[0]), split

    def _chains(self) -> dict[Folder, tuple[Folder, str | None]]:
        """Return the names from the class on, and the split, of folders in a class; the others are placed."""
        chains: dict[Folder, tuple[Folder, str | None]] = {}
        for folder in self.folders:
            top = folder[self.depth]
            chain = self._chain(folder)
            if chain:
                chains[folder] = chain, None if top in self.others else self.splits[top]
            elif top not in self.labeled:
                why = "is unlabeled by its name" if _within(self.folders, self.around[top]) else "has no class folders"
                self.arranged.places[folder] = f"images in {top}/, which {why}"
            else:
                self.arranged.places[folder] = OUTSIDE
        return chains

    def _chain(self, folder: Folder) -> Folder:
        """Return the names of a folder from its class on; empty where it lies in none."""
        top = folder[self.depth]
        if top in self.others:
            return folder[self.depth :]
        if top not in self.labeled or folder[: len(self.around[top])] != self.around[top]:
            return ()
        return folder[len(self.around[top]) :]

    def expect(self, visible: set[Folder]) -> None:
        """Note the classes that have a folder, and splits that hold nothing."""
        visible_below = [folder for folder in visible if len(folder) > self.depth]
        looks = {}
        if self.classes != "top":
            looks = splits_among({folder[self.depth] for folder in visible_below} | self.others)
        above = {folder[:-1] for folder in visible}
        for folder in visible_below:
            empty_class = self.others and folder[self.depth] not in looks
            chain = folder[self.depth :] if empty_class else self._chain(folder)
            if chain and self.classes != "leaf":
                self.arranged.expected.add(chain[0])
            elif chain and folder not in above and folder not in self.arranged.places:
                self.arranged.expected.add("/".join(chain))
        empty = {top for top in looks if top not in self.around and top not in self.others}
        if empty:
            self.arranged.notes.append(f"no images in {', '.join(f'{top}/' for top in sorted(empty))}")

    def note(self) -> None:
        """Note which folders were taken for which split, where that is not plain from their names."""
        named, others = self.named & self.labeled, self.others
        by_split = {
            split: _list(top for top in named if self.splits[top] == split)
            for split in dict.fromkeys(SPLIT_NAMES.values())
        }
        plain = all(top.lower() in OLD_NAMES for top in named)
        if named and (not plain or others or len({self.splits[top] for top in named}) < len(named)):
            listed = "; ".join(f"{split} {tops}" for split, tops in by_split.items() if tops)
            beside = "; the class folders beside them train" if others else ""
            self.arranged.notes.append(f"folders taken for splits: {listed}{beside}")
        loose = sorted(top for top in others if speaks_of_split(top))
        if loose and len(loose) < len(others):
            taken, them, splits = "were taken for classes", "them", "they are splits"
            if len(loose) == 1:
                taken, them, splits = "was taken for a class", "it", "it is a split"
            self.arranged.notes.append(
                f"{_list(loose)} {taken}; move {them} away, or rename {them} (test, val), if {splits}"
            )
        left = sorted(self.splits.keys() - named)
        if left and not self.arranged.doubt:
            self.arranged.doubt = (
                f"{_list(left)} {'were' if len(left) > 1 else 'was'} taken for images without a class (--data.classes"
                " top takes every folder at the top for a class)"
            )


def _within(folders: Iterable[Folder], start: Folder) -> set[str]:
    """Return the names of the folders directly within a folder."""
    return {folder[len(start)] for folder in folders if len(folder) > len(start) and folder[: len(start)] == start}


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


def _refuse_nested(chains: dict[Folder, tuple[Folder, str | None]], depth: int, location: str) -> None:
    """Refuse splits in splits; one class that is called like a split (a train) may lie among others in all of them."""
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
        f"{location} holds {top}/{name}/, a split within a split; as a split, {name} has to lie beside {top}; as a"
        " class, it needs another name, or has to be there in every split, among others."
    )


def _splits_within(
    chains: dict[Folder, tuple[Folder, str | None]], location: str, classes: Classes | None
) -> dict[Folder, tuple[Folder, str | None]]:
    """Take the splits off the chains where every class folder holds its own (``cat/train``, ``cat/test``)."""
    if classes == "top":
        return chains
    looks = splits_among({name for chain, _ in chains.values() for name in chain[1:]})
    looks = {name: split for name, split in looks.items() if split != UNLABELED}
    splits = {folder: {looks[name] for name in chain[1:] if name in looks} for folder, (chain, _) in chains.items()}
    if splits and all(len(kinds) == 1 for kinds in splits.values()):
        return {
            folder: ((chain[0], *(name for name in chain[1:] if name not in looks)), next(iter(splits[folder])))
            for folder, (chain, _) in chains.items()
        }
    suspect = sorted(
        chain for chain, _ in chains.values() if len(chain) > 1 and split_of_name(chain[1]) in ("val", "test")
    )
    if suspect:
        one = "/".join(suspect[0][:2])
        raise DataError(
            f"{location} holds {one}/, which looks like the {split_of_name(suspect[0][1])} split of its class, beside"
            " images that lie in no split; wanted either every image in a split, or none. If it is a split, sort the"
            " other images into splits, too; if it is a part of the class like any other, rename it, or say"
            " --data.classes top."
        )
    return chains


def _undoubled(chain: Folder) -> Folder:
    """Return the names of folders from the class on, a folder in one of the same name once."""
    return tuple(name for place, name in enumerate(chain) if not place or name != chain[place - 1])


def _leaf_names(chains: set[Folder]) -> dict[Folder, str]:
    """Return a class for each folder with images: its own name, with those above it where another has the same."""
    same: dict[str, int] = defaultdict(int)
    for chain in chains:
        same[chain[-1]] += 1
    return {chain: chain[-1] if same[chain[-1]] == 1 else "/".join(chain) for chain in chains}


def _list(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN]) + (f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else "")
