"""How often a check is right about classes: which are one, which are two, and what twice the images bring.

On features of the backbone in the box. Nothing may be named of the classes as they are. Then halves of a class, drawn
at random, are given two names, and two classes one name: both must be found, and nothing else. Last, the learning curve
of a half of the images is compared with what heads on all of them reach on the same images.

    python benchmarks/classes.py digits 1797 path/to/cifar10 6000
"""

import sys

import numpy as np

from sightline.checks.confusion import confused_pairs
from sightline.checks.embedding import embed
from sightline.checks.label_errors import FOLDS, out_of_fold
from sightline.checks.learning_curve import learning_curve
from sightline.checks.two_groups import two_groups
from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source

PAIRS, DRAWS = 20, 8
PENALTIES = (0.3, 0.1)


def folds(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    random, fold = np.random.default_rng(seed), np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        order = random.permutation(np.flatnonzero(labels == label))
        fold[order] = np.arange(len(order)) % FOLDS
    return fold


def answers(features: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0) -> np.ndarray:
    return out_of_fold(features, labels, folds(labels, seed), classes, penalties=PENALTIES)


def planted(name: str, features: np.ndarray, labels: np.ndarray, first: np.ndarray, classes: int) -> None:
    random, counts = np.random.default_rng(5), np.bincount(labels, minlength=classes)
    chances = answers(features, labels, classes)
    named = len(confused_pairs(chances, labels)), len(two_groups(features, labels, first))
    print(f"{name}: {named[0]} pairs and {named[1]} classes of two groups among the {classes} classes as they are")
    found = others = 0
    halved = [label for label in np.argsort(-counts)[:10].tolist() if counts[label] >= 20]
    for label in halved:
        given, order = labels.copy(), random.permutation(np.flatnonzero(labels == label))
        given[order[: len(order) // 2]] = classes
        pairs = confused_pairs(answers(features, given, classes + 1), given)
        hit = any({pair.one, pair.other} == {label, classes} for pair in pairs)
        found, others = found + hit, others + len(pairs) - hit
    print(f"{name}: random halves of a class named {found} of {len(halved)}; other pairs {others}")
    found = others = 0
    for _ in range(PAIRS):
        one, other = random.choice(np.flatnonzero(counts >= 20), 2, replace=False).tolist()
        groups = two_groups(features, np.where(labels == other, one, labels), first)
        hit = any(group.label == one for group in groups)
        found, others = found + hit, others + len(groups) - hit
    print(f"{name}: two classes of one name found {found} of {PAIRS}; other classes {others}")


def extended(name: str, features: np.ndarray, labels: np.ndarray, classes: int) -> None:
    random, told, held, errors = np.random.default_rng(7), [], 0, []
    for draw in range(DRAWS):
        half = np.sort(np.concatenate([
            random.permutation(np.flatnonzero(labels == label))[: (labels == label).sum() // 2] for label in range(classes)
        ]))  # fmt: skip

        def answer(part: np.ndarray, half: np.ndarray = half, draw: int = draw) -> np.ndarray:
            return answers(features[half[part]], labels[half[part]], classes, draw).argmax(1)

        curve = learning_curve(labels[half], answer)
        if curve is None:
            print(f"{name}: too few images a class for a learning curve")
            return
        right = answers(features, labels, classes, draw).argmax(1) == labels
        gained = float(right[half].mean()) - curve.accuracy[-1]
        told, errors = [*told, curve.gain], [*errors, gained]
        held += curve.interval[0] <= gained <= curve.interval[1]
    print(
        f"{name}: twice {len(labels) // 2:,} images gain {np.mean(errors):.4f} in the mean of {DRAWS} draws, foretold"
        f" {np.mean(told):.4f}; in the interval {held} of {DRAWS}"
    )


def main(arguments: list[str]) -> None:
    for name, most in zip(arguments[::2], arguments[1::2], strict=True):
        source = find_source(name)
        images, embedding = open_images(source), embed(source, None)
        rows = images.readable[np.array([images.splits[row] != "test" for row in images.readable.tolist()])]
        rows = np.sort(np.random.default_rng(0).permutation(rows)[: int(most)])
        features = embedding.features_ND[embedding.places(rows)]
        labels, classes = images.labels[rows], len(images.classes)
        first = np.unique([images.hashes[row] for row in rows.tolist()], return_index=True)[1]
        planted(images.name, features, labels, first, classes)
        extended(images.name, features, labels, classes)


if __name__ == "__main__":
    main(sys.argv[1:])
