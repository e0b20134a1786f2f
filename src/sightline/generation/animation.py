"""How the first images of each class come out of noise, as a GIF."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config import SamplingConfig
from sightline.display.pictures import draw_animation
from sightline.errors import ConfigError
from sightline.generation.generator import Generator
from sightline.generation.sequence import ImageSequence
from sightline.runs.folder import refuse_to_overwrite

__all__ = ["animate", "refuse_animation"]

Array = np.ndarray[Any, Any]
ROWS, COLUMNS, FRAMES = 20, 4, 60  # classes, images of each, and pictures of an animation, at most


def refuse_animation(animation: str | os.PathLike[str], how: SamplingConfig | None, begun: bool) -> None:
    """Refuse a file that is no GIF, or that is there already and not of this generation, and a way of no steps."""
    if how is None:
        raise ConfigError(
            "--animation: this generator makes an image in one pass, so there is no way to show; leave it out."
        )
    if Path(animation).suffix.lower() != ".gif":
        raise ConfigError(f"--animation {animation} must end in .gif, the format of the animation.")
    if not begun:
        refuse_to_overwrite(animation, flag="--animation")


def animate(path: Path, generator: Generator, images: ImageSequence, labels: list[int]) -> None:
    """Draw how the first images of each class come out of noise."""
    labels = labels[:ROWS]
    names, count = images.classes[: len(labels)], len(images.classes)
    numbers = [turn * count + place for place in range(len(labels)) for turn in range(COLUMNS)]
    assert images.how is not None
    every = -(-(images.how.steps + 1) // FRAMES)
    frames: list[Array] = []
    steps = images.how.steps

    def watch(step: int, pixels: Array) -> None:
        if step % every == 0 or step == steps:
            frames.append(pixels.reshape(len(labels), COLUMNS, *pixels.shape[1:]))

    each = [label for label in labels for _ in range(COLUMNS)]
    generator.make(each, [images.seed_of(number) for number in numbers], images.how, watch)
    heading = f"{images.generator}: {steps} steps of {images.how.sampler}, guidance {images.how.guidance:g}"
    draw_animation(path, np.stack(frames), names, heading)
