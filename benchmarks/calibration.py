"""How well few images calibrate: likelihood, calibration error and confidence of wrong answers on held-out images.

python benchmarks/calibration.py calibration RUN [RUN ...]    the temperature by the rule in use and by the rule before
python benchmarks/calibration.py coverage RUN [RUN ...]       prediction sets; rare classes with thresholds of their own

Each run answers its own validation images, which it did not learn from and, without early stopping or `--fit.keep`, which
chose nothing. Of these some are drawn to calibrate, 300 times over for each number, and the others are measured. Runs
with many of them:

    sightline train CIFAR --recipe fast --data.validation 10000 --evaluate none
    sightline train digits --data.validation 700 --evaluate none
"""

import math
import sys
from pathlib import Path

import numpy as np

import sightline
from sightline.data.cache import open_as_trained
from sightline.data.sources.find_source import source_of_run
from sightline.data.splits import split_as
from sightline.evaluation.calibration import fit_temperature
from sightline.inference.views import combine
from sightline.machine.environment import environment
from sightline.measures.metrics import calibration_error, cross_entropy, probabilities
from sightline.runs.folder import read_model, read_run_recipe
from sightline_runtime.conformal import class_scores, classes_within, image_uniforms, threshold

COUNTS = (15, 30, 60, 100, 300, 2_500)  # of images that calibrate
DRAWS = 300
COLDEST, HOTTEST = 1 / 20, 20.0  # bounds of the rule before
COVERAGES = (0.9, 0.95)
CUTS = 100  # into calibration and test, for coverage
RARE = 0.1  # share of the images of a rare class that is kept, for coverage


def main(part: str, runs: list[str]) -> None:
    for run in map(Path, runs):
        logits_NK, labels_N, uniforms_N = answers(run)
        accuracy = (logits_NK.argmax(1) == labels_N).mean()
        print(f"{run.name}: {len(labels_N):,} validation images, accuracy {accuracy:.4f}")
        if part == "calibration":
            calibration(logits_NK, labels_N)
        else:
            coverage(logits_NK, labels_N, uniforms_N)
    print(environment())


