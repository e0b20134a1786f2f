"""Steps of a training without its Trainer: the same loss, number format, clipping and accumulation, on a copy."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sightline.config.networks import SpeednetConfig
from sightline.config.optimizers import OptimizerConfig
from sightline.config.settings import Recipe
from sightline.data.batches import Array, Batch, TrainingBatches, derived_seed
from sightline.machine.devices import arithmetic, seed_generators
from sightline.models.base import Network
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.losses import balanced_weights, classification_loss
from sightline.training.network import fit_to_images
from sightline.training.optimizers import build_optimizer
from sightline.training.phases import frozen_modules, layers_of, phases_of, shares_of
from sightline.training.schedules import Steps

__all__ = ["TrainingStep", "copied_network", "grouped", "optimizer_of", "training_batches"]


class TrainingStep:
    """Takes one optimizer step as a training by one process does.

    ``fit.compile`` is left out: it changes the last digits only.
    """

    def __init__(self, plan: ClassifierPlan, device: torch.device) -> None:
        """
        Args:
            plan: of the training.
            device: that computes.
        """
        self.recipe: Recipe = plan.recipe
        self.device = device
        self.dtype = arithmetic(plan.recipe.fit.precision, device)
        self._steps = Steps(plan.recipe.fit, -(-len(plan.splits.train) // plan.recipe.fit.batch_size))
        self._weights = None
        if plan.recipe.fit.class_weights == "balanced":
            labels = plan.images.labels[plan.splits.train]
            self._weights = balanced_weights(labels, len(plan.images.classes)).to(device)
        self._freezes = plan.recipe.finetune is not None
        self._layers = layers_of(plan.network)
        self._trained = phases_of(plan.recipe, plan.network)[0].trained
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def __call__(self, network: Network, optimizer: torch.optim.Optimizer, batches: Iterable[Batch]) -> Tensor:
        """Take a step that sees some batches, each when its turn comes; returns their mean loss before it, a scalar."""
        if self._freezes:  # a network that was brought into training mode, frozen layers too
            for module in frozen_modules(network, self._layers, self._trained):
                module.training = False
        optimizer.zero_grad()
        loss = torch.stack([self._backward(network, batch) for batch in batches]).mean()
        clip = self.recipe.clip
        if clip is not None:
            self._scaler.unscale_(optimizer)
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            shorten = nn.utils.clip_grad_norm_ if clip.kind == "norm" else nn.utils.clip_grad_value_
            shorten(parameters, clip.limit)
        self._scaler.step(optimizer)
        self._scaler.update()
        return loss

    def autocast(self) -> torch.autocast:
        """Return the number format of the training, for what runs within."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def _backward(self, network: Network, batch: Batch) -> Tensor:
        fit, config = self.recipe.fit, self.recipe.network
        seed_generators(self.device, derived_seed(fit.seed, batch.epoch, batch.position, 0))  # dropout
        network.train_whitening(isinstance(config, SpeednetConfig) and batch.epoch < config.whiten_bias_epochs)
        with self.autocast():
            loss, _ = classification_loss(network, batch, fit.label_smoothing, self._weights, kind=fit.loss)
        share = self._steps.batches_beside(batch.epoch, batch.position)
        self._scaler.scale(loss / share).backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def grouped(batches: TrainingBatches, recipe: Recipe) -> Iterator[list[Batch]]:
    """Yield the batches of each optimizer step, without end: after the last epoch the first comes again."""
    while True:
        for epoch in range(recipe.fit.epochs):
            order, count = batches.order(epoch), recipe.fit.batches_a_step(epoch)
            for first in range(0, len(batches), count):
                members = range(first, min(first + count, len(batches)))
                yield [batches.make(epoch, index, order) for index in members]


def optimizer_of(plan: ClassifierPlan, config: OptimizerConfig, network: Network) -> torch.optim.Optimizer:
    """Return the optimizer of a copy of a plan's network: of what learns, each layer at its share of the rate."""
    return build_optimizer(config, network, shares_of(plan.recipe, plan.network))


def copied_network(plan: ClassifierPlan, device: torch.device) -> Network:
    """Return a copy of the network before the first step, in which only learns what does in the training."""
    network = copy.deepcopy(plan.network)
    if plan.built.weights is None:
        fit_to_images(network, plan.images, plan.splits.train, plan.normalization)
    if plan.recipe.finetune is not None:
        trained = phases_of(plan.recipe, plan.network)[0].trained
        for name, parameter in network.named_parameters():
            parameter.requires_grad = name in trained
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def training_batches(
    plan: ClassifierPlan, rows: Array, size: int, device: torch.device, dtype: torch.dtype, processes: int = 1
) -> TrainingBatches:
    """Return batches of some training images, by a seed of their own; the last process's part, the largest."""
    seed = derived_seed(plan.recipe.fit.seed, "search")
    place: dict[str, Any] = {"rank": processes - 1, "world_size": processes}
    return plan.training_batches(device, dtype, rows=rows, batch_size=size, seed=seed, **place)
