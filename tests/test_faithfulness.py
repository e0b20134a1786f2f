"""Deletion and insertion on a network whose answer is the share of pixels that it sees."""

import torch
from torch import Tensor

from sightline.explanation.faithfulness import area, blurred, curve, measure_faithfulness, random_maps, ranks


def left_half(images_BCHW: Tensor) -> Tensor:
    """Two classes: the first is as probable as the left half of the image is bright, 0 to 1."""
    chance_B = images_BCHW[:, 0, :, :4].mean((1, 2))
    return torch.stack([chance_B, 1 - chance_B], dim=1)


BRIGHT = torch.ones(1, 3, 8, 8)
FIRST = torch.tensor([0])
RIGHT_ORDER = torch.zeros(1, 8, 8)
RIGHT_ORDER[:, :, :4] = 1


def test_the_probability_falls_in_a_line_while_what_counts_is_deleted_and_stays_at_nothing() -> None:
    ranks = torch.arange(64).view(1, 8, 8).mT / 64  # column by column, the left ones first
    found = curve(left_half, BRIGHT, torch.zeros_like(BRIGHT), FIRST, ranks, 8)
    assert found.tolist() == [[1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0]]
    assert area(found).tolist() == [0.25]  # a triangle over half of the pixels


def test_the_best_and_the_worst_order_have_the_areas_of_their_triangles() -> None:
    best = measure_faithfulness(left_half, BRIGHT, FIRST, RIGHT_ORDER, 8).deletion_B
    worst = measure_faithfulness(left_half, BRIGHT, FIRST, -RIGHT_ORDER, 8).deletion_B
    chance = measure_faithfulness(left_half, BRIGHT, FIRST, random_maps(BRIGHT), 8).deletion_B
    assert abs(float(best) - 0.25) < 1e-6
    assert abs(float(worst) - 0.75) < 1e-6
    assert abs(float(chance) - 0.5) < 0.1


def test_insertion_begins_with_a_blurred_copy_and_ends_with_the_image() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[..., ::2] = 1  # every other column is bright; the blur makes it about one half
    assert abs(float(blurred(images)[:, :, :, 2:6].mean()) - 0.5) < 0.05
    assert blurred(images).std() < images.std() / 2
    even = torch.zeros(1, 8, 8)
    even[..., ::2] = 1  # bright columns first: the probability rises above a half before it comes back
    assert measure_faithfulness(left_half, images, FIRST, even, 8).insertion_B > 0.55
    assert measure_faithfulness(left_half, images, FIRST, -even, 8).insertion_B < 0.45


def test_the_blur_keeps_plain_images_and_their_brightness() -> None:
    assert torch.allclose(blurred(BRIGHT * 0.3), BRIGHT * 0.3)
    assert blurred(torch.rand(2, 3, 20, 12)).shape == (2, 3, 20, 12)


def test_pixels_of_equal_importance_are_taken_from_all_over_the_image() -> None:
    def top(images_BCHW: Tensor) -> Tensor:
        chance_B = images_BCHW[:, 0, :2].mean((1, 2))
        return torch.stack([chance_B, 1 - chance_B], dim=1)

    flat = measure_faithfulness(top, BRIGHT, FIRST, torch.zeros(1, 8, 8), 8).deletion_B
    assert 0.35 < float(flat) < 0.65  # row by row it would be 0.125


def test_each_image_is_measured_by_itself_and_the_same_again() -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    classes, maps = torch.tensor([0, 1, 0]), images.mean(1)
    together = measure_faithfulness(left_half, images, classes, maps)
    for i in range(3):
        alone = measure_faithfulness(left_half, images[i : i + 1], classes[i : i + 1], maps[i : i + 1])
        assert torch.allclose(together.deletion_B[i], alone.deletion_B[0])
        assert torch.allclose(together.insertion_B[i], alone.insertion_B[0])
    assert torch.equal(random_maps(images), random_maps(images))


def test_pixels_go_by_squares_of_an_eighth_of_the_shorter_side() -> None:
    maps = torch.zeros(1, 20, 16)  # squares of 2 × 2: ten rows of eight
    maps[0, 19, 15] = 1
    maps[0, 0, 2:4] = 0.25  # the same sum over two pixels of one square is less
    found = ranks(maps)
    assert found[0, 18:, 14:].eq(0).all()
    assert found[0, :2, 2:4].eq(1 / 80).all()
    assert len(found.unique()) == 80
    assert found.max() == 79 / 80
