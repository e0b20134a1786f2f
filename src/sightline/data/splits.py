"""Splits: the images that are trained on, choose, calibrate and test.

Images are dealt by the rank of a hash of their pixels (of their group where there is one) and the split seed, never by
the run's seed, so every run on a set has the same test images. Identical images, and images of one group, stay on one
side of every split that is cut here; splits that the set brings along are kept, and images that they share are counted.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config.generating import AnyRecipe
from sightline.data.cache import CachedImages
from sightline.data.seen import Kept, numbers_of, read_kept, read_own_kept
from sightline.data.units import grouped, units_of
from sightline.errors import ConfigError, DataError

__all__ = ["RULE", "Splits", "brings_validation", "split", "split_as", "statistics"]

TEST_SHARE = 1 / 5
VALIDATION_SHARE, VALIDATION_LEAST, VALIDATION_MOST = 1 / 10, 500, 5000
VALIDATION_LARGEST_SHARE = 1 / 5  # of train: a set of 1,000 images cannot spare 500
FEW = 500  # images without a test split, below which a probe is cross-validated: accuracy on a fifth says little
RULE = 3
"""How images are dealt, as runs note it. Until 2 a group that went beyond the wanted number was cut off all the same;
in 1, of a set with val and no test, a fifth of train was the test."""

Array = np.ndarray[Any, Any]
_NOTHING: Array = np.array([], np.int64)


@dataclass(frozen=True)
class Splits:
    """Rows of a set by what they are for; every array is sorted."""

    train: Array
    select: Array
    """Validation images that choose epochs and rates."""
    calibrate: Array
    """Validation images that set the temperature and thresholds."""
    test: Array
    shared_with_test: int = 0
    """Test images whose very pixels are also in train or validation (possible only where the set brings its splits)."""
    notes: list[str] = field(default_factory=list)
    """What a user should know about how the set was cut."""
    excluded: Array = field(default_factory=lambda: _NOTHING)
    """Images that a list keeps out of train and validation."""
    cross_validated: bool = False
    """Whether there are too few images to set any aside: all train, and cross-validation measures."""
    kept: Kept | None = None
    """The images of an earlier run, on whose sides those stay that are there."""
    rule: int = RULE
    """By which the images were dealt."""

    @property
    def validation(self) -> Array:
        return np.union1d(self.select, self.calibrate)

    def counts(self) -> dict[str, int]:
        """Count the images of each split."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def split_as(recipe: AnyRecipe, images: CachedImages, rule: int = RULE, run: Path | None = None) -> Splits:
    """Deal the images of a set as a recipe asks.

    Args:
        recipe: every setting.
        images: the set.
        rule: the rule that a run was dealt by, of its ``model.json``.
        run: that run, which has noted what it kept of an earlier one; None for a new training.
    """
    data = recipe.data
    kept = None
    if data.keep_split is not None:
        kept = (read_own_kept(run) if run is not None else None) or read_kept(data.keep_split)
    return split(
        images,
        validation=data.validation,
        fraction=data.fraction,
        seed=data.split_seed,
        selects=recipe.selects,
        few=FEW if recipe.probe is not None else 0,
        rule=rule,
        kept=kept,
    )


