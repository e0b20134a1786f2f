"""A review as it goes on: what is decided, what is next, what can be taken back. Nothing here knows of HTTP."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from sightline.config.checks import shown
from sightline.data.sources.table_rows import MISSING, canonical_label
from sightline.errors import ConfigError
from sightline.serving.reviewing.items import Answer, Item, Review

__all__ = ["Action", "Choice", "ConflictError", "Session", "Undo", "said", "state_of"]

Action = Literal["accept", "keep", "other", "out"]
REMEMBERED = 10_000  # decisions that can be taken back exactly, the latest ones
LONGEST_NAME = 200  # letters of a class that is added


@dataclass(frozen=True)
class Choice:
    """What a person chose for an image."""

    action: Action
    """Accept the suggestion, keep the label, give it another one, or leave the image out."""
    label: int | None = None
    """Index of the other class, where the set has it."""
    name: str = ""
    """Of the other class, where the set does not have it."""
    add: bool = False
    """Whether a class of that name is to be added."""


class ConflictError(ConfigError):
    """Another window has decided on the image since this one looked at it."""


@dataclass(frozen=True)
class Undo:
    """What a window keeps of a decision, to take it back."""

    item: int
    token: str
    state: str


def state_of(answer: Answer | None) -> str:
    """Return a short word that changes whenever the decision on an image does; empty while there is none."""
    if answer is None:
        return ""
    text = f"{answer.after!r} {answer.when} {answer.decided_by}"
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Session:
    """Decides on the items of a review for any number of windows; each decision is on disk when a call returns."""

    def __init__(self, review: Review) -> None:
        self.review = review
        self._lock = threading.Lock()  # one answer at a time: what a window saw must not change under it
        self._history: OrderedDict[str, tuple[Answer, Answer | None]] = OrderedDict()

    def decided(self) -> Mapping[str, Answer]:
        """Return what is decided by now, by whichever window, by digest.

        Raises:
            ConfigError: the file cannot be read, or is something else.
        """
        return self.review.sink.read()

    def next_after(self, item: int, answers: Mapping[str, Answer]) -> int | None:
        """Return the first undecided item behind another one, then from the start on; None where all are decided."""
        items = self.review.items
        order = [*range(item + 1, len(items)), *range(min(item + 1, len(items)))]
        return next((index for index in order if items[index].digest not in answers), None)

    def added(self, answers: Mapping[str, Answer]) -> list[str]:
        """Return the classes that were added, as far as an image still has them."""
        new = {answer.after for answer in answers.values() if answer.new_class and answer.after is not None}
        return sorted(new.difference(self.review.classes))

    def decide(self, index: int, choice: Choice, seen: str) -> tuple[str, Undo | None]:
        """Write what a person decided.

        Args:
            index: of the item.
            choice: what was chosen.
            seen: state of the decision that the window showed.
        Returns:
            A sentence about it, and what takes it back; None where another window had decided the same.
        Raises:
            ConflictError: another window has decided otherwise meanwhile; nothing was written.
            ConfigError, StorageError: it cannot be decided so, or not be written.
        """
        item = self._item(index)
        with self._lock:
            answers = self.decided()
            after = self._after(item, choice, answers)
            now = answers.get(item.digest)
            if state_of(now) != seen:
                if now is not None and now.after == after:
                    return f"Decided already: {said(item, now)}.", None
                raise ConflictError(
                    "In another window this image was "
                    + (f"decided meanwhile: {said(item, now)}." if now else "set back to undecided meanwhile.")
                    + " Nothing was changed; decide again to replace that."
                )
            new = after is not None and after not in self.review.classes
            decision, earlier = self.review.sink.decide(item, after, new)
            token = secrets.token_hex(8)
            self._history[token] = (decision, earlier)
            if len(self._history) > REMEMBERED:
                self._history.popitem(last=False)
        text = f"Decided: {said(item, decision)}."
        if earlier is not None and state_of(earlier) != seen:  # another server wrote it in between
            text += f" In place of another window's decision: {said(item, earlier)}; undo brings that back."
        return text, Undo(index, token, state_of(decision))

    def undo(self, index: int, token: str, state: str) -> str:
        """Take back what a window decided.

        Args:
            index: of the item.
            token: of the decision; of one that an earlier server took, or another window, there is none.
            state: of the decision as the window knows it.
        Returns:
            A sentence about it.
        Raises:
            ConflictError: another decision holds by now; nothing was taken back.
            ConfigError, StorageError: it cannot be written.
        """
        item = self._item(index)
        with self._lock:
            now = self.decided().get(item.digest)
            decision, earlier = self._history.get(token, (now, None))
            if now is None or decision is None:
                raise ConflictError("This image is undecided already; there is nothing to take back.")
            if state_of(now) != state or not self.review.sink.undo(decision, earlier):
                raise ConflictError(
                    f"In another window this image was decided meanwhile: {said(item, now)}. That was not taken back."
                )
            self._history.pop(token, None)
        return f"Taken back: {f'it is {said(item, earlier)} again' if earlier else 'the image is undecided again'}."

    def _item(self, index: int) -> Item:
        if not 0 <= index < len(self.review.items):
            raise ConfigError(f"there is no image {index + 1}; wanted one of 1 to {len(self.review.items)}.")
        return self.review.items[index]

    def _after(self, item: Item, choice: Choice, answers: Mapping[str, Answer]) -> str | None:
        if choice.action == "other":
            return self._named(choice, answers) if choice.label is None else self._listed(choice.label)
        chosen = {"accept": item.suggestion, "keep": item.given, "out": None}
        if choice.action != "out" and chosen[choice.action] is None:
            what = "nothing is suggested for" if choice.action == "accept" else "there is no label to keep on"
            raise ConfigError(f"{what} this image; choose another label, or leave it out.")
        return chosen[choice.action]

    def _listed(self, label: int) -> str:
        if not 0 <= label < len(self.review.classes):
            raise ConfigError(f"there is no class {label}; wanted an index below {len(self.review.classes)}.")
        return self.review.classes[label]

    def _named(self, choice: Choice, answers: Mapping[str, Answer]) -> str:
        """Return the class of a name, however it is spelled; one that is new must be asked for."""
        name = " ".join(choice.name.split())
        if not name.isprintable() or len(name) > LONGEST_NAME or name.lower() in MISSING:  # as tables have no label
            raise ConfigError(
                f"{shown(choice.name)} is no name of a class; wanted 1 to {LONGEST_NAME} letters that can be printed."
            )
        known = {canonical_label(one): one for one in (*self.added(answers), *self.review.classes)}
        if (same := known.get(canonical_label(name))) is not None:
            return same
        if not choice.add:
            raise ConfigError(f"there is no class {shown(name)}; add it, or choose another.")
        return canonical_label(name)


def said(item: Item, answer: Answer) -> str:
    """Say in a few words what was decided on an image."""
    if answer.after is None:
        return "left out"
    if item.given is None:
        return f"{answer.after}"
    return f"kept as {item.given}" if answer.after == item.given else f"{answer.after}, was {item.given}"
