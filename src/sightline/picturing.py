"""Pictures of a training, drawn by matplotlib without a screen."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sightline.images.batches import Batch, Normalization
from sightline.runs import write_atomically

__all__ = ["draw_batch"]

SIDE = 8  # images in a row and in a column, at most
IMAGE = 128  # pixels of an image on the page, about: each of its own is shown a whole number of times, or every n-th
CELL = 124  # pixels between the left edges of two images, at least: what ``LETTERS`` take
WIDTH = 480  # pixels of the page, at least: what the heading takes
GAP = 14  # pixels between images
LINE = 14  # pixels a line of text
LETTERS = 22  # of a class name in such a cell; the middle of longer ones is left out
MARGIN = 40  # pixels above the images
DPI = 100
INK, PAPER = "#1a1a1a", 0xE0  # a grey page, so that black images and white ones both have an edge

Array = np.ndarray[Any, Any]


def draw_batch(path: Path, batch: Batch, normalization: Normalization, classes: Sequence[str]) -> None:
    """Write a picture of the first images of a batch, as the network sees them, each with its class.

    Args:
        path: of the PNG file.
        batch: up to 64 of its images are shown; a mixed one with both classes and their shares.
        normalization: of the images.
        classes: names in the order of their indices.
    Raises:
        StorageError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox, TransformedBbox

    images = _visible(batch, normalization)
    sides = f"{images.shape[2]}×{images.shape[1]} px"
    images = _enlarged(images)
    count, height, width = images.shape[:3]
    columns = min(SIDE, count)
    cell_width = max(width + GAP, CELL)
    titles = _titles(batch, classes, LETTERS * cell_width // CELL)
    cell_height = height + LINE * len(titles[0]) + GAP
    page_width = max(columns * cell_width + GAP, WIDTH)
    page = np.full((MARGIN + -(-count // columns) * cell_height, page_width, 3), PAPER, np.uint8)
    figure = Figure(figsize=(page.shape[1] / DPI, page.shape[0] / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    for index, (image, lines) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(index, columns)
        top, left = MARGIN + row * cell_height, GAP + column * cell_width
        page[top : top + height, left : left + width] = image
        cell = TransformedBbox(Bbox.from_extents(left, top, left + cell_width - 6, top + cell_height), axes.transData)
        for line, text in enumerate(lines):
            place = left, top + height + line * LINE + 2
            title = axes.text(*place, text, fontsize=7, color=INK, va="top", parse_math=False)
            title.set_clip_box(cell)  # of wide letters fewer have room
            title.set_clip_on(True)
    heading = f"epoch {batch.epoch + 1}, batch {batch.position + 1}: {count} of {len(batch.labels)} images, {sides},"
    heading += " as the network sees them"
    axes.text(GAP, MARGIN / 2, heading, fontsize=8, color=INK, va="center", parse_math=False)
    axes.imshow(page, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks is drawn as a box
        FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
    write_atomically(path, file.getvalue())


def _visible(batch: Batch, normalization: Normalization) -> Array:
    """The first images as uint8, (N, H, W, 3)."""
    images = batch.images[: SIDE * SIDE].float().cpu().permute(0, 2, 3, 1).numpy()
    levels = images * np.maximum(normalization.std, 1 / 255) + normalization.mean  # as they were divided
    return (levels * 255).round().clip(0, 255).astype(np.uint8)


def _enlarged(images: Array) -> Array:
    """Images of a size to look at, without blurring a pixel."""
    side = max(images.shape[1:3])
    step, times = -(-side // (2 * IMAGE)), max(1, round(IMAGE / side))
    return images[:, ::step, ::step].repeat(times, axis=1).repeat(times, axis=2)


def _titles(batch: Batch, classes: Sequence[str], letters: int) -> list[list[str]]:
    """The class of each image that is shown, or the two that are mixed with their shares."""
    labels = batch.labels[: SIDE * SIDE].tolist()
    if batch.shares is None or batch.partner_labels is None:
        return [[_short(classes[label], letters)] for label in labels]
    mixed = zip(labels, batch.partner_labels.tolist(), batch.shares.tolist(), strict=False)  # of the images shown
    return [
        [
            f"{_short(classes[own], letters - 6)}, {share:.0%}",
            f"{_short(classes[partner], letters - 6)}, {1 - share:.0%}",
        ]
        for own, partner, share in mixed
    ]


def _short(name: str, letters: int) -> str:
    """A name of so many letters at most, with both its ends; what cannot be printed becomes a question mark."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    end = letters // 2 - 1
    return shown if len(shown) <= letters else f"{shown[: letters - end - 1]}…{shown[-end:]}"
