"""Runs that were tested, or cross-validated, on the same images, compared image by image."""

from collections.abc import Sequence
from dataclasses import dataclass

from sightline.display.pages import Section, Table
from sightline.errors import RunError
from sightline.evaluation.answers import Answers, read_answers, read_measures
from sightline.measures.significance import mcnemar, paired_interval
from sightline.runs.folder import read_model_of_finished
from sightline.runs.outcomes import Outcome
from sightline.runs.tensors import digest_of_weights
from sightline.studies.findings import points

__all__ = ["Pair", "pair_section", "pair_table", "paired_runs", "same_weights"]


@dataclass(frozen=True)
class Pair:
    """A run and the first one, on the same test images."""

    name: str
    baseline: str
    n: int
    groups: int | None
    """Groups of the images; None where the set has none."""
    gained: int
    """Images that it alone answers correctly."""
    lost: int
    """Images that only the first one answers correctly."""
    difference: tuple[float, float, float]
    """Of the accuracies, with its interval: (difference, low, high)."""
    chance: float
    """McNemar's exact probability, times the number of comparisons (Bonferroni)."""
    crossed: bool
    """True where the answers are those of cross-validation."""


def same_weights(outcomes: Sequence[Outcome]) -> str:
    """Say which runs have the same weights as the first one, number for number; empty where none has."""
    first, *others = map(_weights_of, outcomes)
    same = [one.name for one, digest in zip(outcomes[1:], others, strict=True) if first is not None and digest == first]
    return f"weights: identical in {', '.join([outcomes[0].name, *same])}" if same else ""


def _weights_of(outcome: Outcome) -> str | None:
    """Return the digest of a run's weights, also of one that did not note it; None where its file is not readable."""
    try:
        return digest_of_weights((outcome.run / "model.safetensors").read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def paired_runs(outcomes: Sequence[Outcome]) -> list[Pair]:
    """Pair every run with the first one on their test images; those whose images or answers are others are left out."""
    first, *others = outcomes
    baseline = _tested(first)
    pairs = []
    for other in others:
        answers = _tested(other) if baseline is not None and _labeled(other) == _labeled(first) else None
        if answers is None or baseline is None or sorted(answers.files) != sorted(baseline.files):
            continue
        place_of = {file: place for place, file in enumerate(answers.files)}
        order = [place_of[file] for file in baseline.files]
        right_N = (answers.predicted_N == answers.labels_N)[order]
        baseline_N, groups_N = baseline.predicted_N == baseline.labels_N, baseline.groups_N
        pairs.append(
            Pair(
                name=other.name,
                baseline=first.name,
                n=len(right_N),
                groups=None if groups_N is None else int(groups_N.max()) + 1,
                gained=int((right_N & ~baseline_N).sum()),
                lost=int((baseline_N & ~right_N).sum()),
                difference=paired_interval(right_N, baseline_N, groups_N),
                chance=min(1.0, len(others) * mcnemar(right_N, baseline_N, groups_N)),
                crossed=first.crossed,
            )
        )
    return pairs


def _labeled(outcome: Outcome) -> tuple[str, str | None]:
    """Return what is the same where two runs have the same images and test labels."""
    return outcome.fingerprint, outcome.labels_of("test")


def _tested(outcome: Outcome) -> Answers | None:
    """Read the answers of a run to its test images, or those of cross-validation; None where it has none, or they are
    damaged.
    """
    if outcome.test is None and not outcome.crossed:
        return None
    try:
        measured = read_measures(outcome.run)
        return read_answers(outcome.run, read_model_of_finished(outcome.run)["classes"], measured)
    except RunError:
        return None


def pair_table(pairs: Sequence[Pair]) -> Table:
    """Return a line for each pair of runs."""
    first = pairs[0]
    columns = ("run", f"only it is right, only {first.baseline}", "difference, points", "McNemar's p")
    rows = [
        (
            one.name,
            f"{one.gained:,}, {one.lost:,}",
            "{}\n{} to {}".format(*map(points, one.difference)),
            f"{one.chance:.2g}",
        )
        for one in pairs
    ]
    return Table(columns, rows)


def pair_section(pairs: Sequence[Pair]) -> Section:
    """Show pairs of runs, and say how they are compared."""
    first = pairs[0]
    of = f"{first.n:,} {'images' if first.crossed else 'test images'}"
    of += "" if first.groups is None else f" of {first.groups:,} groups"
    crossed = (
        " Each answer is of a head that had not seen the image, in the first of the deals." if first.crossed else ""
    )
    about = (
        f"The same {of}, image by image, against {first.baseline}. The intervals (95 %) are paired"
        f" ({'Agresti and Min' if first.groups is None else 'cluster bootstrap'}); p is that of McNemar's exact test"
        f"{'' if first.groups is None else ', whole groups exchanged'}"
        f"{'' if len(pairs) == 1 else ', times the number of comparisons'}. They say what other images would bring to"
        f" these trainings, not what another seed would.{crossed}"
    )
    return Section("Paired, image by image", about, pair_table(pairs))