def split(
    images: CachedImages,
    *,
    validation: int | None = None,
    fraction: float = 1.0,
    seed: int = 0,
    selects: bool = False,
    few: int = 0,
    rule: int = RULE,
    kept: Kept | None = None,
) -> Splits:
    """Deal the readable images of a set.

    Args:
        images: the set.
        validation: images to keep out of train where the set has no validation split; None for a tenth of train.
        fraction: share of the training images to keep, class by class.
        seed: which of the possible splits is cut.
        selects: half of validation chooses while training (early stopping, restoring the best); else all of it
            calibrates.
        few: cross-validate where fewer images than this come without a test split and no ``validation`` is asked for.
        rule: by which they are dealt; see ``RULE``.
        kept: the images of an earlier run: they stay on its sides, and only the others are dealt.
    Raises:
        ConfigError: nothing can be kept: none of the images was in that run, or the set brings its splits.
        DataError: the set's own splits leave train without a class, or there are too few images to cut.
    """
    rows = images.readable
    dealt: dict[str | None, list[int]] = defaultdict(list)
    for row, name in enumerate(images.splits):
        dealt[name].append(row)
    parts = (np.intersect1d(rows, np.array(dealt[name], np.int64)) for name in ("train", None, "val", "test"))
    own_train, free, held_out, test = parts
    notes: list[str] = []
    if rule > 1 and len(held_out) and not len(test):
        held_out, test = _NOTHING, held_out
        notes.append("test: the set's val split, as it brings no other; validation is cut from train")
    train = np.concatenate([own_train, free])
    if not len(train):
        there = " and ".join(name for name, part in (("val", held_out), ("test", test)) if len(part))
        raise DataError(f"{images.name} has no training images, only {there}; add a train split.")
    stay = _staying(images, train, kept, test_given=bool(len(test)), validation_given=bool(len(held_out)))
    notes += stay.notes
    none_aside = not len(test) and not len(stay.test) and not len(stay.validation)
    if none_aside and len(train) < few and validation is None and fraction == 1:
        notes.append(f"too few to set any aside: cross-validation measures, all {len(train)} train")
        return Splits(
            np.sort(train), _NOTHING, _NOTHING, _NOTHING, notes=notes, cross_validated=True, kept=stay.kept, rule=rule
        )
    if not len(test):
        outside, count = np.union1d(stay.train, stay.validation), len(train)
        test, train = _cut(images, train, TEST_SHARE, seed, "test", held_out, stay.test, outside, rule=rule)
        if not len(test):
            raise DataError(
                f"{images.name} has too few images a class ({len(train)} in {len(images.classes)} classes) to cut a"
                " fifth of each off for test; add images, or a test split of your own."
            )
        notes.append("test: a fifth, class by class")
        if grouped(images, rows):
            notes[-1] = _reached("test", test, count, "a fifth")
    if not len(held_out):
        count = len(train)
        held_out, train = _cut_validation(images, train, validation, seed, test, stay, rule)
        if grouped(images, rows):
            notes.append(_reached("validation", held_out, count, f"{validation or _default_validation(count):,}"))
    elif validation is not None:
        raise DataError(
            f"--data.validation {validation} has no effect: {images.name} brings a validation split of"
            f" {len(held_out)} images; leave the option out."
        )
    if fraction < 1:
        train, _ = _cut(images, train, fraction, seed, "fraction")
    missing = _absent(images, train)
    if missing:
        raise DataError(
            f"class {missing[0]!r} of {images.name} has no training image; add some, or split the set another way."
        )
    select, calibrate = _halves(images, held_out, seed, notes, rule) if selects else (_NOTHING, held_out)
    for kind, part in (("test", test), ("validation", held_out)):
        absent = _absent(images, part)
        if absent:
            notes.append(f"{kind} has no image of {', '.join(map(repr, absent[:5]))}")
    learned_from = {images.hashes[row] for row in np.concatenate([train, held_out])}
    shared = sum(images.hashes[row] in learned_from for row in test)
    train, select, calibrate, test = (np.sort(part) for part in (train, select, calibrate, test))
    return Splits(train, select, calibrate, test, shared, notes, kept=stay.kept, rule=rule)


def _cut_validation(
    images: CachedImages, train: Array, count: int | None, seed: int, test: Array, stay: "_Staying", rule: int
) -> tuple[Array, Array]:
    """Cut images for validation off train: so many, or a tenth of it. Returns (validation, train)."""
    count = count or _default_validation(len(train))
    if count >= len(train):
        raise DataError(
            f"--data.validation {count} leaves nothing of the {len(train)} training images; choose a smaller number."
        )
    share = count / len(train)
    validation, left = _cut(images, train, share, seed, "validation", test, stay.validation, stay.train, rule=rule)
    if not len(validation):
        raise DataError(
            f"{images.name} has too few images a class ({len(left)} training images in {len(images.classes)} classes)"
            " to keep any for validation; add images, or a validation split of your own."
        )
    return validation, left


