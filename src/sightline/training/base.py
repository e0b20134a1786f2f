"""The plan of a training, and what a training leaves: what a classifier's and a generator's have in common.

N images, K classes. Nothing here loads Lightning.
"""

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from msgspec.structs import replace

from sightline.config.generating import AnyRecipe, GeneratorRecipe
from sightline.config.settings import Recipe
from sightline.data.batches import BATCH_RULE, Normalization, TrainingBatches, augmentation_of
from sightline.data.cache import CachedImages
from sightline.data.excluding import excluded_fingerprint
from sightline.data.seen import Seen
from sightline.data.sources.source import ImageSource
from sightline.data.splits import Splits
from sightline.data.synthetic import generated_fingerprint
from sightline.display.reporting import Listener
from sightline.errors import TrainingError
from sightline.inference.logistic_regression import CrossValidation
from sightline.machine.extras import own_version
from sightline.models.flops import Countable
from sightline.runs.folder import MODEL_FORMAT, write_recipe
from sightline.runs.writing import write_json
from sightline.training.network import write_seen
from sightline.training.phases import Phase

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from sightline.training.module import Learner

__all__ = ["Plan", "Trained", "with_settings"]

Array = np.ndarray[Any, Any]
R = TypeVar("R", Recipe, GeneratorRecipe)


def with_settings(recipe: R, block: str, **settings: Any) -> R:
    """Return a recipe with other settings in one of its blocks; its checks run again."""
    return replace(recipe, **{block: replace(getattr(recipe, block), **settings)})


@dataclass(frozen=True)
class Trained:
    """The facts of a training when its weights are settled, besides them."""

    seconds: float
    """Of all that made it, features and those before a resumption included."""
    probe_flops: float
    """Operations a second of the machine meanwhile."""
    phases: Sequence[Phase] = ()
    """Of the epochs that were trained by steps; none where none were."""
    epochs: int = 0
    """That were trained by steps; 0: none."""
    steps: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    """Of the last epoch."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For ``model.json``."""
    ask: Callable[[Array, Callable[[int, int], None]], Array] | None = None
    """Logits of rows of the set, (1, n, K), by kept features; None asks the network."""
    features: Callable[[Array, Callable[[int, int], None]], torch.Tensor] | None = None
    """What ``inference.ood`` compares of rows, (n, C), kept of a frozen network; None asks the network."""
    crossed: CrossValidation | None = None
    """Where cross-validation measures, in place of a test split."""


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """Everything that is settled before the first step of a training."""

    source: ImageSource
    recipe: AnyRecipe
    why: str
    """Why this recipe, in words."""
    images: CachedImages
    splits: Splits
    normalization: Normalization
    searches: tuple[str, ...] = ()
    """Settings of which the recipe has only a number to start from: they are searched for before the training."""

    @property
    @abstractmethod
    def network(self) -> Countable:
        """The network that is trained."""

    @property
    def seen(self) -> Seen | None:
        """The images that the weights to start from have seen, of an earlier run."""
        return None

    @abstractmethod
    def notes(self) -> list[str]:
        """Return lines on the training that a user should know beyond its settings."""

    @abstractmethod
    def learner(self, fresh: bool) -> "Learner":
        """Return the module that Lightning trains.

        Args:
            fresh: whether it begins at the first step, so that the network is fitted to the images where it needs that.
        """

    def callbacks(self, run: Path, on_event: Listener) -> "list[Callback]":
        """Return the callbacks that only this kind of training has."""
        return []

    @abstractmethod
    def finish(self, run: Path, trained: Trained, on_event: Listener) -> None:
        """Measure the trained network, write what the run saves, and report it."""

    def training_batches(
        self,
        device: torch.device,
        dtype: torch.dtype,
        rows: Array | None = None,
        kind: type[TrainingBatches] = TrainingBatches,
        **other: Any,
    ) -> TrainingBatches:
        """Return the batches of the training, or of some of its images; ``other`` overrides what they are made by."""
        recipe, fit = self.recipe, self.recipe.fit
        settings: dict[str, Any] = {"batch_size": fit.batch_size, "epochs": fit.epochs, "seed": fit.seed}
        settings["balanced"] = recipe.data.sampling == "balanced"
        rows = self.splits.train if rows is None else rows
        config = augmentation_of(recipe)
        settings |= {"device": device, "dtype": dtype} | other
        return kind(self.images, rows, self.normalization, config, **settings)

    def describe(self) -> dict[str, Any]:
        """Return the content of ``model.json`` as far as it is known before the first step."""
        images, recipe = self.images, self.recipe
        return {
            "format": MODEL_FORMAT,
            "classes": images.classes,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "size": list(images.size),
            **images.preprocessing.kept(),
            "normalization": {"mean": self.normalization.mean, "std": self.normalization.std},
            "precision": recipe.fit.precision,
            "data": {
                "name": images.name,
                "location": images.location,
                "fingerprint": images.fingerprint,
                **({} if recipe.data.classes is None else {"classes": recipe.data.classes}),
                **({"merge": dict(images.merged)} if images.merged else {}),
                "counts": self.splits.counts(),
                "split_rule": self.splits.rule,
                "split_notes": self.splits.notes,
                "batch_rule": BATCH_RULE,
                "shared_with_test": self.splits.shared_with_test,
                "left_out": len(images.left_out),
                "excluded": excluded_fingerprint(images, self.splits),
                "generated": generated_fingerprint(images, self.splits),
                **({} if images.corrected is None else {"corrections": dict(images.corrected.facts)}),
            },
            "recipe": recipe.name,
            "seed": recipe.fit.seed,
            "versions": {"python": platform.python_version(), "sightline": own_version()}
            | {name: version(name) for name in ("torch", "torchvision", "lightning", "numpy", "pillow")},
        }

    def begin(self, run: Path, more: dict[str, Any] | None = None) -> None:
        """Write what a run knows before its first step; ``more`` goes into its ``model.json``."""
        write_recipe(run, self.recipe)
        write_seen(run, self.images, self.splits, self.seen)
        write_json(run / "model.json", self.describe() | (more or {}))

    def refuse_bad_weights(self, run: Path) -> None:
        """Refuse to finish a run whose weights are not finite.

        Raises:
            TrainingError: with what to try.
        """
        if not all(bool(torch.isfinite(value).all()) for value in self.network.state_dict().values()):
            raise TrainingError(
                f"the weights are not finite after the last step; {run} is not finished. Try a smaller rate."
            )
