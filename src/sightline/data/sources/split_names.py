"""The names of folders that stand for the splits of a set. Nothing here reads a file.

A name is cut into words: at anything that is no letter, and where a capital follows a small letter. It is a split where
one of the words is the word of a split and all others are affixes that say nothing (``seg_train``, ``train_images``,
``x-val``, ``TestSet``, ``val2017``). Any other words are taken for an affix where another folder beside it has the same
ones and is another split: ``asl_alphabet_train`` beside ``asl_alphabet_test``; ``crash_test`` by itself is a class.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

__all__ = [
    "SPLIT_NAMES",
    "UNLABELED",
    "is_affix",
    "is_split_name",
    "speaks_of_split",
    "split_of_name",
    "splits_among",
]

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "validating", "dev", "devel", "development", "eval", "evaluation"),
        "val",
    ),
    **dict.fromkeys(("test", "testing", "tests", "tst", "holdout", "heldout"), "test"),
}
"""Words for the splits, in small letters."""

UNLABELED = "unlabeled"
UNLABELED_NAMES = frozenset(
    ("pred", "predict", "prediction", "predictions", "inference", "submission", "unlabeled", "unlabelled")
)
"""Words for images without classes, which people lay beside the splits."""

AFFIXES = frozenset(
    (
        *("image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos", "file", "files"),
        *(
            "data",
            "dataset",
            "datasets",
            "set",
            "sets",
            "split",
            "splits",
            "subset",
            "folder",
            "folders",
            "dir",
            "part",
        ),
        *("sample", "samples", "example", "examples", "frame", "frames", "crop", "crops", "patches", "tiles", "scans"),
        *("seg", "x", "v", "px", "my", "the", "all", "only", "new", "final", "full", "complete", "raw", "original"),
        *("cropped", "resized", "augmented", "aug", "processed", "preprocessed", "normalized", "labeled", "labelled"),
        *("clean", "cleaned", "rgb", "gray", "grey", "png", "jpg", "jpeg", "single", "random", "official", "kaggle"),
        *("public", "private", "external", "internal", "independent", "unseen", "blind", "hidden", "orig"),
    )
)
"""Words that say nothing of what a folder holds."""

_CASES = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORDS = re.compile(r"[^\W\d_]+")
_AFFIX = "|".join(sorted(AFFIXES, key=len, reverse=True))
_JOINED = re.compile(
    f"(?:{_AFFIX})*({'|'.join(sorted({*SPLIT_NAMES, *UNLABELED_NAMES}, key=len, reverse=True))})(?:{_AFFIX})*"
)


def split_of_name(name: str) -> str | None:
    """``train``, ``val``, ``test`` or ``unlabeled`` where a folder's name says so by itself, else None."""
    split, rest = _read(name)
    return split if not rest else None


def is_split_name(name: str) -> bool:
    """Return whether a folder of this name is taken for a split, or for images without classes."""
    return split_of_name(name) is not None


def speaks_of_split(name: str) -> bool:
    """Return whether a split is one of the words of a folder's name, though others are there that no split has."""
    split, rest = _read(name)
    return split is not None and split != UNLABELED and bool(rest)


def is_affix(name: str) -> bool:
    """Return whether a folder's name says nothing of what it holds: ``images``, ``my data``, ``files2``."""
    words = _words(name)
    return bool(words) and all(word in AFFIXES or word in UNLABELED_NAMES for word in words)


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Return the split of each of some folders that lie beside each other and look like one."""
    read = {name: _read(name) for name in names}
    by_affix: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for split, rest in read.values():
        if split is not None and split != UNLABELED:
            by_affix[rest].add(split)
    return {
        name: split
        for name, (split, rest) in read.items()
        if split is not None and (not rest or len(by_affix[rest]) > 1)
    }


@lru_cache(maxsize=4096)
def _read(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the split that a name speaks of, and its other words, those that say nothing left out."""
    if "%" in name:
        return None, (name,)  # a class that is called like a split, as ``layout.class_folder`` writes it
    joined = [(word, _JOINED.fullmatch(word)) for word in _words(name)]
    rest = tuple(word for word, match in joined if match is None and word not in AFFIXES)
    kinds = {SPLIT_NAMES.get(match[1], UNLABELED) for _, match in joined if match}
    splits = kinds - {UNLABELED}
    if splits == {"train", "val"}:
        return "train", rest  # as "trainval" is
    if len(splits) > 1:
        return None, rest  # "train_test_split": a folder around both
    return next(iter(splits or kinds), None), rest


def _words(name: str) -> list[str]:
    words = _WORDS.findall(_CASES.sub(" ", name).lower())
    for place in range(len(words) - 1, 0, -1):
        if words[place] == "out" and words[place - 1] in ("hold", "held"):
            words[place - 1 : place + 1] = ["holdout"]
    return words
