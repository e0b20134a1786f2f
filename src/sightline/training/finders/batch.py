"""The search of a batch size: training steps with ever larger batches, their memory and their speed."""

import copy
import gc
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from sightline.config.finding import BatchSearchConfig, batches_within
from sightline.display.reporting import Listener, stage
from sightline.machine.devices import choose_device, generators_kept
from sightline.machine.memory import free_memory, held_memory, measured_peak, ran_out, refuse_without_measure
from sightline.models.base import Network
from sightline.training.base import with_settings
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.finders.sizes import SizeSearch, Tried, fastest, search_sizes
from sightline.training.finders.steps import TrainingStep, copied_network, optimizer_of, training_batches

__all__ = ["FoundBatch", "search_batch"]

TIMED_STEPS, TIMED_SECONDS = 3, 0.3  # of each batch size, at least; the first step is not timed
LONGEST_SECONDS = 1.0  # after which even fewer steps are enough
FREE_SHARE = 0.8  # of the memory that is free on a processor


@dataclass(frozen=True)
class FoundBatch:
    """A batch size for a training, and why."""

    search: SizeSearch
    processes: int

    @property
    def taken(self) -> Tried:
        """The smallest size that is about as fast as the fastest that fits."""
        return fastest(self.search.fitting)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings to lay over the recipe."""
        return {"fit": {"batch_size": self.taken.batch_size}}

    def rows(self) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Return a table of the sizes that were tried, in this order: the names of the columns, and a row each."""
        rows = [
            (
                size.batch_size,
                size.images,
                f"{size.memory / 1e9:.3f}" if math.isfinite(size.memory) else "",
                f"{size.speed:.1f}" if size.speed else "",
                {True: "yes", False: "no"}[size.memory <= self.search.limit],
                {True: "measured", False: "expected"}[size.measured],
            )
            for size in self.search.tried
        ]
        return ("batch_size", "images", "memory_GB", "images_per_second", "fits", "memory_is"), rows

    def to_json(self) -> dict[str, Any]:
        """Return where the number comes from, for ``model.json``."""
        return {
            "settings": self.settings,
            "from": {},
            "tried": [
                {
                    "batch_size": size.batch_size,
                    "images": size.images,
                    "memory": round(size.memory) if math.isfinite(size.memory) else None,
                    "images_per_second": round(size.speed, 1) if size.measured else None,
                }
                for size in self.search.tried
            ],
            "memory_limit": round(self.search.limit),
            "bound": self.search.bound,
        }

    def lines(self) -> list[str]:
        """Return what a user should know."""
        search, largest = self.search, self.search.largest
        bounds = {
            "memory": "a larger one does not fit into memory",
            "images": "there are no more training images for a batch",
            "speed": "larger ones are not faster and were not tried",
        }
        each = " a process" if self.processes > 1 else ""
        return [
            f"largest batch that fits: {largest.batch_size:,} ({bounds[search.bound]}); it holds"
            f" {largest.memory / 1e9:.2f} of {search.limit / 1e9:.2f} GB{each}, headroom"
            f" {(search.limit - largest.memory) / 1e9:.2f} GB",
            f"found: --fit.batch-size {self.taken.batch_size}, the smallest that is about as fast as any"
            f" ({self.taken.speed:,.0f} images/s{each})",
        ]


def search_batch(
    plan: ClassifierPlan, config: BatchSearchConfig, on_event: Listener, *, for_speed: bool = False
) -> FoundBatch:
    """Find how large a batch fits into memory, and how fast each is that was tried.

    Every size is tried by training steps on real batches of the largest images that the recipe shows. Of several
    processes one is measured: its part of a batch, with room for the gradients that Lightning's ``ddp`` keeps once
    more.

    Args:
        for_speed: stop where larger batches are not faster.
    Raises:
        ConfigError: the memory cannot be measured, or not even the smallest batch fits.
    """
    recipe, device = plan.recipe, choose_device()
    refuse_without_measure(device)
    smallest, most = batches_within(recipe.fit, len(plan.splits.train))
    here = recipe.fit.processes if device.type == "cpu" else 1  # processes that share the memory
    with generators_kept(device):
        network = copied_network(plan, device)
        # that a training holds as well: the mean of the weights, and the gradients of ddp
        copies = [copy.deepcopy(network) for held in (recipe.averaging is not None, recipe.fit.processes > 1) if held]
        share = 1.0 if device.type == "cuda" else FREE_SHARE
        limit = held_memory(device) + share * free_memory(device) / here
        if config.memory_limit is not None:
            limit = config.memory_limit * 1e9 / here
        measure = _Measure(plan, network, device)
        with stage(on_event, "Batch sizes") as progress:

            def counted(size: int) -> Tried:
                tried = measure(size)
                progress(min(size, most), most)
                return tried

            search = search_sizes(
                counted,
                measure.images_of,
                smallest,
                most,
                limit,
                config.how,
                careful=device.type == "cpu",
                for_speed=for_speed,
            )
    del copies
    return FoundBatch(search, recipe.fit.processes)


class _Measure:
    """Takes training steps with a batch size; tells their memory and speed."""

    def __init__(self, plan: ClassifierPlan, network: Network, device: torch.device) -> None:
        recipe = plan.recipe
        single = with_settings(recipe, "fit", accumulate=1)  # one batch is in memory at a time
        self.plan, self.network, self.device = plan, network.train(), device
        self.step = TrainingStep(replace(plan, recipe=single), device)
        self.optimizer = optimizer_of(plan, recipe.optimizer, network)
        scales = [recipe.augment.scale(epoch, recipe.fit.epochs) for epoch in range(recipe.fit.epochs)]
        self.epoch = scales.index(max(scales))

    def images_of(self, size: int) -> int:
        """Count the images of the largest batch of an epoch, which is cut evenly."""
        count = len(self.plan.splits.train)
        return -(-count // -(-count // size))

    def __call__(self, size: int) -> Tried:
        fit, rows = self.plan.recipe.fit, self.plan.splits.train
        batches = training_batches(self.plan, rows, size, self.device, self.step.dtype, fit.processes)
        order = batches.order(self.epoch)

        def take() -> int:
            batch = batches.make(self.epoch, len(batches) - 1, order)  # the last has the most images
            self.step(self.network, self.optimizer, [batch]).item()  # waits for the device
            return len(batch.labels)

        images, memory, speed = self.images_of(size), math.inf, 0.0
        try:
            with measured_peak(self.device) as peak:
                take()
            seconds: list[float] = []
            while sum(seconds) < (LONGEST_SECONDS if len(seconds) < TIMED_STEPS else TIMED_SECONDS):
                start = time.perf_counter()
                part = take()
                seconds.append(time.perf_counter() - start)
            memory, speed = peak.bytes, part / min(seconds)
        except RuntimeError as error:
            if not ran_out(error):
                raise
        if not speed:
            gc.collect()  # what the error's traceback held
        return Tried(size, images, memory, speed)
