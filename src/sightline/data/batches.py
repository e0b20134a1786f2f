"""Batches made on the device, a batch at a time: one gather, vectorized augmentation, no Python per image.

Everything random in a batch is a function of (seed, epoch, index of the batch in the epoch): a batch can be made again
by its position alone, which is what makes a resumed training the same training. The numbers are drawn for the global
batch, of which each process takes its slice.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sightline.config.augmentation import AugmentConfig
from sightline.config.generating import AnyRecipe
from sightline.data.augment import augment
from sightline.data.augment.mixing import Mixing, draw_mixing, mix
from sightline.data.augment.own import OwnAugmentation
from sightline.data.cache import CachedImages, open_images
from sightline.data.correcting import correct, with_corrected_labels
from sightline.data.excluding import leave_out
from sightline.data.ranges import with_range_of
from sightline.data.sources.source import ImageSource
from sightline.data.splits import RULE, Splits, split_as, statistics
from sightline.data.synthetic import join_train
from sightline_runtime.decoding.preprocessing import Preprocessing

__all__ = [
    "BATCH_RULE",
    "Array",
    "Batch",
    "EvaluationBatches",
    "Normalization",
    "TrainingBatches",
    "augmentation_of",
    "balanced_order",
    "derived_seed",
    "prepare",
]

# how random parts of images are drawn, and a last, shorter step is averaged, as runs note it; 1: parts that do not fit
# were cut to the image, and a shorter step was divided by the batches of a full one
BATCH_RULE = 2

Array = np.ndarray[Any, Any]


class Batch(NamedTuple):
    """Some images with their classes."""

    images: Tensor
    """Normalized, (B, 3, H, W), channels-last in memory; or what a frozen backbone made of them."""
    labels: Tensor
    """Class indices, (B,)."""
    epoch: int
    position: int
    """Position in the epoch, from 0."""
    weight: float = 1.0
    """What a mean over these images counts for in the mean of the processes' means, so that that is the mean over all
    images of the batch; 1 where the processes' parts are equal."""
    partner_labels: Tensor | None = None
    """Class indices of the images that are mixed in, (B,); None where nothing is mixed."""
    shares: Tensor | None = None
    """How much of each image and its label is its own, from 0 to 1, (B,); the rest is the partner's."""
    features: bool = False
    """Whether ``images`` are what a frozen backbone made of the images, for the head to read."""

    @property
    def main_labels(self) -> Tensor:
        """The label with the larger share of each image, its own where both have a half, (B,)."""
        if self.shares is None or self.partner_labels is None:
            return self.labels
        return torch.where(self.shares >= 0.5, self.labels, self.partner_labels)


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, from 0 to 1."""

    mean: list[float]
    std: list[float]

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return (mean, std), each (3,), in float32; a channel that never varies is divided by one level, not zero."""
        std = [max(value, 1 / 255) for value in self.std]
        return torch.tensor(self.mean, device=device), torch.tensor(std, device=device)


def prepare(
    source: ImageSource,
    recipe: AnyRecipe,
    progress: Callable[[int, int], None] | None = None,
    given: Normalization | None = None,
    images: CachedImages | None = None,
    rule: int = RULE,
) -> tuple[CachedImages, Splits, Normalization]:
    """Open an image set, cut it as a recipe asks, correct its labels, leave out what it lists, measure the statistics
    of train, and lay generated images beside it.

    Args:
        source: the image set.
        recipe: every setting.
        progress: called with (images done, images in all).
        given: the normalization where it is known, as that of pretrained weights is; nothing is measured then.
        images: the set, where it has been opened already.
        rule: by which it is dealt.
    """
    if images is None:
        images = open_images(source, recipe.data.size, progress, preprocessing=Preprocessing(recipe.data.fit))
    splits = split_as(recipe, images, rule)
    if recipe.data.corrections is not None:
        images, splits = correct(images, splits, recipe.data)
    if recipe.data.exclude is not None:
        splits = leave_out(images, splits, recipe.data.exclude)
    real = splits.train
    images = with_corrected_labels(with_range_of(source, images, real, progress), images)
    data = recipe.data
    if data.synthetic is not None:
        images, splits = join_train(images, splits, data.synthetic, data.synthetic_share, data.split_seed)
    measured = splits.train if data.synthetic_share == 1 else real
    return images, splits, given or Normalization(*statistics(images, measured))


