"""Statistics over seeds, against published tables, textbook tests and simulated studies. R recipes, S seeds."""

import numpy as np
import pytest
from scipy import stats

from sightline.measures.metrics import wilson_interval
from sightline.measures.significance import (
    POWER,
    Comparison,
    accuracy_interval,
    compare_to_baseline,
    detectable_difference,
    dunnett_critical,
    mcnemar,
    mean_interval,
    paired_interval,
    unequal_deviations,
)

STUDIES = 3000  # simulated; a share of 0.95 of them is then known to 0.004 (one standard deviation)


def simulated(random: np.random.Generator, gains: list[float], seeds: int = 4, noise: float = 0.01) -> np.ndarray:
    """Accuracies of a study, (R, S): 0.8 and a recipe's gain, what the seed brings to all, and noise."""
    effects = random.normal(0, 0.03, seeds)  # larger than the noise: what pairing takes out
    return 0.8 + np.array(gains)[:, None] + effects + random.normal(0, noise, (len(gains), seeds))


def compared(accuracies: np.ndarray) -> Comparison:
    found = compare_to_baseline(accuracies, 0)
    assert found is not None
    return found


# ── critical values ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("comparisons", "degrees", "published"),
    [  # Dunnett 1964, two-sided, 95 %
        (2, 5, 3.03),
        (3, 10, 2.76),
        (2, 20, 2.38),
        (3, 20, 2.54),
        (5, 20, 2.73),
        (9, 20, 2.95),
        (4, 60, 2.51),
        (6, 120, 2.60),
    ],
)
def test_critical_values_are_those_of_dunnetts_table(comparisons: int, degrees: int, published: float) -> None:
    assert dunnett_critical(comparisons, degrees) == pytest.approx(published, abs=0.0051)


@pytest.mark.parametrize(("comparisons", "degrees"), [(1, 1), (1, 12), (3, 2), (6, 30)])
def test_critical_values_are_quantiles_of_the_multivariate_t_of_scipy(comparisons: int, degrees: int) -> None:
    critical = dunnett_critical(comparisons, degrees)
    if comparisons == 1:
        assert critical == pytest.approx(stats.t.ppf(0.975, degrees), abs=1e-9)
        return
    shape = np.full((comparisons, comparisons), 0.5) + 0.5 * np.eye(comparisons)
    spread = stats.multivariate_t(shape=shape, df=degrees, seed=1)
    inside = spread.cdf(np.full(comparisons, critical), lower_limit=np.full(comparisons, -critical), maxpts=100_000)
    assert inside == pytest.approx(0.95, abs=2e-4)


def test_with_one_comparison_all_is_students_paired_test() -> None:
    accuracies = simulated(np.random.default_rng(1), [0, 0.02], seeds=6)
    found = compared(accuracies)
    paired = stats.ttest_rel(accuracies[1], accuracies[0])
    low, high = paired.confidence_interval(0.95)
    assert found.degrees == 5
    assert found.differences[0] is None
    assert found.differences[1] is not None
    assert (found.differences[1].low, found.differences[1].high) == pytest.approx((low, high), abs=1e-12)
    assert found.differences[1].shown == (paired.pvalue < 0.05)


# ── a comparison ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_small_study_computed_by_hand() -> None:
    accuracies = np.array([[0.80, 0.82], [0.84, 0.84], [0.80, 0.80]])
    # means by recipe 0.81, 0.84, 0.80, by seed 0.8133 and 0.82; residuals ±0.00667, ±0.00333, ±0.00333
    found = compared(accuracies)
    assert found.degrees == 2
    assert found.deviation == pytest.approx(np.sqrt(2 * (0.00667**2 + 2 * 0.00333**2) / 2), abs=1e-5)
    half = dunnett_critical(2, 2) * found.deviation  # √(2/2) = 1
    assert found.differences[1] is not None
    assert found.differences[1].estimate == pytest.approx(0.03)
    assert (found.differences[1].low, found.differences[1].high) == pytest.approx((0.03 - half, 0.03 + half))


