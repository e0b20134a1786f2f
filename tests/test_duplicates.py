"""The same picture twice: planted copies are found, other pictures are not."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sightline.checks.duplicates import MOST, exact_duplicates, likeness, near_duplicates

Array = np.ndarray[Any, Any]


def scene(number: int, side: int = 32) -> Array:
    """Pixels with the look of a photograph: a coarse pattern with finer ones on it, by a number alone."""
    random = np.random.default_rng(number)
    pixels = np.full((side, side, 3), 128.0)
    for cells, weight in ((4, 0.5), (8, 0.4), (16, 0.4), (side, 0.15)):
        grey, colour = random.integers(0, 256, (cells, cells, 1)), random.integers(0, 256, (cells, cells, 3))
        pattern = Image.fromarray((0.8 * grey + 0.2 * colour).astype(np.uint8))
        pixels += weight * (np.asarray(pattern.resize((side, side), Image.Resampling.BICUBIC)) - 128.0)
    return pixels.clip(0, 255).astype(np.uint8)


def jpeg(pixels: Array, quality: int = 40) -> Array:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def moved(pixels: Array) -> Array:
    return np.pad(pixels, ((1, 0), (1, 0), (0, 0)), mode="edge")[:-1, :-1]


def toned(pixels: Array) -> Array:
    return (pixels * 0.6 + 60).astype(np.uint8)


def mirrored(pixels: Array) -> Array:
    return pixels[:, ::-1]


def blurred(pixels: Array) -> Array:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.5)))


def found(*images: Array) -> list[tuple[int, int, bool]]:
    pairs = near_duplicates(np.stack(images), np.arange(len(images)))
    return list(
        zip(pairs.first_P.tolist(), pairs.second_P.tolist(), pairs.mirrored_P.tolist(), strict=True),
    )


@pytest.mark.parametrize("side", [28, 32, 80])
@pytest.mark.parametrize("change", [jpeg, moved, toned, mirrored, blurred])
def test_a_copy_of_one_of_a_hundred_pictures_is_found_and_nothing_else(
    change: Callable[[Array], Array], side: int
) -> None:
    images = [scene(number, side) for number in range(100)]
    assert found(*images, change(images[42])) == [(42, 100, change is mirrored)]


def test_pictures_of_another_shape_are_compared_too() -> None:
    images = [scene(number, 48)[:, 5:41] for number in range(20)]
    assert found(*images, jpeg(images[7])) == [(7, 20, False)]


def test_among_unlike_pictures_there_is_no_pair() -> None:
    assert found(*(scene(number) for number in range(300))) == []


def test_the_same_sky_with_something_else_in_it_is_another_picture() -> None:
    sky = np.repeat(np.linspace(230, 120, 32).astype(np.uint8)[:, None, None], 32, axis=1).repeat(3, axis=2)
    plane, bird = sky.copy(), sky.copy()
    plane[10:13, 6:26] = 60
    bird[18:24, 12:18] = 40
    assert found(plane, bird) == []
    assert found(plane, bird, toned(plane)) == [(0, 2, False)]


def test_blank_images_are_no_copies_of_each_other() -> None:
    assert found(*(np.full((32, 32, 3), level, np.uint8) for level in (0, 100, 100, 255))) == []


def test_in_a_set_of_alike_images_a_pair_must_stand_out() -> None:
    common = scene(0).astype(np.float64)
    alike = [(0.67 * common + 0.33 * scene(number)).astype(np.uint8) for number in range(1, 41)]
    between = likeness(np.stack(alike), np.array([0]), np.array([1]))[0]
    assert between > 0.7  # by themselves every two of them would be a pair
    assert found(*alike, jpeg(alike[5], 98)) == [(5, 40, False)]


def test_more_copies_than_are_kept_for_one_image_are_found_by_way_of_each_other() -> None:
    copies = [jpeg(scene(1), quality) for quality in range(40, 40 + MOST + 8)]
    pairs = found(*(scene(number) for number in range(100, 500)), *copies)
    assert len(pairs) > 8 * MOST
    assert {row for pair in pairs for row in pair[:2]} == set(range(400, 400 + len(copies)))


def test_pairs_come_once_each_the_most_alike_first() -> None:
    one = scene(1)
    symmetric = np.concatenate([one[:, :16], one[:, 15::-1]], axis=1)
    images = np.stack(
        [*(scene(number) for number in range(10, 60)), symmetric, jpeg(symmetric, 60), one, jpeg(one, 90)]
    )
    pairs = near_duplicates(images, np.arange(len(images)))
    assert sorted(zip(pairs.first_P.tolist(), pairs.second_P.tolist(), strict=True)) == [(50, 51), (52, 53)]
    assert pairs.score_P.tolist() == sorted(pairs.score_P.tolist(), reverse=True)


def test_only_the_rows_that_are_asked_for_are_compared() -> None:
    images = np.stack([scene(1), scene(2), jpeg(scene(1)), jpeg(scene(2))])
    pairs = near_duplicates(images, np.array([0, 1, 3]))
    assert (pairs.first_P.tolist(), pairs.second_P.tolist()) == ([1], [3])
    assert len(near_duplicates(images, np.array([2])).score_P) == 0
    assert len(near_duplicates(images, np.array([], np.int64)).score_P) == 0


def test_likeness_is_that_of_the_detail_whatever_brightness_and_place() -> None:
    images = np.stack([scene(1), toned(scene(1)), moved(scene(1)), scene(2), mirrored(scene(1))])
    first, second = np.zeros(4, np.int64), np.arange(1, 5)
    same, shifted, other, mirror = likeness(images, first, second)
    assert same > 0.9
    assert shifted > 0.9
    assert abs(other) < 0.5
    assert abs(mirror) < 0.5
    assert likeness(images, first[:1], second[3:], mirrored=True)[0] > 0.95


def test_exact_duplicates_are_groups_of_the_same_hash() -> None:
    assert exact_duplicates(["b", "a", "b", "", "a", "c", "b"], np.array([0, 1, 2, 4, 5])) == [[0, 2], [1, 4]]
