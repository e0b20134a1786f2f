"""Wrong labels that people really gave: how well they are found, and what a training gains by it.

CIFAR-10N (Wei et al., ICLR 2022; CC BY-NC, so it is read and never shipped) says what people answered for CIFAR-10's
training images: the majority of three (aggregate, 9.0 % wrong), and one of them (random1, 17.2 % wrong).

    python benchmarks/labels.py CIFAR_ARCHIVE CIFAR10N_CSV [--out studies/labels] [--noise random1 aggregate]
        [--judge trained] [--heads] [--ways raw suggested ...] [--seeds 3] [--fraction 0.2]

Judges both as ``sightline check --labels box`` does and as ``--labels trained`` does, then (--heads) solves for linear
heads on the same features, then trains ``--recipe fast`` on a fraction of train with the labels of the single annotator
(--seeds 0 leaves that out), suspects and suggestions being those of --judge. The test split, whose labels are right, is
read once for each head and once for each training. What a training reached is kept in --out; the same command goes on
from there.
"""

import argparse
import csv
import json
import lzma
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sightline
from sightline.checks.cross_fitting import cross_fit, deal, pool
from sightline.checks.embedding import embed
from sightline.checks.label_errors import FOLDS, out_of_fold, true_class_posterior
from sightline.config.resolving import read_recipe, resolve
from sightline.data.cache import CachedImages, open_images
from sightline.data.folds import deal_folds
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split_as
from sightline.display.reporting import ignore
from sightline.inference.logistic_regression import Examples, solve_head
from sightline.measures.metrics import cross_entropy, suspected_labels, wilson_interval
from sightline.measures.significance import mean_interval

DRAWS = 200  # bootstrap samples of the images, for the interval of an area under ROC
HELD_OUT = 5_000  # training images by whose labels the penalty of a head is chosen
PENALTIES = (0.1, 0.03)
ITERATIONS = 40  # of L-BFGS for each
ROBUST = {"loss": "generalized_cross_entropy", "label_smoothing": 0.0}
WAYS = ("raw", "suggested", "true", "without", "robust loss")  # in which trainings run, all of a seed first
JUDGES = ("box", "trained")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("archive")
    parser.add_argument("answers", help="the file of CIFAR-10N")
    parser.add_argument("--out", type=Path, default=Path("studies/labels"))
    parser.add_argument("--noise", nargs="+", choices=("random1", "aggregate"), default=["random1", "aggregate"])
    parser.add_argument("--judge", choices=JUDGES, default="trained")
    parser.add_argument("--heads", action="store_true")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    source = find_source(options.archive)
    images = open_images(source)
    start = time.perf_counter()
    embedding = embed(source, None, on_event=print)
    features_ND = np.concatenate([embedding.features_ND, embedding.late_ND], axis=1)
    print(
        f"{embedding.name}: {embedding.computed:,} images computed in {time.perf_counter() - start:.0f} s", flush=True
    )
    train = np.array([row for row in images.readable.tolist() if images.splits[row] == "train"])
    given = read_answers(options.answers, images, train)
    for noise in options.noise:
        variants = judge(options, noise, images, train, given[noise], given["true"], features_ND[train])
        if options.heads:
            probe(noise, images, train, variants, features_ND)
        if noise == "random1" and options.seeds:
            train_all(options, images, train, variants)


