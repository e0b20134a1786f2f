"""The search of a learning rate: a range test, and short trainings that check what it suggests."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.config.finding import RangeTestConfig
from sightline.config.optimizers import OptimizerConfig
from sightline.config.resolving import to_mapping
from sightline.data.batches import Array, Batch, EvaluationBatches, derived_seed
from sightline.data.sources.downloads import Progress
from sightline.display.pictures import draw_range
from sightline.display.reporting import Listener, stage
from sightline.errors import TrainingError
from sightline.machine.devices import arithmetic, choose_device, generators_kept
from sightline.models.base import Network
from sightline.runs.writing import write_csv
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.finders.range_test import RangeTest, range_test, restored
from sightline.training.finders.steps import TrainingStep, copied_network, grouped, optimizer_of, training_batches
from sightline.training.losses import classification_loss
from sightline.training.optimizers import scaled
from sightline.training.schedules import Steps

__all__ = ["FoundRate", "rise_and_fall", "search_rate", "write_range"]

TRIAL_STEPS = 50  # of each short training; a training that is shorter itself bounds them
RISE = 0.2  # of a short training: its rate rises over these steps and falls to zero over the others
FACTOR = math.sqrt(10)  # between rates that are tried; two of them are a tenth
MOST_TRIED = 8  # rates, of one search
HELD_OUT = 0.2  # of train, at most ``MOST_HELD_OUT`` images: what the rates are compared on
MOST_HELD_OUT = 2_000
MEASURE_BATCH = 256  # images


@dataclass(frozen=True)
class FoundRate:
    """A learning rate for a training, and why."""

    test: RangeTest
    optimizer: OptimizerConfig
    """With the rates that were taken."""
    start: OptimizerConfig
    """With the rates that were scaled."""
    tried: dict[float, float]
    """Loss on held-out training images after a short training, by rate, in the order in which they were tried."""
    held_out: int
    """Images of these."""
    steps: int
    """Of a short training."""

    @property
    def rate(self) -> float:
        """The learning rate that was taken."""
        return self.optimizer.learning_rate

    @property
    def suggestion(self) -> float:
        """The rate of the steepest descent."""
        return next(iter(self.tried))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings to lay over the recipe."""
        return {"optimizer": {"kind": self.optimizer.kind, **_rates(self.optimizer)}}

    def to_json(self) -> dict[str, Any]:
        """Return where the number comes from, for ``model.json``."""
        return {
            "settings": self.settings,
            "from": {f"optimizer.{name}": value for name, value in _rates(self.start).items()},
            "suggestion": self.suggestion,
            "tried": [
                {"learning_rate": rate, "held_out_loss": loss if math.isfinite(loss) else None}
                for rate, loss in self.tried.items()
            ],
            "held_out_images": self.held_out,
            "steps": {"range_test": len(self.test.rates), "short_training": self.steps},
            "diverged_at": self.test.diverged_at,
        }

    def lines(self) -> list[str]:
        """Return what a user should know."""
        test = self.test
        stopped = "the loss had grown" if test.diverged_at is not None else "the end of the range"
        lines = [
            f"range test: {len(test.rates)} steps from {test.rates[0]:.3g} to {test.rates[-1]:.3g}, stopped by"
            f" {stopped}; the loss falls fastest at {self.suggestion:g}"
        ]
        for rate, loss in self.tried.items():
            taken = " (taken)" if rate == self.rate else ""
            lines.append(
                f"  {self.steps} steps up to {rate:g}: loss {loss:.4f} on {self.held_out} held-out training"
                f" images{taken}"
            )
        flags = " ".join(
            f"--optimizer.{name.replace('_', '-')} {value:g}" for name, value in _rates(self.optimizer).items()
        )
        return [*lines, f"found: {flags}"]


