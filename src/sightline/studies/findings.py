"""What a study found: recipes ranked on validation, their differences to the baseline, and what to make of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sightline.config.studies import Study
from sightline.measures.significance import (
    POWER,
    Comparison,
    Difference,
    compare_to_baseline,
    mean_interval,
    unequal_deviations,
)
from sightline.runs.outcomes import Measured, Outcome, unlike_images

__all__ = [
    "NO_DIFFERENCE",
    "SPLITS",
    "STUDY_COLUMNS",
    "Findings",
    "Ranked",
    "Summary",
    "points",
    "study_findings",
    "study_rows",
    "verdict",
]

NO_DIFFERENCE = "no difference shown"
UNLIKELY = 0.01  # that deviations differ so much by chance, from which on it is told
UNEQUAL = 1.05  # most to least operations, from which on a study is told to differ in them

Split = Literal["validation", "test"]
SPLITS: tuple[Split, ...] = ("validation", "test")
_OF_SPLIT = ("mean", "deviation", "low", "high", "difference", "difference_low", "difference_high", "verdict")
STUDY_COLUMNS = (
    "recipe",
    "seeds",
    *(f"{split}_{name}" for split in SPLITS for name in (*_OF_SPLIT, "detectable")),
    "seconds",
    "training_flops",
    "training_flops_without_backbone",
    "parameters",
)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Summary:
    """Accuracy of a recipe over the seeds."""

    mean: float
    deviation: float | None
    """Of one seed; None for a single seed."""
    interval: tuple[float, float] | None
    """Of the mean, from this recipe's seeds alone."""
    difference: Difference | None
    """To the baseline, paired by seed; None for the baseline, and where there is no interval."""


@dataclass(frozen=True)
class Ranked:
    """A recipe of a study, with its runs of the seeds that count."""

    name: str
    outcomes: tuple[Outcome, ...]
    validation: Summary | None
    test: Summary | None
    seconds: float | None
    """Of fit and evaluation, with those of the backbones that it started from."""
    flops: float | None
    """Floating-point operations of one training, with those of the backbones."""
    own_flops: float | None
    """Without them."""


@dataclass(frozen=True)
class Findings:
    """A study's answer."""

    ranked: tuple[Ranked, ...]
    """Best mean on validation first."""
    seeds: tuple[int, ...]
    """That every recipe here has finished."""
    comparisons: dict[Split, Comparison | None]
    lead: tuple[str, ...]
    """The answer, in sentences."""
    warnings: tuple[str, ...]
    """What a reader must know before believing it, in sentences."""


def study_findings(
    study: Study, outcomes: Mapping[tuple[str, int], Outcome], failures: Mapping[tuple[str, int], str]
) -> Findings:
    """Rank the recipes of a study, and compare each with the baseline.

    Only seeds count with which every recipe is finished; a recipe without any finished run is left out.

    Args:
        outcomes: finished runs by variant and seed.
        failures: why others are not finished, in a sentence.
    """
    names = [
        variant.name for variant in study.variants if any((variant.name, seed) in outcomes for seed in study.seeds)
    ]
    seeds = tuple(seed for seed in study.seeds if names and all((name, seed) in outcomes for name in names))
    runs = {name: tuple(outcomes[name, seed] for seed in seeds) for name in names}
    baseline = names.index(study.baseline) if study.baseline in names else None
    comparisons: dict[Split, Comparison | None] = {}
    summaries: dict[Split, list[Summary | None]] = {}
    for split in SPLITS:
        accuracies = _accuracies(runs, split)
        summaries[split], comparisons[split] = _summaries(accuracies, baseline, len(names))
    ranked = [
        Ranked(
            name=name,
            outcomes=runs[name],
            validation=summaries["validation"][row],
            test=summaries["test"][row],
            seconds=_mean(runs[name], lambda outcome: outcome.all_seconds),
            flops=_mean(runs[name], lambda outcome: outcome.all_flops),
            own_flops=_mean(runs[name], lambda outcome: outcome.flops),
        )
        for row, name in enumerate(names)
    ]
    ranked.sort(key=lambda row: -row.validation.mean if row.validation else 0.0)
    found = Findings(tuple(ranked), seeds, comparisons, (), ())
    lead = [_what_was_done(study, found), *_answers(study, found)]
    warnings = [*_missing(study, found, outcomes, failures), *_doubts(study, found)]
    return Findings(tuple(ranked), seeds, comparisons, tuple(lead), tuple(warnings))


