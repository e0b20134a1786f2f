"""Chosen against random images to label: Grocery Store photographs, from 100 to 500, 20 a round.

    python benchmarks/active.py ../shared/data/grocery.tar [DRAWS]

100 photographs of train are drawn at random, DRAWS (5) times. From each draw two ways lead on: 20 more a round at random, and
20 chosen as `sightline check --unlabeled` chooses them, from the features of the backbone in the box (computed once and kept)
and the probabilities of the head so far. After each round the head is solved for anew, as `sightline train` does for
photographs; its penalty is chosen by cross-validation within the labeled ones at every hundred, since that is most of the
time. Accuracy is measured on val and on test, which choose nothing here; intervals are those of the paired differences over
the draws (Student's t).
"""

import sys
import time

import numpy as np
import torch
from scipy.stats import t as student

from sightline.checks.active import spread_out
from sightline.config.networks import TimmConfig
from sightline.data.batches import Normalization
from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.inference.feature_store import FeatureStore
from sightline.inference.logistic_regression import Examples, Head, choose_head, solve_head
from sightline.measures.metrics import probabilities
from sightline.models.build import build_network
from sightline.models.pretrained import load_weights

START, ROUND, END = 100, 20, 500
PENALTY_EVERY = 100  # labeled images
FOLDS = 5
SHOWN = (100, 140, 200, 300, 400, 500)


def main(archive: str, draws: int) -> None:
    images = open_images(find_source(archive), 224)
    config = TimmConfig(name="tf_efficientnet_lite0", weights="box")
    network = build_network(config, 2, images.size)
    load_weights(network, config, images.size)
    store = FeatureStore(network, images, Normalization([0.5] * 3, [0.5] * 3), "float32")
    features = store.features(images.readable)
    labels = torch.from_numpy(images.labels[images.readable])
    sides = np.array([images.splits[row] for row in images.readable.tolist()])
    every = Examples(features, labels, len(images.classes))
    measured = {side: every.part(sides == side) for side in ("val", "test")}
    pool = np.flatnonzero(sides == "train")
    curves: dict[str, list[list[list[float]]]] = {"random": [], "chosen": []}
    start = time.process_time()
    for draw in range(draws):
        for way, found in curves.items():
            found.append(follow(every, measured, pool, way, draw))
            print(
                f"draw {draw}, {way}: {time.process_time() - start:.0f} s of the processor", file=sys.stderr, flush=True
            )
    accuracy = {way: np.array(found) for way, found in curves.items()}  # (draws, rounds, val and test)
    for side, name in enumerate(measured):
        report(name, len(measured[name]), accuracy["random"][..., side], accuracy["chosen"][..., side])


def follow(every: Examples, measured: dict[str, Examples], pool: np.ndarray, way: str, draw: int) -> list[list[float]]:
    """Label round after round; returns the accuracy on val and test after each."""
    random = np.random.default_rng(draw)
    order = random.permutation(pool)
    labeled, penalty, curve = order[:START], 0.0, []
    while True:
        known = every.part(labeled)
        if len(labeled) % PENALTY_EVERY == 0:
            folds = np.random.default_rng(0).permutation(len(labeled)) % FOLDS
            head: Head = choose_head(known, folds)
            penalty = head.penalty
        else:
            (head,) = solve_head(known, (penalty,))
        curve.append([float(head.right(part).mean()) for part in measured.values()])
        if len(labeled) >= END:
            return curve
        if way == "random":
            labeled = order[: len(labeled) + ROUND]
            continue
        rest = np.setdiff1d(pool, labeled)
        features = every.features_ND.numpy()
        chances = probabilities(head.logits(every.features_ND[rest]))
        places, _ = spread_out(features[rest], chances, ROUND, features[labeled])
        labeled = np.concatenate([labeled, rest[places]])


def report(name: str, n: int, random: np.ndarray, chosen: np.ndarray) -> None:
    print(f"\n{name}, n = {n:,}, {len(random)} draws\n")
    print("| labeled | random | chosen | difference | 95 % interval of it | n |\n|--:|--:|--:|--:|---|--:|")
    for images in SHOWN:
        place = (images - START) // ROUND
        print(line(str(images), random[:, place], chosen[:, place], n))
    print(line("mean of all rounds", random.mean(axis=1), chosen.mean(axis=1), n))
    goal, curve = random.mean(axis=0)[-1], chosen.mean(axis=0)
    if (curve >= goal).any():
        needed = START + ROUND * int(np.argmax(curve >= goal))
        print(f"\nWhat {END} random ones reach, {goal:.3f} on average, {needed} chosen ones reach.")


def line(what: str, random: np.ndarray, chosen: np.ndarray, n: int) -> str:
    difference = chosen - random
    half = student.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return (
        f"| {what} | {random.mean():.3f} | {chosen.mean():.3f} | {difference.mean():+.3f} |"
        f" {difference.mean() - half:+.3f} to {difference.mean() + half:+.3f} | {n:,} |"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
