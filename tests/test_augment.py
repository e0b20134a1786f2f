"""Augmentation of a batch: what each image's numbers do to its pixels."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import hflip, resized_crop

from sightline.config.augmentation import AugmentConfig, CutoutConfig, PadCropConfig, RandomResizedCropConfig
from sightline.data.augment import augment
from sightline.data.augment.augment import Parameters, apply, center, cutout, draw, normalize, resample, shift_and_flip

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
CROPS = [None, PadCropConfig(padding=4), PadCropConfig(padding=4, fill="zero"), RandomResizedCropConfig()]


def _pixels(count: int = 5, height: int = 12, width: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def _parameters(count: int, *, flip=False, top=0.0, left=0.0, height=8.0, width=8.0, holes=()) -> Parameters:
    """The same numbers for every image, or a list of numbers, one an image."""

    def column(value) -> Tensor:
        return torch.tensor(value if isinstance(value, list) else [value] * count)

    tops, lefts = zip(*holes, strict=True) if holes else ((), ())
    return Parameters(
        column(flip),
        column(top),
        column(left),
        column(height),
        column(width),
        torch.tensor([tops] * count, dtype=torch.long),
        torch.tensor([lefts] * count, dtype=torch.long),
    )


def _flipped(images: Tensor) -> Tensor:
    """Mirror left and right, (..., W, 3)."""
    return images.flip(-2)


def _moved(pixels: Tensor, parameters: Parameters, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixels, and whether each lies inside of its image."""
    return shift_and_flip(pixels, parameters, size), augment.inside(pixels, parameters, size)


# ── shift and flip ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_shift_is_a_slice():
    pixels = _pixels()
    moved, inside = _moved(pixels, _parameters(5, top=3.0, left=1.0), (8, 8))
    assert torch.equal(moved, pixels[:, 3:11, 1:9])
    assert inside.all()


def test_each_image_is_shifted_by_its_own_numbers():
    pixels = _pixels(3)
    moved, _ = _moved(
        pixels, _parameters(3, flip=[False, True, False], top=[0.0, 2.0, 4.0], left=[2.0, 0.0, 1.0]), (8, 8)
    )
    assert torch.equal(moved[0], pixels[0, 0:8, 2:10])
    assert torch.equal(moved[1], _flipped(pixels[1, 2:10, 0:8]))
    assert torch.equal(moved[2], pixels[2, 4:12, 1:9])


def test_a_flip_of_a_flip_is_the_image():
    pixels, numbers = _pixels(4, 8, 8), _parameters(4, flip=True)
    once, _ = _moved(pixels, numbers, (8, 8))
    twice, _ = _moved(once, numbers, (8, 8))
    assert torch.equal(once, _flipped(pixels))
    assert torch.equal(twice, pixels)


def test_a_flip_mirrors_the_crop_and_does_not_move_it():
    pixels = _pixels()
    for top, left in ((-3.0, 4.0), (2.0, -2.0), (0.0, 0.0)):
        plain, inside = _moved(pixels, _parameters(5, top=top, left=left), (8, 8))
        mirrored, inside_mirrored = _moved(pixels, _parameters(5, top=top, left=left, flip=True), (8, 8))
        assert torch.equal(mirrored, _flipped(plain))
        assert torch.equal(inside_mirrored, inside.flip(-1))


@pytest.mark.parametrize("top", [-4.0, -1.0, 0.0, 4.0])
@pytest.mark.parametrize("left", [-4.0, 0.0, 3.0])
def test_beyond_the_border_an_image_is_reflected_as_torch_pads_it(top, left):
    pixels = _pixels(3, 8, 8)
    padded = functional.pad(pixels.permute(0, 3, 1, 2).float(), (4, 4, 4, 4), mode="reflect").to(torch.uint8)
    first_row, first_column = int(top) + 4, int(left) + 4
    wanted = padded[:, :, first_row : first_row + 8, first_column : first_column + 8].permute(0, 2, 3, 1)
    moved, inside = _moved(pixels, _parameters(3, top=top, left=left), (8, 8))
    assert torch.equal(moved, wanted)
    assert inside.sum(dim=(1, 2)).tolist() == [int((8 - abs(top)) * (8 - abs(left)))] * 3


