"""Significance of differences between recipes, over seeds. R recipes, S seeds, k comparisons with a baseline.

A study trains every recipe with every seed, so a seed is a block: all recipes share its order of images, first weights
and whatever else it decides. Accuracies are taken as recipe + seed + noise, the noise with one deviation for all
recipes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import optimize, special

from sightline.measures.metrics import wilson_interval

__all__ = [
    "CONFIDENCE",
    "POWER",
    "Comparison",
    "Difference",
    "accuracy_interval",
    "compare_to_baseline",
    "corrected_interval",
    "detectable_difference",
    "dunnett_critical",
    "mcnemar",
    "mean_interval",
    "measure_accuracy",
    "paired_interval",
    "unequal_deviations",
]

CONFIDENCE = 0.95  # that all intervals of a comparison hold the true differences at once
POWER = 0.8  # chance to show a true difference of the size that is called detectable
NODES = 160  # of each integral; the critical values are right to 1e-8
DRAWS = 4000  # of groups, and of exchanges of answers
STUDIES = 20_000  # of equal deviations
TAIL = 1e-13  # probability that the integrals leave out on each side

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Difference:
    """A recipe's mean minus the baseline's, and the interval around it."""

    estimate: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """True where the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Recipes against a baseline over the same seeds."""

    seeds: int
    degrees: int
    """Degrees of freedom of the deviation, (R - 1)(S - 1)."""
    deviation: float
    """Of an accuracy when the recipe and the seed are known: one for all recipes."""
    critical: float
    """Half the width of an interval, in standard errors of a difference."""
    detectable: float
    """True difference to the baseline that such a study shows with a probability of ``POWER``."""
    differences: tuple[Difference | None, ...]
    """In the order of the recipes; None for the baseline."""


def compare_to_baseline(accuracies_RS: Array, baseline: int) -> Comparison | None:
    """Compare every recipe with the baseline, paired by seed, with simultaneous intervals.

    The noise's variance is the residual mean square of the additive model recipe + seed (a randomized complete block
    design), the intervals are Dunnett's: with a probability of ``CONFIDENCE`` all of them hold at once, so that trying
    more recipes does not find more by chance.

    Args:
        accuracies_RS: of each recipe (rows) with each seed (columns), (R, S), without gaps.
        baseline: row of the recipe that the others are compared with.
    Returns:
        None where nothing can be said: less than two recipes or two seeds, or no noise at all to measure against.
    Source:
        C. W. Dunnett, "New tables for multiple comparisons with a control", Biometrics 1964.
    """
    recipes, seeds = accuracies_RS.shape
    if recipes < 2 or seeds < 2:
        return None
    means_R = accuracies_RS.mean(axis=1)
    residuals_RS = accuracies_RS - means_R[:, None] - accuracies_RS.mean(axis=0) + accuracies_RS.mean()
    degrees = (recipes - 1) * (seeds - 1)
    deviation = math.sqrt(float((residuals_RS**2).sum()) / degrees)
    if deviation < 1e-12:  # rounding
        return None
    error = deviation * math.sqrt(2 / seeds)  # of a difference of two means
    critical = dunnett_critical(recipes - 1, degrees)
    differences = [
        None if row == baseline else Difference(gain, gain - critical * error, gain + critical * error)
        for row, gain in enumerate((means_R - means_R[baseline]).tolist())
    ]
    return Comparison(
        seeds=seeds,
        degrees=degrees,
        deviation=deviation,
        critical=critical,
        detectable=error * detectable_difference(recipes - 1, degrees),
        differences=tuple(differences),
    )


@cache
def dunnett_critical(comparisons: int, degrees: int, confidence: float = CONFIDENCE) -> float:
    """Compute Dunnett's two-sided critical value for k comparisons with one baseline, all of the same number of seeds.

    The differences share the baseline, so their correlation is 1/2. Given the baseline's error z and the estimated
    deviation's ratio s to the true one, they are independent, and the chance that all lie within is the integral over
    both of (Φ(z + √2·c·s) - Φ(z - √2·c·s))^k.
    """
    z, z_weights = _nodes(-8.0, 8.0)
    z_weights = z_weights * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    def excess(critical: float) -> float:
        def within(ratios: Array) -> Array:
            reach = math.sqrt(2) * critical * ratios[:, None]
            chances: Array = (special.ndtr(z + reach) - special.ndtr(z - reach)) ** comparisons @ z_weights
            return chances

        return _over_ratios(within, degrees) - confidence

    low = float(special.stdtrit(degrees, (1 + confidence) / 2))  # of one comparison; k by Bonferroni need no more than
    high = float(special.stdtrit(degrees, 1 - (1 - confidence) / (2 * comparisons)))
    return low if comparisons == 1 else float(optimize.brentq(excess, low, high * 1.001))


@cache
def detectable_difference(comparisons: int, degrees: int, power: float = POWER) -> float:
    """Find the true difference, in its standard errors, whose interval leaves zero out with a given probability."""
    critical = dunnett_critical(comparisons, degrees)

    def excess(true: float) -> float:
        def shown(ratios: Array) -> Array:
            chances: Array = special.ndtr(true - critical * ratios) + special.ndtr(-true - critical * ratios)
            return chances

        return _over_ratios(shown, degrees) - power

    return float(optimize.brentq(excess, 0.0, 10 * critical + 10))


def corrected_interval(
    accuracies: Sequence[float],
    sizes: Sequence[int],
    images: int,
    halves: Sequence[tuple[float, float]] = (),
    units: float | None = None,
) -> tuple[float, float]:
    """Compute the interval of 95 % around an accuracy that repeated cross-validation has estimated.

    The folds share most of their training images, so their accuracies are not independent: the variance of their mean
    is taken as ``(1 / J + n2 / n1)`` times that of one, with J estimates, n1 images to fit to and n2 to measure on. Of
    few images all folds may agree by luck; so each end is at least as far out as Wilson's for so many images. Neither
    knows how much depends on which images a head was fitted to; halves of the images show it, and each end is at least
    as far out as they say: the variance of a half's error, without what the finite other half adds to it, is half as
    large at all images. What a fold's images would have added to the accuracy is no more than what as many have added
    between half of the images and nine tenths, as learning curves flatten.

    Args:
        accuracies: of each fold of each repeat.
        sizes: images that each was measured on.
        images: in all.
        halves: of halves of the images: the cross-validated accuracy, and that on the other half.
        units: of images that are dealt together, such as series, as many as would count the same if they were of one
            size; None: each by itself.
    Source:
        Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003, eq. 9; halves of the
        images, there for the variance of the estimate alone, in section 4.2.
    """
    mean = float(np.average(accuracies, weights=sizes))
    measured = float(np.mean(sizes))
    variance = float(np.average((np.array(accuracies) - mean) ** 2, weights=sizes)) * len(sizes) / (len(sizes) - 1)
    variance *= 1 / len(sizes) + measured / (images - measured)
    if halves:
        estimated, reached = np.array(halves).T
        share = float(reached.mean())
        finite = share * (1 - share) / ((units or images) / 2)
        missing = max(0.0, mean - share) * measured / max(measured, images / 2 - measured)
        variance = max(variance, (float((estimated - reached).var()) - finite) / 2 + missing**2)
    half = float(special.stdtrit(len(sizes) - 1, 0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    low, high = wilson_interval(round(mean * images), images)
    return max(0.0, min(mean - half, low)), min(1.0, max(mean + half, high))


def accuracy_interval(right_N: Array, groups_N: Array | None = None) -> tuple[float, float]:
    """Compute the interval of 95 % around an accuracy: Wilson's, or over groups by the cluster bootstrap.

    Images of a group are not independent, so whole groups are drawn with replacement. Where few groups have mistakes,
    that is too narrow; so each end is at least as far out as Wilson's of the effective number of images.

    Args:
        right_N: whether each image is answered correctly.
        groups_N: the number of its group, from 0; None: each by itself.
    Source:
        Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8; the levels are expanded for
        few groups as in Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015.
    """
    n, right = len(right_N), int(right_N.sum())
    if groups_N is None:
        return wilson_interval(right, n)
    effective = _effective_number(right_N, groups_N)
    low, high = wilson_interval(right / n * effective, effective)
    if groups_N.max() == 0:
        return low, high
    drawn_low, drawn_high = _drawn_interval(right_N.astype(float), groups_N)
    return min(low, drawn_low), max(high, drawn_high)


def _effective_number(right_N: Array, groups_N: Array) -> float:
    """Estimate how many independent images would say as much: n over the design effect.

    A group of the mean size, half of it answered correctly, is counted besides, so that a few groups without a mistake
    do not pass for independent images.

    Source:
        Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated
        from survey data", Survey Methodology 24, 1998 (the effective number, without the group besides).
    """
    sums_G, sizes_G = np.bincount(groups_N, right_N), np.bincount(groups_N)
    size = float(sizes_G.mean())
    sums_G, sizes_G = np.append(sums_G, size / 2), np.append(sizes_G, size)
    share, groups = sums_G.sum() / sizes_G.sum(), len(sizes_G)
    variance = groups / (groups - 1) * ((sums_G - share * sizes_G) ** 2).sum()
    return len(right_N) / max(1.0, float(variance / (sizes_G.sum() * share * (1 - share))))


def measure_accuracy(right_N: Array, groups_N: Array | None = None) -> dict[str, Any]:
    """Measure an accuracy as a run notes it: n, its interval, and of how many groups where there are any.

    Args:
        right_N, groups_N: as ``accuracy_interval`` has them.
    """
    low, high = accuracy_interval(right_N, groups_N)
    measured = {"n": len(right_N), "accuracy": float(right_N.mean()), "accuracy_interval": [low, high]}
    return measured if groups_N is None else measured | {"groups": int(groups_N.max()) + 1}


def paired_interval(right_N: Array, baseline_N: Array, groups_N: Array | None = None) -> tuple[float, float, float]:
    """Compute the difference of two accuracies on the same images, and its interval of 95 %.

    Args:
        right_N: whether each image is answered correctly.
        baseline_N: the same of what it is compared with.
        groups_N: the number of its group, from 0: whole groups are drawn as in ``accuracy_interval``, and each end is
            at least as far out as without them. None: each image by itself.
    Returns:
        (difference, low, high).
    Source:
        Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in
        Medicine 24, 2005: half an image is added to each kind of answer.
    """
    n = len(right_N)
    gained, lost = int((right_N & ~baseline_N).sum()), int((baseline_N & ~right_N).sum())
    b, c, m = gained + 0.5, lost + 0.5, n + 2.0
    spread = math.sqrt(b + c - (b - c) ** 2 / m) / m
    half = float(special.ndtri(0.5 + CONFIDENCE / 2)) * spread
    middle = (b - c) / m
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    if groups_N is not None and groups_N.max() > 0:
        drawn_low, drawn_high = _drawn_interval(right_N.astype(float) - baseline_N, groups_N)
        low, high = min(low, drawn_low), max(high, drawn_high)
    return (gained - lost) / n, low, high


def _drawn_interval(values_N: Array, groups_N: Array) -> tuple[float, float]:
    """Draw whole groups with replacement, and return the quantiles of the mean of their images' values."""
    sums_G, sizes_G = np.bincount(groups_N, values_N), np.bincount(groups_N)
    groups, random = len(sizes_G), np.random.default_rng(0)
    means: list[float] = []
    for _ in range(DRAWS // 100):
        counts_DG = random.multinomial(groups, np.full(groups, 1 / groups), size=100)
        means += (counts_DG @ sums_G / (counts_DG @ sizes_G)).tolist()
    student = float(special.stdtrit(groups - 1, (1 - CONFIDENCE) / 2)) * math.sqrt(groups / (groups - 1))
    level = float(special.ndtr(student))
    low, high = np.quantile(means, [level, 1 - level]).tolist()
    return low, high


def mcnemar(right_N: Array, baseline_N: Array, groups_N: Array | None = None) -> float:
    """Compute McNemar's exact probability that two accuracies on the same images differ this much by chance.

    Over groups it is that of the same test with the answers of a whole group exchanged at once, by ``DRAWS`` exchanges.

    Args:
        right_N, baseline_N, groups_N: as ``paired_interval`` has them.
    Source:
        Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
        Psychometrika 12, 1947; exact: twice the smaller tail of the binomial distribution.
    """
    gains_N = right_N.astype(int) - baseline_N
    if groups_N is None:
        gained, lost = int((gains_N > 0).sum()), int((gains_N < 0).sum())
        return min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))
    gains_G = np.bincount(groups_N, gains_N)
    gains_G, random = gains_G[gains_G != 0], np.random.default_rng(0)
    drawn = [float(abs(random.choice([-1, 1], len(gains_G)) @ gains_G)) for _ in range(DRAWS)]
    as_far = int((np.array(drawn) >= abs(gains_G.sum()) - 1e-9).sum())
    return (1 + as_far) / (1 + DRAWS)


