"""Corruptions of images as they happen in the field, at five severities, by batches. B images, height H, width W.

Source:
    Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
    2019: five of its kinds. Up to 64 px the severities are those of CIFAR-10-C, above them those of ImageNet-C, whose
    blur is of images of 224 px.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]

SMALL_SIDE = 64  # pixels
LARGE_SIDE = 224  # pixels, of which the blur of larger images is meant
SEVERITIES = (1, 2, 3, 4, 5)

# of small images, and of larger ones, from mild to severe
_SEVERITIES = {
    "noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),  # deviation, of levels from 0 to 1
    "blur": ((0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0)),  # deviation of a Gaussian, in pixels
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),  # share that is left
    "jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),  # quality
    "pixelation": ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),  # sides, as a share of theirs
}
CORRUPTIONS = tuple(_SEVERITIES)

# ITU T.81, annex K: the tables that libjpeg scales by the quality
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32),
)


def corrupt(pixels_BHWC: Tensor, kind: str, severity: int, random: torch.Generator) -> Tensor:
    """Corrupt images.

    Args:
        pixels_BHWC: uint8.
        kind: one of ``CORRUPTIONS``.
        severity: 1, mild, to 5.
        random: draws the noise, on the CPU.
    Returns:
        uint8, (B, H, W, 3).
    """
    levels_BCHW = pixels_BHWC.permute(0, 3, 1, 2).float()
    sides = levels_BCHW.shape[2:]
    large = max(sides) > SMALL_SIDE
    amount = _SEVERITIES[kind][large][severity - 1]
    if kind == "blur" and large:
        amount *= max(sides) / LARGE_SIDE
    corruptions: dict[str, Callable[[], Tensor]] = {
        "noise": lambda: _noise(levels_BCHW, amount, random),
        "blur": lambda: _blur(levels_BCHW, amount),
        "contrast": lambda: _contrast(levels_BCHW, amount),
        "jpeg": lambda: _jpeg(levels_BCHW, int(amount)),
        "pixelation": lambda: _pixelation(levels_BCHW, amount),
    }
    return corruptions[kind]().round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _noise(levels: Tensor, deviation: float, random: torch.Generator) -> Tensor:
    drawn = torch.randn(levels.shape, generator=random).to(levels.device)
    return levels + 255 * deviation * drawn


def _blur(levels: Tensor, deviation: float) -> Tensor:
    """Blur by a Gaussian, side by side; beyond the border lies the pixel at it."""
    reach = max(1, math.ceil(3 * deviation))
    places = torch.arange(-reach, reach + 1, device=levels.device, dtype=levels.dtype)
    weights = torch.exp(-(places**2) / (2 * deviation**2))
    weights = (weights / weights.sum()).expand(3, 1, -1)
    padded = functional.pad(levels, (reach,) * 4, mode="replicate")
    across = functional.conv2d(padded, weights.unsqueeze(2), groups=3)
    return functional.conv2d(across, weights.unsqueeze(3), groups=3)


def _contrast(levels: Tensor, left: float) -> Tensor:
    mean = levels.mean(dim=(2, 3), keepdim=True)
    return mean + left * (levels - mean)


def _pixelation(levels: Tensor, share: float) -> Tensor:
    down, across = (_box(side, max(1, int(side * share)), levels.device) for side in levels.shape[2:])
    small = torch.einsum("ih,bchw,jw->bcij", down, levels, across)
    return functional.interpolate(small, levels.shape[2:], mode="nearest-exact")


def _box(side: int, smaller: int, device: torch.device) -> Tensor:
    """Average the pixels whose middles lie within each of fewer, larger ones: (smaller, side)."""
    scale = side / smaller
    middles = (torch.arange(smaller, device=device).unsqueeze(1) + 0.5) * scale
    apart = torch.arange(side, device=device).unsqueeze(0) + 0.5 - middles
    inside = ((apart > -scale / 2) & (apart <= scale / 2)).float()
    return inside / inside.sum(dim=1, keepdim=True)


# ── JPEG without its file: what quantizing the cosines of 8×8 blocks loses ───────────────────────────────────────────


def _jpeg(levels: Tensor, quality: int) -> Tensor:
    height, width = levels.shape[2:]
    padded = functional.pad(levels, (0, -width % 16, 0, -height % 16), mode="replicate")
    to_ycc = torch.tensor(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], device=levels.device
    )
    ycc = torch.einsum("ij,bjhw->bihw", to_ycc, padded)
    brightness = _quantized(ycc[:, :1] - 128, _LUMINANCE, quality) + 128
    colors = _quantized(functional.avg_pool2d(ycc[:, 1:], 2), _CHROMINANCE, quality)  # at half the sides
    colors = functional.interpolate(colors, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), torch.cat([brightness, colors], dim=1))
    return decoded[:, :, :height, :width]


def _quantized(levels: Tensor, table: tuple[int, ...], quality: int) -> Tensor:
    """Round the cosines of each 8×8 block of levels around 0 to whole steps."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = torch.tensor(table, device=levels.device, dtype=levels.dtype)
    steps = ((steps * scale + 50) / 100).floor().clamp(1, 255).view(8, 8)
    cosines = _cosines(levels.device)
    batch, channels, height, width = levels.shape
    blocks = levels.reshape(batch, channels, height // 8, 8, width // 8, 8)
    spectrum = torch.einsum("ui,bcritj,vj->bcrtuv", cosines, blocks, cosines)
    spectrum = (spectrum / steps).round() * steps
    blocks = torch.einsum("ui,bcrtuv,vj->bcritj", cosines, spectrum, cosines)
    return blocks.reshape(levels.shape)


def _cosines(device: torch.device) -> Tensor:
    """Build the orthonormal cosine transform of eight numbers, (8, 8)."""
    frequency = torch.arange(8, device=device).unsqueeze(1)
    place = torch.arange(8, device=device).unsqueeze(0)
    waves = torch.cos((2 * place + 1) * frequency * math.pi / 16) / 2
    waves[0] /= math.sqrt(2)
    return waves