def augmentation_of(recipe: AnyRecipe) -> AugmentConfig:
    """Return how the training images of a recipe are varied; those of a generator are mirrored at most."""
    augment = recipe.augment
    return augment if isinstance(augment, AugmentConfig) else AugmentConfig(flip=augment.flip)


def derived_seed(*numbers: int | str) -> int:
    """Return a seed of its own for every tuple of numbers; neighbors share nothing."""
    digest = hashlib.sha256("/".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class TrainingBatches:
    """The training images, epoch after epoch, in a new order each; every image once an epoch, unless they are balanced.

    Iterating yields the rest of the current epoch; ``state_dict`` says where it stands, for Lightning's checkpoints.
    The batches of an epoch differ in size by one image at most, so none is too small for batch-norm. Thirteen
    parameters because what a batch is made of, how, where and for which process is set apart, each by its name.
    """

    def __init__(
        self,
        images: CachedImages,
        rows: Array,
        normalization: Normalization,
        config: AugmentConfig,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        balanced: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.size = images.size
        self.balanced = balanced
        self.epochs = epochs
        self.config = config
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.device, self.dtype = device, dtype
        self.epoch = 0
        self.position = 0  # batches of this epoch already handed out
        self._pixels, self._rows = _resident(torch.from_numpy(images.pixels), torch.from_numpy(rows), device)
        self._labels = torch.from_numpy(images.labels[rows])
        self._mean, self._std = normalization.tensors(device)
        self._own = None if config.own is None else OwnAugmentation(config.own)
        self._count = len(rows)
        self._batches = -(-self._count // batch_size)
        bits = torch.Generator().manual_seed(derived_seed(seed, "flip"))
        self._flip_first = torch.rand(self._count, generator=bits) < 0.5  # of the first epoch, where flips alternate

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        if self.position >= self._batches:
            self.epoch, self.position = self.epoch + 1, 0
        order = self.order(self.epoch)
        while self.position < self._batches:
            self.position += 1  # counts as handed out: a checkpoint may be written before the next is asked for
            yield self.make(self.epoch, self.position - 1, order)

    def order(self, epoch: int) -> Tensor:
        """Return the images of an epoch as positions among the training images, (n,)."""
        if self.balanced:
            return balanced_order(self._labels, self.seed, epoch)
        return _shuffled(self._count, self.seed, epoch)

    def draw(self, epoch: int, index: int, order: Tensor) -> tuple[Tensor, slice, augment.Parameters, Mixing | None]:
        """Choose the images of one batch, and draw its random numbers.

        Returns:
            Their positions among the training images, (n,); which of them are this process's; what happens to each of
            all; and how they are mixed, where they are.
        """
        members = order[_part(self._count, index, self._batches)]
        share = _part(len(members), self.rank, self.world_size)
        generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch, index))
        flips = self._flip_first[members] ^ bool(epoch % 2)
        cached = (self._pixels.shape[1], self._pixels.shape[2])
        drawn = augment.draw(self.config, len(members), cached, self.size, generator, flips)
        mixing = draw_mixing(self.config.mix, len(members), self.size, generator) if self.config.mix else None
        return members, share, drawn, mixing

    def make(self, epoch: int, index: int, order: Tensor) -> Batch:
        """Make this process's slice of one batch."""
        members, share, drawn, mixing = self.draw(epoch, index, order)
        needed = share if mixing is None else _with_partners(mixing.partner_B, share)
        pixels, rows = self._pixels, self._rows[members[needed]]
        if pixels.device.type != self.device.type:  # too many to keep there
            pixels, rows = self._moved(pixels[rows]), torch.arange(len(rows))
        parameters, rows = drawn.part(needed, self.device), self._moved(rows)
        seed = derived_seed(self.seed, "own", epoch, index, self.rank)
        own = None if self._own is None else partial(self._own, seed=seed)
        images = augment.apply(self.config, pixels, parameters, self.size, self._mean, self._std, self.dtype, rows, own)
        labels = self._moved(self._labels[members[share]])
        partner_labels = shares = None
        if mixing is not None:
            assert isinstance(needed, Tensor)
            place = torch.empty(len(members), dtype=torch.long)
            place[needed] = torch.arange(len(needed))
            partner_B = mixing.partner_B[share]
            partners, shares = images[self._moved(place[partner_B])], self._moved(mixing.share_B[share])
            box = None if mixing.box_B4 is None else self._moved(mixing.box_B4[share])
            images = mix(images[: len(labels)], partners, shares, box)
            partner_labels = self._moved(self._labels[members[partner_B]])
        scale = self.config.scale(epoch, self.epochs)
        if scale < 1:
            images = augment.shrink(images, scale)
        weight = len(labels) * self.world_size / len(members)
        return Batch(images, labels, epoch, index, weight, partner_labels, shares)

    def _moved(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


def balanced_order(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """Draw an epoch in which every class comes equally often, give or take one.

    The draws of all epochs are one sequence that deals the classes in turn. Within a class the images come in rounds,
    each of all of them in a new order, so that none comes again before the others have; a round goes on in the next
    epoch.

    Args:
        labels: classes of the training images, (n,).
    Returns:
        Positions among the training images, (n,); some come several times, some not at all.
    """
    count, classes = len(labels), np.unique(labels.numpy()).tolist()
    drawn = []
    for turn, label in enumerate(classes):
        members = torch.nonzero(labels == label).flatten()
        first, last = (-((turn - draws) // len(classes)) for draws in (epoch * count, (epoch + 1) * count))
        rounds = range(first // len(members), -(-last // len(members)))
        stream = torch.cat([members[_shuffled(len(members), seed, "class", label, round)] for round in rounds])
        drawn.append(stream[first - rounds.start * len(members) :][: last - first])
    return torch.cat(drawn)[_shuffled(count, seed, epoch)]


def _shuffled(count: int, *seed: int | str) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(derived_seed(*seed)))


class EvaluationBatches:
    """Images in the order of their rows, the middle of each, nothing random.

    Every process makes as many batches as the others, for they wait for each other at each.
    """

    def __init__(
        self,
        images: CachedImages,
        rows: Array,
        normalization: Normalization,
        *,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.size = images.size
        self.device, self.dtype = device, dtype
        self._batches = -(-len(rows) // (batch_size * world_size))
        rows = rows[_part(len(rows), rank, world_size)]
        self._pixels = torch.from_numpy(images.pixels)
        self._rows = torch.from_numpy(rows)
        self._labels = torch.from_numpy(images.labels[rows])
        self._mean, self._std = normalization.tensors(device)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        for index in range(self._batches):
            chosen = _part(len(self._rows), index, self._batches)
            pixels = self._pixels[self._rows[chosen]].to(self.device)
            images = augment.normalize(augment.center(pixels, self.size), self._mean, self._std, self.dtype)
            yield Batch(images, self._labels[chosen].to(self.device), 0, index)


def _part(count: int, index: int, parts: int) -> slice:
    """Return which of some things the part of an index holds, where the parts differ by one at most."""
    return slice(count * index // parts, count * (index + 1) // parts)


def _with_partners(partner_B: Tensor, share: slice) -> Tensor:
    """Return the positions in the global batch of a process's images, then of their partners in other processes."""
    own = torch.arange(len(partner_B))[share]
    partners = partner_B[share]
    return torch.cat([own, partners[~torch.isin(partners, own)]])


def _resident(pixels: Tensor, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Keep the training images on the device where they take less than a third of what is free there.

    Returns:
        Pixels to gather from, and the row in them of each training image.
    """
    if device.type == "cuda":
        bytes_needed = len(rows) * pixels[0].numel()
        if bytes_needed * 3 < torch.cuda.mem_get_info(device)[0]:
            return pixels[rows].to(device), torch.arange(len(rows))
    return pixels, rows