def mean_interval(values: Array, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Compute Student's interval of the mean of some values, from their own deviation; None for a single value."""
    count = len(values)
    if count < 2:
        return None
    half = float(special.stdtrit(count - 1, (1 + confidence) / 2)) * float(values.std(ddof=1)) / math.sqrt(count)
    return float(values.mean()) - half, float(values.mean()) + half


def unequal_deviations(values_RS: Array) -> tuple[Array, float] | None:
    """Estimate each recipe's deviation beside the seed's effect, and test whether one is larger than the others.

    What a seed brings to all recipes is taken out: the statistic is the largest share of a recipe in the squared
    residuals of the model recipe + seed. Residuals of a seed depend on each other, so what is usual is counted in
    ``STUDIES`` drawn studies of equal deviations, where neither means nor effects of seeds matter.

    Returns:
        The deviations, (R,), 0 where the others explain it all, and the probability of so large a share. None below
        three recipes, whose residuals mirror each other, below three seeds, or without any residual.
    Source:
        W. G. Cochran, "The distribution of the largest of a set of estimated variances as a fraction of their total",
        Annals of Eugenics 11, 1941; the estimates: F. E. Grubbs, "On estimating precision of measuring instruments and
        product variability", JASA 43, 1948.
    """
    recipes, seeds = values_RS.shape
    if recipes < 3 or seeds < 3:
        return None
    squares_R = _residual_squares(values_RS)
    if squares_R.sum() < 1e-24:  # rounding
        return None
    others = squares_R.sum() / (recipes * (recipes - 1))
    variances_R = np.maximum(0, (squares_R - others) * recipes / (recipes - 2)) / (seeds - 1)
    share = squares_R.max() / squares_R.sum()
    return np.sqrt(variances_R), float((_usual_shares(recipes, seeds) >= share).mean())


def _residual_squares(values_RS: Array) -> Array:
    """Sum the squared residuals of the model recipe + seed of each recipe; of (..., R, S) values, (..., R)."""
    residuals = values_RS - values_RS.mean(axis=-1, keepdims=True) - values_RS.mean(axis=-2, keepdims=True)
    squares: Array = ((residuals + values_RS.mean(axis=(-2, -1), keepdims=True)) ** 2).sum(axis=-1)
    return squares


@cache
def _usual_shares(recipes: int, seeds: int) -> Array:
    """Draw the largest share where all deviations are one, (STUDIES,)."""
    squares = _residual_squares(np.random.default_rng(0).normal(size=(STUDIES, recipes, seeds)))
    shares: Array = squares.max(axis=-1) / squares.sum(axis=-1)
    return shares


def _over_ratios(of: Callable[[Array], Array], degrees: int) -> float:
    """Average a function of an estimated deviation's ratio to the true one, √(χ²/degrees)."""
    ends = np.sqrt(2 * special.gammaincinv(degrees / 2, [TAIL, 1 - TAIL]))  # quantiles of χ
    chi, weights = _nodes(*ends.tolist())
    logarithm = (degrees - 1) * np.log(chi) - chi * chi / 2 - (degrees / 2 - 1) * math.log(2)
    density = np.exp(logarithm - special.gammaln(degrees / 2))
    return float(weights * density @ of(chi / math.sqrt(degrees)))


def _nodes(low: float, high: float) -> tuple[Array, Array]:
    """Compute places and weights of Gauss-Legendre integration between two bounds."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return (high - low) / 2 * nodes + (high + low) / 2, (high - low) / 2 * weights
