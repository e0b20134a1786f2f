"""A trained generator with everything it needs to make an image. B images, height H, width W, K classes.

Nothing here loads Lightning.
"""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline.config.acgan import ACGANConfig
from sightline.config.generators import DiffusionConfig, EDMConfig, GeneratorConfig, SamplingConfig
from sightline.data.batches import Normalization
from sightline.inference.architecture import fill
from sightline.machine.devices import arithmetic, choose_device
from sightline.models import diffusion, edm
from sightline.models.acgan import ACGAN
from sightline.models.build import build_generator
from sightline.models.unet import EDMUNet, UNet
from sightline.runs.folder import generator_settings, read_model_of_finished, read_weights

__all__ = ["FULL_RANGE", "Generator", "load_generator"]

Array = np.ndarray[Any, Any]
FULL_RANGE = Normalization([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
"""Levels from 0 to 255 become numbers from -1 to 1, for every generator."""


class Generator:
    """Makes images of classes; ``load_generator`` loads the one of a finished run."""

    def __init__(
        self,
        network: nn.Module,
        config: GeneratorConfig,
        size: tuple[int, int],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Wrap a network.

        Args:
            network: as it was trained, also within an ``ACGAN``; it is neither moved nor brought into another mode.
            config: its settings.
            size: (height, width) of the images in pixels.
            device: where it is.
            dtype: number format of its arithmetic.
        """
        self.network = network.generator if isinstance(network, ACGAN) else network
        self.config, self.size, self.device, self.dtype = config, size, device, dtype

    @torch.no_grad()
    def make(
        self,
        labels: Sequence[int],
        seeds: Sequence[int],
        how: SamplingConfig | None,
        watch: Callable[[int, Array], None] | None = None,
    ) -> Array:
        """Make an image of each class that is named, as uint8, (B, H, W, 3).

        Args:
            labels: class indices.
            seeds: of the images; an image depends on its own seed and class, and on nothing beside it.
            how: guidance, steps and sampler; None where the generator makes an image in one pass.
            watch: called, where there are several steps, before the first and after each: with the number that are
                over, and the images as they are then, uint8.
        """
        automatic = torch.autocast(self.device.type, dtype=self.dtype)
        with nullcontext() if self.dtype == torch.float32 else automatic:
            if isinstance(self.config, ACGANConfig):
                return _to_pixels(self._in_one_pass(self.config.noise_width, labels, seeds))
            return _to_pixels(self._in_steps(self.config, labels, seeds, how, watch))

    def _in_one_pass(self, width: int, labels: Sequence[int], seeds: Sequence[int]) -> Tensor:
        noise = torch.stack([torch.randn(width, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        images_BCHW: Tensor = self.network(noise.to(self.device), torch.tensor(labels, device=self.device))
        return images_BCHW

    def _in_steps(
        self,
        config: DiffusionConfig | EDMConfig,
        labels: Sequence[int],
        seeds: Sequence[int],
        how: SamplingConfig | None,
        watch: Callable[[int, Array], None] | None,
    ) -> Tensor:
        assert how is not None
        how = how.settled(config)
        place = torch.tensor(labels, device=self.device), how.steps
        knobs: dict[str, Any] = {
            "seeds": seeds,
            "size": self.size,
            "guidance": how.guidance,
            "sampler": how.sampler,
            "tell_above": how.tell_above,
            "guide_below": math.inf if how.guide_below is None else how.guide_below,
            "watch": None if watch is None else lambda step, images: watch(step, _to_pixels(images)),
        }
        if isinstance(config, EDMConfig):
            assert isinstance(self.network, EDMUNet)
            return edm.sample(self.network, *place, config, **knobs)
        assert isinstance(config, DiffusionConfig)
        assert isinstance(self.network, UNet)
        kept_T = diffusion.linear_noise(config.noise_steps, config.first_noise, config.last_noise)
        return diffusion.sample(self.network, *place, kept_T, **knobs)


def _to_pixels(images_BCHW: Tensor) -> Array:
    """Turn images from -1 to 1 into uint8, (B, H, W, 3); what lies beyond is cut."""
    levels = ((images_BCHW.float() + 1) * 127.5).round().clamp(0, 255)
    pixels: Array = levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def load_generator(run: str | os.PathLike[str], *, device: str | None = None) -> tuple[Generator, dict[str, Any]]:
    """Load the generator of a finished run.

    Args:
        run: its folder.
        device: ``cpu``, ``cuda``, ...; None takes the best there is.
    Returns:
        The generator, and the content of the run's ``model.json``.
    Raises:
        RunError: no run, not finished, a classifier's, or its weights do not fit.
    """
    model = read_model_of_finished(run, generator=True)
    weights, size = Path(run) / "model.safetensors", tuple(model["size"])
    tensors, _ = read_weights(weights)
    config, chosen = generator_settings(model), choose_device(device)
    generator = Generator(
        build_generator(config, len(model["classes"]), size),
        config,
        size,
        chosen,
        arithmetic(model["precision"], chosen),
    )
    fill(generator.network, tensors, str(weights))
    generator.network.to(device=chosen, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return generator, model
