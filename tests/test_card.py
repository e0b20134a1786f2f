"""The model card of a classifier: of a run, of its weights alone, of one that was measured on nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Finished
from sightline.reports.card import Card, known_of, model_card, summary


def model_of(finished: Finished, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((finished.run / "model.json").read_text("utf-8")) | changes
    return found


def text_of(card: Card) -> str:
    """All that a card says."""
    tables = [cell for part in card.sections if part.table for row in part.table.rows for cell in row]
    return "\n".join([*card.lead, *card.warnings, *(f"{part.title}: {part.about}" for part in card.sections), *tables])


def test_of_a_run_it_says_what_it_learnt_from_how_good_it_is_and_what_it_is_not_for(finished: Finished) -> None:
    card = model_card(known_of(finished.run, model_of(finished)))
    told = text_of(card)
    assert "trained by the recipe small on colours: 57 images to learn from, 15 for validation, 18 for the test" in told
    assert "knows 3 classes: =blood, grass, ünder wasser" in told
    assert "Accuracy 1.0000 on 18 test images that it had not seen (95 % interval 0.8241 to 1.0000" in told
    titles = [part.title for part in card.sections]
    assert titles[:4] == ["What it is not for", "How programs ask it", "Class by class", "What it takes for what"]
    assert {"How sure it is", "Prediction sets", "Images of no class", "What it took"} <= set(titles)
    confusion = card.sections[3].table
    assert confusion is not None
    assert confusion.rows[1] == ("grass", "·", "6", "·")
    assert str(finished.run.parent) not in told


def test_of_weights_alone_it_says_what_they_know(finished: Finished) -> None:
    told = text_of(model_card(known_of(None, model_of(finished))))
    assert "Accuracy 1.0000 on 18 test images" in told
    assert "Class by class" not in told


def test_of_a_classifier_that_was_measured_on_nothing_it_says_so(finished: Finished) -> None:
    model = model_of(finished, metrics=None, test_readings=0, trust=None)
    told = text_of(model_card(known_of(finished.run, model)))
    assert "It was measured on nothing, as asked." in told
    assert "an answer to every image" in told
    assert summary(model) == "3 classes, learned from colours."


def test_a_run_whose_tables_are_damaged_still_has_a_card(finished: Finished, tmp_path: Path) -> None:
    known = known_of(tmp_path, model_of(finished))
    assert known.answers is None
    assert "Accuracy 1.0000" in text_of(model_card(known))


def test_a_network_of_this_machine_is_named_without_its_path(finished: Finished) -> None:
    hub = {"kind": "hub", "repo": "/home/someone/nets/tiny", "name": "net"}
    told = model_card(known_of(None, model_of(finished, network=hub))).lead[0]
    assert told.startswith("A hub:tiny:net")
    run = {"kind": "run", "folder": "/home/someone/runs/a"}
    assert "/" not in model_card(known_of(None, model_of(finished, network=run))).lead[0]


def test_the_top_of_the_page_is_one_sentence(finished: Finished) -> None:
    told = summary(model_of(finished))
    assert told == "3 classes, learned from colours; 100.0 % right on 18 test images (95 % interval 82.4 % to 100.0 %)."


@pytest.mark.parametrize("classes", [12, 13])
def test_of_many_classes_the_most_confused_pairs_are_listed(classes: int, finished: Finished) -> None:
    counts_KK = 5 * np.eye(classes, dtype=int)
    counts_KK[1, 2] = 3
    names = [f"class {index:02d}" for index in range(classes)]
    rows = {name: {"n": 5, "precision": 1.0, "recall": 1.0, "f1": 1.0} for name in names}
    known = known_of(None, model_of(finished, classes=names))
    measured = {**(known.measured or {}), "confusion_matrix": counts_KK.tolist(), "classes": rows}
    card = model_card(type(known)(known.model, measured, None))
    (confusion,) = [part.table for part in card.sections if part.title == "What it takes for what"]
    assert confusion is not None
    if classes == 12:
        assert len(confusion.columns) == 13
    else:
        assert confusion.rows == [("class 01", "class 02", "3", "8")]
