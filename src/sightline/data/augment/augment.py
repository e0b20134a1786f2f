"""Augmentation, a batch at a time, with random numbers for each image. B images, height H, width W.

The numbers are drawn on the CPU for the whole batch (``draw``), so a batch is the same on every device and for every
number of processes; the pixels are moved by one gather or one resampling (``apply``). Numbers are drawn only for what
is asked for, newer kinds last, so settings keep their batches when a kind is added.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sightline.config.augmentation import (
    AugmentConfig,
    ColorJitterConfig,
    CutoutConfig,
    PadCropConfig,
    RandomResizedCropConfig,
)
from sightline.data.augment.color import brightness, contrast, saturation
from sightline.data.augment.trivial_augment import draw_operations, trivial_augment

__all__ = [
    "Parameters",
    "apply",
    "center",
    "color_jitter",
    "cutout",
    "draw",
    "inside",
    "normalize",
    "resample",
    "shift_and_flip",
    "shown_size",
    "shrink",
    "shrunk_side",
]

TRIES = 10  # drawings of a part, of which the first that fits into the image is taken


@dataclass(frozen=True)
class Parameters:
    """The random numbers of a batch: how each of its images is changed."""

    flip_B: Tensor
    """Whether to mirror left and right."""
    top_B: Tensor
    """First row of the crop, in pixels of the cached image; negative reaches into the padding."""
    left_B: Tensor
    height_B: Tensor
    """Rows of the crop; other than the training size only for random resized crops."""
    width_B: Tensor
    hole_tops_BK: Tensor
    """First row of each of the K holes, in pixels of the training image; may be negative."""
    hole_lefts_BK: Tensor
    angle_B: Tensor | None = None
    """Counter-clockwise turn of what the crop shows, in radians; None: upright."""
    factors_B3: Tensor | None = None
    """Factors of brightness, contrast and saturation; None: colors are left alone."""
    operation_B: Tensor | None = None
    """Position of the image's TrivialAugment operation; None: no policy. Stays on the CPU."""
    strength_B: Tensor | None = None

    def part(self, rows: slice | Tensor, device: torch.device) -> "Parameters":
        """Return the numbers of some images of the batch, on a device."""
        numbers: dict[str, Any] = {}
        for name, value in vars(self).items():
            chosen = None if value is None else value[rows]
            numbers[name] = chosen if chosen is None or name == "operation_B" else chosen.to(device)
        return Parameters(**numbers)


