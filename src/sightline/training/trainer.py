"""The Lightning Trainer of a run: devices, precision, callbacks."""

import logging
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler

from sightline.config.finetuning import phase_epochs
from sightline.config.generating import AnyRecipe
from sightline.config.settings import Recipe
from sightline.display.reporting import Listener, ignore
from sightline.machine.devices import arithmetic, choose_device
from sightline.training.callbacks.averaging import Averaging, Chosen
from sightline.training.callbacks.cost import CostMeter, SharedCores
from sightline.training.callbacks.epochs import EpochLog
from sightline.training.callbacks.freezing import Finetuning, SteadyNorms
from sightline.training.callbacks.progress import EpochProgress
from sightline.training.callbacks.steps import Accumulation, CompiledSteps
from sightline.training.checkpoints import AtomicCheckpointIO, AtomicCheckpoints

__all__ = ["build_trainer", "callback_of", "recipe_callbacks", "trainer_settings"]

C = TypeVar("C", bound=Callback)

TRACK_EVERY = 50  # steps between two learning rates in the trackers

_NOTHING: AbstractContextManager[Any] = nullcontext()


def build_trainer(
    recipe: AnyRecipe,
    run: Path,
    on_event: Listener = ignore,
    trackers: Sequence[Logger] = (),
    more: Sequence[Callback] = (),
) -> L.Trainer:
    """Make the Lightning Trainer of a run.

    Args:
        recipe: the settings.
        run: folder of the run; checkpoints and ``metrics.csv`` go there.
        on_event: what is told how far the training is.
        trackers: what gets the rates of the steps and the numbers of the epochs.
        more: callbacks of a kind of learner, called before the checkpoints are written.
    """
    # of Lightning's own: about its internals, or about choices that are made here on purpose
    for room in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(room).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*recommended to use `self.log.*sync_dist.*")  # they are sums over all
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    log = EpochLog(run)
    return L.Trainer(
        **trainer_settings(recipe),
        callbacks=[
            CostMeter(arithmetic(recipe.fit.precision, choose_device())),
            SharedCores(on_event),
            log,
            EpochProgress(log, on_event),  # in every process, as all take part in what it asks at the end of an epoch
            *recipe_callbacks(recipe, on_event),
            *([LearningRateMonitor("step")] if trackers else []),
            *more,
            AtomicCheckpoints(run, recipe.fit.checkpoint_seconds),
        ],
        plugins=[AtomicCheckpointIO()],
        profiler=NoProfiler(),
        logger=trackers or False,
        log_every_n_steps=recipe.track.every or TRACK_EVERY,
        default_root_dir=run,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def trainer_settings(recipe: AnyRecipe) -> dict[str, Any]:
    """Return the arguments of a Lightning Trainer that a recipe decides: device, precision, epochs, steps."""
    fit, device = recipe.fit, choose_device()
    return {
        "max_epochs": fit.epochs,
        "accelerator": "gpu" if device.type == "cuda" else device.type,
        "devices": fit.processes,
        "strategy": _strategy(recipe),
        "precision": {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed", torch.float32: "32-true"}[
            arithmetic(fit.precision, device)
        ],
        "deterministic": fit.deterministic,
        "benchmark": not fit.deterministic,
        "accumulate_grad_batches": 1 if isinstance(fit.accumulate, dict) else fit.accumulate,
        "gradient_clip_val": recipe.clip.limit if recipe.clip else None,
        "gradient_clip_algorithm": recipe.clip.kind if recipe.clip else None,
        "check_val_every_n_epoch": fit.validate_every or fit.epochs,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }


def recipe_callbacks(recipe: AnyRecipe, on_event: Listener) -> list[Callback]:
    """Return the callbacks that a recipe needs besides those of every run, in the order in which they are called."""
    fit = recipe.fit
    averaging = None if recipe.averaging is None else Averaging(recipe.averaging, fit.epochs)
    classifier = recipe if isinstance(recipe, Recipe) else None
    chooses = classifier is not None and (classifier.early_stopping is not None or fit.keep != "last")
    return [
        *([Accumulation(fit.accumulate)] if isinstance(fit.accumulate, dict) else []),
        *([averaging] if averaging else []),
        *([Chosen(classifier, averaging)] if classifier and chooses else []),
        *([Finetuning(classifier, averaging, on_event)] if classifier and classifier.finetune else []),
        *([SteadyNorms()] if classifier and classifier.probe else []),
        *([CompiledSteps()] if fit.compile else []),
    ]


def callback_of(trainer: L.Trainer, kind: type[C]) -> C:
    """Return the trainer's callback of a kind."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))  # type: ignore[attr-defined]


def _strategy(recipe: AnyRecipe) -> str:
    """Tell how processes train together.

    What they exchange is settled before the first step; where phases change it, each step looks for the parameters
    that learn.
    """
    if recipe.fit.processes == 1:
        return "auto"
    phases = len(phase_epochs(recipe.finetune, recipe.fit.epochs))
    return "ddp" if phases == 1 else "ddp_find_unused_parameters_true"


class NoProfiler(PassThroughProfiler):
    """Profiles nothing, as Lightning's own does, at a sixth of its cost: every hook of a step, 37 of them, asks it."""

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return _NOTHING
