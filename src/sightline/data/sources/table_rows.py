"""From a table of labels to the entries of a set: columns, missing labels, spellings, contradictions. No torch here."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from sightline.config.checks import shown
from sightline.data.sources.csv_table import LABELS, PATHS, Table, choose
from sightline.data.sources.entries import Entry, Listing, check_labels, composed
from sightline.data.sources.split_names import SPLIT_NAMES, split_of_name
from sightline.errors import DataError
from sightline.runs.writing import plain_text

__all__ = ["Row", "canonical_label", "list_rows", "table_rows"]

MISSING = frozenset({"", "nan", "-nan", "<na>", "#n/a", "#na"})
"""How pandas and spreadsheets write that there is no value. ``None``, ``null`` and ``NA`` may be classes."""
SPLIT_COLUMNS = ("subset", "partition", "set", "phase", "usage")
WANTED = "path,label[,split][,group] (or file, image, id; class, target, category)"
LONGEST_LABEL = 1000  # letters
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d*)?|-?\d\.\d+[eE][+-]?\d{1,2}")


@dataclass(frozen=True)
class Row:
    """One row of a table, as its cells stand there."""

    what: str
    """How messages name the table."""
    place: str
    """``line 3`` or ``row 3``."""
    path: str | None
    label: str | None = None
    split: str | None = None
    group: str | None = None

    @property
    def where(self) -> str:
        """The table and the line, for messages."""
        return f"{self.what}, {self.place}"

    def named(self) -> str:
        """Return the path.

        Raises:
            DataError: there is none.
        """
        path = plain_text((self.path or "").strip())
        if not path:
            raise DataError(f"{self.where}: the path is empty; fill it in or delete the {self.place.split()[0]}.")
        return path


def table_rows(table: Table, *, labeled: bool = True) -> Iterator[Row]:
    """Return the rows of a table, by the usual names of its columns.

    Args:
        table: with a header.
        labeled: whether there must be a column of labels.
    Raises:
        DataError: a column is missing, or several could be meant.
    """
    columns = {
        "path": choose(table, PATHS),
        "label": choose(table, LABELS) if labeled else None,
        "split": _split_column(table),
        "group": choose(table, (("group",),)),
    }
    missing = [name for name in ("path", "label") if columns[name] is None and (labeled or name == "path")]
    if missing:
        listed = ", ".join(table.columns)
        raise DataError(
            f"{table.what} has no column {' and no column '.join(map(repr, missing))} (found:"
            f" {listed[:200] + '...' if len(listed) > 200 else listed or 'nothing'}); its first line must name"
            f" {WANTED if labeled else 'path (or file, image, id)'}."
        )
    chosen = {name: index for name, index in columns.items() if index is not None}
    return (Row(table.what, place, **cells) for place, cells in table.records(chosen))  # type: ignore[arg-type]


def _split_column(table: Table) -> int | None:
    """Return the column ``split``, or one of a usual name that holds names of splits alone."""
    column = choose(table, (("split",),))
    if column is not None:
        return column
    for index, name in enumerate(table.columns):
        if name.strip().lower() in SPLIT_COLUMNS:
            cells = {(row["split"] or "").strip().lower() for _, row in table.records({"split": index})}
            if cells and cells <= set(SPLIT_NAMES):
                return index
    return None


def list_rows(rows: Iterable[Row], locate: Callable[[Row], str], location: str, least: int = 2) -> Listing:
    """Make the listing of a set of the rows of its tables.

    Args:
        rows: of the tables.
        locate: gives the name inside the set of a row's file.
        location: how messages name the set.
        least: classes, at least.
    Returns:
        An entry for each row that has a label; the others are counted.
    Raises:
        DataError: a row cannot be used, a file has two labels, or no classifier can be trained on the labels.
    """
    kept: list[tuple[Row, str, str, str | None]] = []
    ignored: Counter[str] = Counter()
    for row in rows:
        split, label = _split(row.split, row.where), _label(row.label, row.where)
        if label is None:
            ignored["test rows without a label" if split == "test" else "rows without a label"] += 1
            continue
        kept.append((row, locate(row), label, split))
    spelled = _one_spelling({label for _, _, label, _ in kept})
    entries = [
        Entry(path, spelled[label], split, None if _is_missing(row.group) else (row.group or "").strip())
        for row, path, label, split in kept
    ]
    _refuse_two_labels([row for row, *_ in kept], entries)
    check_labels([entry.label for entry in entries], location, least)
    return Listing(entries, ignored)


def canonical_label(label: str) -> str:
    """One spelling of the labels that are one class: composed letters (NFC), and whole numbers without a fraction."""
    value = _value(label)
    return str(int(value)) if value is not None and value == value.to_integral_value() else composed(label)


def _label(cell: str | None, where: str) -> str | None:
    if _is_missing(cell):
        return None
    label = composed(plain_text((cell or "").strip()))
    if len(label) > LONGEST_LABEL:
        raise DataError(f"{where}: the label {shown(label)} is too long; wanted the name of a class.")
    return label


def _is_missing(cell: str | None) -> bool:
    return cell is None or cell.strip().lower() in MISSING


def _split(cell: str | None, where: str) -> str | None:
    if _is_missing(cell):
        return None
    name = (cell or "").strip()
    split = split_of_name(name)
    if split not in SPLIT_NAMES.values():
        raise DataError(f"{where}: unknown split {shown(name)}; wanted train, val, test or nothing.")
    return split


def _one_spelling(labels: set[str]) -> dict[str, str]:
    """Return the class of each label: equal numbers are one (``0`` and pandas's ``0.0``)."""
    values = {label: _value(label) for label in labels}
    whole = all(value is not None and value == value.to_integral_value() for value in values.values())
    spellings: dict[Decimal, list[str]] = {}
    for label, value in values.items():
        if value is not None:
            spellings.setdefault(value, []).append(label)
    spelled = {label: label for label in labels}
    for value, same in spellings.items():
        if whole or len(same) > 1:
            name = (
                str(int(value)) if value == value.to_integral_value() else min(same, key=lambda text: (len(text), text))
            )
            spelled.update(dict.fromkeys(same, name))
    return spelled


def _value(label: str) -> Decimal | None:
    return Decimal(label) if len(label) < 40 and _NUMBER.fullmatch(label) else None


def _refuse_two_labels(rows: list[Row], entries: list[Entry]) -> None:
    first: dict[str, int] = {}
    contradictions = [
        (first[entry.path], index)
        for index, entry in enumerate(entries)
        if entries[first.setdefault(entry.path, index)].label != entry.label
    ]
    if contradictions:
        one, other = contradictions[0]
        files = len({entries[index].path for _, index in contradictions})
        more = f" (and {files - 1} more such files)" if files > 1 else ""
        raise DataError(
            f"{rows[one].what} gives {shown(entries[one].path)} two labels, {shown(entries[one].label)}"
            f" ({rows[one].place}) and {shown(entries[other].label)} ({rows[other].place}){more}; a classifier learns"
            " one class an image: delete the wrong line."
        )
