"""Steps of a training without its Trainer: the same loss, number format, clipping and accumulation, on a copy of the network."""

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from sightline.backbones import fit_to_images
from sightline.config import Recipe, SpeednetConfig
from sightline.devices import arithmetic, seed_generators
from sightline.images.batches import Array, Batch, TrainingBatches, derived_seed
from sightline.learners import balanced_weights, classification_loss
from sightline.nets import Network
from sightline.preparing import Plan

__all__ = ["TrainingStep", "copied_network", "grouped", "training_batches"]


class TrainingStep:
    """Takes one optimizer step as a training by one process does; called with a network, its optimizer and some batches.

    ``fit.compile`` is left out: it changes the last digits only.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        """
        Args:
            plan: of the training.
            device: that computes.
        """
        self.recipe: Recipe = plan.recipe
        self.device = device
        self.dtype = arithmetic(plan.recipe.fit.precision, device)
        self._weights = None
        if plan.recipe.fit.class_weights == "balanced":
            labels = plan.images.labels[plan.splits.train]
            self._weights = balanced_weights(labels, len(plan.images.classes)).to(device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def __call__(self, network: Network, optimizer: torch.optim.Optimizer, batches: Iterable[Batch]) -> Tensor:
        """Take a step that sees some batches, each when its turn comes; returns their mean loss before it, a scalar."""
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
        """The number format of the training, for what runs within."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def _backward(self, network: Network, batch: Batch) -> Tensor:
        fit, config = self.recipe.fit, self.recipe.network
        seed_generators(self.device, derived_seed(fit.seed, batch.epoch, batch.position, 0))  # dropout
        network.train_whitening(isinstance(config, SpeednetConfig) and batch.epoch < config.whiten_bias_epochs)
        with self.autocast():
            loss, _ = classification_loss(network, batch, fit.label_smoothing, self._weights)
        share = fit.batches_a_step(batch.epoch)  # by which a last, shorter step is divided, too
        self._scaler.scale(loss / share).backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def grouped(batches: TrainingBatches, recipe: Recipe) -> Iterator[list[Batch]]:
    """The batches of each optimizer step, without end: after the last epoch the first comes again."""
    while True:
        for epoch in range(recipe.fit.epochs):
            order, count = batches.order(epoch), recipe.fit.batches_a_step(epoch)
            for first in range(0, len(batches), count):
                members = range(first, min(first + count, len(batches)))
                yield [batches.make(epoch, index, order) for index in members]


def copied_network(plan: Plan, device: torch.device) -> Network:
    """A copy of the network as it is before the first step of the training."""
    network = copy.deepcopy(plan.network)
    if plan.built.weights is None:
        fit_to_images(network, plan.images, plan.splits.train, plan.normalization)
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def training_batches(
    plan: Plan, rows: Array, size: int, device: torch.device, dtype: torch.dtype, processes: int = 1
) -> TrainingBatches:
    """Batches of some training images as the training makes them, by a seed of their own; the last process's part, the largest."""
    recipe = plan.recipe
    return TrainingBatches(
        plan.images,
        rows,
        plan.normalization,
        recipe.augment,
        batch_size=size,
        epochs=recipe.fit.epochs,
        seed=derived_seed(recipe.fit.seed, "search"),
        device=device,
        dtype=dtype,
        balanced=recipe.data.sampling == "balanced",
        rank=processes - 1,
        world_size=processes,
    )
