"""Do the intervals of cross-validation hold? Few photographs of groceries, drawn many times, against all that are left over.

    python benchmarks/few.py ../shared/data/grocery.tar [DRAWS] [SIZES...]

20 and 50 photographs of the four largest classes, 100, 200 and 400 of the sixteen largest, of all splits, at least three a
class; DRAWS (100) of each size. Each draw does what `sightline train` does with so few: a probe fitted to all of them, and
its accuracy by repeated cross-validation with its interval. That is compared with the probe's accuracy on the photographs
that were not drawn.
"""

import sys
import time

import numpy as np
import torch

from sightline.config.networks import TimmConfig
from sightline.data.batches import Normalization
from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.inference.feature_store import FeatureStore
from sightline.inference.logistic_regression import Examples, choose_head, cross_validate
from sightline.measures.metrics import wilson_interval
from sightline.models.build import build_network
from sightline.models.pretrained import load_weights

CLASSES = {20: 4, 50: 4, 100: 16, 200: 16, 400: 16}
A_CLASS = 3  # photographs, at least
INNER = 5


def main(archive: str, draws: int, sizes: list[int]) -> None:
    images = open_images(find_source(archive), 224)
    config = TimmConfig(name="tf_efficientnet_lite0", weights="box")
    network = build_network(config, 2, images.size)
    load_weights(network, config, images.size)
    store = FeatureStore(network, images, Normalization([0.5] * 3, [0.5] * 3))
    largest = np.argsort(-np.bincount(images.labels[images.readable]), kind="stable")[: max(CLASSES.values())]
    rows = images.readable[np.isin(images.labels[images.readable], largest)]
    features = store.features(rows)
    place = {label: index for index, label in enumerate(largest.tolist())}
    labels = torch.tensor([place[label] for label in images.labels[rows].tolist()])
    print(
        f"{len(rows):,} photographs of {len(largest)} classes; {draws} draws of each size, {torch.get_num_threads()} threads"
    )
    print(
        "| photographs | classes | left over | mean accuracy (cross-validated) | on those left over | mean width | covered |"
    )
    print("| --: | --: | --: | --: | --: | --: | --: |")
    for size in sizes:
        report(size, features, labels, draws)


def report(size: int, features: torch.Tensor, labels: torch.Tensor, draws: int) -> None:
    classes = CLASSES[size]
    usable = np.flatnonzero(labels.numpy() < classes)
    estimates, truths, widths, covered = [], [], [], 0
    start = time.perf_counter()
    for draw in range(draws):
        chosen = drawn(size, labels.numpy(), usable, classes, draw)
        rest = np.setdiff1d(usable, chosen)
        inside, known = features[chosen], labels[chosen]

        def deal(folds: int, seed: int, known: torch.Tensor = known) -> np.ndarray:
            return stratified(known.numpy(), folds, seed)

        found = cross_validate(Examples(inside, known, classes), deal)
        head = choose_head(Examples(inside, known, classes), deal(INNER, 0))
        truth = float((head.logits(features[rest]).argmax(1) == labels[rest].numpy()).mean())
        estimates.append(found.accuracy)
        truths.append(truth)
        widths.append(found.interval[1] - found.interval[0])
        covered += found.interval[0] <= truth <= found.interval[1]
    low, high = wilson_interval(covered, draws)
    print(
        f"| {size} | {classes} | {len(usable) - size:,} | {np.mean(estimates):.3f} | {np.mean(truths):.3f} |"
        f" {np.mean(widths):.3f} | {covered} of {draws} ({low:.2f} to {high:.2f}) |  {time.perf_counter() - start:.0f} s",
        flush=True,
    )


def drawn(size: int, labels: np.ndarray, usable: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """So many photographs at random, at least A_CLASS of each class."""
    random = np.random.default_rng(seed)
    first = np.concatenate([random.permutation(usable[labels[usable] == label])[:A_CLASS] for label in range(classes)])
    others = random.permutation(np.setdiff1d(usable, first))[: size - len(first)]
    return np.sort(np.concatenate([first, others]))


def stratified(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """As ``deal_folds`` deals images without groups."""
    random = np.random.default_rng(seed)
    fold = np.zeros(len(labels), np.int64)
    place = 0
    for label in np.unique(labels):
        for index in random.permutation(np.flatnonzero(labels == label)):
            fold[index] = place % folds
            place += 1
    return fold


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[2:]]
    main(sys.argv[1], asked[0] if asked else 100, asked[1:] or list(CLASSES))