def answers(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits of a run's validation images, their classes, and the random numbers of their sets."""
    model, recipe = read_model(run), read_run_recipe(run)
    classifier = sightline.load(run)
    sizes = (classifier.size, classifier.resize)
    images = open_as_trained(source_of_run(model), recipe.data.size, sizes, None, classifier.preprocessing)
    rows = split_as(recipe, images, model["data"]["split_rule"], run).calibrate
    logits_NK = combine(classifier.view_logits(images.pixels, classifier.views, rows=rows), classifier.views)
    return logits_NK, images.labels[rows], image_uniforms(images.pixels[row] for row in rows)


def calibration(logits_NK: np.ndarray, labels_N: np.ndarray) -> None:
    print(
        f"{'n':>5} {'rule':7} {'NLL':>7} {'error':>7} {'wrong':>6} {'T (90 % of draws)':>22} {'at a bound':>10}", end=""
    )
    print(f"   new less before, paired interval of 95 % over {DRAWS} draws: NLL, calibration error")
    for count in COUNTS:
        if count > len(labels_N) / 2:
            continue
        measured = {name: np.zeros((DRAWS, 4)) for name in ("before", "now")}
        for draw in range(DRAWS):
            order = np.random.default_rng(draw).permutation(len(labels_N))
            some, held = order[:count], order[count:]
            for name, rule in (("before", fit_before), ("now", fit_temperature)):
                temperature = rule(logits_NK[some], labels_N[some])
                measured[name][draw] = (*measure(logits_NK[held], labels_N[held], temperature), temperature)
        for name, (losses, errors, wrong, temperatures) in ((name, table.T) for name, table in measured.items()):
            low, middle, high = np.quantile(temperatures, (0.05, 0.5, 0.95))
            bounds = (COLDEST, HOTTEST) if name == "before" else (1e-3, 1e3)
            at_bound = ((temperatures < bounds[0] * 1.02) | (temperatures > bounds[1] / 1.02)).mean()
            spread = f"{middle:.3f} ({low:.3f} to {high:.3f})"
            print(f"{count:5} {name:7} {losses.mean():7.4f} {errors.mean():7.4f} {np.nanmean(wrong):6.3f}", end="")
            print(f" {spread:>22} {at_bound:10.1%}", end="\n" if name == "before" else "")
        print(
            "   ",
            ", ".join(interval((measured["now"] - measured["before"])[:, column]) for column in (0, 1)),
            flush=True,
        )


def measure(logits_NK: np.ndarray, labels_N: np.ndarray, temperature: float) -> tuple[float, float, float]:
    """Measure the negative log-likelihood, the calibration error, and the mean confidence of wrong answers."""
    chances_NK = probabilities(logits_NK, temperature)
    wrong = chances_NK.max(1)[chances_NK.argmax(1) != labels_N]
    confidence = float(wrong.mean()) if len(wrong) else math.nan
    return cross_entropy(logits_NK, labels_N, temperature), calibration_error(chances_NK, labels_N), confidence


def interval(differences: np.ndarray) -> str:
    half = 1.96 * differences.std(ddof=1) / math.sqrt(len(differences))
    return f"{differences.mean():+.5f} ({differences.mean() - half:+.5f} to {differences.mean() + half:+.5f})"


def fit_before(logits_NK: np.ndarray, labels_N: np.ndarray) -> float:
    """Find the temperature of least cross-entropy between 1/20 and 20, as before there was a prior."""
    low, high = math.log(COLDEST), math.log(HOTTEST)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if cross_entropy(logits_NK, labels_N, math.exp(left)) < cross_entropy(logits_NK, labels_N, math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


# ── prediction sets ──────────────────────────────────────────────────────────────────────────────────────────────────


def coverage(logits_NK: np.ndarray, labels_N: np.ndarray, uniforms_N: np.ndarray) -> None:
    """Print the coverage of sets over random cuts; then of an unbalanced set, whose rarest third has few images."""
    classes = logits_NK.shape[1]
    rare = np.arange(classes) < classes // 3
    for title, keeps in (("as it is", np.ones(classes)), ("unbalanced", np.where(rare, RARE, 1.0))):
        held = {key: [] for key in ((share, rule) for share in COVERAGES for rule in ("one", "own"))}
        for cut in range(CUTS):
            random = np.random.default_rng(cut)
            rows = random.permutation(np.flatnonzero(random.random(len(labels_N)) < keeps[labels_N]))
            some, test = rows[: len(rows) // 2], rows[len(rows) // 2 :]
            temperature = fit_temperature(logits_NK[some], labels_N[some])
            scores_NK = class_scores(probabilities(logits_NK, temperature), uniforms_N)
            true_N = scores_NK[np.arange(len(labels_N)), labels_N]
            for share in COVERAGES:
                own = [threshold(true_N[some][labels_N[some] == index], share) for index in range(classes)]
                own_K = np.array([np.inf if limit is None else limit for limit in own])
                for rule, within_NK in (
                    ("one", classes_within(scores_NK[test], threshold(true_N[some], share))),
                    ("own", scores_NK[test] <= own_K),
                ):
                    hit = within_NK[np.arange(len(test)), labels_N[test]]
                    is_rare = rare[labels_N[test]]
                    held[share, rule].append((hit.mean(), hit[is_rare].mean(), within_NK.sum(1).mean(), is_rare.sum()))
        print(f"{title}: {len(rows):,} images, half calibrate and half are measured, {CUTS} cuts")
        for (share, rule), rows_ in held.items():
            everything, of_rare, size, count = np.array(rows_).T
            print(
                f"  {share:.0%}, {'one threshold     ' if rule == 'one' else 'thresholds by class'}: all {spread(everything)};"
                f" rarest third {spread(of_rare)} (n = {count.mean():.0f} a cut); {size.mean():.3f} classes a set"
            )


def spread(shares: np.ndarray) -> str:
    half = 1.96 * shares.std(ddof=1) / math.sqrt(len(shares))
    return f"{shares.mean():.4f} (±{half:.4f}; cuts {shares.min():.4f} to {shares.max():.4f})"


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("calibration", "coverage"):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
