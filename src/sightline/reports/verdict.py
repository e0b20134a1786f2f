"""The verdict on a classifier, first on its report and card: may I use it, for what, what will it get wrong, when not.

Every sentence follows from the run's own figures by the rules written here; nobody's judgment is in it. No torch.
"""

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any

import numpy as np

from sightline.display.pages import Answer
from sightline.evaluation.results import SURE, UNDECIDED, Facts, most_confused, no_pair_twice
from sightline.runs.schemas import CROSSED

__all__ = ["verdict"]

LETTERS = 110  # of the names of classes that are listed, at most; all of them stand elsewhere on the page
LONG = 36  # letters of a name, at most
WIDE = 0.1  # width of the accuracy's interval from which on too few images measured it
PAIRS = 2  # mistakes that are named
WEAK = 0.5  # share of a class's images from which down its name is a warning


def verdict(facts: Facts) -> list[Answer]:
    """Answer what a reader wants to know first, in plain sentences.

    Args:
        facts: of the classifier.
    Returns:
        Four answers; three where nothing is known of its mistakes.
    """
    wrong = _mistakes(facts)
    return [
        _may_it_be_used(facts),
        Answer("For what?", _purpose(facts)),
        *([Answer("What will it get wrong?", wrong)] if wrong else []),
        Answer("When should I not use it?", " ".join(_limits(facts))),
    ]


# ── may I use it? ────────────────────────────────────────────────────────────────────────────────────────────────────


def _may_it_be_used(facts: Facts) -> Answer:
    """Answer by the interval of the accuracy: no where guessing is as good, with care where there is a caution."""
    question, measured = "May I use it?", facts.measured
    if measured is None:
        text = "How good it is was not measured on images set aside for that: run sightline evaluate on labeled images."
        return Answer(question, text, "Nobody knows yet.")
    low, high = measured["accuracy_interval"]
    images = f"{measured['n']:,} {facts.split} images"
    if facts.split == CROSSED:
        images = f"{measured['n']:,} images, by cross-validation"
    accuracy, interval = percent(measured["accuracy"]), f"{percent(low)} to {percent(high)}"
    text = f"{accuracy} of its answers were right (95\N{NO-BREAK SPACE}% interval {interval}; {images})"
    guess = _best_guess(measured)
    if guess is not None and low <= guess:
        return Answer(
            question, f"{text}; naming the most frequent class every time would reach {percent(guess)}.", "No."
        )
    text += f": expect {_expected_mistakes(low, high)}."
    cautions = _cautions(facts, measured)
    return Answer(question, " ".join([text, *cautions]), "With care." if cautions else "Yes, where that is enough.")


def _best_guess(measured: Mapping[str, Any]) -> float | None:
    """Return the share of the most frequent class; None where images of each class were not counted."""
    counts = [row["n"] for row in measured.get("classes", {}).values()]
    return max(counts) / sum(counts) if sum(counts) else None


def _expected_mistakes(low: float, high: float) -> str:
    """Say between which numbers the wrong answers of a hundred will lie; of a thousand where they are few."""
    unit = 100 if 1 - low >= 0.02 else 1000
    fewest, most = floor(unit * (1 - high) + 1e-9), ceil(unit * (1 - low) - 1e-9)
    count = f"{most}" if fewest == most else f"{fewest} to {most}"
    return f"{count} wrong answer{'' if count == '1' else 's'} in {unit:,}"


def _cautions(facts: Facts, measured: Mapping[str, Any]) -> list[str]:
    """Say why the numbers are to be taken with care; nothing where there is no reason to."""
    low, high = measured["accuracy_interval"]
    trust, data = facts.model.get("trust") or {}, facts.model["data"]
    shared, unread = data.get("shared_with_test") or 0, data.get("left_out") or 0
    coldest, hottest = trust.get("temperature_interval") or (1.0, 1.0)
    readings = facts.model.get("test_readings", 0)
    reasons = [
        (shared, f"{shared:,} of the test images were also learned from."),
        (high - low > WIDE, "That is a wide interval: more test images would narrow it."),
        (facts.split not in ("test", CROSSED), "The same images set its probabilities, which flatters."),
        (readings > 1, f"The test images were read {readings} times; choosing by them flatters."),
        (hottest > UNDECIDED * coldest, "Too few images set its probabilities: take them for an order."),
        (unread, f"{unread:,} image{'' if unread == 1 else 's'} of the set could not be read."),
    ]
    return [text for applies, text in reasons if applies]


