"""``corrections.csv``: what people decided on the labels of images. Nothing here loads torch.

A line is an image, known by the hash of its decoded pixels, wherever its file lies now: what is decided on an image is
decided on its identical copies. The images themselves are never touched. Every decision takes a lock, reads the file
again and replaces it whole, so two windows lose nothing of each other, and a kill at most the decision in flight.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config.checks import shown
from sightline.data.sources.csv_table import choose, read_table
from sightline.errors import ConfigError, DataError, StorageError
from sightline.runs.locking import locked
from sightline.runs.writing import create_folder, plain_text, write_csv
from sightline_runtime.files import read_regular

__all__ = ["CORRECTIONS", "Corrected", "CorrectionsFile", "Decision", "locked_table", "read_corrections"]

CORRECTIONS = "corrections.csv"  # as it is called beside a run and in the folder of a check
COLUMNS = ("file", "hash", "from", "to", "decided_by", "when", "why", "new_class")
NEEDED = COLUMNS[:4]
YES, NO = "yes", ("", "no")  # in the column new_class
DIGEST = re.compile(r"[0-9a-f]{32}")
LONGEST = 10_000  # letters of a cell, of the 131,072 that readers of CSV take
PATIENCE = 60.0  # seconds to wait for another process, which holds the file for some hundredths of one


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Decision on the label of an image.

    Raises:
        ConfigError: the hash is none, there is no label before, or a text is too long for a table.
    """

    file: str
    """Path of the image in its set; for people, since the image is known by its hash."""
    digest: str
    """Hash of the decoded pixels, as ``CachedImages.hashes`` has it."""
    before: str
    """The class that it had."""
    after: str | None
    """The class that it should have; equal to ``before``: the label is right; None: the image is left out."""
    decided_by: str = ""
    when: str = field(default_factory=_now)
    """ISO 8601, in UTC."""
    why: str = ""
    """What it was suspected for."""
    new_class: bool = False
    """Whether ``after`` is a class that the set did not have, and that somebody chose to add."""

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.digest):
            raise ConfigError(
                f"the hash of {shown(self.file)} is {shown(self.digest)}; wanted the 32 hexadecimal digits that"
                " sightline check gives an image."
            )
        if not self.before or self.after == "":
            raise ConfigError(f"the decision on {shown(self.file)} names no class; wanted a class before and after it.")
        longest = max((self.file, self.before, self.after or "", self.decided_by, self.when, self.why), key=len)
        if len(longest) > LONGEST:
            raise ConfigError(
                f"the decision on {shown(self.file)} holds a text of {len(longest):,} letters; wanted {LONGEST:,} at"
                " most."
            )

    @property
    def kept(self) -> bool:
        """Whether the label was found to be right."""
        return self.after == self.before


@dataclass(frozen=True)
class Corrected:
    """An image set as it was before decisions changed it (see ``correcting``). N images."""

    classes: list[str]
    """As the set has them."""
    labels: np.ndarray[Any, Any]
    """As the set has them: indices of ``classes``, (N,)."""
    left_out: np.ndarray[Any, Any]
    """Rows that would be measured on if they had not been left out."""
    decided: np.ndarray[Any, Any]
    """Rows that something was decided on, also that the label is right."""
    facts: Mapping[str, Any]
    """A digest and counts, for ``model.json``."""


