"""What the review page shows, as its template takes it."""

import os
import re
from collections.abc import Mapping
from typing import Any

from sightline.display.pages import data_uri
from sightline.serving.reviewing.items import Answer, Item, Review
from sightline.serving.reviewing.session import Session, said, state_of

__all__ = ["PAGE", "draw_review"]

PAGE = 24  # images of a page of the grid
LARGE = 512  # pixels of the longer side of an image that is decided on, at most
TILE = 192  # of one in the grid
SMALL = 96  # of a neighbor
TINY = 64  # pixels up to which pictures keep every pixel, and pixels stay squares when enlarged
NEIGHBORS = 6  # that are shown
KINDS = {"changed": "changed", "labeled": "labeled", "kept": "kept", "out": "left out"}


def draw_review(session: Session, view: str, number: int | None, after: int) -> dict[str, Any]:
    """Collect what a page shows.

    Args:
        session: the review.
        view: ``one`` image or a ``grid``.
        number: of the item, counted from 1; None: the first undecided behind ``after``.
        after: index of an item; -1 for none.
    Raises:
        ConfigError: the decisions cannot be read.
    """
    review, answers = session.review, session.decided()
    undecided = session.next_after(after, answers)
    index = undecided if number is None else min(max(number, 1), len(review.items)) - 1
    done = sum(item.digest in answers for item in review.items)
    content: dict[str, Any] = {
        "review": review,
        "view": view,
        "index": index,
        "done": done,
        "total": len(review.items),
        "undecided": None if undecided is None else undecided + 1,
        "counts": _counts(review, answers),
        "added": session.added(answers),
        "command": review.command(answers),
        "file": str(review.sink.path),
        "writable": os.access(review.sink.path.parent, os.W_OK),
    }
    shown = 0 if index is None else index
    if view == "grid":
        start = shown // PAGE * PAGE
        last = min(start + PAGE, len(review.items))
        content["cards"] = [_card(review, place, answers, TILE) for place in range(start, last)]
        content["chosen"] = content["cards"][shown - start]
        content |= {"start": start, "last": last, "page": PAGE}
    elif index is not None:
        content["chosen"] = _card(review, index, answers, LARGE)
        content["neighbors"] = [_neighbor(review, row) for row in review.items[index].neighbors[:NEIGHBORS]]
    return content


def _counts(review: Review, answers: Mapping[str, Answer]) -> list[str]:
    """Count the decisions of each kind, in words."""
    found = dict.fromkeys(KINDS, 0)
    for item in review.items:
        if (answer := answers.get(item.digest)) is not None:
            found[_kind(item, answer)] += 1
    return [f"{count:,} {KINDS[kind]}" for kind, count in found.items() if count]


def _card(review: Review, index: int, answers: Mapping[str, Answer], side: int) -> dict[str, Any]:
    item = review.items[index]
    answer = answers.get(item.digest)
    decided = "" if answer is None else said(item, answer)
    return {
        "number": index + 1,
        "item": item,
        "picture": _picture(review, item.row, side),
        "label": _label(item, index, decided),
        "certainty": "" if item.certainty is None else _percent(item.certainty),
        "decided": decided,
        "kind": "" if answer is None else _kind(item, answer),
        "by": "" if answer is None else ", ".join(filter(None, (answer.decided_by, _spoken_time(answer.when)))),
        "state": state_of(answer),
    }


def _kind(item: Item, answer: Answer) -> str:
    if answer.after is None:
        return "out"
    return "labeled" if item.given is None else "kept" if answer.after == item.given else "changed"


def _label(item: Item, index: int, decided: str) -> str:
    """Say what an item is, for those who do not see it."""
    parts = [f"Image {index + 1}: {'not labeled' if item.given is None else f'labeled {item.given}'}"]
    parts += [f"suggested {item.suggestion}"] if item.suggestion is not None else []
    return ", ".join([*parts, f"decided: {decided}" if decided else "undecided"])


def _spoken_time(when: str) -> str:
    """Return a time in ISO 8601 and UTC as a person reads it; a text of another kind as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[:.\d]*(?:\+00:00|Z)", when)
    return when if found is None else f"{found[1]} {found[2]} UTC"


def _neighbor(review: Review, row: int) -> dict[str, Any]:
    label = int(review.images.labels[row])
    return {"picture": _picture(review, row, SMALL), "label": review.classes[label] if label >= 0 else "unreadable"}


def _picture(review: Review, row: int, side: int) -> dict[str, Any]:
    pixels = review.images.pixels[row]
    tiny = max(pixels.shape[:2]) <= TINY
    return {"uri": data_uri(pixels, side, lossless=tiny), "tiny": tiny}


def _percent(share: float) -> str:
    """Return a probability as a person reads it: never 100 % for what is not certain."""
    return ">\N{NO-BREAK SPACE}99\N{NO-BREAK SPACE}%" if 0.995 <= share < 1 else f"{100 * share:.0f}\N{NO-BREAK SPACE}%"
