"""The verdict on a classifier: each sentence follows from a figure, and a person can check which."""

from typing import Any

import numpy as np
import pytest

from sightline.evaluation.answers import Answers
from sightline.evaluation.results import Facts
from sightline.measures.metrics import confusion_matrix, per_class, wilson_interval
from sightline.reports.verdict import listed, verdict

CLASSES = ["cat", "dog", "owl"]


def facts(right: int = 95, wrong: int = 5, sure: float = 0.95, **model: Any) -> Facts:
    """A classifier that answered 100 images of each of three classes, and of cats took some for dogs."""
    labels_N = np.repeat([0, 1, 2], right + wrong)
    predicted_N = labels_N.copy()
    predicted_N[:wrong] = 1
    probabilities_NK = np.full((len(labels_N), 3), (1 - sure) / 2)
    probabilities_NK[np.arange(len(labels_N)), predicted_N] = sure
    counts = confusion_matrix(predicted_N, labels_N, 3)
    n, hits = len(labels_N), int(np.trace(counts))
    measured = {
        "n": n,
        "split": model.pop("split", "test"),
        "accuracy": hits / n,
        "accuracy_interval": list(wilson_interval(hits, n)),
        "classes": dict(zip(CLASSES, per_class(counts), strict=True)),
        "confusion_matrix": counts.tolist(),
    }
    data = {"name": "pets", "counts": {"train": 600, "validation": 60, "test": n}} | model.pop("data", {})
    answers = Answers([f"{row}.png" for row in range(n)], labels_N, predicted_N, probabilities_NK, True)
    return Facts({"classes": CLASSES, "data": data, "test_readings": 1, **model}, measured, answers)


def answers_of(known: Facts) -> dict[str, str]:
    return {
        one.question: f"{one.short} {one.text}".replace("\N{NO-BREAK SPACE}", " ").strip() for one in verdict(known)
    }


def test_the_four_questions_are_answered_by_the_figures_of_the_run() -> None:
    low, high = wilson_interval(295, 300)
    assert (round(100 * low, 1), round(100 * high, 1)) == (96.2, 99.3)
    assert answers_of(facts()) == {
        "May I use it?": (
            "Yes, where that is enough. 98.3 % of its answers were right (95 % interval 96.2 % to 99.3 %; 300 test"
            " images): expect 0 to 4 wrong answers in 100."
        ),
        "For what?": "To tell 3 classes apart (cat, dog, owl) in images like the 600 of pets that it learned from.",
        "What will it get wrong?": (
            "It most often takes cat for dog (5 of 100). Of answers with a probability of 90 % or more (100 % of all),"
            " 98.3 % are right."
        ),
        "When should I not use it?": (
            "Not on images unlike those of pets: there its accuracy is unknown. Not where other things may be shown: it"
            " names a class for every image. Not for decisions that harm someone when they are wrong."
        ),
    }


def test_a_mistake_that_was_made_once_is_not_called_frequent() -> None:
    told = answers_of(facts(right=99, wrong=1))["What will it get wrong?"]
    assert told.startswith("It made one mistake when it was measured. Of answers")
    known = facts(right=100, wrong=0)
    assert known.measured is not None
    known.measured["confusion_matrix"] = [[99, 1, 0], [0, 99, 1], [0, 0, 100]]
    assert (
        "Its 2 mistakes are each of other classes, no pair twice: none can be called"
        in answers_of(known)["What will it get wrong?"]
    )


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"data": {"shared_with_test": 7}}, "7 of the test images were also learned from."),
        ({"data": {"left_out": 1200}}, "1,200 images of the set could not be read."),
        ({"split": "validation"}, "The same images set its probabilities, which flatters."),
        ({"test_readings": 4}, "The test images were read 4 times; choosing by them flatters."),
        (
            {"trust": {"temperature_interval": [0.5, 1.5]}},
            "Too few images set its probabilities: take them for an order.",
        ),
        ({"right": 9, "wrong": 1}, "That is a wide interval: more test images would narrow it."),
    ],
)
def test_whatever_weakens_the_numbers_makes_it_with_care_and_is_named(model: dict[str, Any], reason: str) -> None:
    told = answers_of(facts(**model))["May I use it?"]
    assert told.startswith("With care. ")
    assert told.endswith(reason)


def test_no_better_than_naming_the_most_frequent_class_is_no() -> None:
    known = facts()
    assert known.measured is not None
    guessing = Facts(
        known.model, {**known.measured, "accuracy": 0.36, "accuracy_interval": [0.31, 0.42]}, known.answers
    )
    told = answers_of(guessing)["May I use it?"]
    assert told.startswith("No. 36.0 % of its answers were right")
    assert told.endswith("naming the most frequent class every time would reach 33.3 %.")


def test_what_was_measured_on_nothing_says_that_nobody_knows() -> None:
    told = answers_of(Facts(facts().model, None, None))
    assert told["May I use it?"].startswith("Nobody knows yet. How good it is was not measured")
    assert "What will it get wrong?" not in told


def test_few_mistakes_are_counted_in_a_thousand_and_no_mistake_is_no_promise() -> None:
    told = answers_of(facts(right=5000, wrong=0))
    assert "expect 0 to 1 wrong answers in 1,000." in told["May I use it?"]  # 15,000 images: 0.99974 to 1
    assert told["What will it get wrong?"].startswith("It made no mistake when it was measured.")


def test_a_class_that_is_mostly_missed_and_answers_that_are_never_sure_are_told() -> None:
    told = answers_of(facts(right=30, wrong=70, sure=0.6))["What will it get wrong?"]
    assert "It most often takes cat for dog (70 of 100). Of cat it finds only 30 %." in told
    assert told.endswith("No answer had a probability of 90 % or more.")


def test_what_was_measured_elsewhere_is_told_by_its_worst() -> None:
    trust = {
        "unknown": {"rates": {"digits": {"n": 1797, "rate": 0.71}, "signs": {"n": 90, "rate": 0.4}}},
        "corruptions": {"clean": 0.9, "accuracy": {"noise": [0.8, 0.5], "blur": [0.7, 0.6]}},
    }
    told = answers_of(facts(trust=trust))["When should I not use it?"]
    assert "under noise of severity 2 its accuracy fell from 90 % to 50 %" in told
    assert "heed its “none of these”, which caught 40 % of 90 images of signs." in told
    unmeasured = answers_of(facts(trust={"unknown": {"rates": {}}}))["When should I not use it?"]
    assert "heed its “none of these”; how many it catches was not measured." in unmeasured


def test_names_are_listed_as_far_as_there_is_room() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([f"class {index:03d}" for index in range(200)]).endswith("class 009 and 190 more")
    assert len(listed(["x" * 500] * 9)) < 150
