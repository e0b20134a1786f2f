"""TrivialAugment Wide: each image is changed by one random operation at a random strength. B images, height H, width W.

Levels are pixels in float32 from 0 to 255, (B, H, W, 3), whole numbers when they come in. The images of a batch are
grouped by their operation: 14 steps a batch, whatever its size.

Source:
    Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021, table 1 (wide);
    strengths and arithmetic as in torchvision's TrivialAugmentWide, but nothing is rounded on the way out.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from sightline.data.augment import color

__all__ = ["OPERATIONS", "STRENGTHS", "draw_operations", "strengths", "trivial_augment"]

STRENGTHS = 31  # of every operation, evenly spaced; about half of those with a direction are turned around


def shear_x(levels_BHWC: Tensor, slope_B: Tensor) -> Tensor:
    """Move each row to the left by the slope times its distance from the top."""
    one, zero, height = torch.ones_like(slope_B), torch.zeros_like(slope_B), levels_BHWC.shape[1]
    return _nearest(levels_BHWC, (one, slope_B, slope_B * height / 2), (zero, one, zero))


def shear_y(levels_BHWC: Tensor, slope_B: Tensor) -> Tensor:
    """Move each column up by the slope times its distance from the left."""
    one, zero, width = torch.ones_like(slope_B), torch.zeros_like(slope_B), levels_BHWC.shape[2]
    return _nearest(levels_BHWC, (one, zero, zero), (slope_B, one, slope_B * width / 2))


def translate_x(levels_BHWC: Tensor, pixels_B: Tensor) -> Tensor:
    """Move to the right."""
    one, zero = torch.ones_like(pixels_B), torch.zeros_like(pixels_B)
    return _nearest(levels_BHWC, (one, zero, -pixels_B), (zero, one, zero))


def translate_y(levels_BHWC: Tensor, pixels_B: Tensor) -> Tensor:
    """Move down."""
    one, zero = torch.ones_like(pixels_B), torch.zeros_like(pixels_B)
    return _nearest(levels_BHWC, (one, zero, zero), (zero, one, -pixels_B))


def rotate(levels_BHWC: Tensor, degrees_B: Tensor) -> Tensor:
    """Turn counter-clockwise about the middle."""
    cos, sin, zero = degrees_B.deg2rad().cos(), degrees_B.deg2rad().sin(), torch.zeros_like(degrees_B)
    return _nearest(levels_BHWC, (cos, -sin, zero), (sin, cos, zero))


def sharpen(levels_BHWC: Tensor, more_B: Tensor) -> Tensor:
    """Away from a 3×3 blur whose middle weighs five times; below zero, towards it. The outermost pixels stay."""
    inner = levels_BHWC[:, 1:-1, 1:-1]
    mean = functional.avg_pool2d(levels_BHWC.permute(0, 3, 1, 2), 3, stride=1).permute(0, 2, 3, 1)
    blurred = (9 * mean + 4 * inner) / 13
    sharpened = levels_BHWC.clone()
    sharpened[:, 1:-1, 1:-1] = torch.lerp(blurred, inner, 1 + more_B[:, None, None, None]).clamp_(0, 255)
    return sharpened


def posterize(levels_BHWC: Tensor, bits_B: Tensor) -> Tensor:
    """Keep the highest bits of every level."""
    step = torch.exp2(8 - bits_B)[:, None, None, None]
    return (levels_BHWC / step).floor() * step


def solarize(levels_BHWC: Tensor, threshold_B: Tensor) -> Tensor:
    """Turn the levels from the threshold on into their negative."""
    return torch.where(levels_BHWC >= threshold_B[:, None, None, None], 255 - levels_BHWC, levels_BHWC)


def autocontrast(levels_BHWC: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel to 0 to 255; one of a single level stays."""
    low, high = levels_BHWC.amin(dim=(1, 2), keepdim=True), levels_BHWC.amax(dim=(1, 2), keepdim=True)
    stretched = (levels_BHWC - low) / ((high - low) / 255)
    return torch.where(high > low, stretched, levels_BHWC).clamp_(0, 255)


