"""The settings of the linear probe: a head that is solved for, not trained, on the features of a pretrained network."""

from typing import Annotated, Literal

from msgspec import Meta

from sightline.config.building import Kind
from sightline.config.checks import FINITE, AboveZero
from sightline.errors import ConfigError

__all__ = ["ProbeConfig"]

TIMES_FEATURES, MOST_SECONDS = 2.0, 600.0
"""Limit of what follows a probe where no minutes are asked for: so many times the seconds of the features, and
seconds."""


class ProbeConfig(Kind, frozen=True, kw_only=True, tag="linear"):
    """Solve for a linear head on the features of the pretrained network before anything is fine-tuned."""

    penalty: AboveZero | None = None
    """Strength of the L2 penalty of the head's weights, on scaled features; null: the best of a grid on validation."""
    then: Literal["auto", "finetune", "nothing"] = "auto"
    """What follows. finetune: the epochs of the recipe, from the probe's head, with batch-norm's statistics as they
    are; kept only where better on validation.
    auto: the same, with as many epochs and layers as the minutes allow, or nothing. nothing: the probe is what is
        saved."""
    minutes: Annotated[float, Meta(gt=0, le=FINITE, extra={"flag": "minutes"})] | None = None
    """Minutes for everything, from the command until the run is finished; null: fine-tuning takes at most twice as long
    as the features, and at most ten minutes."""

    def _check(self) -> None:
        if self.minutes is not None and self.then != "auto":
            raise ConfigError(
                f"--minutes {self.minutes:g} has no effect with --probe.then {self.then}, which leaves nothing to"
                " choose by the time; leave one of the two out."
            )

    @property
    def flag(self) -> str:
        """The flag that asks for a probe."""
        return "--probe" if self.minutes is None else "--minutes"