def points(share: float, sign: str = "+") -> str:
    """A difference of accuracies in percentage points."""
    return f"{100 * share:{sign}.2f}".replace("-", "−")


def verdict(difference: Difference | None) -> str:
    """What a difference to the baseline says; empty where there is none."""
    if difference is None:
        return ""
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else NO_DIFFERENCE


def study_rows(found: Findings) -> Iterator[list[Any]]:
    """A row a recipe, with the columns of ``STUDY_COLUMNS``; accuracies from 0 to 1."""
    for row in found.ranked:
        cells: list[Any] = [row.name, len(row.outcomes)]
        for split in SPLITS:
            comparison = found.comparisons[split]
            cells += [*_split_cells(getattr(row, split)), comparison.detectable if comparison else None]
        yield [*cells, row.seconds, row.flops, row.own_flops, row.outcomes[0].parameters if row.outcomes else None]


def _split_cells(summary: Summary | None) -> list[Any]:
    if summary is None:
        return [None] * len(_OF_SPLIT)
    low, high = summary.interval or (None, None)
    difference = summary.difference
    told = [difference.estimate, difference.low, difference.high] if difference else [None] * 3
    return [summary.mean, summary.deviation, low, high, *told, verdict(difference)]


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _accuracies(runs: Mapping[str, Sequence[Outcome]], split: Split) -> Array | None:
    """Accuracies of each recipe with each seed, (R, S); None where a run lacks one."""
    measured: list[list[Measured | None]] = [[getattr(outcome, split) for outcome in row] for row in runs.values()]
    if not measured or not measured[0] or any(one is None for row in measured for one in row):
        return None
    return np.array([[one.accuracy for one in row if one is not None] for row in measured])


def _summaries(
    accuracies_RS: Array | None, baseline: int | None, recipes: int
) -> tuple[list[Summary | None], Comparison | None]:
    if accuracies_RS is None:
        return [None] * recipes, None
    comparison = None if baseline is None else compare_to_baseline(accuracies_RS, baseline)
    found: list[Summary | None] = []
    for row, values in enumerate(accuracies_RS):
        deviation = float(values.std(ddof=1)) if len(values) > 1 else None
        difference = None if comparison is None else comparison.differences[row]
        found.append(Summary(float(values.mean()), deviation, mean_interval(values), difference))
    return found, comparison


def _mean(outcomes: Sequence[Outcome], number: Callable[[Outcome], float | None]) -> float | None:
    values = [value for outcome in outcomes if (value := number(outcome)) is not None]
    return sum(values) / len(values) if values and len(values) == len(outcomes) else None


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _what_was_done(study: Study, found: Findings) -> str:
    if not found.ranked or not found.seeds:
        return "There is no seed with which every recipe is finished, so there is nothing to compare yet."
    one = found.ranked[0].outcomes[0]
    counts = ", ".join(f"{count:,} {split}" for split, count in one.counts.items())
    return (
        f"{len(found.ranked)} recipes, each trained with {len(found.seeds)} {'seed' if len(found.seeds) == 1 else 'seeds'}"
        f" on {one.image_set} ({counts} images). They are ranked by their mean accuracy on validation"
        + (
            "; test, which every run has read once, is shown beside it and chose nothing."
            if found.ranked[0].test
            else "."
        )
    )