def search_rate(plan: ClassifierPlan, config: RangeTestConfig, on_event: Listener) -> FoundRate:
    """Find the peak rate of a plan's optimizer by a range test, and try rates around it.

    The steepest descent is sometimes too large a rate for a whole training, and sometimes far too small: where each
    step of the range test still learns, the loss falls by the steps and not by the rate. So a short training by each
    rate of ``climb``, whose rate rises and falls to zero as a whole training's does, is measured on training images
    that neither
    it nor the range test sees: without the fall the larger rate is judged by its noise, without the rise by its first
    steps.

    Raises:
        ConfigError: the range is none.
        TrainingError: no rate lowers the loss.
    """
    recipe, device = plan.recipe, choose_device()
    rates = config.rates(recipe.optimizer.kind)
    rows, held_out = _dealt(plan)
    network = copied_network(plan, device)
    dtype = arithmetic(recipe.fit.precision, device)

    def batches() -> Iterator[list[Batch]]:
        return grouped(training_batches(plan, rows, recipe.fit.batch_size, device, dtype), recipe)

    with generators_kept(device):
        peak = recipe.optimizer.learning_rate
        optimizer = optimizer_of(plan, recipe.optimizer, network)
        with stage(on_event, "Range test") as progress:
            test = range_test(
                network, optimizer, batches(), rates, TrainingStep(plan, device), peak=peak, progress=progress
            )
        if test.suggestion is None:
            raise TrainingError(
                f"no rate from {test.rates[0]:.3g} to {test.rates[-1]:.3g} lowers the loss by more than its noise, so"
                " none can be suggested; name --optimizer.learning-rate, or widen the range of sightline find rate"
                " (--start, --end)."
            )
        suggestion = test.suggestion
        steps = min(TRIAL_STEPS, Steps(recipe.fit, -(-len(plan.splits.train) // recipe.fit.batch_size)).total)
        held = EvaluationBatches(
            plan.images, held_out, plan.normalization, batch_size=MEASURE_BATCH, device=device, dtype=dtype
        )
        choices: dict[int, OptimizerConfig] = {}
        tried: dict[float, float] = {}

        def held_out_loss(power: int) -> float:
            choice = choices[power] = scaled(recipe.optimizer, suggestion / peak * FACTOR**power)
            with stage(on_event, f"Short training {len(choices)}, rate {choice.learning_rate:g}") as progress:
                optimizer = optimizer_of(plan, choice, network)
                loss = _short_training(network, optimizer, batches(), TrainingStep(plan, device), steps, held, progress)
            tried[choice.learning_rate] = loss
            return loss

        highest = rates[-1] if test.diverged_at is None else test.diverged_at
        best = choices[climb(held_out_loss, math.floor(math.log(highest / suggestion, FACTOR)))]
    if not math.isfinite(tried[best.learning_rate]):
        raise TrainingError(
            f"short trainings by {suggestion:g}, a tenth of it and less have no finite loss; name"
            " --optimizer.learning-rate, or try --fit.precision float32."
        )
    return FoundRate(test, best, recipe.optimizer, tried, len(held_out), steps)


def climb(loss: Callable[[int], float], highest: int) -> int:
    """Return the power with the lowest loss: the better of 0 and −2, or beyond it by ones while the loss falls.

    Upwards from 0; from −2 first back to −1, then downwards. Of equals the smaller is better.

    Args:
        loss: of a power; at most ``MOST_TRIED`` are asked for, each once.
        highest: power above which none but 0 is tried.
    """
    losses = {power: loss(power) for power in (0, -2)}

    def best() -> int:
        return min(losses, key=lambda power: (losses[power], power))

    if best() == -2:
        losses[-1] = loss(-1)
    step = 1 if best() == 0 else -1
    while best() != -1 and len(losses) < MOST_TRIED:
        power = best() + step
        if power > max(highest, 0):
            break
        losses[power] = loss(power)
        if best() != power:
            break
    return best()


def write_range(folder: Path, found: FoundRate) -> None:
    """Write ``range.csv`` and ``range.png``: each step's loss over its rate, the smoothed one, and what was found."""
    test = found.test
    smoothed = [*test.smoothed, *[""] * (len(test.losses) - len(test.smoothed))]
    losses = [loss if math.isfinite(loss) else "" for loss in test.losses]
    write_csv(
        folder / "range.csv",
        ("step", "learning_rate", "loss", "smoothed_loss"),
        [(index + 1, *row) for index, row in enumerate(zip(test.rates, losses, smoothed, strict=True))],
    )
    draw_range(
        folder / "range.png",
        test.rates,
        test.losses,
        test.smoothed,
        suggestion=found.suggestion,
        taken=found.rate,
        diverged_at=test.diverged_at,
    )


def _short_training(
    network: Network,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[list[Batch]],
    step: TrainingStep,
    steps: int,
    held_out: EvaluationBatches,
    progress: Progress,
) -> float:
    """Train for some steps, measure the mean loss on images that were held out, and put the network back.

    Returns:
        The loss; infinite where it is not finite, then or in any step.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    with restored(network, optimizer):
        network.train()
        for index, examples in zip(range(steps), batches, strict=False):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rise_and_fall(index, steps)
            if not math.isfinite(step(network, optimizer, examples).item()):
                return math.inf
            progress(index + 1, steps)
        network.eval()
        total = images = 0.0
        with torch.inference_mode(), step.autocast():
            for batch in held_out:
                total += classification_loss(network, batch)[0].item() * len(batch.labels)
                images += len(batch.labels)
    return total / images if math.isfinite(total) else math.inf


def rise_and_fall(step: int, steps: int) -> float:
    """Return the share of the peak rate in a short training: straight up over a fifth of the steps, then to zero."""
    rise = RISE * steps
    return (step + 1) / (rise + 1) if step < rise else (steps - step) / (steps - rise)


def _dealt(plan: ClassifierPlan) -> tuple[Array, Array]:
    """Return the training images, as (rows to train on, rows held out), sorted; the same at every search."""
    train = plan.splits.train
    count = min(MOST_HELD_OUT, round(HELD_OUT * len(train)))
    generator = torch.Generator().manual_seed(derived_seed(plan.recipe.fit.seed, "held out"))
    order = torch.randperm(len(train), generator=generator).numpy()
    return np.sort(train[order[count:]]), np.sort(train[order[:count]])


def _rates(config: OptimizerConfig) -> dict[str, float]:
    return {name: value for name, value in to_mapping(config).items() if name.endswith("learning_rate")}