def test_an_image_smaller_than_its_padding_is_reflected_again_and_again():
    row = torch.tensor([10, 20, 30], dtype=torch.uint8).reshape(1, 1, 3, 1).expand(1, 1, 3, 3)
    moved, _ = _moved(row, _parameters(1, left=-5.0), (1, 11))
    assert moved[0, 0, :, 0].tolist() == [20, 10, 20, 30, 20, 10, 20, 30, 20, 10, 20]


def test_zero_padding_is_zero_once_normalised_and_the_rest_is_the_image():
    config = AugmentConfig(crop=PadCropConfig(padding=4, fill="zero"))
    pixels = _pixels(2, 8, 8)
    images = apply(config, pixels, _parameters(2, top=-3.0, left=2.0), (8, 8), MEAN, STD, torch.float32)
    assert (images[:, :, :3] == 0).all()
    assert (images[:, :, :, 6:] == 0).all()
    assert torch.equal(images[:, :, 3:, :6], normalize(pixels, MEAN, STD, torch.float32)[:, :, :5, 2:])


# ── cutout ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cutout_covers_exactly_the_holes():
    images = torch.ones(1, 3, 10, 12)
    covered = cutout(images, _parameters(1, holes=[(2, 3), (8, -2)]), CutoutConfig(holes=2, size=4))
    wanted = torch.ones(10, 12)
    wanted[2:6, 3:7] = 0
    wanted[8:, :2] = 0  # a hole over the corner is cut by the border
    assert torch.equal(covered, wanted.expand(1, 3, 10, 12))
    assert (images == 1).all()  # the images that were given are left alone


def test_every_image_has_its_own_holes():
    numbers = _parameters(2, holes=[(0, 0)])
    numbers.hole_tops_BK[1] = 5
    covered = cutout(torch.ones(2, 3, 8, 8), numbers, CutoutConfig(size=3))
    assert (covered == 0).nonzero()[:, [0, 2]].unique(dim=0).tolist() == [
        [0, 0],
        [0, 1],
        [0, 2],
        [1, 5],
        [1, 6],
        [1, 7],
    ]


