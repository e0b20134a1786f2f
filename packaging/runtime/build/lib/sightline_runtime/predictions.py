"""Predictions of a classifier, and how they are shown: as a table, or in a line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Prediction", "csv_header", "csv_rows", "lines_of"]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image."""

    label: str
    """Most probable class."""
    probability: float
    probabilities: dict[str, float]
    """Of every class, most probable first."""
    unknown: bool | None = None
    """Whether the image looks like none of the classes; None of a classifier that has no threshold for it."""
    within: tuple[str, ...] | None = None
    """The classes of a set that holds the true one as often as was asked for, most probable first; None if not
    asked."""


def csv_header(sets: float | None = None) -> list[str]:
    """Return the column names of a CSV of predictions, with sets of a coverage or without."""
    ranks = [f"{name}_{rank}" for rank in range(2, 6) for name in ("class", "probability")]
    return ["file", "class", "probability", *ranks, "none_of_these"] + ([] if sets is None else [f"set_{sets:g}"])


def csv_rows(files: Sequence[str], predictions: Sequence[Prediction]) -> Iterator[list[str]]:
    """Yield a row per file: its five most probable classes, whether it is none of them, and its set where asked.

    Cells are empty where there are fewer classes, and where the classifier cannot say.
    """
    for file, prediction in zip(files, predictions, strict=True):
        row = [file]
        for label, probability in list(prediction.probabilities.items())[:5]:
            row += [label, f"{probability:.6f}"]
        row += [""] * (11 - len(row))
        row.append("" if prediction.unknown is None else "yes" if prediction.unknown else "no")
        yield row if prediction.within is None else [*row, "; ".join(prediction.within)]


def lines_of(file: str, prediction: Prediction, sets: float | None = None) -> Iterator[str]:
    """Yield what is said to people of one file: the five most probable classes, and its set where asked."""
    ranked = ", ".join(f"{label} {chance:.1%}" for label, chance in list(prediction.probabilities.items())[:5])
    yield f"{file}: {'none of these; the nearest: ' if prediction.unknown else ''}{ranked}"
    if prediction.within is not None:
        yield f"  prediction set for {sets:.0%}: {', '.join(prediction.within) or 'empty'}"
