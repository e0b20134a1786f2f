"""Nearest neighbors by lists: those that looking at all pairs finds."""

from typing import Any

import numpy as np
import pytest

from sightline.measures.neighbors import LIST, PROBES, InvertedFile, nearest_of_all

Array = np.ndarray[Any, Any]


def unit(vectors: Array) -> Array:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def noise(count: int, dimensions: int = 24, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, dimensions))


def by_sorting(vectors: Array, rows: Array, asked: Array, count: int) -> list[set[int]]:
    cosines = asked.astype(np.float32) @ vectors[rows].astype(np.float32).T
    return [set(rows[np.argsort(-line)[:count]].tolist()) for line in cosines]


def test_in_a_set_of_few_lists_all_neighbors_are_found() -> None:
    vectors = unit(noise(LIST * PROBES))
    rows, asked = np.arange(0, len(vectors), 3), vectors[1:400]
    expected = by_sorting(vectors, rows, asked, 7)
    for found, cosines in (InvertedFile(vectors, rows).nearest(asked, 7), nearest_of_all(vectors, rows, asked, 7)):
        assert [set(line) for line in found.tolist()] == expected
        products = (asked[:, None].astype(np.float32) * vectors[found].astype(np.float32)).sum(axis=2)
        assert cosines == pytest.approx(products, abs=1e-5)


def test_in_a_set_of_many_lists_copies_are_found_and_most_other_neighbors() -> None:
    parents = noise(300, seed=1)
    vectors = unit(np.concatenate([parents.repeat(40, axis=0) + 0.7 * noise(12_000)] * 2))
    vectors[12_000:] = unit(vectors[12_000:] + 0.05 * noise(12_000, seed=2))
    found, _ = InvertedFile(vectors, np.arange(24_000)).nearest(vectors[:12_000], 5)
    assert (found == np.arange(12_000, 24_000)[:, None]).any(axis=1).mean() > 0.999
    expected = by_sorting(vectors, np.arange(24_000), vectors[:500], 5)
    assert np.mean([len(one & set(line)) / 5 for one, line in zip(expected, found[:500].tolist(), strict=True)]) > 0.95


def test_vectors_that_are_all_the_same_are_not_all_compared_with_each_other() -> None:
    vectors = np.ones((40 * LIST, 3), np.float16) / np.float16(3**0.5)
    index = InvertedFile(vectors, np.arange(len(vectors)))
    assert max(len(members) for members in index._lists) <= 4 * LIST
    assert sorted(np.concatenate(index._lists).tolist()) == list(range(len(vectors)))
    found, cosines = index.nearest(vectors[:100], 4)
    assert cosines == pytest.approx(np.ones((100, 4)), abs=1e-2)
    assert all(len(set(line)) == 4 for line in found.tolist())


def test_where_there_are_fewer_than_asked_for_the_cosine_is_minus_one() -> None:
    vectors = unit(noise(3000))
    found, cosines = InvertedFile(vectors, np.array([5, 9])).nearest(vectors[[9, 5, 9]], 2)
    assert [set(line) for line in found.tolist()] == [{5, 9}] * 3
    assert cosines.max(axis=1) == pytest.approx(np.ones(3), abs=1e-2)
    many, cosines = InvertedFile(vectors, np.arange(3)).nearest(vectors[:1], 3)
    assert set(many[0].tolist()) == {0, 1, 2}


def test_the_same_vectors_give_the_same_neighbors_every_time() -> None:
    vectors = unit(noise(5000))
    one, again = (InvertedFile(vectors, np.arange(5000)).nearest(vectors, 6) for _ in range(2))
    for part, other in zip(one, again, strict=True):
        assert part.tobytes() == other.tobytes()