def read_answers(path: str, images: CachedImages, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Read the classes that people gave some images, by who gave them, and the true ones."""
    with lzma.open(path, "rt", newline="") as file:
        of = {line["path"]: line for line in csv.DictReader(file)}
    index = {name: number for number, name in enumerate(images.classes)}
    return {
        key: np.array([index[of[images.paths[row]][key]] for row in rows.tolist()])
        for key in ("true", "aggregate", "random1")
    }


def judge(
    options: argparse.Namespace,
    noise: str,
    images: CachedImages,
    rows: np.ndarray,
    given: np.ndarray,
    true: np.ndarray,
    features_ND: np.ndarray,
) -> dict[str, np.ndarray]:
    """Print how well wrong labels are found; returns the labels of each way to train, -1 where one is left out."""
    labels = images.labels.copy()
    labels[rows] = given
    noisy = replace(images, labels=labels)
    start = time.perf_counter()
    probabilities = out_of_fold(features_ND, given, deal_folds(noisy, rows, FOLDS, 0), len(images.classes))
    print(f"\n{noise}: {len(rows):,} images, {(given != true).sum():,} wrong")
    found = as_judged(f"heads, {time.perf_counter() - start:.0f} s", probabilities, given, true)
    if options.judge == "box":
        return found
    start = time.perf_counter()
    path = options.out / f"{noise}.csv"
    write_labels(path, images, rows, given)
    splits = split_as(resolve(read_recipe("fast")), images)
    networks = cross_fit(options.archive, noisy, deal(noisy, splits), {"corrections": str(path)}, shown)
    networks = networks[np.searchsorted(images.readable, rows)]
    as_judged(f"networks alone, {time.perf_counter() - start:.0f} s", networks, given, true)
    return as_judged("both", pool(probabilities, networks, given), given, true)


def shown(done: int, total: int) -> None:
    print(f"epoch {done} of {total}, {time.process_time():.0f} s of the processor", flush=True)


def as_judged(by: str, probabilities: np.ndarray, given: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """Print how well a judge finds wrong labels; returns the labels of each way to train that it proposes."""
    places, wrong = np.arange(len(given)), given != true
    posterior = true_class_posterior(probabilities, given)
    quality = posterior[places, given]
    suspects = np.argsort(quality, kind="stable")[: len(suspected_labels(probabilities, given, "noise rate"))]
    others = posterior.copy()
    others[places, given] = -1
    suggested = others.argmax(axis=1)
    area, (low, high) = area_with_interval(-quality, wrong)
    flagged = wrong[suspects]
    right = suggested[suspects] == true[suspects]
    accuracy = (probabilities.argmax(1) == true).mean()
    print(f"{by}: area under ROC {area:.4f} ({low:.4f} to {high:.4f}); right out of fold {accuracy:.4f}")
    claimed = others[suspects, suggested[suspects]].mean()
    print(
        f"{len(suspects):,} suspects: precision {with_interval(flagged.sum(), len(suspects))}, recall"
        f" {with_interval(flagged.sum(), wrong.sum())}; the suggestion is true for {right[flagged].mean():.3f} of those"
        f" found, and for {right.mean():.3f} of all suspects, where it claims {claimed:.3f}",
        flush=True,
    )
    corrected, without = given.copy(), given.copy()
    corrected[suspects], without[suspects] = suggested[suspects], -1
    sure = others[places, suggested] > 1 / 2
    return {
        "raw": given,
        "suggested": np.where(sure, suggested, given),  # where the suggestion is more probable than not
        "every suggestion": corrected,
        "true": true,
        "without": without,
    }


def area_with_interval(scores: np.ndarray, positive: np.ndarray) -> tuple[float, tuple[float, float]]:
    """The area under ROC, and its interval by a bootstrap over the images."""
    random = np.random.default_rng(0)
    draws = (random.integers(0, len(scores), len(scores)) for _ in range(DRAWS))
    areas = [area_under_roc(scores[draw], positive[draw]) for draw in draws]
    low, high = np.quantile(areas, (0.025, 0.975))
    return area_under_roc(scores, positive), (float(low), float(high))


def area_under_roc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive has a higher score than a negative; ties count a half (Mann and Whitney's U)."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    least = positive.sum() * (positive.sum() + 1) / 2
    return float((ranks[positive].sum() - least) / (positive.sum() * (~positive).sum()))


def with_interval(count: int, total: int) -> str:
    low, high = wilson_interval(float(count), float(total))
    return f"{count / total:.3f} ({low:.3f} to {high:.3f})"


def probe(
    noise: str,
    images: CachedImages,
    rows: np.ndarray,
    variants: dict[str, np.ndarray],
    features_ND: np.ndarray,
) -> None:
    """Print the accuracy on test of linear heads that were fitted to each kind of labels, against that on the raw."""
    test = np.array([row for row in images.readable.tolist() if images.splits[row] == "test"])
    right: dict[str, np.ndarray] = {}
    for name, labels in variants.items():
        kept = np.random.default_rng(0).permutation(len(rows))
        kept = kept[labels[kept] >= 0]
        held, fitted = kept[:HELD_OUT], kept[HELD_OUT:]
        features = torch.from_numpy(features_ND[rows[fitted]])
        heads = solve_head(
            Examples(features, torch.from_numpy(labels[fitted]), len(images.classes)), PENALTIES, ITERATIONS
        )
        of_held = torch.from_numpy(features_ND[rows[held]])
        head = min(heads, key=lambda one: cross_entropy(one.logits(of_held), labels[held]))
        right[name] = head.logits(torch.from_numpy(features_ND[test])).argmax(1) == images.labels[test]
        gain = right[name].astype(float) - right["raw"]
        half = 1.96 * gain.std() / len(gain) ** 0.5
        print(
            f"probe, {noise}, {name}: {right[name].mean():.4f} on test, {gain.mean():+.4f} ({gain.mean() - half:+.4f} to"
            f" {gain.mean() + half:+.4f}) beside raw, image by image (n = {len(gain):,}; {len(fitted):,} fitted to)",
            flush=True,
        )


def train_all(
    options: argparse.Namespace, images: CachedImages, rows: np.ndarray, variants: dict[str, np.ndarray]
) -> None:
    """Train by ``fast`` on each kind of labels, as a corrections file has them, and print what it gains by seeds."""
    reached: dict[str, list[float]] = {way: [] for way in options.ways}
    for seed in range(options.seeds):
        for way in options.ways:
            by = f"-{options.judge}" if way in ("suggested", "without") else ""
            run = options.out / f"{way.replace(' ', '-')}{by}-{seed}-{options.fraction:g}"
            if not (run / "DONE").exists():
                path = options.out / f"{run.name}.csv"
                write_labels(path, images, rows, variants["raw" if way == "robust loss" else way])
                fit: dict[str, Any] = {"seed": seed} | (ROBUST if way == "robust loss" else {})
                data: dict[str, Any] = {"fraction": options.fraction}
                if way != "true":  # which the set has already
                    data["corrections"] = str(path)
                settings = {"fit": fit, "data": data, "evaluation": {"robustness": False}}
                sightline.train(
                    options.archive, recipe="fast", settings=settings, run=run, resume=run.exists(), on_event=ignore
                )
            reached[way].append(json.loads((run / "evaluation.json").read_text())["accuracy"])
            print(f"fast, {run.name}: {reached[way][-1]:.4f}", flush=True)
    if "raw" in reached:
        raw = np.array(reached["raw"])
        for way, values in reached.items():
            gain = np.array(values) - raw
            interval = mean_interval(gain)
            within = "" if interval is None else f" ({interval[0]:+.4f} to {interval[1]:+.4f})"
            print(
                f"fast, random1, {way}: {np.mean(values):.4f}, {gain.mean():+.4f}{within} beside raw (n = {len(raw)})"
            )


def write_labels(path: Path, images: CachedImages, rows: np.ndarray, labels: np.ndarray) -> None:
    """Write a corrections file by which training images get these labels; those of -1 are left out."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "hash", "from", "to", "decided_by", "when", "why"])
        seen: set[str] = set()
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            own = int(images.labels[row])
            if label != own and images.hashes[row] not in seen:
                seen.add(images.hashes[row])
                to = images.classes[label] if label >= 0 else ""
                writer.writerow([images.paths[row], images.hashes[row], images.classes[own], to, "benchmark", "", ""])


if __name__ == "__main__":
    main()