# ── for what? ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _purpose(facts: Facts) -> str:
    data, classes = facts.model["data"], facts.classes
    return (
        f"To tell {len(classes):,} classes apart ({listed(classes)}) in images like the {data['counts']['train']:,} of"
        f" {short(data['name'])} that it learned from."
    )


def listed(names: Sequence[str]) -> str:
    """List names as far as there is room, and say how many more there are."""
    names, shown, letters = [short(name) for name in names], 0, 0
    while shown < len(names) and (shown == 0 or letters + len(names[shown]) <= LETTERS):
        letters += len(names[shown]) + 2
        shown += 1
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest:,} more" if rest else "")


def short(name: str) -> str:
    """Cut a name that is too long for a sentence."""
    return name if len(name) <= LONG else f"{name[: LONG - 1]}…"


# ── what will it get wrong? ──────────────────────────────────────────────────────────────────────────────────────────


def _mistakes(facts: Facts) -> str:
    if facts.measured is None or facts.answers is None:
        return ""
    counts_KK, classes = np.array(facts.measured["confusion_matrix"]), [short(name) for name in facts.classes]
    pairs = [
        f"{classes[true]} for {classes[answer]} ({counts_KK[true, answer]:,} of {counts_KK[true].sum():,})"
        for true, answer in most_confused(counts_KK, PAIRS, least=2)
    ]
    mistakes = int(counts_KK.sum() - np.trace(counts_KK))
    sentences = [f"It most often takes {', and '.join(pairs)}." if pairs else no_pair_twice(mistakes)]
    weakest = min((row["recall"], name) for name, row in facts.measured["classes"].items() if row["n"])
    if weakest[0] < WEAK:
        sentences.append(f"Of {short(weakest[1])} it finds only {percent(weakest[0], 0)}.")
    confidence_N = facts.answers.probabilities_NK[np.arange(len(facts.answers.files)), facts.answers.predicted_N]
    right_N = facts.answers.predicted_N == facts.answers.labels_N
    sure_N = confidence_N >= SURE
    if not sure_N.any():
        return " ".join([*sentences, f"No answer had a probability of {percent(SURE, 0)} or more."])
    sure = f"Of answers with a probability of {percent(SURE, 0)} or more ({percent(sure_N.mean(), 0)} of all)"
    sentences.append(f"{sure}, {percent(right_N[sure_N].mean())} are right")
    sentences[-1] += "." if sure_N.all() else f"; of the others, {percent(right_N[~sure_N].mean())}."
    return " ".join(sentences)


# ── when not? ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _limits(facts: Facts) -> list[str]:
    """Say on which images and for which decisions not to use it, from what was measured of that."""
    trust = facts.model.get("trust") or {}
    sentences = [f"Not on images unlike those of {short(facts.model['data']['name'])}: {_elsewhere(trust)}."]
    unknown = trust.get("unknown")
    if unknown is None:
        sentences.append("Not where other things may be shown: it names a class for every image.")
    elif not unknown.get("rates"):
        sentences.append(
            "Where other things may be shown, heed its “none of these”; how many it catches was not measured."
        )
    else:
        rate, name, n = min((one["rate"], name, one["n"]) for name, one in unknown["rates"].items())
        sentences.append(
            f"Where other things may be shown, heed its “none of these”, which caught {percent(rate, 0)} of {n:,}"
            f" images of {name}."
        )
    return [*sentences, "Not for decisions that harm someone when they are wrong."]


def _elsewhere(trust: Mapping[str, Any]) -> str:
    """Say what its accuracy came down to on the worst of the corrupted images, where that was measured."""
    corruptions = trust.get("corruptions")
    if not corruptions:
        return "there its accuracy is unknown"
    value, name, severity = min(
        (value, name, severity)
        for name, values in corruptions["accuracy"].items()
        for severity, value in enumerate(values, 1)
    )
    fall = f"from {percent(corruptions['clean'], 0)} to {percent(value, 0)}"
    return f"under {name} of severity {severity} its accuracy fell {fall}"


def percent(share: float, digits: int = 1) -> str:
    """Write a share as a percentage that no line break divides."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"
