"""The steps of a training: compiled, and over how many batches each."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler

__all__ = ["Accumulation", "CompiledSteps"]

SIZES = 64  # of images and batches that may be compiled for


class Accumulation(GradientAccumulationScheduler):
    """Lightning's, which is not told of the start of an epoch that is resumed within."""

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self.on_train_epoch_start(trainer)


class CompiledSteps(Callback):
    """Training steps run compiled; validation, whose batches have other sizes, and all that follows run as written.

    Every size is compiled by itself: one program for all sizes would be made for the sizes seen so far, and a resumed
    training, which sees others first, would end in other bits.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        dynamo = torch._dynamo.config
        dynamo.recompile_limit = max(dynamo.recompile_limit, SIZES)  # beyond it the network would run as written
        pl_module.network.compile(dynamic=False)
        self._compiled = pl_module.network._compiled_call_impl

    def on_validation_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.network._compiled_call_impl = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.network._compiled_call_impl = self._compiled

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.network._compiled_call_impl = None
