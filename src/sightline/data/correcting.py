"""Labels of an image set as a corrections file decides them. N images. Nothing here loads torch.

The splits are cut by the labels that the set has, before anything is corrected, so no image changes sides. Labels of
test, and which images it holds, change only on request: whoever could mend them unasked could mend away the mistakes.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sightline.config.checks import nearest, shown
from sightline.config.fitting import DataConfig
from sightline.data.cache import CachedImages
from sightline.data.corrections import Corrected, Decision, read_corrections
from sightline.data.excluding import without
from sightline.data.sources.table_rows import canonical_label
from sightline.data.splits import Splits
from sightline.errors import ConfigError

__all__ = ["correct", "correct_rows", "corrections_fingerprint", "with_corrected_labels"]

FLAG = "--data.corrections"
UNCHANGED = "nothing"  # in place of a digest, where every label was found right

Array = np.ndarray[Any, Any]


def correct(images: CachedImages, splits: Splits, data: DataConfig) -> tuple[CachedImages, Splits]:
    """Return a set and its splits with the labels that a corrections file decides, and without what it leaves out.

    Args:
        images: the set.
        splits: as they were cut of it.
        data: names the file, the classes that it may add, and whether test is corrected.
    Raises:
        ConfigError: the file cannot be read, is of another set, names an unknown class, or changes nothing.
        DataError: a class would have no training image, or nothing would be left to validate on.
    """
    assert data.corrections is not None
    what = f"{FLAG} {data.corrections}"
    stay = () if data.correct_test else splits.test.tolist()
    scope = _Scope(data.add_classes, adding=True, teaching=frozenset(splits.train.tolist()), staying=frozenset(stay))
    decided = _decide(images, data.corrections, what, scope)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    changed = {name: rows[decided.labels[rows] != decided.given[rows]] for name, rows in parts.items()}
    gone = {name: np.intersect1d(rows, decided.left_out) for name, rows in parts.items()}
    notes, of_test = [], (len(changed["test"]), len(gone["test"]))
    if data.correct_test and not any(of_test):
        raise ConfigError(f"--data.correct-test has no effect: {what} changes no test image; leave the option out.")
    if not data.correct_test:
        decided.labels[splits.test] = decided.given[splits.test]
        changed["test"], gone["test"] = splits.test[:0], splits.test[:0]
        if any(of_test):
            notes = [f"{sum(of_test):,} decided test images stay as they are labeled (--data.correct-test)"]
    for verb, rows_of in (("labels corrected", changed), ("left out as decided", gone)):
        if counts := ", ".join(f"{len(rows):,} of {name}" for name, rows in rows_of.items() if len(rows)):
            notes.append(f"{verb}: {counts}")
    if not any(of_test) and not any(
        map(len, (*changed.values(), *gone.values()))
    ):  # a review may find every label right
        notes.append(f"labels corrected: none; the images that {what} decides on are labeled so already")
    facts = {
        "digest": _digest(images, decided, [*changed.values(), *gone.values()]) or UNCHANGED,
        "labels": {name: len(rows) for name, rows in changed.items()},
        "left_out": {name: len(rows) for name, rows in gone.items()},
        **{name: _digest(images, decided, (changed[name], gone[name])) for name in ("validation", "test")},
    }
    corrected = replace(decided.images(images), corrected=decided.record(images, gone["test"], facts))
    splits = without(corrected, splits, np.concatenate(list(gone.values())), what)
    return corrected, replace(splits, notes=[*splits.notes, *notes, *decided.notes])


def correct_rows(
    images: CachedImages, rows: Array, path: str, known: Sequence[str] | None = None
) -> tuple[CachedImages, Array, list[str]]:
    """Return a set with all its labels as a corrections file decides them, and which of some rows it leaves.

    Args:
        images: the set.
        rows: to measure or to check, (n,).
        path: of the file.
        known: classes of a classifier, to measure it: images of a new class that is none of these are left out; None:
            every class that the file adds is one.
    Returns:
        The set, the rows that are left, and notes on what was not applied.
    Raises:
        ConfigError: as ``correct`` raises it.
    """
    scope = _Scope() if known is None else _Scope(known, teaching=frozenset(), why="the classifier does not know it")
    decided = _decide(images, path, f"{FLAG} {path}", scope)
    gone = np.intersect1d(rows, decided.left_out)
    changed = rows[decided.labels[rows] != decided.given[rows]]
    notes = [f"labels corrected: {len(changed):,}; left out as decided: {len(gone):,}", *decided.notes]
    facts = {"digest": _digest(images, decided, (changed, gone)), "labels": len(changed), "left_out": len(gone)}
    corrected = replace(decided.images(images), corrected=decided.record(images, gone, facts))
    return corrected, np.setdiff1d(rows, gone), notes


def corrections_fingerprint(images: CachedImages) -> str | None:
    """Return a text that changes when labels are corrected otherwise, or others left out; None where none are."""
    return None if images.corrected is None else str(images.corrected.facts["digest"])


def with_corrected_labels(images: CachedImages, corrected: CachedImages) -> CachedImages:
    """Return a set with the labels of a corrected one, whose rows are its first rows; further ones keep theirs."""
    if corrected.corrected is None:
        return images
    more = slice(len(corrected.labels), None)
    index_of = np.array([corrected.classes.index(name) for name in images.classes], np.int64)
    labels = np.concatenate([corrected.labels, np.where(images.labels[more] < 0, -1, index_of[images.labels[more]])])
    given = np.concatenate([corrected.corrected.labels, images.labels[more]])
    return replace(
        images, classes=corrected.classes, labels=labels, corrected=replace(corrected.corrected, labels=given)
    )


@dataclass(frozen=True)
class _Decided:
    """Labels of a set as the decisions of a file make them."""

    classes: list[str]
    given: Array
    """Labels as the set has them, as indices of ``classes``, (N,)."""
    labels: Array
    """As decided, (N,)."""
    left_out: Array
    """Rows that are left out."""
    rows: Array
    """Rows that something was decided on, and that it applies to."""
    notes: list[str] = field(default_factory=list)

    def images(self, images: CachedImages) -> CachedImages:
        """Return the set with these labels."""
        return replace(images, classes=self.classes, labels=self.labels)

    def record(self, images: CachedImages, left_out: Array, facts: Mapping[str, Any]) -> Corrected:
        """Return what is remembered of the set as it was."""
        return Corrected(images.classes, images.labels, left_out, self.rows, facts)


@dataclass(frozen=True)
class _Scope:
    """Which classes decisions may name, and which of them count."""

    known: Sequence[str] = ()
    """Classes beside those of the set."""
    adding: bool = False
    """Whether those must be new, and each be named."""
    teaching: frozenset[int] | None = None
    """Rows, of which a class that the file adds wants one; None: any will do."""
    staying: frozenset[int] = frozenset()
    """Rows that keep their label in any case, so that nothing is added for them."""
    why: str = "none of them is a training image"
    """Why images are left out whose class is not added."""


def _decide(images: CachedImages, path: str, what: str, scope: _Scope) -> _Decided:
    """Look every decided image up by its pixels, and settle what is decided on its label.

    Args:
        images: the set.
        path: of the corrections file.
        what: how messages name it.
        scope: what the decisions are for.
    """
    decisions = read_corrections(path)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row in images.readable.tolist():
        rows_of[images.hashes[row]].append(row)
    here = {digest: decision for digest, decision in decisions.items() if digest in rows_of}
    if not here:
        raise ConfigError(_of_another_set(images, decisions, what))
    decided = [(decision, rows_of[digest]) for digest, decision in here.items()]
    classes, index_of, added_not = _classes(images, decided, what, scope)
    place_of = np.array([classes.index(name) for name in images.classes], np.int64)
    given = np.where(images.labels < 0, -1, place_of[images.labels])
    labels, left_out, applied, stale, moved = given.copy(), [], [], [], 0
    for digest, decision in here.items():
        rows = rows_of[digest]
        moved += decision.file not in {images.paths[row] for row in rows}
        before, after = index_of(decision.before), None if decision.after is None else index_of(decision.after)
        names = {int(given[row]) for row in rows}
        if before not in names and names != {after}:
            stale.append((decision, classes[min(names)]))
            continue
        applied += rows
        if after is None:
            left_out += rows
        else:
            labels[rows] = after
    if not applied:
        decision, name = stale[0]
        raise ConfigError(
            f"{what} applies to none of the {len(here):,} images of {images.name} that it decides on, whose classes"
            f" have changed since: {shown(decision.file)} was {shown(decision.before)} and is {shown(name)}; review the"
            " set again."
        )
    notes = _notes(images, decisions, here, stale, moved)
    for name, count in added_not.items():
        notes.append(f"{count:,} images of the new class {shown(name)} are left out: {scope.why}")
    return _Decided(classes, given, labels, np.array(sorted(left_out), np.int64), np.array(sorted(applied)), notes)


def _classes(
    images: CachedImages, decided: Sequence[tuple[Decision, list[int]]], what: str, scope: _Scope
) -> tuple[list[str], Callable[[str], int | None], Mapping[str, int]]:
    """Settle which classes there are then.

    Args:
        images: the set.
        decided: decisions, each with the rows of its image.
        what: how messages name the file.
        scope: what the decisions are for.
    Returns:
        All classes in the order of indices; what looks the index of a name up, however it is spelled; and classes that
        the file adds and that are none here, with the number of their images.
    """
    known = [*images.classes, *(name for name in scope.known if name not in images.classes)]
    added: dict[str, str] = {}  # by their spelling, those that somebody chose to add
    for decision, rows in decided:
        if decision.new_class and (scope.teaching is None or not scope.teaching.isdisjoint(rows)):
            assert decision.after is not None
            added.setdefault(canonical_label(decision.after), decision.after)
    marked = {canonical_label(one.after) for one, _ in decided if one.new_class and one.after is not None}
    spelled = {canonical_label(name): name for name in known}
    if len(spelled) < len(known):  # two classes differ by their spelling alone
        spelled = {}
    exact = dict(zip(known, known, strict=True))

    def name_of(name: str) -> str | None:
        name = images.merged.get(name, name)  # what is merged is of one class, also as decided
        canonical = canonical_label(name)
        return exact.get(name) or spelled.get(canonical) or added.get(canonical)

    named, added_not = set(), Counter[str]()
    for decision, rows in decided:
        if decision.after is None:
            continue
        name = name_of(decision.after)
        if name is not None:
            named.add(name)
        elif scope.staying.issuperset(rows):
            continue
        elif canonical_label(decision.after) in marked:
            added_not[decision.after] += len(rows)
        else:
            raise ConfigError(_unknown(decision, images, known, what, scope.adding))
    for name in scope.known if scope.adding else ():
        if name in images.classes or name not in named or canonical_label(name) in added:
            why = f"{what} adds it by itself" if canonical_label(name) in added else f"no decision of {what} names it"
            why = f"{images.name} has that class" if name in images.classes else why
            raise ConfigError(f"--data.add-classes {name} has no effect: {why}; leave it out.")
    classes = sorted(named.union(images.classes))
    place_of = {name: index for index, name in enumerate(classes)}
    return classes, lambda name: place_of.get(name_of(name) or ""), added_not


def _unknown(decision: Decision, images: CachedImages, known: Sequence[str], what: str, adding: bool) -> str:
    """Say that a decision names a class that a set does not have, and how it is added."""
    assert decision.after is not None
    adds = f" --data.add-classes {decision.after} makes it a class, and so" if adding else " To make it a class,"
    return (
        f"{what} gives {shown(decision.file)} the class {shown(decision.after)}, which {images.name} does not have;"
        f" {nearest(decision.after, known)}{adds} {'does' if adding else 'write'} yes in the column new_class of that"
        " line."
    )


def _of_another_set(images: CachedImages, decisions: Mapping[str, Decision], what: str) -> str:
    there = set(images.paths)
    same = sum(decision.file in there for decision in decisions.values())
    but = f", though {same:,} of their files are, with other pixels" if same else ""
    return (
        f"{what} is of another image set: none of the {len(decisions):,} images that it decides on is in"
        f" {images.name}{but}; name the set that was reviewed."
    )


def _notes(
    images: CachedImages,
    decisions: Mapping[str, Decision],
    here: Mapping[str, Decision],
    stale: Sequence[tuple[Decision, str]],
    moved: int,
) -> list[str]:
    """Say which decisions find their image elsewhere, and which do not apply any more."""
    notes = []
    if moved:
        notes.append(f"{moved:,} decided images were found by their pixels under other names")
    gone = [decision for digest, decision in decisions.items() if digest not in here]
    if gone:
        there = set(images.paths)
        changed = sum(decision.file in there for decision in gone)
        more = f", {changed:,} of whose files now hold other pixels" if changed else ""
        notes.append(f"{len(gone):,} decided images are gone (the first: {gone[0].file}){more}")
    if stale:
        decision, name = stale[0]
        notes.append(
            f"{len(stale):,} decisions do not apply, since the class was changed meanwhile (the first: {decision.file}"
            f" was {decision.before} and is {name})"
        )
    return notes


def _digest(images: CachedImages, decided: _Decided, parts: Sequence[Array]) -> str | None:
    """Return a text that changes with what is decided on some rows; None of no rows."""
    if not any(map(len, parts)):
        return None
    out = set(decided.left_out.tolist())
    lines = sorted(
        f"{images.hashes[row]} {'' if row in out else decided.classes[decided.labels[row]]}"
        for row in {row for rows in parts for row in rows.tolist()}
    )
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]
