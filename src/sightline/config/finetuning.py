"""The settings of fine-tuning: which layers learn in which epochs, and at which share of the learning rate."""

import math
from itertools import combinations, pairwise
from typing import Annotated, Literal

from msgspec import Meta

from sightline.config.building import Block, Kind
from sightline.config.checks import LARGEST, AboveZero, Count, ShareAboveZero
from sightline.errors import ConfigError

__all__ = [
    "ALL",
    "HEAD",
    "DiscriminativeConfig",
    "FinetuneConfig",
    "FrozenConfig",
    "GradualConfig",
    "PhaseConfig",
    "PhasesConfig",
    "Restore",
    "UpperConfig",
    "lies_in",
    "phase_epochs",
]

ALL, HEAD = "all", "head"  # words for every layer, and for the last

Restore = Literal["none", "val_acc", "val_loss"]


class FrozenConfig(Kind, frozen=True, kw_only=True, tag="frozen"):
    """Only the head learns; what lies below it is frozen, in evaluation mode, batch-norm's statistics included."""

    features: Literal["keep", "recompute"] | None = None
    """Whether what the frozen layers make of an image and of its mirror image is computed once and kept in memory, or
    anew in every epoch, with the same result but for rounding. null: kept where images are shown as they are, or
    mirrored, and there is memory for it."""


class UpperConfig(Kind, frozen=True, kw_only=True, tag="upper"):
    """Only the layers behind one learn, and the head; the maps below them are computed once and kept in memory.

    The layers up to that one stay frozen, in evaluation mode; every image is shown as it is, or mirrored.
    """

    after: str
    """The last layer that is frozen, by its name, such as body.blocks.2."""


class _LayeredConfig(Kind, frozen=True, kw_only=True):
    """Rates that fall with the depth of a layer."""

    layer_decay: ShareAboveZero | None = None
    """Share of the learning rate that a layer keeps of that of the layer above it, the head at the top: a layer three
    below the head learns at its third power. null: all layers at the same rate."""

    def _check(self) -> None:
        if self.layer_decay == 1:
            raise ConfigError(
                "--finetune.layer-decay 1 has no effect: all layers learn at the same rate; leave it out."
            )


class _PhasedConfig(_LayeredConfig, frozen=True, kw_only=True):
    """Settings that both schedules of phases have."""

    restore_best: Restore = "none"
    """Which weights of a phase the next one begins with: its last (none), or those of its validation with the best
    accuracy or loss; the optimizer then forgets its momentum. Half of validation then chooses, and only the other half
    calibrates."""


class GradualConfig(_PhasedConfig, frozen=True, kw_only=True, tag="gradual"):
    """Gradual unfreezing: the head learns alone at first, then with the layers below it, deeper and deeper, at last
    all.

    Each phase goes through the schedule anew. `sightline plan` shows the phases, and writes them as YAML to edit.
    """

    phases: Annotated[int, Meta(ge=2, le=LARGEST)] = 3
    """Phases that the epochs are shared among: the first trains the head, the last everything, and those between as
    many layers more each as can be shared out evenly."""
    growth: Annotated[float, Meta(ge=1, le=10)] = 1.0
    """How many times as many epochs a phase takes as the one before it: 1: all the same; 2: 1, 2 and 4 of 7."""


class PhaseConfig(Block, frozen=True, kw_only=True):
    """One phase of a written schedule, in YAML only; it goes through the learning-rate schedule by itself."""

    epochs: Count
    """How many; those of all phases add up to ``fit.epochs``."""
    train: tuple[str, ...]
    """What learns: layers by their names or by the beginnings of them (layer4, body.features), head, or all; the others
    are frozen."""
    rate: AboveZero = 1.0
    """What the peak learning rates are multiplied by."""


