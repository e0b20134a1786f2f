"""What adaptive views reach beside one and six: accuracy, log-likelihood and views of an image, on validation, by seeds.

    python benchmarks/adaptive.py DATA RECIPE [SEEDS] [SETTING=VALUE ...] [--test]

Trains SEEDS seeds (3) with `--evaluation.views adaptive` and without reading test, then deals the validation images of each
into two halves: temperatures and threshold are set on one half and measured on the other, and the other way round, so that no
image is measured that chose anything. One and six views are calibrated by the same halves. A run that is there is not trained
again. Settings are written as `fit.epochs=3`; the runs go to runs/adaptive-RECIPE-SEED. With --test all validation images
set temperatures and threshold, and the test split, which is read for nothing else, is measured.
"""

import sys
from pathlib import Path

import numpy as np

import sightline
from sightline.config.resolving import merge
from sightline.data.cache import open_as_trained
from sightline.data.sources.find_source import source_of_run
from sightline.data.splits import split_as
from sightline.evaluation.adaptive import choose_threshold, decided_outputs, passes
from sightline.evaluation.calibration import fit_temperature
from sightline.inference.classifier import Outputs
from sightline.inference.views import combine
from sightline.machine.environment import environment
from sightline.measures.metrics import probabilities
from sightline.runs.folder import read_model, read_run_recipe

SEEDS = 3
VIEWS = ("one", "six", "adaptive")

Array = np.ndarray


def main(data: str, recipe: str, seeds: int, settings: dict, on_test: bool) -> None:
    print(
        f"{'seed':>4} {'views':9} {'n':>6} {'accuracy':>9} {'log-likelihood':>15} {'views of an image':>18} {'thresholds':>12}"
    )
    every = {views: [] for views in VIEWS}
    for seed in range(seeds):
        run = Path("runs") / f"adaptive-{Path(recipe).stem}-{seed}"
        if not (run / "DONE").exists():
            own = {"evaluation": {"views": "adaptive", "on": "none", "robustness": False}, "fit": {"seed": seed}}
            sightline.train(data, recipe=recipe, settings=merge(settings, own), run=run)
        logits_VNK, labels_N = answers(run)
        if on_test:
            chosen_by = (logits_VNK, labels_N)
            logits_VNK, labels_N = answers(run, "test")
            chances, asked_N, threshold = set_and_answer(*chosen_by, logits_VNK)
            measured, thresholds = measures(chances, asked_N, labels_N), [threshold]
        else:
            measured, thresholds = crossed(logits_VNK, labels_N, seed)
        for views, (right_N, log_N, count) in measured.items():
            said = " ".join(f"{threshold:g}" for threshold in thresholds) if views == "adaptive" else ""
            print(
                f"{seed:4} {views:9} {len(labels_N):6,} {right_N.mean():9.4f} {log_N.mean():15.4f} {count:18.2f} {said:>12}",
                flush=True,
            )
            every[views].append((right_N, log_N, count))
    for column, name in enumerate(("accuracy", "log-likelihood")):
        for other in ("one", "six"):
            # of images that several seeds answer the mean of the seeds counts, so that each image is one
            differences_N = np.mean(
                [mine[column] - its[column] for mine, its in zip(every["adaptive"], every[other], strict=True)], axis=0
            )
            half = 1.96 * differences_N.std(ddof=1) / np.sqrt(len(differences_N))
            print(
                f"{name}, adaptive less {other}: {differences_N.mean():+.4f} (95 % over images {differences_N.mean() - half:+.4f} to {differences_N.mean() + half:+.4f}, {seeds} seeds)"
            )
    print(environment())


def answers(run: Path, split: str = "validation") -> tuple[Array, Array]:
    """Return the logits of all six views of a run's images, without the shift of class frequencies, and their classes."""
    model, recipe = read_model(run), read_run_recipe(run)
    classifier = sightline.load(run)
    sizes = (classifier.size, classifier.resize)
    images = open_as_trained(source_of_run(model), recipe.data.size, sizes, None, classifier.preprocessing)
    splits = split_as(recipe, images, model["data"]["split_rule"], run)
    rows = splits.test if split == "test" else splits.calibrate
    return classifier.view_logits(images.pixels, "six", rows=rows) - classifier.prior_shift("six"), images.labels[rows]


def crossed(logits_VNK: Array, labels_N: Array, seed: int) -> tuple[dict[str, tuple[Array, Array, float]], list[float]]:
    """Set on one half and measure on the other, both ways round; (right, log-likelihood, views of an image) by views."""
    halves = np.array_split(np.random.default_rng(seed).permutation(len(labels_N)), 2)
    chances = {views: np.zeros(logits_VNK.shape[1:]) for views in VIEWS}
    asked_N, thresholds = np.zeros(len(labels_N), bool), []
    for some, held in (halves, halves[::-1]):
        own, asked_N[held], threshold = set_and_answer(logits_VNK[:, some], labels_N[some], logits_VNK[:, held])
        thresholds.append(threshold)
        for views in VIEWS:
            chances[views][held] = own[views]
    return measures(chances, asked_N, labels_N), thresholds


def set_and_answer(some_VNK: Array, labels_N: Array, held_VNK: Array) -> tuple[dict[str, Array], Array, float]:
    """Set temperatures and threshold by some images; the probabilities of others by views, which are asked again."""
    temperatures = {views: fit_temperature(combine(some_VNK, views), labels_N) for views in ("one", "six")}
    temperatures["adaptive"] = temperatures["six"]
    own = [probabilities(combine(some_VNK, views), temperatures[views]) for views in ("one", "six")]
    threshold = choose_threshold(*own, labels_N)["threshold"]
    decided = decided_outputs(Outputs(held_VNK), temperatures, threshold)
    logits = {views: decided.logits_VNK if views == "adaptive" else held_VNK for views in VIEWS}
    chances = {views: probabilities(combine(logits[views], views), temperatures[views]) for views in VIEWS}
    return chances, decided.asked_N, threshold


def measures(chances: dict[str, Array], asked_N: Array, labels_N: Array) -> dict[str, tuple[Array, Array, float]]:
    """(Right, log-likelihood, views of an image), by views."""
    rows = np.arange(len(labels_N))
    counts = {"one": 1.0, "six": 6.0, "adaptive": passes(asked_N)}
    return {
        views: (
            (chances_NK.argmax(1) == labels_N).astype(float),
            np.log(np.maximum(chances_NK[rows, labels_N], 1e-12)),
            counts[views],
        )
        for views, chances_NK in chances.items()
    }


def written(words: list[str]) -> dict:
    """Return settings from words such as fit.epochs=3."""
    settings: dict = {}
    for word in words:
        name, _, value = word.partition("=")
        block, _, setting = name.rpartition(".")
        settings = merge(settings, {block: {setting: float(value) if "." in value else int(value)}})
    return settings


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--test"]
    if len(words) < 2:
        sys.exit(__doc__)
    seeds_given = len(words) > 2 and words[2].isdecimal()
    settings_given = written(words[3 if seeds_given else 2 :])
    main(words[0], words[1], int(words[2]) if seeds_given else SEEDS, settings_given, "--test" in sys.argv)
