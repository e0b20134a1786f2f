"""What a review shows: images whose labels are doubted, or that have none, and where the decisions on them go.

Plain values: nothing here knows what draws them or how they were found.
"""

import getpass
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sightline.data.cache import CachedImages
from sightline.data.corrections import CorrectionsFile, Decision

__all__ = ["Answer", "Corrections", "Item", "Review", "Sink", "own_name"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Item:
    """An image to decide on."""

    row: int
    """Of the image in its set."""
    file: str
    digest: str
    """Hash of the decoded pixels: what is decided on an image is decided on its identical copies."""
    given: str | None
    """Its label; None where it has none."""
    suggestion: str | None
    """The class that it looks like; None where nothing is suggested."""
    certainty: float | None = None
    """Probability of the suggestion, from 0 to 1."""
    why: str = ""
    """Why it is shown, such as ``suspected label: quality 0.013 by the backbone in the box``."""
    neighbors: Sequence[int] = ()
    """Rows of the images that speak for the suggestion, the nearest first."""
    split: str = ""
    """That the image belongs to; empty where nothing is split."""


class Answer(Protocol):
    """What was decided on an image."""

    @property
    def after(self) -> str | None:
        """The class that it should have; None: it is left out."""

    @property
    def new_class(self) -> bool:
        """Whether that is a class that somebody chose to add."""

    @property
    def decided_by(self) -> str:
        """A person's name."""

    @property
    def when(self) -> str:
        """ISO 8601, in UTC."""


class Sink(Protocol):
    """Where decisions go. Each is on disk when the call returns."""

    @property
    def path(self) -> Path:
        """The file."""

    def read(self) -> Mapping[str, Answer]:
        """Return what is decided, by the digest of the image."""

    def decide(self, item: Item, after: str | None, new_class: bool) -> tuple[Answer, Answer | None]:
        """Write a decision; return it, and what it took the place of.

        Args:
            item: the image.
            after: the class that it should have; None leaves it out.
            new_class: whether the set does not have that class, and somebody chose to add it.
        Raises:
            ConfigError, StorageError: it could not be written; nothing was.
        """

    def undo(self, decision: Any, earlier: Any) -> bool:
        """Take a decision back, so that an earlier one holds again, or none; False where another one holds by now."""


class Corrections:
    """Decisions on labels, in a corrections file."""

    def __init__(self, path: Path) -> None:
        self._file = CorrectionsFile(path)
        self._name = own_name()
        self._seen: tuple[object, dict[str, Decision]] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def read(self) -> Mapping[str, Decision]:
        """Return what is decided, by digest; a file that nobody has replaced since is not parsed again."""
        try:
            facts = self.path.stat()
        except OSError:
            return self._file.read()
        state = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if self._seen is None or self._seen[0] != state:
            self._seen = (state, self._file.read())
        return self._seen[1]

    def decide(self, item: Item, after: str | None, new_class: bool = False) -> tuple[Decision, Decision | None]:
        """Write a decision; return it, and what it took the place of."""
        assert item.given is not None, "what has no label cannot be corrected"
        decision = Decision(
            file=item.file,
            digest=item.digest,
            before=item.given,
            after=after,
            decided_by=self._name,
            when=datetime.now(UTC).isoformat(timespec="milliseconds"),
            why=item.why,
            new_class=new_class,
        )
        return decision, self._file.decide(decision)

    def undo(self, decision: Decision, earlier: Decision | None) -> bool:
        """Take a decision back, so that an earlier one holds again, or none."""
        return self._file.undo(decision, earlier)


def own_name() -> str:
    """Return the name of the user who decides; empty where there is none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return ""


@dataclass(frozen=True)
class Review:
    """Images to decide on, in the order in which they are shown, and what is said of them."""

    title: str
    images: CachedImages
    """The set, whose decoded pixels are shown."""
    items: Sequence[Item]
    """One for each digest."""
    sink: Sink
    command: Callable[[Mapping[str, Answer]], str]
    """Returns what uses the decisions, by the digest of the image, to be typed into a terminal."""
    notes: Sequence[str] = field(default=())
    """Sentences about where the items come from."""
    home: str = ""
    """Path of the page that leads here, where there is one."""

    @property
    def classes(self) -> list[str]:
        """The labels that can be chosen, by index; others can be added."""
        return self.images.classes
