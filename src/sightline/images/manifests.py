"""A table that lists image files and their labels, read in place. Nothing here loads torch."""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sightline.errors import DataError
from sightline.images.layout import SPLIT_NAMES, Entry, Listing, check_labels
from sightline.images.sources import digest, read_files
from sightline.writing import plain_text

__all__ = ["ManifestSource"]


class ManifestSource:
    """A CSV file with the columns ``path`` and ``label``, and optionally ``split`` and ``group``.

    Paths are relative to the manifest and stay below its folder. A row may name a file again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().stem
        self.location = str(path.resolve())
        self.root = path.resolve().parent

    def fingerprint(self) -> str:
        lines = [hashlib.sha256(self.path.read_bytes()).hexdigest()]
        for name in sorted({entry.path for entry in self.scan().entries}):
            try:
                status = os.stat(self.root / name)
                lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
            except OSError:
                lines.append(f"{name}\0missing")
        return digest(lines)

    def scan(self) -> Listing:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                columns = reader.fieldnames or []
                missing = [column for column in ("path", "label") if column not in columns]
                if missing:
                    raise DataError(
                        f"manifest {self.path} has no column {' and no column '.join(map(repr, missing))}"
                        f" (found: {', '.join(columns) or 'nothing'}); its first line must name path,label[,split][,group]."
                    )
                entries = [self._entry(row, f"line {reader.line_num}") for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"manifest {self.path} is no UTF-8 CSV file ({error}); save it as one.") from error
        except OSError as error:
            raise DataError(
                f"manifest {self.path} cannot be read ({error.strerror}); change its permissions."
            ) from error
        check_labels([entry.label for entry in entries], self.location)
        return Listing(entries, Counter())

    def _entry(self, row: dict[str, str | None], place: str) -> Entry:
        path, label = (plain_text((row[name] or "").strip()) for name in ("path", "label"))  # as ours are written
        path = path.replace("\\", "/")
        split, group = (row.get("split") or "").strip(), (row.get("group") or "").strip()
        where = f"manifest {self.path}, {place}"
        if not path or not label:
            raise DataError(
                f"{where}: the {'label' if path else 'path'} is empty; fill it in or delete the {place.split()[0]}."
            )
        inside = os.path.normpath(self.root / path)
        if not inside.startswith(str(self.root) + os.sep):
            raise DataError(
                f"{where}: {path!r} lies outside the manifest's folder; move the manifest above its images."
            )
        if split and split.lower() not in SPLIT_NAMES:
            raise DataError(f"{where}: unknown split {split!r}; wanted train, val, test or nothing.")
        return Entry(
            os.path.relpath(inside, self.root).replace(os.sep, "/"),
            label,
            SPLIT_NAMES.get(split.lower()),
            group or None,
        )

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        yield from read_files(self.root, entries)
