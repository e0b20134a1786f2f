"""What spoils images: each kind against its definition or a library, and worse with every severity."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from sightline.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def photographs() -> Callable[[int], Tensor]:
    """Smooth images with some detail, four of them, of a side."""

    def make(side: int) -> Tensor:
        random = np.random.default_rng(0)
        images = []
        for _ in range(4):
            coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize(
                (side, side), Image.Resampling.BICUBIC
            )
            detail = random.normal(0, 6, (side, side, 1))
            images.append(np.clip(np.asarray(coarse) + detail, 0, 255).astype(np.uint8))
        return torch.from_numpy(np.stack(images))

    return make


def distance(left: Tensor, right: Tensor) -> float:
    """Root of the mean squared difference of levels."""
    return float((left.float() - right.float()).square().mean().sqrt())


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_severity_is_worse_than_the_one_before(
    kind: str, side: int, photographs: Callable[[int], Tensor]
) -> None:
    images = photographs(side)
    spoilt = [corrupt(images, kind, severity, generator()) for severity in SEVERITIES]
    assert all(one.shape == images.shape and one.dtype == torch.uint8 for one in spoilt)
    distances = [distance(images, one) for one in spoilt]
    assert distances[0] > 0.5
    if kind == "pixelation":  # sides that divide evenly move less than others near them
        assert distances[-1] > distances[0]
    else:
        assert distances == sorted(distances)


@pytest.mark.parametrize("quality", [(32, 1, 80), (32, 5, 40), (96, 1, 25), (96, 5, 7)])
def test_jpeg_loses_what_a_jpeg_file_loses(quality: tuple[int, int, int], photographs: Callable[[int], Tensor]) -> None:
    side, severity, level = quality
    images = photographs(side)
    ours = corrupt(images, "jpeg", severity, generator())
    files = []
    for image in images.numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=level, subsampling="4:2:0")
        files.append(np.asarray(Image.open(file)))
    theirs = torch.from_numpy(np.stack(files))
    assert distance(ours, theirs) < 0.15 * distance(images, theirs) + 1  # they round to whole levels between the steps


def test_blur_is_pillows_within_its_rounding(photographs: Callable[[int], Tensor]) -> None:
    images = photographs(32)
    ours = corrupt(images, "blur", 5, generator())  # of one pixel
    theirs = [np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1))) for image in images.numpy()]
    assert distance(ours, torch.from_numpy(np.stack(theirs))) < 2  # which takes boxes for the Gaussian


def test_contrast_keeps_the_mean_and_a_share_of_the_distance_to_it() -> None:
    half = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    half[:, :2] = 200
    assert corrupt(half, "contrast", 2, generator()).unique().tolist() == [50, 150]  # a half is left


def test_noise_has_the_deviation_that_it_names_and_comes_from_the_generator() -> None:
    grey = torch.full((1, 64, 64, 3), 128, dtype=torch.uint8)
    noisy = corrupt(grey, "noise", 5, generator())
    assert float(noisy.float().std()) == pytest.approx(0.10 * 255, rel=0.02)
    assert noisy.equal(corrupt(grey, "noise", 5, generator()))


@pytest.mark.parametrize(("side", "severity", "smaller"), [(32, 1, 30), (32, 5, 20), (96, 3, 38)])
def test_pixelation_is_pillows_with_boxes_there_and_back(
    side: int, severity: int, smaller: int, photographs: Callable[[int], Tensor]
) -> None:
    images, box = photographs(side), Image.Resampling.BOX
    ours = corrupt(images, "pixelation", severity, generator())
    theirs = [
        np.asarray(Image.fromarray(image).resize((smaller, smaller), box).resize((side, side), box))
        for image in images.numpy()
    ]
    assert (ours.int() - torch.from_numpy(np.stack(theirs)).int()).abs().max() <= 1


def test_pixelation_of_plain_images_changes_nothing() -> None:
    plain = torch.full((2, 32, 20, 3), 77, dtype=torch.uint8)
    assert corrupt(plain, "pixelation", 5, generator()).equal(plain)


def test_images_of_any_sides_keep_them(photographs: Callable[[int], Tensor]) -> None:
    odd = photographs(96)[:, :75, :90]
    assert all(corrupt(odd, kind, 3, generator()).shape == odd.shape for kind in CORRUPTIONS)
