"""Pictures in files: images with their classes, samples, explanations, a range test; drawn without a screen.

F frames, K classes, N images, H × W pixels.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from sightline.display.reporting import Listener
from sightline.runs.writing import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Panel",
    "draw_animation",
    "draw_explanation",
    "draw_labeled",
    "draw_range",
    "draw_samples",
    "drawing",
    "encode_png",
    "heat_layer",
    "overlaid",
    "smoothed",
]

SIDE = 8  # images in a row and in a column, at most
IMAGE = 128  # pixels of an image on the page, about: each of its own is shown a whole number of times, or every n-th
CELL = 124  # pixels between the left edges of two images, at least: what ``LETTERS`` take
WIDTH = 480  # pixels of the page, at least: what the heading takes
GAP = 14  # pixels between images
LINE = 14  # pixels a line of text
LETTERS = 22  # of a class name in such a cell; the middle of longer ones is left out
MARGIN = 40  # pixels above the images
DPI = 100
POINTS, LINE_INK, MARK = "#9aa5b1", "#1f6f8b", "#c0392b"  # of diagrams
SAMPLE, SAMPLE_GAP = 64, 4  # pixels of an image that was made, about, and between two
FRAME_PAUSE, LAST_PAUSE = 90, 2_500  # milliseconds of a frame of an animation, and of the last
TILE = 192  # pixels of an image on a sheet of explanations, about
ROWS = 4  # methods below each other on a sheet; more stand in the next column
BAR, BAR_WIDTH, BAR_TEXT = 8, 12, 66  # pixels of a color bar: before it, of it, and for its numbers
OUTLIERS = 0.5  # per cent of a map's pixels that may lie beyond the ends of its colors
STRENGTH = 0.85  # of the colors over an image, where a map is strongest
SIGNED_COLORS, UNSIGNED_COLORS = "RdBu_r", "inferno"
INK, PAPER = "#1a1a1a", 0xE0  # a gray page, so that black images and white ones both have an edge

Array = np.ndarray[Any, Any]


def draw_labeled(path: Path, pixels_NHWC: Array, labels: Sequence[Sequence[tuple[str, float]]], heading: str) -> None:
    """Write a picture of images, each with its class below it.

    Args:
        path: of the PNG file.
        pixels_NHWC: uint8; up to 64 are shown.
        labels: of each image its class, or the classes that are mixed in it, with their shares.
        heading: above the images.
    Raises:
        StorageError: the file cannot be written.
    """
    images = _enlarged(pixels_NHWC[: SIDE * SIDE])
    count, height, width = images.shape[:3]
    columns = min(SIDE, count)
    cell_width = max(width + GAP, CELL)
    titles = [_title(label, LETTERS * cell_width // CELL) for label in labels[:count]]
    cell_height = height + LINE * len(titles[0]) + GAP
    page = _blank(MARGIN + -(-count // columns) * cell_height, max(columns * cell_width + GAP, WIDTH))
    texts = [_Text(GAP, MARGIN // 2, heading, size=8, align="center")]
    for index, (image, lines) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(index, columns)
        top, left = MARGIN + row * cell_height, GAP + column * cell_width
        page[top : top + height, left : left + width] = image
        texts += [
            _Text(left, top + height + line * LINE + 2, text, room=cell_width - 6) for line, text in enumerate(lines)
        ]
    write_atomically(path, encode_png(_lettered(page, texts)))


def draw_samples(path: Path, pixels_KNHWC: Array, classes: Sequence[str], heading: str) -> None:
    """Write a picture of images that were made, a row a class.

    Args:
        path: of the PNG file.
        pixels_KNHWC: as many of each class, uint8.
        classes: their names.
        heading: a line above them.
    Raises:
        StorageError: the file cannot be written.
    """
    write_atomically(path, encode_png(_sheet(pixels_KNHWC[None], classes, heading)[0]))


def draw_animation(path: Path, pixels_FKNHWC: Array, classes: Sequence[str], heading: str) -> None:
    """Write how images come out of noise, a row a class, as an animated GIF that stays a while at its end.

    Args:
        path: of the GIF file.
        pixels_FKNHWC: frames, of each as many images of each class, uint8.
        classes: their names.
        heading: a line above them.
    Raises:
        StorageError: the file cannot be written.
    """
    frames = [Image.fromarray(frame) for frame in _sheet(pixels_FKNHWC, classes, heading)]
    pauses = [FRAME_PAUSE] * (len(frames) - 1) + [LAST_PAUSE]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0, disposal=1)
    write_atomically(path, file.getvalue())


def _sheet(pixels_FKNHWC: Array, classes: Sequence[str], heading: str) -> list[Array]:
    """Lay out frames on pages with the same names at the left of their rows, uint8, (height, width, 3) each."""
    frames, rows, columns = pixels_FKNHWC.shape[:3]
    tiles = _enlarged(pixels_FKNHWC.reshape(-1, *pixels_FKNHWC.shape[3:]), SAMPLE)
    height, width = tiles.shape[1:3]
    tiles = tiles.reshape(frames, rows, columns, height, width, 3)
    letters = min(max(map(len, classes)), LETTERS)
    left = GAP + letters * 6 + GAP // 2
    blank = _blank(
        MARGIN + rows * (height + SAMPLE_GAP) + GAP,
        max(left + columns * (width + SAMPLE_GAP) + GAP, 2 * GAP + 7 * len(heading)),
    )
    tops = [MARGIN + row * (height + SAMPLE_GAP) for row in range(rows)]
    texts = [_Text(GAP, MARGIN // 2, heading, size=8, align="center")]
    for top, name in zip(tops, classes, strict=True):
        texts.append(_Text(GAP, top + height // 2, _short(name, letters), align="center"))
    lettered = _lettered(blank, texts)
    pages = []
    for frame in tiles:
        page = lettered.copy()
        for top, row in zip(tops, frame, strict=True):
            for column, tile in enumerate(row):
                begin = left + column * (width + SAMPLE_GAP)
                page[top : top + height, begin : begin + width] = tile
        pages.append(page)
    return pages


def draw_range(
    path: Path,
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    *,
    suggestion: float,
    taken: float,
    diverged_at: float | None,
) -> None:
    """Write a picture of a range test: the loss of each step over its rate, and what was found.

    Args:
        path: of the PNG file.
        rates, losses: of the steps; a last loss that is not finite is not drawn.
        smoothed: the finite ones without their noise.
        suggestion: rate of the steepest descent.
        taken: the rate that was taken.
        diverged_at: rate at which the test was stopped; None where it went to its end.
    Raises:
        StorageError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, ".", color=POINTS, markersize=4, label="loss of a step")
    axes.plot(rates[: len(smoothed)], smoothed, color=LINE_INK, linewidth=2, label="smoothed")
    height = float(np.interp(suggestion, rates[: len(smoothed)], smoothed))
    also = " and taken" if taken == suggestion else ""
    axes.plot([suggestion], [height], "o", color=MARK, markersize=8, label=f"steepest descent{also}: {suggestion:g}")
    axes.axvline(taken, color=MARK, linewidth=1, linestyle="--", label=None if also else f"taken: {taken:g}")
    if diverged_at is not None:
        axes.axvspan(diverged_at, rates[-1] * 1.25, color=MARK, alpha=0.15, linewidth=0, label="diverged")
    low, high = min(losses), max(smoothed[0], height)
    axes.set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low))  # the last losses would flatten the others
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_title(f"range test, {len(rates)} steps", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    write_atomically(path, encode_png(_drawn(figure)))


def overlaid(pixels_HWC: Array, heat_HW: Array) -> Array:
    """Lay a heat map over an image, from clear where it is 0 to yellow where it is highest.

    Args:
        pixels_HWC: uint8.
        heat_HW: from 0 up; one that is 0 everywhere leaves the image as it is.
    Returns:
        uint8, (H, W, 3).
    """
    from matplotlib import colormaps

    heat_HW = smoothed(heat_HW)
    share_HW = np.clip(heat_HW / _strongest(heat_HW), 0, 1)
    colors_HWC = 255 * colormaps["inferno"](0.25 + 0.7 * share_HW)[..., :3]
    opacity_HW1 = 0.75 * share_HW[..., None] ** 0.7
    blended: Array = pixels_HWC * (1 - opacity_HW1) + colors_HWC * opacity_HW1
    return blended.round().astype(np.uint8)


def smoothed(map_HW: Array) -> Array:
    """Blur a map by a Gaussian of 1/28 of its shorter side: single bright pixels of a method cannot be seen."""
    deviation = min(map_HW.shape) / 28
    kernel = np.exp(-0.5 * (np.arange(-(reach := int(np.ceil(2 * deviation))), reach + 1) / deviation) ** 2)
    blurred_HW = np.pad(map_HW, reach, mode="edge")
    for axis in (0, 1):
        blurred_HW = np.apply_along_axis(np.convolve, axis, blurred_HW, kernel / kernel.sum(), mode="valid")
    return blurred_HW


def heat_layer(map_HW: Array, *, signed: bool) -> Array:
    """Turn a map into a picture to lay over its image: clear where it is 0, in full color where it is strongest.

    Args:
        map_HW: of an explanation, float.
        signed: whether it also says what speaks against the class: red then speaks for it, blue against it.
    Returns:
        uint8, (H, W, 4), the last channel opacity.
    """
    from matplotlib import colormaps

    share_HW = np.clip(map_HW / _strongest(map_HW), -1, 1)
    if signed:
        ends_HW = np.sign(share_HW) * (0.4 + 0.5 * np.abs(share_HW))  # near zero its white would hide the image
        colors_HWC = colormaps[SIGNED_COLORS]((ends_HW + 1) / 2)[..., :3]
    else:
        colors_HWC = colormaps[UNSIGNED_COLORS](0.25 + 0.7 * share_HW)[..., :3]  # its darkest would look like shadows
    opacity_HW1 = np.abs(share_HW)[..., None] ** 0.7
    layer: Array = np.concatenate([colors_HWC, opacity_HW1], axis=2)
    return (255 * layer).round().astype(np.uint8)


def _strongest(map_HW: Array) -> float:
    """Find the end of a map's colors, in its own units; a few pixels may lie beyond it."""
    sizes = np.abs(map_HW)
    return float(np.percentile(sizes, 100 - OUTLIERS)) or float(sizes.max()) or 1.0


@dataclass(frozen=True)
class Panel:
    """A map of an image by one method."""

    title: str
    map_HW: Array
    signed: bool
    """Whether it also says what speaks against the class; colors are then the same distance from zero at both ends."""
    notes: Sequence[str] = ()
    """Lines below it."""


def draw_explanation(path: Path, pixels_HWC: Array, about: Sequence[str], panels: Sequence[Panel]) -> None:
    """Write a sheet that explains one image: the image, and of each method its map, its colors, and both laid together.

    Args:
        path: of the PNG file.
        pixels_HWC: the image as the network is shown it, uint8.
        about: lines below the image.
        panels: the maps; of more than four the sheet has several columns.
    Raises:
        StorageError: the file cannot be written.
    """
    image = _enlarged(pixels_HWC[None], TILE)[0]
    height, width = image.shape[:2]
    columns = -(-len(panels) // ROWS)
    rows = -(-len(panels) // columns)
    notes = max(len(panel.notes) for panel in panels)
    cell_height = LINE + 4 + height + notes * LINE + GAP
    cell_width = 2 * width + BAR + BAR_WIDTH + BAR_TEXT + 2 * GAP
    left_width = max(width, TILE) + 2 * GAP
    page = _blank(
        GAP + max(rows * cell_height, LINE + 4 + height + len(about) * LINE + GAP), left_width + columns * cell_width
    )
    texts = [_Text(GAP, GAP, "as the network sees it")]
    top = GAP + LINE + 4
    page[top : top + height, GAP : GAP + width] = image
    letters = (left_width - GAP) // 6
    texts += [_Text(GAP, top + height + 4 + line * LINE, _short(text, letters)) for line, text in enumerate(about)]
    for index, panel in enumerate(panels):
        column, row = divmod(index, rows)
        texts += _draw_panel(page, GAP + row * cell_height, left_width + column * cell_width, image, panel)
    write_atomically(path, encode_png(_lettered(page, texts)))


def _draw_panel(page: Array, top: int, left: int, image: Array, panel: Panel) -> list["_Text"]:
    """Draw a map, its color bar and its overlay, and list the texts beside them."""
    from matplotlib import colormaps

    height, width = image.shape[:2]
    colors = colormaps[SIGNED_COLORS if panel.signed else UNSIGNED_COLORS]
    end = _strongest(panel.map_HW)
    beyond = bool(np.abs(panel.map_HW).max() > end)
    scaled = _enlarged(np.clip(panel.map_HW[None, ..., None] / end, -1, 1), TILE)[0]  # (height, width, 1), -1 to 1
    along = (scaled + 1) / 2 if panel.signed else scaled
    heat = (colors(along[..., 0])[..., :3] * 255).round()
    gray = image.mean(axis=2, keepdims=True)
    share = STRENGTH * np.abs(scaled)
    begin = top + LINE + 4
    bar = left + width + BAR
    over = bar + BAR_WIDTH + BAR_TEXT
    page[begin : begin + height, left : left + width] = heat
    page[begin : begin + height, bar : bar + BAR_WIDTH] = (colors(np.linspace(1, 0, height))[:, None, :3] * 255).round()
    page[begin : begin + height, over : over + width] = gray * (1 - share) + heat * share
    marks = [(0.0, f"{'≥' * beyond}{end:.2g}"), (1.0, f"{'≤' * beyond}{-end:.2g}" if panel.signed else "0")]
    marks += [(0.5, "0")] if panel.signed else []
    texts = [_Text(left, top, panel.title)]
    texts += [_Text(bar + BAR_WIDTH + 4, begin + int(place * (height - LINE)), text) for place, text in marks]
    return texts + [_Text(left, begin + height + 4 + line * LINE, text) for line, text in enumerate(panel.notes)]


class _Text(NamedTuple):
    """A line of text on a page, in pixels from its top left corner."""

    left: int
    top: int
    text: str
    size: int = 7  # points
    align: str = "top"
    room: int = 0  # pixels, beyond which it is cut; 0 for as many as it takes


def _blank(height: int, width: int) -> Array:
    return np.full((height, width, 3), PAPER, np.uint8)


def _lettered(page: Array, texts: Sequence[_Text]) -> Array:
    """Write texts on a page."""
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox, TransformedBbox

    figure = Figure(figsize=(page.shape[1] / DPI, page.shape[0] / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    for text in texts:
        line = axes.text(text.left, text.top, text.text, fontsize=text.size, color=INK, va=text.align, parse_math=False)
        if text.room:  # of wide letters fewer have room
            corners = Bbox.from_extents(text.left, 0, text.left + text.room, page.shape[0])
            line.set_clip_box(TransformedBbox(corners, axes.transData))
            line.set_clip_on(True)
    axes.imshow(page, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return _drawn(figure)


def _drawn(figure: "Figure") -> Array:
    """Draw a figure as uint8, (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # a letter that the font lacks becomes a box
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def encode_png(pixels_HWC: Array) -> bytes:
    """Encode a picture, uint8, (H, W, 3), as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "PNG")
    return file.getvalue()


def _enlarged(images: Array, target: int = IMAGE) -> Array:
    """Bring images to a size to look at, about so many pixels, without blurring a pixel."""
    side = max(images.shape[1:3])
    step, times = -(-side // (2 * target)), max(1, round(target / side))
    return images[:, ::step, ::step].repeat(times, axis=1).repeat(times, axis=2)


def _title(label: Sequence[tuple[str, float]], letters: int) -> list[str]:
    """Shorten the class of an image to so many letters, or those that are mixed in it with their shares."""
    if len(label) == 1:
        return [_short(label[0][0], letters)]
    return [f"{_short(name, letters - 6)}, {share:.0%}" for name, share in label]


def _short(name: str, letters: int) -> str:
    """Shorten a name to so many letters, with both its ends; what cannot be printed becomes a question mark."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in name)
    end = letters // 2 - 1
    return shown if len(shown) <= letters else f"{shown[: letters - end - 1]}…{shown[-end:]}"


@contextmanager
def drawing(name: str, on_event: Listener) -> Iterator[None]:
    """Report a picture that fails, which costs nothing else."""
    try:
        yield
    except Exception as error:  # whatever a drawing library may raise
        reason = " ".join(str(error).split()) or type(error).__name__
        on_event(f"no {name}: {reason}")
