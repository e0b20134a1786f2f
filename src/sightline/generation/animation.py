"""An animation of how the first images of each class come out of noise, as a GIF."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config.generators import SamplingConfig
from sightline.display.pictures import draw_animation
from sightline.errors import ConfigError
from sightline.generation.generator import Generator
from sightline.generation.sequence import ImageSequence
from sightline.runs.folder import refuse_to_overwrite

__all__ = ["animate", "refuse_animation"]

ROWS, COLUMNS, FRAMES = 20, 4, 60  # classes, images of each, and pictures of an animation, at most


def refuse_animation(animation: str | os.PathLike[str], how: SamplingConfig | None, begun: bool) -> None:
    """Refuse a file that is no GIF, one that is there and not of this generation, and a generator of one pass."""
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
    labels, how = labels[:ROWS], images.how
    assert how is not None
    every = -(-(how.steps + 1) // FRAMES)
    frames: list[np.ndarray[Any, Any]] = []

    def watch(step: int, pixels: np.ndarray[Any, Any]) -> None:
        if step >= every * len(frames) or step == how.steps:  # heun goes two at a time
            frames.append(pixels.reshape(len(labels), COLUMNS, *pixels.shape[1:]))

    seeds = [
        images.seed_of(turn * len(images.classes) + place) for place in range(len(labels)) for turn in range(COLUMNS)
    ]
    generator.make([label for label in labels for _ in range(COLUMNS)], seeds, how, watch)
    heading = f"{images.generator}: {how.steps} steps of {how.sampler}, guidance {how.guidance:g}"
    draw_animation(path, np.stack(frames), images.classes[: len(labels)], heading)