def equalize(levels_BHWC: Tensor, _: Tensor) -> Tensor:
    """Spread the levels of each channel so that each is as frequent as any; Pillow's table of levels."""
    count, height, width, channels = levels_BHWC.shape
    levels_BCN = levels_BHWC.permute(0, 3, 1, 2).reshape(count, channels, -1).long()  # N = H * W
    ones_BCN = levels_BCN.new_ones(()).expand_as(levels_BCN)
    histogram_BCL = levels_BCN.new_zeros(count, channels, 256).scatter_add_(2, levels_BCN, ones_BCN)
    below_BCL = histogram_BCL.cumsum(2) - histogram_BCL  # pixels of a lower level
    brightest_BC1 = histogram_BCL.gather(2, levels_BCN.amax(2, keepdim=True))
    step_BC1 = (height * width - brightest_BC1) // 255
    table_BCL = ((below_BCL + step_BC1 // 2) // step_BC1.clamp(min=1)).clamp(max=255)
    made_BCN = torch.where(step_BC1 > 0, table_BCL.gather(2, levels_BCN), levels_BCN)
    return made_BCN.view(count, channels, height, width).permute(0, 2, 3, 1).float()


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "identity": None,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
    "brightness": lambda levels_BHWC, more_B: color.brightness(levels_BHWC, 1 + more_B),
    "color": lambda levels_BHWC, more_B: color.saturation(levels_BHWC, 1 + more_B),
    "contrast": lambda levels_BHWC, more_B: color.contrast(levels_BHWC, 1 + more_B),
    "sharpness": sharpen,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}
"""What may happen to an image; each takes levels, (B, H, W, 3), and a strength for each image, (B,)."""


@cache
def strengths() -> tuple[Tensor, Tensor]:
    """Return the strengths of each operation, (14, 31), and whether it has a direction to be turned around, (14,)."""
    steps = {
        **dict.fromkeys(("shear_x", "shear_y"), torch.linspace(0, 0.99, STRENGTHS)),
        **dict.fromkeys(("translate_x", "translate_y"), torch.linspace(0, 32, STRENGTHS).trunc()),  # pixels
        "rotate": torch.linspace(0, 135, STRENGTHS),  # degrees
        **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), torch.linspace(0, 0.99, STRENGTHS)),
    }
    directed = torch.tensor([name in steps for name in OPERATIONS])
    steps["posterize"] = (8 - torch.arange(STRENGTHS) / ((STRENGTHS - 1) / 6)).round()  # bits that are kept
    steps["solarize"] = torch.linspace(1, 0, STRENGTHS).double().mul(255).float()  # a level
    return torch.stack([steps.get(name, torch.zeros(STRENGTHS)) for name in OPERATIONS]), directed


def draw_operations(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw an operation, as its position in ``OPERATIONS``, and its strength for each image, (B,) both."""
    table, directed = strengths()
    operation_B = torch.randint(len(OPERATIONS), (count,), generator=generator)
    strength_B = table[operation_B, torch.randint(STRENGTHS, (count,), generator=generator)]
    turned_B = (torch.rand(count, generator=generator) < 0.5) & directed[operation_B]
    return operation_B, torch.where(turned_B, -strength_B, strength_B)


def trivial_augment(levels_BHWC: Tensor, operation_B: Tensor, strength_B: Tensor) -> Tensor:
    """Change each image by its operation.

    Args:
        levels_BHWC: whole numbers from 0 to 255 in float32, (B, H, W, 3); they are left alone.
        operation_B: positions in ``OPERATIONS``, on the CPU, so that grouping by them does not wait for the device.
        strength_B: of the operation, on the device of the images.
    """
    augmented = levels_BHWC.clone()
    for number, operation in enumerate(OPERATIONS.values()):
        group = (operation_B == number).nonzero().flatten()
        if operation is not None and len(group):
            rows = group.to(levels_BHWC.device, non_blocking=True)
            changed = operation(levels_BHWC.index_select(0, rows), strength_B.index_select(0, rows))
            augmented.index_copy_(0, rows, changed)
    return augmented


def _nearest(levels_BHWC: Tensor, columns: tuple[Tensor, ...], rows: tuple[Tensor, ...]) -> Tensor:
    """Show at (x, y), in pixels from the middle, what was nearest to (a x + b y + c, d x + e y + f); black outside.

    Args:
        columns: (a, b, c), each (B,).
        rows: (d, e, f).
    """
    count, height, width = levels_BHWC.shape[:3]
    device = levels_BHWC.device
    x_W = torch.arange(width, device=device) - (width - 1) / 2
    y_H1 = (torch.arange(height, device=device) - (height - 1) / 2)[:, None]

    def index(weights: tuple[Tensor, ...], extent: int) -> Tensor:
        x_weight, y_weight, start = (weight[:, None, None] for weight in weights)
        return (x_weight * x_W + y_weight * y_H1 + start + (extent - 1) / 2).round().long()

    column_BHW, row_BHW = index(columns, width), index(rows, height)
    inside_BHW = (column_BHW >= 0) & (column_BHW < width) & (row_BHW >= 0) & (row_BHW < height)
    first_B = torch.arange(count, device=device)[:, None, None] * height
    places_BHW = (first_B + row_BHW.clamp(0, height - 1)) * width + column_BHW.clamp(0, width - 1)
    moved = levels_BHWC.reshape(-1, 3).index_select(0, places_BHW.flatten()).view_as(levels_BHWC)
    return moved * inside_BHW[..., None]
