"""How far the numbers hold by which a classifier is to be trusted: sets and calibration.

python benchmarks/trust.py RUN           what the run's own test said (read when it was trained; not read again here)
python benchmarks/trust.py RUN choose    on validation only: sizes of sets by penalty, halves in turn
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

import sightline
from sightline.data.cache import open_as_trained
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.inference.views import combine
from sightline.machine.environment import environment
from sightline.measures.metrics import probabilities
from sightline.runs.folder import read_model, read_run_recipe
from sightline_runtime.conformal import class_scores, classes_within, image_uniforms, threshold

PENALTIES = (0.0, 0.01, 0.03, 0.1, 0.3)
COVERAGES = (0.9, 0.95)
ROUNDS = 20


def main(run: Path, words: list[str]) -> None:
    if words == ["choose"]:
        choose(run)
        return
    trust, measured = read_model(run)["trust"], json.loads((run / "evaluation.json").read_text())
    n, calibrated = measured["n"], trust["n"]
    print(f"{run}: {n:,} {measured['split']} images, calibrated on {calibrated:,}; accuracy {measured['accuracy']:.4f}")
    print(
        f"calibration error {measured['calibration_error']:.4f} (before scaling {measured['calibration_error_unscaled']:.4f})"
    )
    for name, found in measured["sets"].items():
        wanted = float(name)
        own = math.sqrt(wanted * (1 - wanted) / n)
        both = math.sqrt(wanted * (1 - wanted) * (1 / n + 1 / calibrated))
        apart = found["coverage"] - wanted
        print(
            f"sets for {wanted:.0%}: the true class within {found['coverage']:.4f}; {apart / own:+.1f} standard errors of"
            f" these images, {apart / both:+.1f} with those of the threshold; mean size {found['mean_size']:.3f},"
            f" empty {found['empty']:.4f}"
        )
    print(f"called unknown: {measured['unknown_share']:.4f} of its own test images")
    for name, rate in trust["unknown"]["rates"].items():
        print(f"called unknown: {rate['rate']:.4f} of {rate['n']:,} images of {name}")
    corruptions = trust.get("corruptions")
    if corruptions:
        print(f"accuracy of {corruptions['n']:,} validation images with one view: {corruptions['clean']:.4f}")
        for kind, values in corruptions["accuracy"].items():
            print(f"  {kind:>10}: " + " ".join(f"{value:.3f}" for value in values))
    print(
        ", ".join(
            f"{name} {value}" for name, value in environment().items() if name in ("processor", "torch", "sightline")
        )
    )


def validation(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and numbers of the images that the run was calibrated on."""
    recipe, model = read_run_recipe(run), read_model(run)
    exactly = (tuple(model["size"]), tuple(model["resize"]))
    images = open_as_trained(find_source(model["data"]["location"]), recipe.data.size, exactly)
    cut = split(
        images,
        validation=recipe.data.validation,
        fraction=recipe.data.fraction,
        seed=recipe.data.split_seed,
        selects=recipe.selects,
    )
    classifier = sightline.load(run)
    logits = combine(classifier.view_logits(images.pixels, classifier.views, rows=cut.calibrate), classifier.views)
    return logits, images.labels[cut.calibrate], image_uniforms(images.pixels[row] for row in cut.calibrate)


def choose(run: Path) -> None:
    logits, labels, uniforms = validation(run)
    chances = probabilities(logits, read_model(run)["temperatures"][read_model(run)["views"]])
    print(f"{len(labels):,} validation images, {ROUNDS} random halves: mean size of a set (coverage)")
    import sightline_runtime.conformal as conformal

    for penalty in PENALTIES:
        conformal.PENALTY = penalty
        scores = class_scores(chances, uniforms)
        cells = []
        for coverage in COVERAGES:
            sizes, held = [], []
            for seed in range(ROUNDS):
                order = np.random.default_rng(seed).permutation(len(labels))
                fit, rest = order[: len(order) // 2], order[len(order) // 2 :]
                within = classes_within(scores[rest], threshold(scores[fit, labels[fit]], coverage))
                sizes.append(within.sum(axis=1).mean())
                held.append(within[np.arange(len(rest)), labels[rest]].mean())
            cells.append(f"{coverage:.0%}: {np.mean(sizes):.3f} ({np.mean(held):.4f})")
        print(f"  penalty {penalty:>4}: " + "   ".join(cells))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
