"""The same picture twice: planted copies are found, other pictures are not."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sightline.checks.duplicates import FEW, clusters_of, exact_duplicates, near_duplicates
from sightline.measures.alignment import align, thumbnails

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


def zoomed(pixels: Array) -> Array:
    side = len(pixels)
    box = (0.02 * side, 0.12 * side, 0.85 * side, 0.95 * side)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC, box=box))


def found(*images: Array) -> list[tuple[int, int, bool]]:
    pairs = near_duplicates(np.stack(images), np.arange(len(images)))
    return list(
        zip(pairs.first_P.tolist(), pairs.second_P.tolist(), pairs.mirrored_P.tolist(), strict=True),
    )


@pytest.mark.parametrize("side", [28, 32, 80])
@pytest.mark.parametrize("change", [jpeg, moved, toned, mirrored, blurred, zoomed])
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


def test_two_pictures_in_the_same_frame_are_two_pictures() -> None:
    framed = [np.pad(scene(number)[5:-5, 5:-5], ((5, 5), (5, 5), (0, 0)), constant_values=255) for number in range(20)]
    assert found(*framed) == []
    assert found(*framed, jpeg(framed[3])) == [(3, 20, False)]


def test_blank_images_are_no_copies_of_each_other() -> None:
    assert found(*(np.full((32, 32, 3), level, np.uint8) for level in (0, 100, 100, 255))) == []


def test_in_a_set_of_alike_images_a_pair_must_stand_out() -> None:
    common = scene(0).astype(np.float64)
    alike = [(0.67 * common + 0.33 * scene(number)).astype(np.uint8) for number in range(1, 41)]
    between = align(thumbnails(np.stack(alike)), np.array([0]), np.array([1])).score_P[0]
    assert between > 0.7  # by themselves every two of them would be a pair
    assert found(*alike, jpeg(alike[5], 98)) == [(5, 40, False)]


def test_of_more_copies_than_an_image_has_neighbors_each_is_paired_with_the_one_to_keep() -> None:
    copies = [jpeg(scene(1), quality) for quality in range(40, 80)]
    images = np.stack([*(scene(number) for number in range(100, 500)), *copies])
    preference = np.arange(len(images))
    preference[417] = -1
    pairs = near_duplicates(images, np.arange(len(images)), preference_N=preference)
    partners = {row for pair in zip(pairs.first_P, pairs.second_P, strict=True) if 417 in pair for row in pair}
    assert partners == set(range(400, 440))
    clusters = clusters_of(pairs.first_P, pairs.second_P, len(images))
    assert (clusters[400:] == 400).all()
    assert (clusters[:400] == np.arange(400)).all()


def test_a_larger_set_goes_by_an_index_and_gives_the_same_pairs_every_time() -> None:
    cells = np.random.default_rng(0).integers(0, 256, (FEW + 200, 8, 8, 3)).astype(np.uint8)
    images = cells.repeat(4, axis=1).repeat(4, axis=2)
    images[FEW + 100 :] = [toned(moved(image)) for image in images[:100]]
    one, again = (near_duplicates(images, np.arange(len(images))) for _ in range(2))
    assert set(zip(one.first_P.tolist(), one.second_P.tolist(), strict=True)) == {
        (n, FEW + 100 + n) for n in range(100)
    }
    for part, other in zip(one, again, strict=True):
        assert part.tobytes() == other.tobytes()


def test_an_embedding_that_tells_nothing_apart_changes_nothing() -> None:
    images = np.stack([*(scene(number) for number in range(30)), jpeg(scene(7))])
    for features in (np.zeros((31, 5), np.float32), np.ones((31, 1), np.float32)):
        pairs = near_duplicates(images, np.arange(31), features)
        assert (pairs.first_P.tolist(), pairs.second_P.tolist()) == ([7], [30])


def test_in_frames_of_a_film_the_chain_of_neighbors_is_no_pile_of_duplicates() -> None:
    wide = np.concatenate([scene(number, 64) for number in range(4)], axis=1)
    frames = [wide[:, start : start + 64] for start in range(0, 192, 2)]
    assert found(*frames) == []


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


def test_likeness_is_that_of_the_detail_whatever_brightness_place_scale_and_hand() -> None:
    images = np.stack([scene(1), toned(scene(1)), moved(scene(1)), zoomed(scene(1)), mirrored(scene(1)), scene(2)])
    compared = align(thumbnails(images), np.zeros(5, np.int64), np.arange(1, 6))
    assert (compared.score_P[:4] > 0.9).all()
    assert compared.score_P[4] < 0.5
    assert compared.mirrored_P[:4].tolist() == [False, False, False, True]


def test_likeness_of_a_pair_is_the_same_either_way_and_whatever_is_compared_beside_it() -> None:
    copies = [jpeg(zoomed(scene(number)), 60) for number in range(40)]
    images = thumbnails(np.stack([*(scene(number) for number in range(40)), *copies]))
    first, second = np.arange(40), np.arange(40, 80)
    there, back = align(images, first, second).score_P, align(images, second, first).score_P
    assert np.abs(there - back).max() < 0.1
    alone = [align(images, first[row : row + 1], second[row : row + 1]).score_P[0] for row in (0, 17, 39)]
    assert alone == pytest.approx(there[[0, 17, 39]], abs=1e-4)


def test_an_embedding_finds_copies_that_are_too_far_moved_for_the_cells() -> None:
    far = [np.roll(scene(number), 7, axis=1) for number in range(30)]
    images = np.stack([*(scene(number) for number in range(300)), *far])
    rows = np.arange(len(images))
    names = np.random.default_rng(0).normal(size=(300, 40)).astype(np.float32)
    embedding = np.concatenate([names, names[:30]])
    without, with_it = near_duplicates(images, rows), near_duplicates(images, rows, embedding)
    assert len(without.score_P) < 15
    assert set(zip(with_it.first_P.tolist(), with_it.second_P.tolist(), strict=True)) >= {
        (n, 300 + n) for n in range(30)
    }


def test_an_embedding_that_is_noise_rules_out_nothing_that_the_cells_find() -> None:
    copies = [change(scene(number)) for number in range(25) for change in (moved, zoomed, toned, mirrored)]
    images = np.stack([*(scene(number) for number in range(100)), *copies])
    noise = np.random.default_rng(0).normal(size=(200, 30)).astype(np.float32)
    without, with_it = (
        clusters_of(pairs.first_P, pairs.second_P, 200)
        for pairs in (near_duplicates(images, np.arange(200), features) for features in (None, noise))
    )
    assert (without[100:] == np.arange(25).repeat(4)).mean() > 0.9
    assert (with_it[without != np.arange(200)] == without[without != np.arange(200)]).all()


def test_exact_duplicates_are_groups_of_the_same_hash() -> None:
    assert exact_duplicates(["b", "a", "b", "", "a", "c", "b"], np.array([0, 1, 2, 4, 5])) == [[0, 2], [1, 4]]
