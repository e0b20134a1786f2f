"""Labels changed on purpose: how well they are found, and what a training gains without the suspects.

Of the training images of an archive with train/ and test/ a share is drawn, and some of their labels are changed, each to
another class, all by one seed. The features come from a finished run, or from one of these very trainings:

    python benchmarks/labels.py RUN ../shared/data/cifar10-jpeg.tar.xz [FRACTION [CHANGED [SPLIT]]]
        of a run that was trained on the labels as they were: the easy case; with SPLIT test, labels of test images are
        changed, which the run has never seen
    python benchmarks/labels.py own ../shared/data/cifar10-jpeg.tar.xz [FRACTION [CHANGED [SEEDS [EPOCHS]]]]
        of a run that was trained on the changed labels; then training with and without the suspects
"""

import csv
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import sightline
from sightline.checks.label_errors import folds_of, out_of_fold
from sightline.data.batches import derived_seed
from sightline.data.cache import CachedImages, open_images
from sightline.data.sources.find_source import find_source
from sightline.display.reporting import ignore
from sightline.inference.encoder import Encoder
from sightline.inference.predict import load
from sightline.measures.metrics import label_quality, suspected_labels
from sightline.measures.significance import mean_interval

SEED = 0


def main() -> None:
    run, archive = sys.argv[1:3]
    fraction = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
    changed = int(sys.argv[4]) if len(sys.argv) > 4 else 500
    if run == "own":
        seeds = int(sys.argv[5]) if len(sys.argv) > 5 else 3
        epochs = int(sys.argv[6]) if len(sys.argv) > 6 else 16
        train_with_and_without(archive, fraction, changed, seeds, epochs)
        return
    classifier = load(run)
    images = open_images(find_source(archive), None, exactly=(classifier.size, classifier.resize))
    judge(run, images, *plant(images, fraction, changed, *sys.argv[5:6]))


def judge(run: str | Path, images: CachedImages, rows: np.ndarray, given: np.ndarray) -> None:
    """Print how well the changed labels are found on the features of a run."""
    wrong = given != images.labels[rows]
    start = time.perf_counter()
    features = Encoder(load(run)).encode_rows(images.pixels, rows)
    encoded = time.perf_counter()
    probabilities = out_of_fold(features, given, folds_of([images.hashes[row] for row in rows]), len(images.classes))
    suspects = suspected_labels(probabilities, given, "noise rate")
    judged = time.perf_counter()
    quality = label_quality(probabilities, given)
    first = np.argsort(quality, kind="stable")[: wrong.sum()]
    flagged = wrong[suspects]
    print(f"{len(rows):,} images of {images.name}, {wrong.sum()} labels changed (seed {SEED}); features of {run}")
    print(f"area under ROC of the quality of the labels: {area_under_roc(-quality, wrong):.4f}")
    print(f"precision at {wrong.sum()}: {wrong[first].mean():.3f}")
    print(
        f"suspects by confident learning: {len(flagged)}, of which {flagged.sum()} were changed: precision"
        f" {flagged.mean():.3f}, recall {flagged.sum() / wrong.sum():.3f}; the class suggested is the true one of"
        f" {(probabilities.argmax(axis=1) == images.labels[rows])[suspects][flagged].mean():.3f} of those"
    )
    print(f"encoding {encoded - start:.0f} s, folds and suspects {judged - encoded:.0f} s", flush=True)


def plant(images: CachedImages, fraction: float, changed: int, cut: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Draw images of a split and change some of their labels: (rows, labels)."""
    random = np.random.default_rng(derived_seed(SEED, "planted labels"))
    all_of_them = np.array([row for row in images.readable.tolist() if images.splits[row] == cut])
    rows = np.sort(random.choice(all_of_them, round(len(all_of_them) * fraction), replace=False))
    given = images.labels[rows].copy()
    places = random.choice(len(rows), changed, replace=False)
    classes = len(images.classes)
    given[places] = (given[places] + random.integers(1, classes, changed)) % classes
    return rows, given


def area_under_roc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive has a higher score than a negative; ties count a half (Mann and Whitney's U)."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    least = positive.sum() * (positive.sum() + 1) / 2
    return float((ranks[positive].sum() - least) / (positive.sum() * (~positive).sum()))


def train_with_and_without(archive: str, fraction: float, changed: int, seeds: int, epochs: int) -> None:
    """Train on changed labels, and without the suspects that ``sightline check`` finds by the first of these runs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = open_images(find_source(archive))
        rows, given = plant(images, fraction, changed)
        manifest = write_set(images, rows, given, folder)
        accuracies: dict[str, list[float]] = {"with the suspects": [], "without them": []}
        runs = [folder / f"with-{seed}" for seed in range(seeds)]
        for seed, run in enumerate(runs):
            accuracies["with the suspects"].append(train(manifest, run, seed, epochs, None))
        judge(runs[0], images, rows, given)
        check = sightline.check(manifest, labels=runs[0], out=folder / "check")
        exclude = folder / "suspects.csv"
        with (check.folder / "findings.csv").open(newline="") as file:
            suspected = [row for row in csv.DictReader(file) if row["finding"] == "suspected label"]
        learnt = [row["file"] for row in suspected if row["split"] != "test"]
        exclude.write_text("\n".join(["file", *learnt]) + "\n")
        print(f"{len(learnt)} suspects are left out of train and validation", flush=True)
        for seed in range(seeds):
            accuracies["without them"].append(train(manifest, folder / f"without-{seed}", seed, epochs, exclude))
        gain = np.subtract(*reversed(list(accuracies.values())))
        for name, values in (*accuracies.items(), ("gain, seed by seed", gain)):
            interval = mean_interval(np.array(values))
            shown = "" if interval is None else f", 95 % interval {interval[0]:.4f} to {interval[1]:.4f}"
            print(f"{name}: {np.mean(values):.4f}{shown} (n = {len(values)})")


def train(manifest: Path, run: Path, seed: int, epochs: int, exclude: Path | None) -> float:
    """Train a small network and return its accuracy on test, where every label is as it was."""
    settings = {
        "network": {"kind": "speednet", "widths": [32, 128, 128]},
        "augment": {"flip": "random", "crop": {"kind": "pad_crop", "padding": 4}},
        "fit": {"seed": seed, "epochs": epochs},
        "data": {"exclude": None if exclude is None else str(exclude)},
        "evaluation": {"robustness": False},
    }
    sightline.train(manifest, recipe="small", settings=settings, run=run, on_event=ignore)
    accuracy: float = json.loads((run / "evaluation.json").read_text())["accuracy"]
    print(f"{run.name}: {accuracy:.4f}", flush=True)
    return accuracy


def write_set(images: CachedImages, rows: np.ndarray, given: np.ndarray, folder: Path) -> Path:
    """Write the drawn training images under the labels given, and all test images, beside a manifest."""
    wanted = {images.paths[row]: label for row, label in zip(rows.tolist(), given.tolist(), strict=True)}
    source = find_source(images.location)
    entries = [
        entry
        for entry in source.scan().entries
        if entry.split == "test" or (entry.split == "train" and entry.path in wanted)
    ]
    index_of = {name: index for index, name in enumerate(images.classes)}
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for index, content in source.read(entries):
            entry = entries[index]
            assert isinstance(content, bytes)
            path = folder / "images" / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            label = wanted.get(entry.path, index_of[entry.label])
            writer.writerow([f"images/{entry.path}", images.classes[label], entry.split])
    return folder / "manifest.csv"


if __name__ == "__main__":
    main()
