"""Samples of a generator while it is trained: a picture after some of the epochs, always from the same noise."""

from math import ceil
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from sightline.config.generating import GeneratorRecipe
from sightline.config.generators import GLIMPSE_STEPS, SHOWN_CLASSES, glimpse_of
from sightline.data.batches import derived_seed
from sightline.display.pictures import draw_samples
from sightline.display.reporting import Listener
from sightline.generation.generator import Generator
from sightline.machine.devices import arithmetic
from sightline.runs.folder import SAMPLES
from sightline.training.callbacks.averaging import Averaging
from sightline.training.module import Learner
from sightline.training.phases import modes_kept

__all__ = ["SampleGrid"]

IMAGES = 40  # in all, about
COLUMNS = 4  # images of a class, at most
SHARE = 0.05  # of the operations of training that drawing may take


class SampleGrid(Callback):
    """Writes ``samples/epoch-NNN.png``: after every epoch, or where epochs are short after every n-th and the last.

    It draws no number that the training draws, and what goes wrong in it costs a line.
    """

    def __init__(self, run: Path, classes: list[str], size: tuple[int, int], images: int, on_event: Listener) -> None:
        """
        Args:
            run: its folder.
            classes: names in the order of their indices.
            size: (height, width) of the images in pixels.
            images: training images of an epoch.
            on_event: where a failure is told.
        """
        self.run, self.classes, self.size, self.on_event = run, classes[:SHOWN_CLASSES], size, on_event
        self.columns = max(1, min(COLUMNS, IMAGES // len(self.classes)))
        # forward; a training step takes three times as long
        passes = 2 * GLIMPSE_STEPS * len(self.classes) * self.columns
        self.every = ceil(passes / (SHARE * 3 * images))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and (epoch % self.every == 0 or epoch == trainer.max_epochs):
            try:
                self._draw(epoch, trainer, pl_module)
            except Exception as error:  # whatever a drawing library, or a full disk, may raise
                reason = " ".join(str(error).split()) or type(error).__name__
                self.on_event(f"no picture of samples: {reason}")

    def _draw(self, epoch: int, trainer: L.Trainer, learner: Learner) -> None:
        assert isinstance(learner.recipe, GeneratorRecipe)
        config, fit = learner.recipe.generator, learner.recipe.fit
        averages = (callback for callback in trainer.callbacks if isinstance(callback, Averaging))  # type: ignore[attr-defined]
        averaged = next((callback.network for callback in averages), None)
        network = learner.network if averaged is None else averaged
        how, method = glimpse_of(config), "one pass"
        if how is not None:
            method = f"{how.steps} steps of {how.sampler}, guidance {how.guidance:g}"
        labels = [label for label in range(len(self.classes)) for _ in range(self.columns)]
        seeds = [derived_seed(fit.seed, "samples", index) for index in range(len(labels))]
        generator = Generator(network, config, self.size, learner.device, arithmetic(fit.precision, learner.device))
        with modes_kept(network):
            network.eval()
            pixels = generator.make(labels, seeds, how)
        folder = self.run / SAMPLES
        folder.mkdir(exist_ok=True)
        draw_samples(
            folder / f"epoch-{epoch:03d}.png",
            np.reshape(pixels, (len(self.classes), self.columns, *pixels.shape[1:])),
            self.classes,
            f"epoch {epoch}: {method}",
        )
