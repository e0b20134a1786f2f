"""Freezing and unfreezing while a network is fine-tuned: which layers learn in the epochs of which phase."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BaseFinetuning, Callback
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from sightline.config.settings import Recipe
from sightline.display.reporting import Listener
from sightline.errors import TrainingError
from sightline.training.callbacks.averaging import Averaging, BestWeights
from sightline.training.module import ClassifierLearner, validated
from sightline.training.phases import frozen_modules, layers_of
from sightline.training.summary import describe_phase

__all__ = ["Finetuning", "SteadyNorms"]


class SteadyNorms(Callback):
    """Keeps every batch-norm in evaluation mode, with the statistics that it was trained with; its weights learn.

    The head of a probe was solved for on such features. Normalized by a batch they are others: on grocery photographs
    the accuracy on validation fell from 0.733 to 0.517 in the first epoch, and rose to 0.736 with this (n = 296, 1
    seed).
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._steady(pl_module)  # Lightning calls no start of an epoch that is resumed within

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._steady(pl_module)

    @staticmethod
    def _steady(learner: ClassifierLearner) -> None:
        for module in learner.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


class Finetuning(BaseFinetuning):
    """Lets in each phase its parameters learn, and the other layers neither learn nor measure.

    What never learns is frozen before the optimizer is made, and before several processes agree on what they
    exchange. All else is in the optimizer from the start, so that its state and a resumed training stay plain: a
    parameter without a gradient is left out by every optimizer, by weight decay and momentum too. Lightning's own
    helpers are not used: they would let learn what by nature does not, and leave a frozen batch-norm in training
    mode, normalising by the batch.
    """

    def __init__(self, recipe: Recipe, averaging: Averaging | None, on_event: Listener) -> None:
        super().__init__()
        restore = getattr(recipe.finetune, "restore_best", "none")
        self.averaging = averaging
        self.on_event = on_event
        self.kept = None if restore == "none" else BestWeights(restore, averaging)  # of this phase
        self._said = -1

    def freeze_before_training(self, pl_module: Any) -> None:
        self.layers = layers_of(pl_module.network)
        ever = frozenset[str]().union(*(phase.trained for phase in pl_module.phases))
        self._parameters = {name: item for name, item in pl_module.network.named_parameters() if name in ever}
        for name, parameter in pl_module.network.named_parameters():
            parameter.requires_grad = name in ever

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._freeze(pl_module, trainer.current_epoch)  # Lightning calls no start of an epoch that is resumed within

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Optimizer) -> None:
        """Lightning calls this at the start of each epoch."""
        phase = pl_module.phases[pl_module.phase_at(epoch)]
        if epoch == phase.first > 0:
            pl_module.begin_phase()
            if self.kept is not None:
                self._restore(self.kept, pl_module, optimizer)
        self._freeze(pl_module, epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.kept is not None and validated(trainer):
            self.kept.look(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.kept is None else self.kept.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.kept is not None:
            self.kept.load_state_dict(state_dict)

    def _freeze(self, learner: ClassifierLearner, epoch: int) -> None:
        """Let the parameters of an epoch's phase learn, set the modes of all modules, and say so once a phase."""
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
            self.on_event(describe_phase(learner.phases, index, learner.network, learner.trainer.optimizers[0]))
            self._said = index

    def _restore(self, kept: BestWeights, learner: ClassifierLearner, optimizer: Optimizer) -> None:
        """Begin a phase with the best weights of the one before it, and an optimizer that remembers nothing."""
        if not kept.weights:
            raise TrainingError(
                f"no validation of the phase before epoch {learner.current_epoch + 1} had a finite {kept.best.monitor},"
                " so there are no best weights to go on from; try a smaller rate or --fit.precision float32."
            )
        learner.network.load_state_dict(kept.weights)
        if self.averaging is not None and self.averaging.network is not None:
            self.averaging.network.load_state_dict(kept.weights)
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()  # as each of our optimizers begins; Adagrad makes its sums only once
        self.on_event(f"weights of epoch {kept.epoch}: best {kept.best.monitor} of the phase, {kept.best.value:.4f}")
        self.kept = BestWeights(kept.best.monitor, self.averaging)
