"""Freezing and unfreezing while a network is fine-tuned: which layers learn in the epochs of which phase."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BaseFinetuning, Callback
from rich.console import Console
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from sightline.config import Recipe
from sightline.display.terminal import show
from sightline.errors import TrainingError
from sightline.training.callbacks.averaging import Averaging
from sightline.training.module import ClassifierLearner, validated
from sightline.training.phases import frozen_modules, layers_of
from sightline.training.schedules import Best
from sightline.training.summary import describe_phase

__all__ = ["Finetuning", "SteadyNorms"]


class SteadyNorms(Callback):
    """Keeps every batch-norm in evaluation mode, with the statistics that it was trained with; its weights learn.

    The head of a probe was solved for on such features. Normalized by a batch they are others: on grocery photographs the
    accuracy on validation fell from 0.733 to 0.517 in the first epoch, and rose to 0.736 with this (n = 296, 1 seed).
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._steady(pl_module)  # Lightning calls no start of an epoch that is resumed within

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._steady(pl_module)

    @staticmethod
    def _steady(learner: L.LightningModule) -> None:
        for module in learner.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


class Finetuning(BaseFinetuning):
    """Lets in each phase its parameters learn, and the other layers neither learn nor measure.

    What never learns is frozen before the optimizer is made, and before several processes agree on what they exchange. All
    else is in the optimizer from the start, so that its state and a resumed training stay plain: a parameter without a
    gradient is left out by every optimizer, by weight decay and momentum too. Lightning's own helpers are not used: they
    would let learn what by nature does not, and leave a frozen batch-norm in training mode, normalising by the batch.
    """

    def __init__(self, recipe: Recipe, averaging: Averaging | None, console: Console | None) -> None:
        super().__init__()
        restore = getattr(recipe.finetune, "restore_best", "none")
        self.averaging = averaging
        self.console = console
        self.best = None if restore == "none" else Best(restore)  # of this phase
        self.epoch = 0  # of its best validation, counted from 1
        self.weights: dict[str, Tensor] = {}
        self._said = -1

    def freeze_before_training(self, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ClassifierLearner)
        self.layers = layers_of(pl_module.network)
        ever = frozenset[str]().union(*(phase.trained for phase in pl_module.phases))
        self._parameters = {name: item for name, item in pl_module.network.named_parameters() if name in ever}
        for name, parameter in pl_module.network.named_parameters():
            parameter.requires_grad = name in ever

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._freeze(pl_module, trainer.current_epoch)  # Lightning calls no start of an epoch that is resumed within

    def finetune_function(self, pl_module: L.LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Lightning calls this at the start of each epoch."""
        assert isinstance(pl_module, ClassifierLearner)
        phase = pl_module.phases[pl_module.phase_at(epoch)]
        if epoch == phase.first > 0:
            pl_module.begin_phase()
            if self.best is not None:
                self._restore(pl_module, optimizer)
        self._freeze(pl_module, epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, ClassifierLearner)
        if self.best is None or not validated(trainer):
            return
        pl_module.refuse_non_finite()
        if self.best.see(float(trainer.callback_metrics[self.best.monitor])):
            self.epoch = trainer.current_epoch + 1
            network = (self.averaging and self.averaging.network) or pl_module.network
            self.weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        if self.best is None:
            return {}
        return {"best": self.best.state_dict(), "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.best is not None:
            self.best.load_state_dict(state_dict["best"])
            self.epoch, self.weights = state_dict["epoch"], state_dict["weights"]

    def _freeze(self, learner: L.LightningModule, epoch: int) -> None:
        """Let the parameters of an epoch's phase learn, set the modes of all modules by them, and say so once a phase."""
        assert isinstance(learner, ClassifierLearner)
        index = learner.phase_at(epoch)
        trained = learner.phases[index].trained
        for name, parameter in self._parameters.items():
            parameter.requires_grad = name in trained
            if name not in trained:
                parameter.grad = None
        learner.network.train()
        for module in frozen_modules(learner.network, self.layers, trained):
            module.training = False
        if index != self._said:
            self._say(describe_phase(learner.phases, index, learner.network, learner.trainer.optimizers[0]))
            self._said = index

    def _restore(self, learner: ClassifierLearner, optimizer: Optimizer) -> None:
        """Begin a phase with the best weights of the one before it, and an optimizer that remembers nothing."""
        assert self.best is not None
        if not self.weights:
            raise TrainingError(
                f"no validation of the phase before epoch {learner.current_epoch + 1} had a finite {self.best.monitor}, so"
                " there are no best weights to go on from; try a smaller rate or --fit.precision float32."
            )
        learner.network.load_state_dict(self.weights)
        if self.averaging is not None and self.averaging.network is not None:
            self.averaging.network.load_state_dict(self.weights)
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()  # as each of our optimizers begins; Adagrad makes its sums only once
        self._say(f"weights of epoch {self.epoch}: best {self.best.monitor} of the phase, {self.best.value:.4f}")
        self.best, self.weights = Best(self.best.monitor), {}

    def _say(self, line: str) -> None:
        if self.console is not None:
            show(line, self.console)
