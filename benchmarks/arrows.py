"""Draw image sets whose classes are told by direction: arrows, and hands with a thumb on one side.

Positions, sizes, angles, line widths, and the colors of shape and background vary from image to image.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["KINDS", "draw_set"]

KINDS = {
    "left_right": ("left", "right"),
    "up_down": ("up", "down"),
    "four": ("left", "right", "up", "down"),
    "hands": ("left_hand", "right_hand"),
}
QUARTERS = {"right": 0, "down": 1, "left": 2, "up": 3}  # quarter turns, clockwise, of an arrow to the right
LARGER = 4  # times as large as an image is drawn, to be scaled down smoothly


def draw_set(folder: Path, kind: str, per_class: int, side: int = 96, seed: int = 0) -> Path:
    """Draw a folder of class folders.

    Args:
        folder: to write to.
        kind: one of ``KINDS``.
        per_class: images.
        side: of an image in pixels.
        seed: of everything that varies.
    """
    random = np.random.default_rng(seed)
    for name in KINDS[kind]:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            _draw(name, side, random).save(folder / name / f"{index:04d}.png")
    return folder


def _draw(name: str, side: int, random: np.random.Generator) -> Image.Image:
    """Draw one image of a class."""
    background = random.integers(0, 256, 3)
    color = random.integers(0, 256, 3)
    while abs(int(color.sum()) - int(background.sum())) < 150:  # of 765: it can be seen
        color = random.integers(0, 256, 3)
    large = side * LARGER
    image = Image.new("RGB", (large, large), tuple(background.tolist()))
    canvas = ImageDraw.Draw(image)
    for _ in range(int(random.integers(0, 6))):  # clutter that has no direction
        middle, radius = random.uniform(0, large, 2), random.uniform(0.02, 0.06) * large
        canvas.ellipse([*(middle - radius), *(middle + radius)], fill=tuple(random.integers(0, 256, 3).tolist()))
    middle = large / 2 + random.uniform(-0.15, 0.15, 2) * large
    size = random.uniform(0.2, 0.32) * large
    turn = np.deg2rad(random.uniform(-12, 12) + 90 * QUARTERS.get(name, 0))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    lines = _hand(name) if name.endswith("hand") else _ARROW
    width = int(random.uniform(0.25, 0.4) * size)
    for line in lines:
        points = [tuple((middle + size * rotation @ np.array(point)).tolist()) for point in line]
        canvas.line(points, fill=tuple(color.tolist()), width=width, joint="curve")
    noise = random.normal(0, 8, (side, side, 3))
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float64) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


_ARROW = (((-1.0, 0.0), (1.0, 0.0)), ((0.3, -0.7), (1.0, 0.0), (0.3, 0.7)))  # a shaft and a head, to the right


def _hand(name: str) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return the palm, the fingers and the thumb of a hand seen from its back: a left one has its thumb on the right."""
    sign = 1.0 if name == "left_hand" else -1.0
    fingers = [
        ((sign * x, 0.2), (sign * 1.15 * x, top))
        for x, top in ((-0.45, -0.7), (-0.15, -1.0), (0.15, -1.05), (0.45, -0.9))
    ]
    palm = ((sign * -0.45, 0.5), (sign * 0.45, 0.5))
    thumb = ((sign * 0.4, 0.6), (sign * 0.95, 0.0))
    wrist = ((0.0, 0.4), (0.0, 1.0))
    return (*fingers, palm, ((sign * -0.45, 0.2), (sign * 0.45, 0.2)), thumb, wrist)
