"""The plan of a classifier's training: in words, for ``model.json``, and how it is fitted and finished."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sightline.config.backbones import BOX
from sightline.config.finetuning import FrozenConfig
from sightline.config.networks import RunConfig
from sightline.config.settings import Recipe
from sightline.data.seen import Seen
from sightline.display.reporting import Listener
from sightline.evaluation.calibration import PriorShifts, prior_shifts
from sightline.machine.devices import choose_device
from sightline.models.base import Network
from sightline.models.heads import HeadedNetwork
from sightline.training.base import Plan, Trained
from sightline.training.finish import finish
from sightline.training.mirror_choice import Mirrored
from sightline.training.network import Built, describe_network, fit_to_images
from sightline.training.phases import layers_of, phases_of
from sightline.training.summary import describe_phase

if TYPE_CHECKING:
    from sightline.training.module import ClassifierLearner

__all__ = ["ClassifierPlan"]

SEARCHES = {
    "fit.epochs": "as many as the time allows, if any; settled after the probe",
    "fit.batch_size": "to be found before the first step, by steps with ever larger batches",
    "optimizer.learning_rate": "to be found before the first step, by a range test and short trainings",
}
"""What a dry run says of each setting that may be searched for."""


@dataclass(frozen=True, kw_only=True)
class ClassifierPlan(Plan):
    """Everything that is settled before the first step of a classifier's training."""

    recipe: Recipe
    built: Built
    kept: str = ""
    """Whether the features of a frozen backbone are kept, in words."""
    rival: str = ""
    """Recipe that is tried besides, where ``auto`` chose this one; empty: none."""
    replaced: str = ""
    """Which optimizer takes the place of the recipe's, in words."""
    mirrored: Mirrored = field(default_factory=Mirrored)
    """Whether images are shown mirrored, and why not."""
    named_views: bool = False
    """Whether the user named how training images are varied, so that no search may leave that out."""

    @property
    def network(self) -> Network:
        return self.built.network

    @property
    def seen(self) -> Seen | None:
        return self.built.seen

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "kind": "classifier",
            **describe_network(self.built),
            "resize": list(self.images.pixels.shape[1:3]),
            "views": self.recipe.evaluation.views,
            "answer_precision": self.recipe.evaluation.precision,
            "temperatures": {},
            "test_readings": 0,
            **({"mirroring": self.mirrored.line} if self.mirrored.line else {}),
        }

    def learner(self, fresh: bool) -> "ClassifierLearner":
        from sightline.training.losses import balanced_weights
        from sightline.training.module import ClassifierLearner

        fit, train = self.recipe.fit, self.splits.train
        if fresh and self.built.weights is None:
            fit_to_images(self.network, self.images, train, self.normalization)
        weights = None
        if fit.class_weights == "balanced":
            weights = balanced_weights(self.images.labels[train], len(self.images.classes))
        batches = -(-len(train) // fit.batch_size)
        shift = torch.from_numpy(self.answer_shift)
        return ClassifierLearner(self.network, self.recipe, batches, weights, shift if shift.any() else None)

    @property
    def pretrained(self) -> bool:
        """Whether others have trained the network, on other classes."""
        return self.built.weights is not None and not isinstance(self.recipe.network, RunConfig)

    def prior_shifts(self) -> PriorShifts | None:
        """Return how class frequencies shift the answers; None where they do not."""
        recipe = self.recipe
        balanced = recipe.fit.class_weights == "balanced" or recipe.data.sampling == "balanced"
        if not balanced and recipe.evaluation.prior == "train":
            return None
        counts_K = np.bincount(self.images.labels[self.splits.train], minlength=len(self.images.classes))
        return prior_shifts(counts_K, balanced, recipe.evaluation.prior)

    @property
    def answer_shift(self) -> np.ndarray[Any, Any]:
        """What the frequencies that the answers assume add to the logits of the network, (K,), in float32."""
        shifts = self.prior_shifts()
        shift_K = np.zeros(len(self.images.classes)) if shifts is None else shifts.answers_K
        return shift_K.astype(np.float32)

    def finish(self, run: Path, trained: Trained, on_event: Listener) -> None:
        finish(self, run, trained, on_event)

    def notes(self) -> list[str]:
        """Return lines on a replaced optimizer, searches, the weights to start from, and which of them learn."""
        lines = [line for line in (self.replaced, self.mirrored.line) if line]
        shifts = self.prior_shifts()
        if shifts is not None and shifts.answers_K.any():
            known = "as among the training images" if self.recipe.evaluation.prior == "train" else "equal"
            other = " (--evaluation.prior equal finds more of rare ones)" if known != "equal" else ""
            lines.append(f"answers are corrected to class frequencies {known}{other}")
        lines += [f"{name}: auto, {SEARCHES[name]}" for name in self.searches]
        if self.built.weights is not None:
            lines += self.built.weights.lines()
            if choose_device().type == "cuda" and getattr(self.recipe.network, "weights", None) == BOX:
                lines.append("  there is a GPU: a larger backbone, from a hub, may reach more: --backbone base")
            if self.recipe.head is not None:
                lines.append(f"  a fresh head, as asked: {self.recipe.head.kind}")
            mean, std = (
                " ".join(f"{value:.3f}" for value in part) for part in (self.normalization.mean, self.normalization.std)
            )
            lines.append(
                f"  normalized by the statistics these weights were trained with: mean {mean}, deviation {std}"
            )
        return lines if self.recipe.finetune is None else lines + self._notes_of_phases()

    def _notes_of_phases(self) -> list[str]:
        """Return a line for each phase of a fine-tuning, and warnings where what is frozen has learnt nothing."""
        phases = phases_of(self.recipe, self.network)
        lines = [describe_phase(phases, index, self.network) for index in range(len(phases))]
        lines += [self.kept] if self.kept else []
        if isinstance(self.recipe.finetune, FrozenConfig):
            lines.append(
                "  a head that learns alone may want another rate than the recipe's: `sightline find rate` looks for"
                " one"
            )
        layers = [layer for layer in layers_of(self.network) if not phases[0].trained.issuperset(layer.parameters)]
        if self.built.weights is None and layers:
            lines.append(
                "  warning: what is frozen has random weights; start from some that have learnt: --network run:FOLDER"
            )
            return lines
        for layer in layers:
            fresh = self._fresh().intersection(layer.parameters) - phases[0].trained
            if fresh:
                until = "at first" if any(fresh & phase.trained for phase in phases) else "throughout"
                lines.append(
                    f"  warning: {' and '.join(layer.names)} begins with random weights and is frozen {until};"
                    " `sightline plan` writes a schedule to edit, in which it may learn from the start"
                )
        return lines

    def _fresh(self) -> set[str]:
        """Return the parameters below the head that the weights to start from did not have."""
        weights = self.built.weights
        if weights is None:
            return set()
        network = self.network.backbone if isinstance(self.network, HeadedNetwork) else self.network
        place = "" if network is self.network else "backbone."
        stem = network.exchanged if weights.fresh_stem else ()
        names = [name for name, _ in network.named_parameters() if name.startswith(stem)]
        return {
            f"{place}{name}" for name in (*names, *weights.missing, *weights.misshapen) if not name.startswith("head.")
        }