class CorrectionsFile:
    """A corrections file that is read and written, one decision at a time, by any number of processes and threads."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path).expanduser().resolve()  # a link is followed, so that all that write it hold one lock

    def read(self) -> dict[str, Decision]:
        """Return what is decided, by the hash of the image; nothing where there is no file yet.

        Raises:
            ConfigError: the file is no corrections file, is cut off, or contradicts itself.
        """
        return self._read()[0]

    def decide(self, decision: Decision) -> Decision | None:
        """Write a decision; a later one on the same pixels takes the place of the earlier.

        Returns:
            What was decided on the image before, for ``undo``; None: nothing.
        Raises:
            ConfigError: as ``read`` raises it, or the file has other columns, which would be lost.
            StorageError: the file cannot be written; it is what it was.
        """
        with self._changing() as decisions:
            earlier = decisions.get(decision.digest)
            decisions[decision.digest] = decision
        return earlier

    def decide_newer(self, decisions: Iterable[Decision]) -> int:
        """Write many decisions at once, but for those on images on which the same, or something later, was decided.

        Returns:
            How many were written.
        Raises:
            ConfigError, StorageError: as ``decide`` raises them.
        """
        written = 0
        with self._changing() as known:
            for decision in decisions:
                earlier = known.get(decision.digest)
                if earlier is None or (earlier.after != decision.after and earlier.when <= decision.when):
                    known[decision.digest] = decision
                    written += 1
        return written

    def undo(self, decision: Decision, earlier: Decision | None = None) -> bool:
        """Take a decision back, so that ``earlier`` holds again, or none.

        Returns:
            Whether it was taken back; False where another decision on the image was made meanwhile, which stays.
        Raises:
            ConfigError, StorageError: as ``decide`` raises them.
        """
        with self._changing() as decisions:
            if decisions.get(decision.digest) != decision:
                return False
            if earlier is None:
                del decisions[decision.digest]
            else:
                decisions[decision.digest] = earlier
        return True

    def _read(self) -> tuple[dict[str, Decision], list[str]]:
        """Return the decisions, and the columns that the file has beyond its own."""
        if not self.path.exists():
            return {}, []
        return _parse(self.path, str(self.path))

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Decision]]:
        """Give the decisions to change, and write them; nobody else writes meanwhile."""
        create_folder(self.path.parent)
        with locked_table(self.path):
            decisions, others = self._read()
            if others:
                raise ConfigError(
                    f"{self.path} has a column {shown(others[0])} that is none of a corrections file, and would be"
                    f" lost; wanted {', '.join(COLUMNS)}: delete the column, or decide into another file."
                )
            before = dict(decisions)
            yield decisions
            if decisions != before:
                write_csv(self.path, COLUMNS, map(_cells, decisions.values()))


def read_corrections(path: str | PathLike[str], flag: str = "--data.corrections") -> dict[str, Decision]:
    """Read a corrections file that must be there.

    Args:
        path: of the file.
        flag: by which it was named.
    Returns:
        Decisions by the hash of the image, in the order of the file.
    Raises:
        ConfigError: there is none, it is something else, is cut off, decides nothing or contradicts itself.
    """
    decisions, _ = _parse(Path(path).expanduser(), f"{flag} {path}")
    if not decisions:
        raise ConfigError(f"{flag} {path} has no effect: it decides nothing; leave the option out.")
    return decisions


def _parse(path: Path, what: str) -> tuple[dict[str, Decision], list[str]]:
    """Return decisions by hash, and the columns that are none of a corrections file."""
    try:
        table = read_table(read_regular(path), what, errors="surrogateescape", whole=True)
        columns = {name: choose(table, ((name,),)) for name in COLUMNS}
        if missing := [name for name in NEEDED if columns[name] is None]:
            raise ConfigError(
                f"{what} has no column {missing[0]!r} (found: {', '.join(table.columns)[:200] or 'nothing'}); wanted a"
                f" corrections file, whose first line is {','.join(COLUMNS)}."
            )
        indices = {name: index for name, index in columns.items() if index is not None}
        decisions: dict[str, Decision] = {}
        places: dict[str, str] = {}
        for place, cells in table.records(indices):
            decision = _decision({name: plain_text(cell or "") for name, cell in cells.items()}, f"{what}, {place}")
            known = decisions.get(decision.digest)
            if known is not None and known.after != decision.after:
                raise ConfigError(
                    f"{what} decides twice on the image {shown(decision.file)}: {_said(known)}"
                    f" ({places[decision.digest]}), and {_said(decision)} ({place}); delete one of the lines."
                )
            decisions[decision.digest], places[decision.digest] = decision, place
    except OSError as error:
        raise ConfigError(
            f"{what} cannot be read ({error.strerror or error}); wanted a corrections file, as the review page of"
            " sightline check writes it."
        ) from error
    except DataError as error:
        raise ConfigError(str(error)) from error
    return decisions, [name for index, name in enumerate(table.columns) if index not in indices.values()]


def _decision(cells: Mapping[str, str], where: str) -> Decision:
    try:
        return Decision(
            file=cells["file"],
            digest=cells["hash"].strip().lower(),
            before=cells["from"],
            after=cells["to"] or None,
            decided_by=cells.get("decided_by", ""),
            when=cells.get("when", ""),
            why=cells.get("why", ""),
            new_class=_is_new(cells.get("new_class", "").strip().lower()),
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _is_new(cell: str) -> bool:
    if cell != YES and cell not in NO:
        raise ConfigError(f"the column new_class holds {shown(cell)}; wanted {YES}, or nothing.")
    return cell == YES


def _said(decision: Decision) -> str:
    return "leave it out" if decision.after is None else f"class {shown(decision.after)}"


def _cells(decision: Decision) -> tuple[str, ...]:
    return (
        decision.file,
        decision.digest,
        decision.before,
        decision.after or "",
        decision.decided_by,
        decision.when,
        decision.why,
        YES if decision.new_class else "",
    )


@contextmanager
def locked_table(path: Path) -> Iterator[None]:
    """Hold a table in a folder that exists, so that no other window writes it meanwhile.

    Raises:
        StorageError: another process has held it for a minute, or the folder cannot be written.
    """
    held = f"{path} has been held by another process for {PATIENCE:.0f} seconds; end it, then decide again."
    with locked(path.with_name(f".{path.name}.lock"), PATIENCE, StorageError(held)):
        yield
