"""The rate that ``find rate`` finds against the best rate of a small grid, by trainings of equal steps on validation.

For each recipe: the range test with its short trainings; then one training at each rate of a grid by factors of 3 around
what was found (Muon's three rates by one factor), and further out while the best lies at an edge. The best has the lowest
loss on validation after the last epoch, n = 1 training a rate. Schedules with a peak keep its share of the training.

    python benchmarks/finders.py DATA [FRACTION [STEPS [RECIPE ...]]]

DATA is an image set such as ../shared/data/cifar10-jpeg.tar.xz, FRACTION the share of its train (0.1), STEPS how many
optimizer steps a training takes, about (200; whole epochs).
"""

import csv
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sightline
from sightline.config.resolving import merge, read_recipe, resolve, to_mapping
from sightline.display.reporting import ignore
from sightline.training import preparation
from sightline.training.optimizers import scaled

RECIPES = ("fast", "resnet18", "custom-resnet-onecycle")
FACTOR, REACH, FARTHEST = 3.0, 1, 4  # of the grid; powers of the factor to each side at first, and at most


def main() -> None:
    data = sys.argv[1] if len(sys.argv) > 1 else "digits"
    fraction = float(sys.argv[2]) if len(sys.argv) > 2 else 0.1
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    print(f"{data}, fraction {fraction:g}, about {steps} steps a training; n = 1")
    ratios = {recipe: compare(data, recipe, fraction, steps) for recipe in sys.argv[4:] or RECIPES}
    for recipe, ratio in ratios.items():
        within = "within" if 1 / FACTOR <= ratio <= FACTOR else "NOT within"
        print(f"{recipe:24} found / best = {ratio:.3g}: {within} a factor of {FACTOR:g}")


def compare(data: str, recipe: str, fraction: float, steps: int) -> float:
    """The rate that is found over the best rate of the grid."""
    settings = _settings(data, recipe, fraction, steps)
    start = time.perf_counter()
    found = sightline.find_rate(data, recipe=recipe, settings=settings)
    print(f"\n{recipe} ({found.optimizer.kind}), found in {time.perf_counter() - start:.0f} s")
    print("\n".join(found.lines()), flush=True)
    losses: dict[int, float] = {}
    waiting = list(range(-REACH, REACH + 1))
    while waiting:
        power = waiting.pop()
        choice = scaled(found.optimizer, FACTOR**power)
        loss, accuracy = _train(data, recipe, merge(settings, {"optimizer": to_mapping(choice)}))
        losses[power] = loss
        print(f"  rate {choice.learning_rate:<10g} loss {loss:.4f}  accuracy {accuracy:.4f} on validation", flush=True)
        best = min(losses, key=losses.__getitem__)
        edge = best in (min(losses), max(losses)) and abs(best) < FARTHEST
        if not waiting and edge:
            waiting.append(best + (1 if best == max(losses) else -1))
    return FACTOR**-best


def _settings(data: str, recipe: str, fraction: float, steps: int) -> dict[str, Any]:
    """What makes a training of a recipe so short."""
    settings: dict[str, Any] = {"data": {"fraction": fraction}, "evaluation": {"on": "none"}}
    plain = resolve(read_recipe(recipe))
    plan = preparation.prepare_training(data, recipe, settings, ignore)
    epochs = max(2, round(steps * plain.fit.batch_size / len(plan.splits.train)))
    settings["fit"] = {"epochs": epochs, "validate_every": 0}
    if plain.schedule.kind == "one_cycle":
        settings["schedule"] = {"peak_epoch": plain.schedule.peak_epoch * epochs / plain.fit.epochs}
    return settings


def _train(data: str, recipe: str, settings: dict[str, Any]) -> tuple[float, float]:
    """(loss, accuracy) on validation after the last epoch; an infinite loss where it was not finite."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = sightline.train(data, recipe=recipe, settings=settings, run=Path(folder) / "run")
        except sightline.SightlineError as error:
            print(f"  {error}")
            return math.inf, math.nan
        assert run is not None
        with (run / "metrics.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
    return float(last["val_loss"]), float(last["val_acc"])


if __name__ == "__main__":
    main()
