"""A trained generator with everything it needs to make an image: load it, ask it. B images, height H, width W, K classes.

Nothing here loads Lightning.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sightline.config import ACGANConfig, DiffusionConfig, GeneratorConfig, SamplingConfig
from sightline.data.batches import Normalization
from sightline.inference.architecture import fill
from sightline.machine.devices import arithmetic, choose_device
from sightline.models import diffusion
from sightline.models.acgan import ACGAN
from sightline.models.build import build_generator
from sightline.models.unet import UNet
from sightline.runs.folder import generator_settings, read_model_of_finished, read_weights

__all__ = ["FULL_RANGE", "Generator", "generator_of", "load_generator", "to_pixels"]

Array = np.ndarray[Any, Any]
FULL_RANGE = Normalization([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
"""Levels from 0 to 255 become numbers from -1 to 1, for every generator."""


def to_pixels(images_BCHW: Tensor) -> Array:
    """Images from -1 to 1 to uint8, (B, H, W, 3); what lies beyond is cut."""
    levels = ((images_BCHW.float() + 1) * 127.5).round().clamp(0, 255)
    pixels: Array = levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


class Generator(Protocol):
    """What makes images of classes; ``load_generator`` makes one of a finished run."""

    @property
    def config(self) -> GeneratorConfig: ...
    @property
    def device(self) -> torch.device: ...

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
            how: guidance, steps and sampler; None where there are none.
            watch: is told, after each step, how many are over, and the images as they are thought to be, uint8.
        """


def generator_of(
    network: nn.Module, config: GeneratorConfig, size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Generator:
    """What a network makes images by.

    Args:
        network: as it was trained, also within an ``ACGAN``; it is neither moved nor brought into another mode.
        config: its settings.
        size: (height, width) of the images in pixels.
        device: where it is.
        dtype: number format of its arithmetic.
    """
    if isinstance(config, ACGANConfig):
        maker = network.generator if isinstance(network, ACGAN) else network
        return ACGANGenerator(maker, config, device, dtype)
    assert isinstance(network, UNet)
    return DiffusionGenerator(network, config, size, device, dtype)


class ACGANGenerator:
    """Makes images of classes in one pass."""

    def __init__(self, network: nn.Module, config: ACGANConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.network, self.config, self.device, self.dtype = network, config, device, dtype

    @torch.no_grad()
    def make(
        self,
        labels: Sequence[int],
        seeds: Sequence[int],
        how: SamplingConfig | None,
        watch: Callable[[int, Array], None] | None = None,
    ) -> Array:
        """As ``Generator`` has it; ``how`` has no effect."""
        width = self.config.noise_width
        noise = torch.stack([torch.randn(width, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        with _format(self.device, self.dtype):
            images = self.network(noise.to(self.device), torch.tensor(labels, device=self.device))
        pixels = to_pixels(images)
        if watch:
            watch(1, pixels)
        return pixels


class DiffusionGenerator:
    """Makes images of classes out of noise; ``load_generator`` makes it of a finished run."""

    def __init__(
        self,
        network: UNet,
        config: DiffusionConfig,
        size: tuple[int, int],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """
        Args:
            network: as it was trained; it is neither moved nor brought into another mode.
            config: its settings.
            size: (height, width) of the images in pixels.
            device: where it is.
            dtype: number format of its arithmetic.
        """
        self.network, self.config, self.size, self.device, self.dtype = network, config, size, device, dtype
        self.kept_T = diffusion.linear_noise(config.noise_steps, config.first_noise, config.last_noise)

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
            how: guidance, steps and sampler.
            watch: is told, before the first step and after each, how many are over, and the images as they are then, uint8.
        """
        assert how is not None
        with _format(self.device, self.dtype):
            images = diffusion.sample(
                self.network,
                torch.tensor(labels, device=self.device),
                how.steps,
                self.kept_T,
                seeds=seeds,
                size=self.size,
                guidance=how.guidance,
                sampler=how.sampler,
                tell_above=how.settled(self.config).tell_above or 0.0,
                watch=None if watch is None else lambda step, images: watch(step, to_pixels(images)),
            )
        return to_pixels(images)


def _format(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def load_generator(run: str | os.PathLike[str], *, device: str | None = None) -> tuple[Generator, dict[str, Any]]:
    """Load the generator of a finished run.

    Args:
        run: its folder.
        device: ``cpu``, ``cuda``, ...; None takes the best there is.
    Returns:
        The generator, and what the run knows of itself (``model.json``).
    Raises:
        RunError: no run, not finished, a classifier's, or its weights do not fit.
    """
    model = read_model_of_finished(run, generator=True)
    where = Path(run) / "model.safetensors"
    tensors, _ = read_weights(where)
    config, chosen = generator_settings(model), choose_device(device)
    built = build_generator(config, len(model["classes"]), tuple(model["size"]))
    network = built.generator if isinstance(built, ACGAN) else built
    fill(network, tensors, str(where))
    network = network.to(device=chosen, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    dtype = arithmetic(model["precision"], chosen)
    return generator_of(network, config, tuple(model["size"]), chosen, dtype), model
