"""Loss and right answers of an epoch, counted without waiting for the device at each step. B images, K classes."""

import math

import torch
from torch import Tensor

__all__ = ["COUNT_EVERY", "Totals"]

COUNT_EVERY = 50  # batches; their logits are kept until then


class Totals:
    """Loss, right answers and images of an epoch.

    Batches are set aside and counted ``COUNT_EVERY`` at a time: counting each takes ten small operations a step, and on
    a GPU it would wait for the device. They are added in their order, so when one looks changes no digit.
    """

    def __init__(self, loss: float = 0.0, right: int = 0, images: int = 0) -> None:
        self._loss, self._right, self._images = loss, right, images
        self._first_bad_step: int | None = None
        self._waiting: list[tuple[Tensor, Tensor | None, Tensor, int]] = []

    def add(self, loss: Tensor, logits: Tensor | None, labels: Tensor, step: int) -> None:
        """Count a batch of step ``step``: its mean loss, the logits, (B, K), or None, and the classes, (B,)."""
        self._waiting.append((loss.detach(), None if logits is None else logits.detach(), labels, step))
        if len(self._waiting) == COUNT_EVERY:
            self._count()

    @property
    def first_bad_step(self) -> int | None:
        """The first step whose loss was not finite; waits for the device."""
        self._count()
        return self._first_bad_step

    @property
    def sums(self) -> tuple[float, int, int]:
        """(sum of the losses, right answers, images) since the last ``take``; waits for the device."""
        self._count()
        return self._loss, self._right, self._images

    def take(self) -> tuple[float, int, int]:
        """Return the sums, which start again from zero."""
        sums = self.sums
        self._loss, self._right, self._images = 0.0, 0, 0
        return sums

    def _count(self) -> None:
        if not self._waiting:
            return
        losses, logits, labels, steps = zip(*self._waiting, strict=True)
        self._waiting = []
        if all(answers is not None for answers in logits):
            self._right += int((torch.cat(logits).argmax(1) == torch.cat(labels)).sum())
        for loss, classes, step in zip(torch.stack(losses).tolist(), labels, steps, strict=True):
            self._loss += loss * len(classes)
            self._images += len(classes)
            if self._first_bad_step is None and not math.isfinite(loss):
                self._first_bad_step = step