def _answers(study: Study, found: Findings) -> list[str]:
    lines = []
    for split, comparison in found.comparisons.items():
        if comparison is None:
            continue
        summaries = [(row.name, getattr(row, split)) for row in found.ranked]
        groups: dict[str, list[str]] = {"better": [], "worse": [], NO_DIFFERENCE: []}
        for name, summary in summaries:
            if summary is not None and summary.difference is not None:
                groups[verdict(summary.difference)].append(_spoken(name, summary.difference))
        told = {
            "better": f"Better than {study.baseline} on {split}",
            "worse": f"Worse than {study.baseline} on {split}",
            NO_DIFFERENCE: f"{NO_DIFFERENCE.capitalize()} against {study.baseline} on {split}",
        }
        lines += [f"{told[answer]}: {', '.join(names)}." for answer, names in groups.items() if names]
        lines.append(
            f"A true difference of {points(comparison.detectable, '')} points on {split} would have been shown with a"
            f" probability of {POWER * 100:g}\N{NO-BREAK SPACE}%."
        )
    return lines


def _spoken(name: str, difference: Difference) -> str:
    if not difference.shown:
        return name
    return f"{name} ({points(difference.estimate)} points, {points(difference.low)} to {points(difference.high)})"


def _missing(
    study: Study,
    found: Findings,
    outcomes: Mapping[tuple[str, int], Outcome],
    failures: Mapping[tuple[str, int], str],
) -> list[str]:
    """What is not finished, and what that leaves."""
    lines = []
    there = [row.name for row in found.ranked]
    for variant in study.variants:
        if variant.name not in there:
            lines.append(f"{variant.name} has no finished run and is left out.")
    unused = [seed for seed in study.seeds if seed not in found.seeds]
    if there and unused:
        lines.append(
            f"Not every recipe is finished with seed {', '.join(map(str, unused))}; only complete seeds count"
            f" ({len(found.seeds)} of {len(study.seeds)})."
        )
    lines += [f"{name}, seed {seed}, failed: {reason}" for (name, seed), reason in failures.items()]
    if there and study.baseline not in there:
        lines.append(f"The baseline {study.baseline} has no finished run, so there are no differences.")
    return lines


def _doubts(study: Study, found: Findings) -> list[str]:
    """What weakens the answer although all is there."""
    lines = []
    if found.ranked and len(found.seeds) == 1:
        lines.append(
            "There is one seed, so there is no interval: every difference here may be that of another seed. Name more"
            " with --seeds."
        )
    baseline_there = any(row.name == study.baseline for row in found.ranked)
    for split, comparison in found.comparisons.items():
        measured = all(getattr(row, split) is not None for row in found.ranked)
        if comparison is None and measured and baseline_there and len(found.ranked) > 1 and len(found.seeds) > 1:
            lines.append(f"On {split} the seeds made no difference at all, so there is nothing to measure one against.")
    lines += [line for split in SPLITS if (line := _scatter(found, split, study.baseline))]
    outcomes = [row.outcomes[0] for row in found.ranked if row.outcomes]
    lines += unlike_images(outcomes)
    known = {row.name: row.flops for row in found.ranked if row.flops}
    if known and max(known.values()) > UNEQUAL * min(known.values()):
        least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        told = f"{most} took {known[most] / known[least]:.2f} times the training operations of {least}"
        lines.append(
            f"The recipes differ in cost on purpose ({told}): {study.unequal}"
            if study.unequal
            else f"The recipes were not given the same: {told}, so a difference may be that of the longer training."
        )
    return lines


def _scatter(found: Findings, split: Split, baseline: str) -> str:
    """That one deviation does not fit all recipes, where it does not; else empty."""
    accuracies_RS = _accuracies({row.name: row.outcomes for row in found.ranked}, split)
    chance = None if accuracies_RS is None else unequal_deviations(accuracies_RS)
    if found.comparisons[split] is None or accuracies_RS is None or chance is None or chance >= UNLIKELY:
        return ""
    deviations = accuracies_RS.std(axis=1, ddof=1)
    most, least = int(deviations.argmax()), int(deviations.argmin())
    name = found.ranked[most].name
    told = (
        f"On {split} the seeds of {name} scatter {deviations[most] / deviations[least]:.1f} times as much as"
        f" those of {found.ranked[least].name}, which chance seldom does (p = {chance:.1g}); the intervals take one deviation"
        " for all, so they are"
    )
    if name == baseline:
        return f"{told} too narrow: every difference is one to {name}. More seeds would show more, or another baseline."
    return (
        f"{told} too narrow for {name} and too wide for the others: a study without it would show smaller differences."
    )
