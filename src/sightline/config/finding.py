"""The settings of finders: how a learning rate and a batch size are searched for."""

from typing import Annotated, Literal

from msgspec import Meta

from sightline.config.building import Block
from sightline.config.checks import LARGEST, AboveZero
from sightline.config.finetuning import FinetuneConfig, phase_epochs
from sightline.config.fitting import FitConfig
from sightline.errors import ConfigError

__all__ = ["RANGES", "BatchSearchConfig", "RangeTestConfig", "batches_within", "refuse_range_test"]

FEWEST_IMAGES = 20  # of train, for a range test
SMALLEST = 4  # images a process: of batches that are cut evenly the smaller ones then have two, which batch-norm needs
FEWEST = 20  # steps of a range test: with less the smoothed loss is no curve

RANGES: dict[str, tuple[float, float]] = {
    "sgd": (1e-5, 10),
    "adam": (1e-6, 10),
    "adamw": (1e-6, 10),
    "adagrad": (1e-5, 10),
    "rmsprop": (1e-6, 10),
    "muon": (1e-4, 10),
}
"""First and last rate of a range test by the kind of the optimizer, unless they are named."""


class RangeTestConfig(Block, frozen=True, kw_only=True):
    """Training steps at rates that rise from one to the next."""

    start: AboveZero | None = None
    """Rate of the first step; null: by the optimizer (sgd 1e-5, adam 1e-6, muon 1e-4)."""
    end: AboveZero | None = None
    """Rate of the last step; null: 10. The test stops earlier where the loss has grown."""
    steps: Annotated[int, Meta(ge=FEWEST, le=LARGEST)] = 200
    """Optimizer steps from the first rate to the last."""
    spacing: Literal["exponential", "linear"] = "exponential"
    """Whether each rate is the one before times a factor, or plus a number."""

    def _check(self) -> None:
        if self.start is not None and self.end is not None:
            _check_order(self.start, self.end)

    def rates(self, kind: str) -> list[float]:
        """Return the rates of all steps, for an optimizer of a kind.

        Raises:
            ConfigError: the end is not above the start.
        """
        first, last = RANGES[kind]
        start, end = self.start or first, self.end or last
        _check_order(start, end)
        shares = [step / (self.steps - 1) for step in range(self.steps)]
        if self.spacing == "linear":
            return [start + (end - start) * share for share in shares]
        return [start * (end / start) ** share for share in shares]


def _check_order(start: float, end: float) -> None:
    if end <= start:
        raise ConfigError(f"--end {end:g} is not above --start {start:g}; the rate of a range test rises.")


class BatchSearchConfig(Block, frozen=True, kw_only=True):
    """Training steps with ever larger batches."""

    how: Literal["power", "binary"] = "power"
    """Double the batch while it fits; or then also halve the distance between the largest that fits and the smallest
    that does not, down to a thirtieth."""
    memory_limit: AboveZero | None = None
    """GB that the training processes of this machine may hold together on a processor, or each on its GPU; null: what
    they hold before and four fifths of what is free, and on a GPU all that is free."""


def refuse_range_test(fit: FitConfig, finetune: FinetuneConfig | None, images: int, subject: str) -> None:
    """Refuse a range test that could not say which rate a training needs.

    Args:
        images: of train.
        subject: what asks for it, for messages.
    Raises:
        ConfigError: with what to change.
    """
    if isinstance(fit.accumulate, dict):
        spoken = " ".join(f"{epoch}:{count}" for epoch, count in fit.accumulate.items())
        raise ConfigError(
            f"{subject} looks for one rate, and --fit.accumulate {spoken} changes the images of a step while training,"
            " each of which wants a rate of its own; name one number of batches, or the rate."
        )
    if len(phase_epochs(finetune, fit.epochs)) > 1:
        raise ConfigError(
            f"{subject} looks for one rate, and each phase of --finetune trains other layers, which want rates of their"
            " own; name the rate."
        )
    if images < FEWEST_IMAGES:
        raise ConfigError(
            f"{subject} needs {FEWEST_IMAGES} training images or more, of which a fifth is held out to compare two"
            f" rates; there are {images}: name the rate."
        )


def batches_within(fit: FitConfig, images: int) -> tuple[int, int]:
    """Return the smallest and the largest batch of a search for so many training images.

    The largest leaves as many batches an epoch as ``fit.accumulate`` asks for.

    Raises:
        ConfigError: there is none.
    """
    batches = max(fit.batches_a_step(epoch) for epoch in range(fit.epochs))
    smallest = SMALLEST * fit.processes
    largest = images if batches == 1 else -(-images // (batches - 1)) - 1
    if largest < smallest:
        many = f" in {batches} batches (--fit.accumulate)" if batches > 1 else ""
        raise ConfigError(
            f"a search for a batch size begins with {smallest} images, and there are {images} training images{many};"
            " name --fit.batch-size."
        )
    return smallest, largest
