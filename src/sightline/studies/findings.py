"""The findings of a study: recipes ranked on validation, and their differences to the baseline."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
HARDLY = 100  # times as much scatter, from which on that of the others is not worth a number
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

    def on(self, split: Split) -> Summary | None:
        """Return its accuracy on a split."""
        return self.test if split == "test" else self.validation


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
    names = [one.name for one in study.variants if any((one.name, seed) in outcomes for seed in study.seeds)]
    seeds = tuple(seed for seed in study.seeds if names and all((name, seed) in outcomes for name in names))
    runs = {name: tuple(outcomes[name, seed] for seed in seeds) for name in names}
    baseline = names.index(study.baseline) if study.baseline in names else None
    comparisons: dict[Split, Comparison | None] = {}
    summaries: dict[Split, list[Summary | None]] = {}
    for split in SPLITS:
        summaries[split], comparisons[split] = _summaries(_accuracies(runs, split), baseline, len(names))
    ranked = [
        Ranked(
            *(name, runs[name], validation, test),
            seconds=_mean([outcome.all_seconds for outcome in runs[name]]),
            flops=_mean([outcome.all_flops for outcome in runs[name]]),
            own_flops=_mean([outcome.flops for outcome in runs[name]]),
        )
        for name, validation, test in zip(names, summaries["validation"], summaries["test"], strict=True)
    ]
    ranked.sort(key=lambda row: -row.validation.mean if row.validation else 0.0)
    findings = Findings(tuple(ranked), seeds, comparisons, (), ())
    lead = (_what_was_done(findings), *_answers(study, findings))
    warnings = (*_missing(study, findings, failures), *_doubts(study, findings))
    return replace(findings, lead=lead, warnings=warnings)


def points(share: float, sign: str = "+") -> str:
    """Return a difference of accuracies in percentage points."""
    return f"{100 * share:{sign}.2f}"


def verdict(difference: Difference | None) -> str:
    """Return what a difference to the baseline says; empty where there is none."""
    if difference is None:
        return ""
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else NO_DIFFERENCE


def study_rows(findings: Findings) -> Iterator[list[Any]]:
    """Yield a row for each recipe, with the columns of ``STUDY_COLUMNS``; accuracies from 0 to 1."""
    for row in findings.ranked:
        cells: list[Any] = [row.name, len(row.outcomes)]
        for split in SPLITS:
            comparison = findings.comparisons[split]
            cells += [*_split_cells(row.on(split)), comparison.detectable if comparison else None]
        yield [*cells, row.seconds, row.flops, row.own_flops, row.outcomes[0].parameters if row.outcomes else None]


def _split_cells(summary: Summary | None) -> list[Any]:
    if summary is None:
        return [None] * len(_OF_SPLIT)
    one = summary.difference
    difference = [one.estimate, one.low, one.high] if one else [None] * 3
    return [summary.mean, summary.deviation, *(summary.interval or (None, None)), *difference, verdict(one)]


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _accuracies(runs: Mapping[str, Sequence[Outcome]], split: Split) -> Array | None:
    """Return accuracies of each recipe with each seed, (R, S); None where a run lacks one."""
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
    differences = [None] * recipes if comparison is None else comparison.differences
    return [
        Summary(float(row.mean()), float(row.std(ddof=1)) if len(row) > 1 else None, mean_interval(row), difference)
        for row, difference in zip(accuracies_RS, differences, strict=True)
    ], comparison


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _what_was_done(findings: Findings) -> str:
    if not findings.ranked or not findings.seeds:
        return "There is no seed with which every recipe is finished, so there is nothing to compare yet."
    best, count = findings.ranked[0], len(findings.seeds)
    images = ", ".join(f"{number:,} {split}" for split, number in best.outcomes[0].counts.items())
    test = "; test, which every run has read once, is shown beside it and chose nothing" if best.test else ""
    return (
        f"{len(findings.ranked)} recipes, each trained with {count} {'seed' if count == 1 else 'seeds'}"
        f" on {best.outcomes[0].image_set} ({images} images). They are ranked by their mean accuracy on"
        f" validation{test}."
    )


def _answers(study: Study, findings: Findings) -> list[str]:
    lines = []
    for split, comparison in findings.comparisons.items():
        if comparison is None:
            continue
        titles = {
            "better": f"Better than {study.baseline} on {split}",
            "worse": f"Worse than {study.baseline} on {split}",
            NO_DIFFERENCE: f"{NO_DIFFERENCE.capitalize()} against {study.baseline} on {split}",
        }
        differences = {row.name: summary.difference for row in findings.ranked if (summary := row.on(split))}
        for answer, title in titles.items():
            names = [_spoken(name, one) for name, one in differences.items() if one and verdict(one) == answer]
            lines += [f"{title}: {', '.join(names)}."] if names else []
        lines.append(
            f"A true difference of {points(comparison.detectable, '')} points on {split} would have been shown with a"
            f" probability of {POWER * 100:g}\N{NO-BREAK SPACE}%."
        )
    return lines


def _spoken(name: str, difference: Difference) -> str:
    if not difference.shown:
        return name
    return f"{name} ({points(difference.estimate)} points, {points(difference.low)} to {points(difference.high)})"


def _missing(study: Study, findings: Findings, failures: Mapping[tuple[str, int], str]) -> list[str]:
    """Return sentences on what is not finished, and what that leaves."""
    there = [row.name for row in findings.ranked]
    absent = [variant.name for variant in study.variants if variant.name not in there]
    lines = [f"{name} has no finished run and is left out." for name in absent]
    unused = [seed for seed in study.seeds if seed not in findings.seeds]
    if there and unused:
        lines.append(
            f"Not every recipe is finished with seed {', '.join(map(str, unused))}; only complete seeds count"
            f" ({len(findings.seeds)} of {len(study.seeds)})."
        )
    lines += [f"{name}, seed {seed}, failed: {reason}" for (name, seed), reason in failures.items()]
    if there and study.baseline not in there:
        lines.append(f"The baseline {study.baseline} has no finished run, so there are no differences.")
    return lines


def _doubts(study: Study, findings: Findings) -> list[str]:
    """Return sentences on what weakens the answer although all is there."""
    lines = []
    if findings.ranked and len(findings.seeds) == 1:
        lines.append(
            "There is one seed, so there is no interval: every difference here may be that of another seed. Name more"
            " with --seeds."
        )
    baseline_there = any(row.name == study.baseline for row in findings.ranked)
    for split, comparison in findings.comparisons.items():
        measured = all(row.on(split) is not None for row in findings.ranked)
        if comparison is None and measured and baseline_there and len(findings.ranked) > 1 and len(findings.seeds) > 1:
            lines.append(f"On {split} the seeds made no difference at all, so there is nothing to measure one against.")
    lines += [line for split in SPLITS if (line := _scatter(findings, split, study.baseline))]
    outcomes = [row.outcomes[0] for row in findings.ranked if row.outcomes]
    lines += unlike_images(outcomes)
    known = {row.name: row.flops for row in findings.ranked if row.flops}
    if known and max(known.values()) > UNEQUAL * min(known.values()):
        least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        cost = f"{most} took {known[most] / known[least]:.2f} times the training operations of {least}"
        lines.append(
            f"The recipes differ in cost on purpose ({cost}): {study.unequal}"
            if study.unequal
            else f"The recipes were not given the same: {cost}, so a difference may be that of the longer training."
        )
    return lines


def _scatter(findings: Findings, split: Split, baseline: str) -> str:
    """Return that one deviation does not fit all recipes, where it does not; else an empty text."""
    accuracies_RS = _accuracies({row.name: row.outcomes for row in findings.ranked}, split)
    tested = None if accuracies_RS is None else unequal_deviations(accuracies_RS)
    if findings.comparisons[split] is None or tested is None or tested[1] >= UNLIKELY:
        return ""
    deviations, chance = tested
    most = int(deviations.argmax())
    others = float(np.sqrt((np.delete(deviations, most) ** 2).mean()))
    name = findings.ranked[most].name
    factor = deviations[most] / others if others else np.inf
    times = f"{factor:.1f} times as much as the others" if factor < HARDLY else "and the others hardly do"
    sentence = (
        f"On {split} the seeds of {name} scatter {times}, beside what a seed brings to all recipes, which chance seldom"
        f" does (p = {max(chance, 1e-4):.1g}); the intervals take one deviation for all, so they are too narrow"
    )
    if name == baseline:
        return f"{sentence}: every difference is one to {name}. More seeds would show more, or another baseline."
    return (
        f"{sentence} for {name} and too wide for the others: see the study without it, a second look, by --without"
        f" {name}."
    )