class PhasesConfig(_PhasedConfig, frozen=True, kw_only=True, tag="phases"):
    """A schedule of freezing that is written out, in YAML only; `sightline plan` writes one to start from."""

    phases: tuple[PhaseConfig, ...] = ()
    """The phases, in their order."""

    def _check(self) -> None:
        if not self.phases:
            raise ConfigError(
                "--finetune.kind phases needs its phases, which are written in YAML: `sightline plan DATA --out"
                " plan.yaml` writes some to start from; train with --config plan.yaml."
            )
        super()._check()
        for number, phase in enumerate(self.phases, start=1):
            _check_phase(f"finetune.phases.{number}", phase)
        for number, (one, other) in enumerate(pairwise(self.phases), start=2):
            if set(one.train) == set(other.train) and one.rate == other.rate:
                raise ConfigError(same_as_before(number))
        if self.phases[0].train == (ALL,) and len(self.phases) == self.phases[0].rate == 1 and self.layer_decay is None:
            raise ConfigError(
                "finetune has no effect: its one phase trains everything at the usual rate; leave it out."
            )
        if self.layer_decay is not None and all(lies_in(name, HEAD) for phase in self.phases for name in phase.train):
            raise ConfigError("--finetune.layer-decay has no effect where only the head learns; leave it out.")
        if self.restore_best != "none" and len(self.phases) == 1:
            raise ConfigError("finetune.restore_best has no effect with one phase; --fit.keep says what is saved.")


class DiscriminativeConfig(_LayeredConfig, frozen=True, kw_only=True, tag="discriminative"):
    """Discriminative rates: everything learns throughout, the slower the farther it lies below the head."""

    layer_decay: ShareAboveZero = 0.7
    """Share of the learning rate that a layer keeps of that of the layer above it, the head at the top: a layer three
    below the head learns at its third power."""


FinetuneConfig = FrozenConfig | UpperConfig | GradualConfig | PhasesConfig | DiscriminativeConfig


def phase_epochs(finetune: FinetuneConfig | None, epochs: int) -> tuple[int, ...]:
    """Return how many epochs each phase takes of those of a training; one phase takes all where there are none.

    The epochs of a gradual schedule are shared out so that each phase ends at the epoch at which its share does,
    rounded down, and takes one epoch at least; so later phases get what is left over.

    Raises:
        ConfigError: they do not fit into the training.
    """
    if isinstance(finetune, PhasesConfig):
        taken = [phase.epochs for phase in finetune.phases]
        if sum(taken) != epochs:
            summed = " + ".join(map(str, taken)) + (f" = {sum(taken)}" if len(taken) > 1 else "")
            raise ConfigError(
                f"the phases of finetune take {summed} epochs, and --fit.epochs is {epochs}; let them be the same."
            )
        return tuple(taken)
    if not isinstance(finetune, GradualConfig):
        return (epochs,)
    count = finetune.phases
    if count > epochs:
        raise ConfigError(
            f"--finetune.phases {count} is more than --fit.epochs {epochs}; a phase takes an epoch at least."
        )
    shares = [finetune.growth ** (phase - count) for phase in range(count)]  # beginning with the smallest power
    ends = [0]
    for phase in range(1, count + 1):
        end = math.floor(epochs * sum(shares[:phase]) / sum(shares) + 1e-9)
        ends.append(max(ends[-1] + 1, min(end, epochs - (count - phase))))
    return tuple(end - start for start, end in pairwise(ends))


def lies_in(name: str, layer: str) -> bool:
    """Return whether a parameter or layer is, or lies in, what a name in ``train`` stands for."""
    pieces = ("neck", "head") if layer == HEAD else (layer,)  # a head of its own has a neck below its last layer
    return layer == ALL or any(name == piece or name.startswith(f"{piece}.") for piece in pieces)


def same_as_before(number: int) -> str:
    """Return the sentence for a phase, counted from 1, that is the one before again."""
    return (
        f"phase {number} of finetune trains the same as phase {number - 1}, at the same rate; make them one (for a rate"
        " that rises again there is --schedule.kind cyclic)."
    )


def _check_phase(where: str, phase: PhaseConfig) -> None:
    if not phase.train:
        raise ConfigError(f"{where}.train is empty, so the phase trains nothing; name layers, {HEAD} or {ALL}.")
    for one, other in combinations(phase.train, 2):
        for inner, outer in ((one, other), (other, one)):
            if lies_in(inner, outer):
                raise ConfigError(f"{where}.train names {inner}, which {outer} holds already; leave it out.")