def draw(
    config: AugmentConfig,
    count: int,
    cached: tuple[int, int],
    size: tuple[int, int],
    generator: torch.Generator,
    flips: Tensor | None = None,
) -> Parameters:
    """Draw the random numbers of a batch.

    Args:
        config: what to draw for.
        count: images of the batch.
        cached: (height, width) of the cached images.
        size: (height, width) of the images to make.
        generator: where the numbers come from; on the CPU.
        flips: whether each image is mirrored, (B,), where that is decided elsewhere (alternating flips).
    """
    drawn = torch.rand(count, generator=generator) < 0.5
    flip = {"none": torch.zeros(count, dtype=torch.bool), "random": drawn}.get(config.flip, flips)
    assert flip is not None, "alternating flips are decided by the epoch"
    height, width = (torch.full((count,), float(side)) for side in size)
    top, left = (torch.full((count,), float((stored - side) // 2)) for stored, side in zip(cached, size, strict=True))
    if isinstance(config.crop, PadCropConfig):
        for start, stored, shown in zip((top, left), cached, size, strict=True):
            slack = max(config.crop.padding, (stored - shown) // 2)  # cached larger: there is something to crop from
            start += torch.randint(-slack, slack + 1, (count,), generator=generator)
    elif isinstance(config.crop, RandomResizedCropConfig):
        top, left, height, width = _draw_resized_crop(config.crop, count, cached, generator)
    holes = config.cutout.holes if config.cutout else 0
    side = config.cutout.size if config.cutout else 0
    hole_top, hole_left = (
        torch.randint(-(side // 2), max(1, extent - side // 2), (count, holes), generator=generator) for extent in size
    )
    angle = factors = operation = strength = None
    if config.rotation is not None:
        largest = torch.tensor(config.rotation.degrees).deg2rad()
        angle = largest * (2 * torch.rand(count, generator=generator) - 1)
    if config.color is not None:
        spread = torch.tensor([config.color.brightness, config.color.contrast, config.color.saturation])
        lowest = (1 - spread).clamp(min=0)
        factors = lowest + (1 + spread - lowest) * torch.rand(count, 3, generator=generator)
    if config.policy is not None:
        operation, strength = draw_operations(count, generator)
    return Parameters(flip, top, left, height, width, hole_top, hole_left, angle, factors, operation, strength)


def apply(
    config: AugmentConfig,
    pixels_NHWC: Tensor,
    parameters: Parameters,
    size: tuple[int, int],
    mean: Tensor,
    std: Tensor,
    dtype: torch.dtype,
    rows_B: Tensor | None = None,
    own: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Make the images of a batch: crop, turn and flip, then policy, colors, the user's own, normalization and holes.

    Args:
        pixels_NHWC: cached images, uint8, (N, H, W, 3).
        size: (height, width) to make.
        mean, std: of each channel, from 0 to 1, (3,).
        rows_B: which of the N images to make; None for all, in order.
        own: what the user changes levels by, (B, H, W, 3); None: nothing.
    Returns:
        Normalized images, (B, 3, height, width), channels-last in memory.
    """
    resampled = isinstance(config.crop, RandomResizedCropConfig) or config.rotation is not None
    if config.policy is not None or config.color is not None or own is not None:
        levels_BHWC = _moved_levels(config, _chosen(pixels_NHWC, rows_B), parameters, size, 255 * mean)
        if config.policy is not None:
            assert parameters.operation_B is not None
            assert parameters.strength_B is not None
            levels_BHWC = trivial_augment(levels_BHWC.round(), parameters.operation_B, parameters.strength_B)
        if config.color is not None:
            levels_BHWC = color_jitter(levels_BHWC, parameters, config.color)
        if own is not None:
            levels_BHWC = own(levels_BHWC)
        images = normalize(levels_BHWC, mean, std, dtype)
    elif resampled:
        images = resample(
            normalize(_chosen(pixels_NHWC, rows_B), mean, std, torch.float32), parameters, size, _fill(config)
        )
        images = images.to(dtype, memory_format=torch.channels_last)
    else:
        images = normalize(shift_and_flip(pixels_NHWC, parameters, size, rows_B), mean, std, dtype)
        if isinstance(config.crop, PadCropConfig) and config.crop.fill == "zero":
            images = images * inside(pixels_NHWC, parameters, size)[:, None]
    if config.cutout is not None:
        images = cutout(images, parameters, config.cutout)
    return images


def shift_and_flip(
    pixels_NHWC: Tensor, parameters: Parameters, size: tuple[int, int], rows_B: Tensor | None = None
) -> Tensor:
    """Crop each image at its own place and mirror it if asked, in one gather; beyond the border it is reflected.

    Args:
        rows_B: which of the N images to make; None for all, in order.
    Returns:
        Pixels, (B, height, width, 3).
    """
    found_height, found_width = pixels_NHWC.shape[1:3]
    rows_BH, columns_BW = _places(parameters, size, pixels_NHWC.device)
    first_B = torch.arange(len(pixels_NHWC), device=pixels_NHWC.device) if rows_B is None else rows_B
    first_BH = (first_B[:, None] * found_height + _reflect(rows_BH, found_height)) * found_width
    places_BHW = first_BH[:, :, None] + _reflect(columns_BW, found_width)[:, None, :]
    # one index over all pixels: three (image, row, column) take twice as long, gathering the images first 1.6 times
    moved = pixels_NHWC.reshape(-1, 3).index_select(0, places_BHW.flatten())
    return moved.view(len(first_B), *size, 3)


def inside(pixels_NHWC: Tensor, parameters: Parameters, size: tuple[int, int]) -> Tensor:
    """Return whether each pixel of ``shift_and_flip`` lies inside of its image, (B, height, width)."""
    found_height, found_width = pixels_NHWC.shape[1:3]
    rows_BH, columns_BW = _places(parameters, size, pixels_NHWC.device)
    return _inside(rows_BH, found_height)[:, :, None] & _inside(columns_BW, found_width)[:, None, :]


def resample(images_BCHW: Tensor, parameters: Parameters, size: tuple[int, int], fill: str = "reflect") -> Tensor:
    """Stretch a part of each image to the size, turned and mirrored if asked, by one bilinear resampling.

    Args:
        fill: beyond the border the image is mirrored (``reflect``), or ``zero``.
    """
    height, width = images_BCHW.shape[2:]
    scale_x, scale_y = parameters.width_B / width, parameters.height_B / height
    centre_x = (2 * parameters.left_B + parameters.width_B) / width - 1  # from -1 (left border) to 1
    centre_y = (2 * parameters.top_B + parameters.height_B) / height - 1
    mirror = torch.where(parameters.flip_B, -1.0, 1.0)
    if parameters.angle_B is None:
        zero = torch.zeros_like(scale_x)
        rows = [scale_x * mirror, zero, centre_x], [zero, scale_y, centre_y]
    else:
        cos, sin = parameters.angle_B.cos(), parameters.angle_B.sin()
        aspect = width / height  # units of x and y differ: each is half a side
        rows = (
            [cos * scale_x * mirror, -sin * scale_y / aspect, centre_x],
            [sin * scale_x * aspect * mirror, cos * scale_y, centre_y],
        )
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = functional.affine_grid(theta, [len(theta), 3, *size], align_corners=False)
    padding = {"reflect": "reflection", "zero": "zeros"}[fill]
    return functional.grid_sample(images_BCHW, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def color_jitter(levels_BHWC: Tensor, parameters: Parameters, config: ColorJitterConfig) -> Tensor:
    """Change brightness, then contrast, then saturation, each by the image's own factor.

    Args:
        levels_BHWC: pixels in float32 from 0 to 255, (B, H, W, 3).
    """
    assert parameters.factors_B3 is not None
    spreads = (config.brightness, config.contrast, config.saturation)
    for change, spread, factor_B in zip(
        (brightness, contrast, saturation), spreads, parameters.factors_B3.unbind(1), strict=True
    ):
        if spread > 0:
            levels_BHWC = change(levels_BHWC, factor_B)
    return levels_BHWC


def cutout(images_BCHW: Tensor, parameters: Parameters, config: CutoutConfig) -> Tensor:
    """Set square holes to zero, the mean color of normalized images (DeVries and Taylor, 2017)."""
    height, width = images_BCHW.shape[2:]
    rows = torch.arange(height, device=images_BCHW.device)
    columns = torch.arange(width, device=images_BCHW.device)
    in_rows_BKH = _between(rows, parameters.hole_tops_BK[..., None], config.size)
    in_columns_BKW = _between(columns, parameters.hole_lefts_BK[..., None], config.size)
    hole_BHW = (in_rows_BKH[..., :, None] & in_columns_BKW[..., None, :]).any(dim=1)
    return torch.where(hole_BHW[:, None], 0.0, images_BCHW)  # masked_fill would lose channels-last


def shrink(images_BCHW: Tensor, scale: float) -> Tensor:
    """Scale images down, with a filter, to the nearest even sides; channels-last in memory."""
    sides = [shrunk_side(side, scale) for side in images_BCHW.shape[2:]]
    small = functional.interpolate(images_BCHW.float(), sides, mode="bilinear", antialias=True, align_corners=False)
    return small.to(images_BCHW.dtype, memory_format=torch.channels_last)


def shown_size(config: AugmentConfig, size: tuple[int, int], epoch: int, epochs: int) -> tuple[int, int]:
    """Return (height, width) in pixels at which an epoch, counted from 0, shows images of a size."""
    scale = config.scale(epoch, epochs)
    height, width = size
    return size if scale == 1 else (shrunk_side(height, scale), shrunk_side(width, scale))


def shrunk_side(side: int, scale: float) -> int:
    """Return the even number of pixels nearest to a share of a side."""
    return 2 * round(side * scale / 2)


def center(pixels_BHWC: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle of each image, (B, height, width, 3)."""
    top, left = ((stored - side) // 2 for stored, side in zip(pixels_BHWC.shape[1:3], size, strict=True))
    return pixels_BHWC[:, top : top + size[0], left : left + size[1]]


def normalize(pixels_BHWC: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """Bring levels from 0 to 255 to mean 0 and deviation 1 a channel; (B, H, W, 3) → (B, 3, H, W), channels-last."""
    scaled = pixels_BHWC.to(torch.float32, copy=True)
    torch.addcmul(-mean / std, scaled, 1 / (std * 255), out=scaled)  # one pass over the memory
    return scaled.to(dtype).permute(0, 3, 1, 2)


def _fill(config: AugmentConfig) -> str:
    """Return how the crop and the rotation, which agree, fill what lies outside of an image."""
    if config.rotation is not None:
        return config.rotation.fill
    return config.crop.fill if isinstance(config.crop, PadCropConfig) else "reflect"


def _moved_levels(
    config: AugmentConfig, pixels_BHWC: Tensor, parameters: Parameters, size: tuple[int, int], fill_C: Tensor
) -> Tensor:
    """Return what the crop, the rotation and the flip show, as levels in float32, (B, height, width, 3)."""
    if isinstance(config.crop, RandomResizedCropConfig) or config.rotation is not None:
        around_fill = (pixels_BHWC - fill_C).permute(0, 3, 1, 2)
        moved = resample(around_fill, parameters, size, _fill(config)).contiguous(memory_format=torch.channels_last)
        return moved.permute(0, 2, 3, 1) + fill_C
    levels_BHWC = shift_and_flip(pixels_BHWC, parameters, size).float()
    if isinstance(config.crop, PadCropConfig) and config.crop.fill == "zero":
        levels_BHWC = torch.where(inside(pixels_BHWC, parameters, size)[..., None], levels_BHWC, fill_C)
    return levels_BHWC


def _draw_resized_crop(
    config: RandomResizedCropConfig, count: int, cached: tuple[int, int], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw parts of random area and aspect: of ten drawings the first that fits, or else the middle, as torchvision."""
    found_height, found_width = cached
    low, high = config.scale
    area_TB = (low + (high - low) * torch.rand(TRIES, count, generator=generator)) * found_height * found_width
    log_low, log_high = torch.log(torch.tensor(config.ratio)).tolist()
    ratio_TB = torch.exp(log_low + (log_high - log_low) * torch.rand(TRIES, count, generator=generator))
    width_TB, height_TB = (area_TB * ratio_TB).sqrt().round(), (area_TB / ratio_TB).sqrt().round()
    fits_TB = (width_TB > 0) & (width_TB <= found_width) & (height_TB > 0) & (height_TB <= found_height)
    first_B, any_B = fits_TB.int().argmax(0, keepdim=True), fits_TB.any(0)
    whole = min(max(found_width / found_height, config.ratio[0]), config.ratio[1])  # the widest part of allowed aspect
    width = torch.where(any_B, width_TB.gather(0, first_B)[0], float(min(found_width, round(found_height * whole))))
    height = torch.where(any_B, height_TB.gather(0, first_B)[0], float(min(found_height, round(found_width / whole))))
    top, left = (
        torch.where(any_B, torch.rand(count, generator=generator) * (found - part + 1), (found - part) / 2).floor()
        for found, part in ((found_height, height), (found_width, width))
    )
    return top, left, height, width


def _chosen(pixels_NHWC: Tensor, rows_B: Tensor | None) -> Tensor:
    return pixels_NHWC if rows_B is None else pixels_NHWC[rows_B]


def _places(parameters: Parameters, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows, (B, height), and columns, (B, width), of the cached image that are shown; beyond its border, too."""
    height, width = size
    columns = torch.arange(width, device=device)
    rows_BH = parameters.top_B.long()[:, None] + torch.arange(height, device=device)
    mirrored_BW = torch.where(parameters.flip_B[:, None], width - 1 - columns, columns)
    return rows_BH, parameters.left_B.long()[:, None] + mirrored_BW


def _inside(index: Tensor, extent: int) -> Tensor:
    return (index >= 0) & (index < extent)


def _between(index: Tensor, start: Tensor, length: int) -> Tensor:
    return (index >= start) & (index < start + length)


def _reflect(index: Tensor, extent: int) -> Tensor:
    """Mirror an index at the borders without repeating them, as often as needed: -1 → 1, extent → extent - 2."""
    if extent == 1:
        return torch.zeros_like(index)
    period = 2 * (extent - 1)
    index = index % period
    return torch.where(index < extent, index, period - index)