def test_what_a_seed_brings_to_all_recipes_changes_no_difference() -> None:
    accuracies = simulated(np.random.default_rng(2), [0, 0.01, 0.02])
    one, other = compared(accuracies), compared(accuracies + np.array([0.05, -0.02, 0.0, 0.1]))
    assert one.deviation == pytest.approx(other.deviation)
    assert [found and found.low for found in one.differences] == pytest.approx(
        [found and found.low for found in other.differences]
    )


def test_the_intervals_of_a_study_hold_all_true_differences_at_once_in_95_of_100() -> None:
    random, gains = np.random.default_rng(3), [0.0, 0.0, 0.01, -0.02, 0.005]
    held = 0
    for _ in range(STUDIES):
        found = compared(simulated(random, gains))
        held += all(
            one.low <= gain <= one.high for one, gain in zip(found.differences, gains, strict=True) if one is not None
        )
    assert held / STUDIES == pytest.approx(0.95, abs=0.012)  # three standard deviations of the share


def test_a_large_planted_difference_is_found_and_of_equal_recipes_none_in_95_of_100() -> None:
    random = np.random.default_rng(4)
    found, false = 0, 0
    for _ in range(STUDIES):
        differences = compared(simulated(random, [0, 0, 0.05, 0])).differences
        assert differences[1] is not None
        assert differences[2] is not None
        assert differences[3] is not None
        found += differences[2].low > 0
        false += differences[1].shown or differences[3].shown
    assert found / STUDIES > 0.99
    assert false / STUDIES < 0.05  # each of three comparisons has a part of the 5 %


def test_a_difference_of_the_detectable_size_is_shown_in_80_of_100() -> None:
    random, recipes, seeds, noise = np.random.default_rng(5), 4, 5, 0.01
    degrees = (recipes - 1) * (seeds - 1)
    true = detectable_difference(recipes - 1, degrees) * noise * np.sqrt(2 / seeds)
    shown = 0
    for _ in range(STUDIES):
        one = compared(simulated(random, [0, true, 0, 0], seeds, noise)).differences[1]
        assert one is not None
        shown += one.shown
    assert shown / STUDIES == pytest.approx(POWER, abs=0.022)


@pytest.mark.parametrize(("comparisons", "degrees"), [(1, 4), (3, 20), (8, 81)])
def test_the_detectable_difference_is_that_of_the_noncentral_t(comparisons: int, degrees: int) -> None:
    true, critical = detectable_difference(comparisons, degrees), dunnett_critical(comparisons, degrees)
    shown = stats.nct.sf(critical, degrees, true) + stats.nct.cdf(-critical, degrees, true)
    assert shown == pytest.approx(0.8, abs=1e-9)


def test_names_dealt_anew_within_each_seed_show_no_difference() -> None:
    random = np.random.default_rng(6)
    accuracies = simulated(random, [0, 0.05, -0.05, 0.02], seeds=6)
    assert any(one is not None and one.shown for one in compared(accuracies).differences)
    shown = 0
    for _ in range(400):
        dealt = random.permuted(
            accuracies, axis=0
        )  # each seed's accuracies among the recipes, as if names meant nothing
        shown += any(one is not None and one.shown for one in compared(dealt).differences)
    assert shown / 400 < 0.09  # 0.05 and four standard deviations


def test_nothing_is_said_of_one_seed_of_one_recipe_or_of_seeds_that_change_nothing() -> None:
    assert compare_to_baseline(np.array([[0.8], [0.9]]), 0) is None
    assert compare_to_baseline(np.array([[0.8, 0.9]]), 0) is None
    assert compare_to_baseline(np.array([[0.8, 0.9], [0.9, 1.0]]), 0) is None  # a gain of 0.1 with each seed, no noise


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.array([0.80, 0.82, 0.87])
    expected = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected)
    assert mean_interval(values[:1]) is None


# ── is one deviation enough? ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("effect", [0.0, 0.005, 0.03])
@pytest.mark.parametrize(("recipes", "seeds"), [(3, 4), (5, 5)])
def test_equal_deviations_are_called_unequal_as_seldom_as_the_probability_says(effect, recipes, seeds) -> None:
    random = np.random.default_rng(3)
    chances = []
    for _ in range(1000):
        tested = unequal_deviations(random.normal(0, effect, seeds) + random.normal(0.8, 0.0025, (recipes, seeds)))
        assert tested is not None
        chances.append(tested[1])
    assert np.mean(np.array(chances) < 0.05) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("effect", [0.0, 0.005, 0.03])