def _halves(images: CachedImages, validation: Array, seed: int, notes: list[str], rule: int) -> tuple[Array, Array]:
    """Cut validation into images that choose and images that calibrate."""
    select, calibrate = _cut(images, validation, 1 / 2, seed, "select", rule=rule)
    if not len(select):
        raise DataError(
            f"{images.name} has too few validation images ({len(validation)} in {len(images.classes)} classes) to"
            " choose by one half of them and calibrate on the other; leave out what chooses (--fit.keep,"
            " --early-stopping, plateau on validation), or validate on more."
        )
    notes.append(f"validation: {len(select):,} choose, {len(calibrate):,} calibrate")
    return select, calibrate


def _absent(images: CachedImages, rows: Array) -> list[str]:
    """Return the classes of which some rows have no image."""
    there = set(images.labels[rows].tolist())
    return [name for index, name in enumerate(images.classes) if index not in there]


def brings_validation(images: CachedImages) -> bool:
    """Return whether a set comes with a validation split that stays one: beside a test split."""
    return {"val", "test"} <= {images.splits[row] for row in images.readable.tolist()}


def statistics(images: CachedImages, rows: Array) -> tuple[list[float], list[float]]:
    """Compute mean and population standard deviation of each channel over all pixels of some rows, from 0 to 1.

    Counted exactly: a histogram of the 256 levels, then float64.
    """
    histogram = np.zeros((3, 256), np.int64)
    step = max(1, (64 << 20) // max(1, images.pixels[0].nbytes))
    for start in range(0, len(rows), step):
        block = images.pixels[rows[start : start + step]]
        for channel in range(3):
            histogram[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    return mean.tolist(), np.sqrt(variance).tolist()


@dataclass(frozen=True)
class _Staying:
    """Rows that are where an earlier run had them."""

    train: Array = field(default_factory=lambda: _NOTHING)
    validation: Array = field(default_factory=lambda: _NOTHING)
    test: Array = field(default_factory=lambda: _NOTHING)
    notes: Sequence[str] = ()
    kept: Kept | None = None


def _staying(
    images: CachedImages, rows: Array, kept: Kept | None, *, test_given: bool, validation_given: bool
) -> _Staying:
    """Return where an earlier run had the rows that a set leaves to be dealt."""
    if kept is None:
        return _Staying()
    if test_given and validation_given:
        raise ConfigError(
            f"--data.keep-split {kept.run} has no effect: {images.name} brings its test and validation splits; leave"
            " the option out."
        )
    train, validation, test = kept.sides(images, rows)
    count = len(train) + len(validation) + len(test)
    if not count:
        raise ConfigError(
            f"--data.keep-split {kept.run} has no effect: that run had none of the images of {images.name}; leave the"
            " option out, or name the run that was trained on a part of them."
        )
    if test_given:
        train, test = np.union1d(train, test), _NOTHING  # the set has its own word on what is test
    if validation_given:
        train, validation = np.union1d(train, validation), _NOTHING
    parts = {"train": train, "validation": validation, "test": test}
    said = ", ".join(f"{name} {len(part):,}" for name, part in parts.items() if len(part))
    note = f"as {kept.run} had them: {said}; dealt anew: {len(rows) - count:,}"
    named = numbers_of(images.hashes[row] for row in test)
    noted = replace(kept, tested=np.union1d(kept.tested, named), tested_paths=frozenset())
    return _Staying(train, validation, test, [note], noted)


def _default_validation(train: int) -> int:
    count = min(max(round(train * VALIDATION_SHARE), VALIDATION_LEAST), VALIDATION_MOST)
    return max(1, min(count, round(train * VALIDATION_LARGEST_SHARE)))


def _cut(
    images: CachedImages,
    rows: Array,
    share: float,
    seed: int,
    purpose: str,
    fixed: Array = _NOTHING,
    inside: Array = _NOTHING,
    outside: Array = _NOTHING,
    *,
    rule: int = RULE,
) -> tuple[Array, Array]:
    """Cut some rows off, whole units at a time, in the order of their hashes.

    A unit is a group, or the images of the same pixels. Without groups it goes class by class; groups may hold many
    classes, so they are dealt over the whole set.

    Args:
        share: of the images to cut off, of a class or of all; one image at least.
        fixed: rows that are dealt already; what belongs together with one of them is left.
        inside: rows that are cut off in any case, and count; what belongs together with one of them follows it.
        outside: rows that are left in any case, and so is what belongs together with one of them.
    Returns:
        (rows cut off, rows left).
    """
    dealt, within, without = (set(part.tolist()) for part in (fixed, inside, outside))
    cut: list[int] = inside.tolist()
    free: dict[int, list[str]] = defaultdict(list)
    total: dict[int, int] = defaultdict(int)
    taken: dict[int, int] = defaultdict(int)
    whole_groups = grouped(images, rows)
    labels = images.labels if images.unmerged is None else images.unmerged  # merging moves no image to another split
    units = units_of(images, np.concatenate([rows, fixed]))
    for unit, members in units.items():
        if not dealt.isdisjoint(members):
            continue
        stratum = 0 if whole_groups else int(labels[members[0]])
        total[stratum] += len(members)
        if not without.isdisjoint(members):
            taken[stratum] += len(within.intersection(members))
        elif not within.isdisjoint(members):
            cut.extend(set(members) - within)
            taken[stratum] += len(members)
        else:
            free[stratum].append(unit)
    for stratum, names in free.items():
        names.sort(key=lambda unit: hashlib.sha256(f"{purpose}\0{seed}\0{unit}".encode()).digest())
        count = max(1, round(total[stratum] * share))
        if within or without:  # however few were cut off before, at least half of what is new is left
            count = min(count, taken[stratum] + max(1, sum(len(units[unit]) for unit in names) // 2))
        sizes = [len(units[unit]) for unit in names]
        if whole_groups and rule > 2 and purpose != "fraction":  # a smaller fraction is a part of a larger one
            chosen = _toward(count - taken[stratum], sizes)
        else:  # of a class one is left
            chosen = _up_to(count - taken[stratum], sizes if purpose == "fraction" else sizes[:-1])
        cut += [row for place in chosen for row in units[names[place]]]
    cut_off = np.array(sorted(cut), np.int64)
    return cut_off, np.setdiff1d(rows, cut_off)


def _up_to(wanted: int, sizes: Sequence[int]) -> list[int]:
    """Return the places of the first units that hold so many images together; the last one may go beyond it."""
    before = np.cumsum([0, *sizes])[:-1]
    return np.flatnonzero(before < wanted).tolist()


def _toward(wanted: int, sizes: Sequence[int]) -> list[int]:
    """Return the places of units that hold about so many images together: one at least, and never all.

    Units are taken in their order where they fit; then one more where that comes nearer than none.
    """
    chosen: list[int] = []
    missing = wanted
    for place, size in enumerate(sizes):
        if size <= missing:
            chosen.append(place)
            missing -= size
    others = sorted((place for place in range(len(sizes)) if place not in chosen), key=lambda place: sizes[place])
    if others and missing > 0 and (not chosen or sizes[others[0]] < 2 * missing):
        chosen.append(others[0])
    return chosen[:-1] if len(chosen) == len(sizes) else chosen


def _reached(name: str, part: Array, of: int, wanted: str) -> str:
    return f"{name}: whole groups, {len(part):,} of {of:,} images ({len(part) / of:.1%}; {wanted} wanted)"