@pytest.mark.parametrize("side", [1, 4, 5, 12])
def test_the_middle_of_a_hole_is_drawn_over_the_whole_image(side):
    config = AugmentConfig(cutout=CutoutConfig(size=side, holes=3))
    numbers = draw(config, 3000, (12, 12), (12, 12), torch.Generator().manual_seed(0))
    for starts in (numbers.hole_tops_BK, numbers.hole_lefts_BK):
        assert (starts + side // 2).unique().tolist() == list(range(12))


# ── random resized crops ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_whole_box_at_the_same_size_is_the_image():
    images = torch.rand(3, 3, 12, 10)
    same = resample(images, _parameters(3, height=12.0, width=10.0), (12, 10))
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)
    mirrored = resample(images, _parameters(3, height=12.0, width=10.0, flip=True), (12, 10))
    torch.testing.assert_close(mirrored, hflip(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("top", "left", "height", "width"), [(0, 0, 32, 40), (3, 5, 24, 20), (8, 16, 16, 24), (1, 2, 31, 17)]
)
def test_a_box_is_stretched_as_torchvision_does(top, left, height, width):
    images = torch.rand(2, 3, 32, 40)
    box = {"top": float(top), "left": float(left), "height": float(height), "width": float(width)}
    wanted = resized_crop(images, top, left, height, width, [16, 16], antialias=False)
    torch.testing.assert_close(resample(images, _parameters(2, **box), (16, 16)), wanted, atol=1e-4, rtol=0)
    mirrored = resample(images, _parameters(2, flip=True, **box), (16, 16))
    torch.testing.assert_close(mirrored, hflip(wanted), atol=1e-4, rtol=0)


def test_a_part_that_is_enlarged_agrees_with_torchvision_away_from_its_border():
    images = torch.rand(2, 3, 32, 32)
    wanted = resized_crop(images, 8, 4, 8, 8, [32, 32], antialias=False)
    found = resample(images, _parameters(2, top=8.0, left=4.0), (32, 32))
    torch.testing.assert_close(found[..., 2:-2, 2:-2], wanted[..., 2:-2, 2:-2], atol=1e-4, rtol=0)


def test_parts_lie_inside_and_have_the_areas_and_aspects_that_were_asked_for():
    config = AugmentConfig(crop=RandomResizedCropConfig(scale=(0.2, 0.5), ratio=(0.8, 1.25)))
    numbers = draw(config, 5000, (4000, 4000), (32, 32), torch.Generator().manual_seed(0))
    assert (numbers.top_B >= 0).all()
    assert (numbers.left_B >= 0).all()
    assert (numbers.top_B + numbers.height_B <= 4000).all()
    assert (numbers.left_B + numbers.width_B <= 4000).all()
    area, ratio = numbers.height_B * numbers.width_B / 4000**2, numbers.width_B / numbers.height_B
    assert (area.min().item(), area.max().item()) == pytest.approx((0.2, 0.5), abs=0.002)
    assert (ratio.min().item(), ratio.max().item()) == pytest.approx((0.8, 1.25), abs=0.002)


def test_parts_that_do_not_fit_are_drawn_again_as_torchvision_does():
    """The mean area of 20,000 parts, and that of torchvision's own drawings, which cutting to the image would raise."""
    config, image = AugmentConfig(crop=RandomResizedCropConfig(scale=(0.5, 1.0))), torch.zeros(3, 32, 32)
    numbers = draw(config, 20_000, (32, 32), (32, 32), torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    boxes = [RandomResizedCrop.get_params(image, [0.5, 1.0], [0.75, 4 / 3]) for _ in range(20_000)]
    reference = sum(height * width for _, _, height, width in boxes) / len(boxes) / 1024
    assert (numbers.height_B * numbers.width_B).mean().item() / 1024 == pytest.approx(reference, abs=0.004)
    assert reference == pytest.approx(0.704, abs=0.004)  # cut to the image it was 0.739


@pytest.mark.parametrize(("cached", "box"), [((40, 40), (40, 40)), ((20, 60), (20, 30)), ((60, 20), (30, 20))])
def test_where_no_part_fits_the_middle_is_taken_in_the_nearest_aspect(cached, box):
    config = AugmentConfig(crop=RandomResizedCropConfig(scale=(1.0, 1.0), ratio=(2 / 3, 1.5)))
    numbers = draw(config, 500, cached, (32, 32), torch.Generator().manual_seed(0))
    assert set(zip(numbers.height_B.tolist(), numbers.width_B.tolist(), strict=True)) == {tuple(map(float, box))}
    assert numbers.top_B.unique().tolist() == [(cached[0] - box[0]) / 2]
    assert numbers.left_B.unique().tolist() == [(cached[1] - box[1]) / 2]


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("crop", CROPS)
def test_each_image_of_a_batch_has_its_own_numbers(crop):
    config = AugmentConfig(crop=crop, cutout=CutoutConfig(holes=2))
    numbers = draw(config, 1000, (36, 36), (32, 32), torch.Generator().manual_seed(0))
    assert 400 < numbers.flip_B.sum() < 600
    assert len(numbers.hole_tops_BK.unique(dim=0)) > 500
    assert len(numbers.hole_lefts_BK.unique(dim=0)) > 500
    for column in (numbers.top_B, numbers.left_B):
        found = column.unique()
        if crop is None:
            assert found.tolist() == [2]  # the middle
        elif isinstance(crop, PadCropConfig):
            assert found.tolist() == list(range(-2, 7))  # 4 pixels to either side of the middle
        else:
            boxes = torch.stack([numbers.top_B, numbers.left_B, numbers.height_B, numbers.width_B])
            assert len(boxes.unique(dim=1).T) > 700  # in whole pixels


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("flip", ["none", "random"])
def test_the_same_generator_draws_the_same_numbers(crop, flip):
    config = AugmentConfig(flip=flip, crop=crop, cutout=CutoutConfig())
    one, again, other = (
        draw(config, 50, (36, 36), (32, 32), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    asked_for = {name: value for name, value in vars(one).items() if value is not None}
    assert all(torch.equal(value, vars(again)[name]) for name, value in asked_for.items())
    assert not all(torch.equal(value, vars(other)[name]) for name, value in asked_for.items())


def test_nothing_is_mirrored_without_flips_and_alternating_ones_are_decided_elsewhere():
    generator = torch.Generator().manual_seed(0)
    flips = torch.tensor([True, False, True])
    assert not draw(AugmentConfig(flip="none"), 3, (8, 8), (8, 8), generator, flips).flip_B.any()
    assert torch.equal(draw(AugmentConfig(flip="alternating"), 3, (8, 8), (8, 8), generator, flips).flip_B, flips)


def test_a_larger_cached_image_is_cropped_all_over():
    config = AugmentConfig(crop=PadCropConfig(padding=1))
    numbers = draw(config, 3000, (148, 148), (128, 128), torch.Generator().manual_seed(0))
    assert numbers.top_B.unique().tolist() == list(range(21))  # never beyond the border


@pytest.mark.parametrize("crop", CROPS)
def test_some_images_of_a_batch_are_made_as_in_the_whole_batch(crop):
    config = AugmentConfig(crop=crop, cutout=CutoutConfig(size=3))
    pixels = _pixels(9, 12, 12)
    numbers = draw(config, 9, (12, 12), (8, 8), torch.Generator().manual_seed(0))
    whole = apply(config, pixels, numbers, (8, 8), MEAN, STD, torch.float32)
    some = apply(config, pixels[3:7], numbers.part(slice(3, 7), torch.device("cpu")), (8, 8), MEAN, STD, torch.float32)
    assert torch.equal(whole[3:7], some)


# ── normalising and the middle ───────────────────────────────────────────────────────────────────────────────────────


def test_normalised_images_have_mean_0_and_deviation_1():
    pixels = _pixels(20, 16, 16)
    scaled = pixels.double().reshape(-1, 3) / 255
    mean, std = scaled.mean(0).float(), scaled.std(0, unbiased=False).float()
    images = normalize(pixels, mean, std, torch.float32).double()
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.std(dim=(0, 2, 3), unbiased=False), torch.ones(3).double(), atol=1e-5, rtol=0)


def test_a_normalised_pixel_can_be_computed_by_hand():
    pixel = torch.tensor([[[[255, 102, 0]]]], dtype=torch.uint8)  # 1, 0.4, 0
    found = normalize(pixel, MEAN, STD, torch.float32)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.5 / 0.2, 0.0, -1.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("hole", [None, CutoutConfig(size=3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whatever_is_asked_for_the_batch_is_channels_last_and_the_pixels_are_left_alone(crop, hole, dtype):
    config = AugmentConfig(crop=crop, cutout=hole)
    pixels = _pixels(4, 12, 12)
    before = pixels.clone()
    numbers = draw(config, 4, (12, 12), (8, 8), torch.Generator().manual_seed(0))
    images = apply(config, pixels, numbers, (8, 8), MEAN, STD, dtype)
    assert images.shape == (4, 3, 8, 8)
    assert images.dtype == dtype
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, before)


def test_the_middle_of_an_image_is_what_no_augmentation_shows():
    pixels = _pixels(3, 13, 12)
    config = AugmentConfig(flip="none")
    numbers = draw(config, 3, (13, 12), (8, 8), torch.Generator())
    assert torch.equal(center(pixels, (8, 8)), pixels[:, 2:10, 2:10])
    assert torch.equal(shift_and_flip(pixels, numbers, (8, 8)), pixels[:, 2:10, 2:10])


# ── smaller images in the first epochs ───────────────────────────────────────────────────────────────────────────────


def test_a_shrunk_image_keeps_its_mean_and_has_even_sides() -> None:
    images = torch.rand(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for scale, side in ((0.69, 22), (0.81, 26), (0.5, 16), (1.0, 32)):
        small = augment.shrink(images, scale)
        assert small.shape == (4, 3, side, side)
        assert small.is_contiguous(memory_format=torch.channels_last)
        assert small.mean().item() == pytest.approx(images.mean().item(), abs=0.01)


def test_a_flat_image_stays_flat_when_it_is_shrunk() -> None:
    assert torch.allclose(augment.shrink(torch.full((1, 3, 32, 32), 0.5), 0.69), torch.tensor(0.5))
