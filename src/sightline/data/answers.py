"""Labels that people gave to unlabeled images, and the manifest that they become. Nothing here loads torch.

What is decided lies in ``corrections.csv``, by the hash of the pixels; ``manifest.csv`` beside it is written anew after
each decision: the images that a run was trained and measured on, each on its side, and those with an answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sightline.config.checks import nearest, shown
from sightline.data.corrections import CORRECTIONS, CorrectionsFile, Decision, locked_table
from sightline.data.sources.csv_table import read_manifest_file
from sightline.data.sources.unlabeled import UNLABELED
from sightline.errors import DataError
from sightline.runs.writing import plain_text, write_csv

__all__ = ["CHOSEN", "MANIFEST", "Answers", "Example", "Row"]

CHOSEN, MANIFEST = "chosen.csv", "manifest.csv"
TRAIN = "train"


class Row(NamedTuple):
    """A line of the manifest."""

    path: str
    """Absolute."""
    label: str
    split: str = ""
    group: str = ""


class Example(NamedTuple):
    """An image that may be answered."""

    path: str
    """Absolute."""
    name: str
    """As it is shown."""
    digest: str


class Answers:
    """Takes the answers on the images of a folder, and keeps the manifest up to date.

    Any number of windows may decide at once, as on any corrections file.
    """

    def __init__(self, folder: Path, examples: Sequence[Example], known: Sequence[Row], classes: Sequence[str]) -> None:
        """
        Args:
            folder: of ``corrections.csv`` and ``manifest.csv``.
            examples: the images that can be answered.
            known: the images that were labeled before, for the manifest.
            classes: names that are known.
        """
        self.folder, self.known, self.classes = folder, list(known), list(classes)
        self.paths = {example.digest: example.path for example in reversed(examples)}
        """Of the images that can be answered, by their hash; the first of identical ones."""
        self._digest_of = {example.path: example.digest for example in examples}
        self._name_of = {example.path: example.name for example in examples}
        self._file = CorrectionsFile(folder / CORRECTIONS)
        self.path = self._file.path

    def read(self) -> dict[str, Decision]:
        """Return what is decided, by the hash of the image."""
        return self._file.read()

    def decide(self, decision: Decision) -> Decision | None:
        """Write a decision and the manifest; returns the earlier decision on the image, if any."""
        earlier = self._file.decide(decision)
        self.write_manifest()
        return earlier

    def undo(self, decision: Decision, earlier: Decision | None = None) -> bool:
        """Take a decision back, as ``CorrectionsFile.undo`` does, and write the manifest."""
        undone = self._file.undo(decision, earlier)
        self.write_manifest()
        return undone

    def take_filled_in(self) -> list[str]:
        """Take the labels that were written into the column ``label`` of ``chosen.csv`` as answers.

        Returns:
            Sentences on what was taken.
        Raises:
            DataError: the table cannot be read.
        """
        path = self.folder / CHOSEN
        if not path.exists():
            return []
        table = read_manifest_file(path, str(path), errors="surrogateescape")  # a path need not be UTF-8
        columns = {name: index for index, name in enumerate(table.columns) if name in ("path", "label")}
        if len(columns) < 2:
            raise DataError(f"{path} has lost its column path or label; put it back, or move the file away.")
        decisions, taken, standing, new = self.read(), 0, 0, set[str]()
        for place, cells in table.records(columns):
            file, label = (plain_text((cells[name] or "").strip()) for name in ("path", "label"))
            if not label:
                continue
            if file not in self._digest_of:
                raise DataError(
                    f"{path}, {place}: {shown(file)} with the label {shown(label)} is none of the images of the folder;"
                    " mend the path, or delete the line."
                )
            digest = self._digest_of[file]
            before = decisions.get(digest)
            if before is not None and before.after == label:
                continue
            if before is not None and before.decided_by != CHOSEN:
                standing += 1
                continue
            new |= {label} - set(self.classes)
            facts = {"file": self._name_of[file], "digest": digest, "before": UNLABELED, "decided_by": CHOSEN}
            self._file.decide(Decision(**facts, after=label, new_class=label not in self.classes))
            taken += 1
        said = [f"{_times(taken, 'answer')} taken from {path}."] if taken else []
        if standing:
            said.append(
                f"{_times(standing, 'label')} in {path} not taken: {CORRECTIONS} has another answer, which stays."
            )
        return said + [f"{shown(label)} is a new class; {nearest(label, self.classes)}" for label in sorted(new)]

    def write_manifest(self) -> tuple[int, int]:
        """Write the manifest: what was known, and the answers; one lock, so that the last to write knows of all.

        Returns:
            (Answered images in it, answered images that the folder has no more.)
        Raises:
            StorageError: it cannot be written.
        """
        path = self.folder / MANIFEST
        with locked_table(self.folder / MANIFEST):
            rows = {row.path: row for row in self.known}
            side = TRAIN if any(row.split for row in self.known) else ""
            here, gone = 0, 0
            for digest, decision in self.read().items():
                if decision.after is None:
                    continue
                file = self.paths.get(digest)
                if file is None:
                    gone += 1
                    continue
                here += 1
                before = rows.get(file, Row(file, "", side))
                rows[file] = before._replace(label=decision.after)
            write_csv(path, Row._fields, sorted(rows.values()))
        return here, gone


def _times(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"
