"""Prepare a training for a Trainer of the caller's own: batches, module, callbacks, settings, and a run behind it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from sightline.data.sources.embedded import GROCERIES
from sightline.display.reporting import Listener, ignore, reporting
from sightline.errors import ConfigError
from sightline.machine.devices import arithmetic, choose_device, keep_freed_memory
from sightline.runs.folder import create_run
from sightline.runs.locking import alone
from sightline.training.base import Trained
from sightline.training.callbacks.averaging import put_in_chosen
from sightline.training.callbacks.cost import CostMeter
from sightline.training.callbacks.epochs import EpochLog
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.datamodule import ImageData
from sightline.training.module import ClassifierLearner
from sightline.training.preparation import prepare_training
from sightline.training.trainer import recipe_callbacks, trainer_settings

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A classifier's training that waits for a Trainer; made by ``sightline.prepare``.

    ``lightning.Trainer(**prepared.trainer, callbacks=[*prepared.callbacks, ...])`` trains as ``sightline.train`` does,
    ``fit(prepared.module, prepared.datamodule)``, once; its checkpoints, loggers and progress are the Trainer's. Of
    ``sightline.train`` only that is missing which is no part of a fit: the searches for a batch size and a rate, the
    probe of photographs, several processes, and resuming in a run folder.
    """

    plan: ClassifierPlan
    """What was settled: ``plan.recipe``, ``plan.images``, ``plan.splits``, ``plan.network``."""
    module: ClassifierLearner
    """The network with its loss, optimizer and rates. ``train_loss``, ``train_acc``, ``val_loss`` and ``val_acc`` are
    there for callbacks to monitor."""
    datamodule: ImageData
    """Training and validation batches, made on the device that trains; ``sightline`` reads the test split by itself."""
    callbacks: list[Callback]
    """What the recipe needs (averages, frozen layers, accumulation, best weights), the cost, and the numbers of each
    epoch, which every logger of the Trainer gets."""
    trainer: dict[str, Any]
    """Arguments of ``lightning.Trainer``. Change the epochs, the accumulation and the precision in the settings, by
    which the rates are planned, and not here."""

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return self.plan.images.classes

    def finish(
        self, trainer: L.Trainer, run: str | os.PathLike[str] | None = None, *, on_event: Listener = ignore
    ) -> Path:
        """Make a run of what was trained: calibrate it, read the test split once, write the folder and its report.

        Args:
            trainer: that has fitted ``module``, with ``callbacks`` among its own.
            run: Folder to make; runs/DATA-RECIPE-N unless named.
            on_event: Called with each event (``display/events.py``).
        Returns:
            The folder, which every verb takes as it takes one of ``sightline.train``.
        Raises:
            ConfigError: the trainer has fitted something else, nothing yet, or without the callbacks.
            TrainingError: the weights or the answers are not finite.
        """
        meter, log = (_own_callback(self.callbacks, kind) for kind in (CostMeter, EpochLog))
        if trainer.lightning_module is not self.module or not log.rows:
            raise ConfigError(
                "the Trainer has not fitted this training with its callbacks for an epoch; wanted"
                " lightning.Trainer(**prepared.trainer, callbacks=[*prepared.callbacks, ...]), then"
                " fit(prepared.module, prepared.datamodule)."
            )
        self.module.refuse_non_finite()
        folder = create_run(f"{self.plan.source.name}-{self.plan.recipe.name}", run)
        with alone(folder, "trained"):
            self.plan.begin(folder)
            kept = put_in_chosen(trainer, self.module)
            log.write(folder / "metrics.csv")
            trained = Trained(
                seconds=meter.seconds,
                probe_flops=meter.probe_flops,
                phases=self.module.phases,
                epochs=len(log.rows),
                steps=trainer.global_step,
                losses={name: value for name, value in log.rows[-1].items() if name.endswith("_loss")},
                facts={"trainer": "the caller's own"} | ({} if kept is None else {"kept": kept}),
            )
            self.plan.finish(folder, trained, on_event)
        return folder


@reporting
def prepare(
    data: str | os.PathLike[str] | None = None,
    *,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    on_event: Listener = ignore,
) -> Prepared:
    """Prepare a classifier's training for a ``lightning.Trainer`` of your own.

    Args:
        data: An image set, as for ``sightline.train``; so are the recipe and the settings.
        recipe: A recipe's name, a YAML file of one, or auto to choose by the images.
        settings: What to set over the recipe, nested as in its YAML.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Returns:
        Batches, module, callbacks and settings, for one fit.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do; also where the recipe asks for what is
            no fit by Lightning.
    """
    keep_freed_memory()
    plan = prepare_training(GROCERIES if data is None else data, recipe, settings or {}, on_event)
    _refuse_what_is_no_fit(plan)
    module = plan.learner(fresh=True)
    module.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    callbacks = [
        CostMeter(arithmetic(plan.recipe.fit.precision, choose_device())),
        EpochLog(None),
        *recipe_callbacks(plan.recipe, on_event),
    ]
    return Prepared(plan, module, ImageData(plan), callbacks, trainer_settings(plan.recipe))


def _refuse_what_is_no_fit(plan: ClassifierPlan) -> None:
    recipe = plan.recipe
    if recipe.probe is not None:
        raise ConfigError(
            f"recipe {recipe.name} solves for its head and decides by time what follows, which no Trainer does; name a"
            " recipe that is trained by steps, such as small, with settings such as {'backbone': 'box'}."
        )
    if plan.searches:
        raise ConfigError(
            f"{plan.searches[0]} is auto, and nothing is searched for here; name a number (sightline.find_rate and"
            " find_batch look for one)."
        )
    if recipe.track.to:
        raise ConfigError("track.to has no effect on a Trainer of your own; leave it out, and give that one loggers.")
    if recipe.fit.processes > 1:
        raise ConfigError("fit.processes must be 1 for a Trainer of your own; leave it out.")


def _own_callback(callbacks: list[Callback], kind: Any) -> Any:
    return next(callback for callback in callbacks if isinstance(callback, kind))
