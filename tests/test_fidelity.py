"""How near made images are to real ones, by their features."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from sightline.errors import DataError
from sightline.measures.fidelity import fidelity_of, frechet_distance, nearest, nearest_others, precision_and_recall


def cloud(count: int, width: int = 5, center: float = 0.0, spread: float = 1.0, seed: int = 0) -> np.ndarray:
    return center + spread * np.random.default_rng(seed).standard_normal((count, width))


def test_a_set_is_at_no_distance_from_itself() -> None:
    features = cloud(100)
    assert frechet_distance(features, features[::-1]) == pytest.approx(0, abs=1e-9)


def test_moved_by_a_step_it_is_that_step_squared_away() -> None:
    features = cloud(100)
    assert frechet_distance(features + 3, features) == pytest.approx(5 * 3**2)


def test_spread_twice_as_far_it_is_its_variance_away() -> None:
    """In one dimension: (σ₁ - σ₂)²."""
    features = cloud(100, 1)
    features -= features.mean()
    assert frechet_distance(2 * features, features) == pytest.approx(np.var(features, ddof=1))


@pytest.mark.parametrize(("made", "real"), [(200, 300), (4, 300), (4, 3)])  # also fewer images than features
def test_it_is_that_of_the_formula(made: int, real: int) -> None:
    mixing = cloud(5, 5, seed=7)
    first, second = cloud(made, center=0.3, seed=1) @ mixing, cloud(real, spread=1.5, seed=2)
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    wanted = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(wanted, rel=1e-4)


def test_the_same_distribution_is_precise_and_varied() -> None:
    precision, recall = precision_and_recall(cloud(500, 2, seed=1), cloud(500, 2, seed=2))
    assert precision > 0.9
    assert recall > 0.9


def test_few_of_the_modes_are_precise_and_not_varied() -> None:
    real = np.concatenate([cloud(200, 2, -20, seed=1), cloud(200, 2, 20, seed=2)])
    precision, recall = precision_and_recall(cloud(200, 2, 20, seed=3), real)
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.05)


def test_far_away_is_neither() -> None:
    assert precision_and_recall(cloud(50, center=100), cloud(50)) == (0.0, 0.0)


def test_by_hand() -> None:
    """Real at 0, 1, 3, 7: with one neighbour their reaches are 1, 1, 2, 4."""
    real = np.array([[0.0], [1.0], [3.0], [7.0]])
    made = np.array([[-2.0], [11.0], [4.5], [12.0]])
    precision, _ = precision_and_recall(made, real, neighbors=1)
    assert precision == 0.5  # 11 reaches 7 by 4, 4.5 reaches 3 by 1.5


def test_the_nearest_is_named_with_its_distance() -> None:
    rows, distances = nearest(np.array([[0.0, 0.0], [9.0, 9.0]]), np.array([[9.0, 5.0], [0.0, 3.0]]))
    assert rows.tolist() == [1, 0]
    assert distances.tolist() == [3.0, 4.0]


def test_an_image_is_not_its_own_nearest() -> None:
    features = np.array([[0.0], [1.0], [5.0], [5.0]])
    assert nearest_others(features, np.array([0, 1, 2])).tolist() == [1.0, 1.0, 0.0]


def test_too_few_are_refused() -> None:
    with pytest.raises(DataError, match="of 1 made images; wanted 2 or more"):
        frechet_distance(cloud(1), cloud(9))
    with pytest.raises(DataError, match="of 3 real images; wanted 4 or more"):
        fidelity_of(cloud(9), cloud(3))