def test_a_recipe_that_scatters_four_times_as_much_is_seen_whatever_the_seeds_bring_to_all(effect) -> None:
    random = np.random.default_rng(4)
    noise = np.array([0.0025, 0.0025, 0.0025, 0.0025, 0.01])[:, None]
    seen, deviations = [], []
    for _ in range(400):
        tested = unequal_deviations(0.8 + random.normal(0, effect, 5) + random.normal(0, noise, (5, 5)))
        assert tested is not None
        seen.append(tested[1] < 0.01)
        deviations.append(tested[0])
    assert np.mean(seen) > 0.55  # Bartlett's test of the accuracies themselves: 0.65, 0.05 and 0.01
    variances = np.mean(np.square(deviations), axis=0)
    assert np.sqrt(variances[-1]) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("values", [np.ones((1, 5)), np.ones((3, 2)), np.ones((3, 4)), np.ones((2, 4))])
def test_where_deviations_cannot_be_compared_nothing_is_said(values: np.ndarray) -> None:
    assert unequal_deviations(values) is None


# ── two classifiers on the same images ───────────────────────────────────────────────────────────────────────────────


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether two classifiers answer right, from the counts of the four kinds of images."""
    counts = (both, first, second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("gained", "lost", "expected"),
    [
        (150, 86, 3.715936e-5),  # Agresti's approval ratings
        (1, 8, 0.0390625),
        (5, 5, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_is_the_exact_test_of_the_answers_that_differ(gained, lost, expected) -> None:
    right, baseline = answers(794, gained, lost, 570)
    assert mcnemar(right, baseline) == pytest.approx(expected, rel=1e-4)
    if gained + lost:
        assert mcnemar(right, baseline) == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)


def test_over_groups_of_one_image_each_mcnemar_is_the_same() -> None:
    right, baseline = answers(50, 12, 3, 20)
    assert mcnemar(right, baseline, np.arange(len(right))) == pytest.approx(mcnemar(right, baseline), abs=0.01)


def test_mistakes_that_come_by_groups_show_less() -> None:
    """One student, whose twelve images the first classifier alone reads, is one piece of evidence and not twelve."""
    right, baseline = answers(0, 12, 0, 108)
    students = np.repeat(np.arange(10), 12)
    assert mcnemar(right, baseline) < 0.001
    assert mcnemar(right, baseline, students) == 1.0
    assert paired_interval(right, baseline)[1] > 0
    assert paired_interval(right, baseline, students)[1] <= 0


# ── an accuracy over groups ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_interval_without_groups_is_wilsons() -> None:
    right = np.repeat([True, False], [90, 10])
    assert accuracy_interval(right) == wilson_interval(90, 100)
    low, high = accuracy_interval(right, np.arange(100))
    assert (low, high) == pytest.approx(wilson_interval(90, 100), abs=0.02)


def test_more_right_answers_never_widen_the_interval_and_none_wrong_says_less_than_so_many_images() -> None:
    students, lows = np.repeat(np.arange(41), 10), []
    for wrong in (4, 3, 2, 1, 0):  # of one student
        right = np.arange(410) >= wrong
        lows.append(accuracy_interval(right, students)[0])
    assert lows[-1] < wilson_interval(410, 410)[0] - 0.02
    assert max(lows) - lows[-1] < 0.003  # of 410 right answers as much is said as of 409


@pytest.mark.parametrize("share", [0.8, 0.95, 0.98])
def test_the_interval_over_groups_holds_where_wilsons_does_not(share) -> None:
    random = np.random.default_rng(5)
    held, held_by_wilson = 0, 0
    for _ in range(150):
        skill = random.beta(2 * share, 2 * (1 - share), 41)  # of a student
        students = np.repeat(np.arange(41), random.integers(5, 16, 41))
        right = random.random(len(students)) < skill[students]
        low, high = accuracy_interval(right, students)
        held += low <= share <= high
        low, high = wilson_interval(int(right.sum()), len(right))
        held_by_wilson += low <= share <= high
    assert held / 150 >= 0.93
    assert held_by_wilson / 150 < 0.75
