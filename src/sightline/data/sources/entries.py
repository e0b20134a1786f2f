"""From the names of files to classes and splits. Nothing here loads torch, or reads a file."""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import quote

from sightline.data.sources.layout import Classes, arrange
from sightline.data.sources.own_output import GENERATED, OwnOutput, find_own_output
from sightline.data.sources.split_names import is_split_name
from sightline.errors import DataError
from sightline_runtime.decoding.formats import WANTED
from sightline_runtime.files import is_hidden, is_image_name

__all__ = [
    "OWN",
    "Entry",
    "LeftOut",
    "Listing",
    "check_labels",
    "class_folder",
    "composed",
    "file_name",
    "image_names",
    "is_hidden",
    "is_image_name",
    "lay_out",
    "say_left_out",
    "without_own_output",
]

HIDDEN, OTHER, OWN = "hidden files", "other files", "files that sightline wrote"
DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\.|$)", re.IGNORECASE)  # Windows' own
UNSAFE = frozenset('/\\:*?"<>|%')  # in names of folders, on some system
_PLURAL = re.compile(r"^((?:other |hidden |unreadable |test )?)(file|link|image|row)s")
NAMED = 4  # suffixes, or folders of our own, that a sentence names; the rest are counted


@dataclass(frozen=True)
class Entry:
    """One image file of a set."""

    path: str
    """Name inside the set, with forward slashes."""
    label: str
    split: str | None = None
    """``train``, ``val`` or ``test`` where the set says so."""
    group: str | None = None
    """What must stay on one side of every split: a person, a patient, a scene."""

    def __post_init__(self) -> None:
        for field_name in ("label", "group"):
            text = getattr(self, field_name)
            if text is not None and not text.isascii():
                object.__setattr__(self, field_name, composed(text))

    @property
    def name(self) -> str:
        """The path as it is shown, written to tables and compared; ``path`` opens the file."""
        return composed(self.path)


def composed(text: str) -> str:
    """Return a name in the one spelling (NFC) of letters with accents, of which file systems and archives have two."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


@dataclass
class LeftOut:
    """Files that are no images of a class."""

    counts: Counter[str] = field(default_factory=Counter)
    """How many, by the reason."""
    suffixes: dict[str, Counter[str]] = field(default_factory=dict)
    """How many of each suffix, by the reason."""

    def add(self, reason: str, name: str) -> None:
        self.counts[reason] += 1
        suffix = PurePosixPath(name).suffix.lower()
        self.suffixes.setdefault(reason, Counter())[suffix] += 1

    def copy(self) -> "LeftOut":
        return LeftOut(self.counts.copy(), {reason: suffixes.copy() for reason, suffixes in self.suffixes.items()})

    def add_all(self, others: "LeftOut") -> None:
        self.counts.update(others.counts)
        for reason, suffixes in others.suffixes.items():
            self.suffixes.setdefault(reason, Counter()).update(suffixes)

    def sentences(self) -> list[str]:
        return say_left_out(self.counts, self.suffixes)


@dataclass(frozen=True)
class Listing:
    """The entries of a source, before any image is decoded."""

    entries: list[Entry]
    ignored: Counter[str]
    """Files that are no images of a class, counted by what they are."""
    suffixes: dict[str, Counter[str]] = field(default_factory=dict)
    """The same, counted by their suffixes as well; a reason may be missing where no files were listed."""
    notes: list[str] = field(default_factory=list)
    """How the folders were read, where another reading is possible: for the user to judge."""
    unlabeled: int = 0
    """Images that are left out since they have no class."""


def lay_out(
    files: Sequence[str],
    folders: Sequence[str],
    location: str,
    least: int = 2,
    *,
    classes: Classes | None = None,
    begin: Callable[[str], bytes] | None = None,
    left: LeftOut | None = None,
) -> Listing:
    """Find classes and splits in the names of files and folders.

    Args:
        files: names with forward slashes, in the source's order.
        folders: names of folders, so that an empty one is noticed.
        location: of the set, for messages.
        least: classes, at least; where one suffices, as it does to measure, a class folder may be empty.
        classes: which folders are the classes; None for those at the top, and the splits that their names speak of.
        begin: reads the first bytes of a file; None where that cannot be done.
        left: what the source has left out itself.
    Raises:
        DataError: no images, one class, a class without images, classes that differ only in case, or folders that can
            be read as classes and as splits.
    """
    left = LeftOut() if left is None else left
    files, folders = without_own_output(files, folders, left, begin)
    kept = [tuple(name.split("/")) for name in image_names(files, left, begin)]
    holding = {name.rpartition("/")[0] for name in files}  # an archive need not list its folders
    visible = {
        tuple(name.strip("/").split("/")) for name in {*folders, *holding} if name.strip("/") and not is_hidden(name)
    }
    if not kept:
        if left.counts[OWN]:
            raise DataError(
                f"no images in {location} but those that sightline itself wrote there; name the folder of your images,"
                " or the one with generated images itself."
            )
        raise DataError(
            f"no images in {location} ({sum(left.counts.values())} other files); wanted folders named after the"
            f" classes, with {WANTED} files."
        )
    arranged = arrange({parts[:-1] for parts in kept}, visible, location, classes)
    entries = []
    for parts in kept:
        place = arranged.places[parts[:-1]]
        if isinstance(place, str):
            left.add(place, parts[-1])
        else:
            entries.append(Entry("/".join(parts), *place))
    labels = {entry.label for entry in entries}
    empty = sorted(set(map(composed, arranged.expected)) - labels)
    if empty and least > 1:
        more = f" ({len(empty)} such folders)" if len(empty) > 1 else ""
        raise DataError(
            f"class folder {empty[0]!r} in {location} holds no images{more}; add some or delete the folder."
        )
    try:
        check_labels(list(labels), location, least)
    except DataError as error:
        if not arranged.doubt:
            raise
        raise DataError(f"{str(error).removesuffix('.')}; {arranged.doubt}.") from error
    return Listing(entries, left.counts, left.suffixes, arranged.notes, len(kept) - len(entries))


def image_names(files: Sequence[str], left: LeftOut, begin: Callable[[str], bytes] | None = None) -> list[str]:
    """Return those of some files that are images, by their names or else their first bytes; the others are counted."""
    kept = []
    for name in files:
        if is_hidden(name):
            left.add(HIDDEN, name)
        elif not is_image_name(name, begin):
            left.add(OTHER, name)
        else:
            kept.append(name)
    return kept


def check_labels(labels: list[str], location: str, least: int = 2) -> None:
    """Refuse labels that no classifier can be trained on."""
    classes = sorted(set(labels))
    if not classes:
        raise DataError(f"no labelled images in {location}; wanted at least two classes with images.")
    if len(classes) < least:
        raise DataError(f"only one class, {classes[0]!r}, in {location}; a classifier needs at least two.")
    for folded, same in itertools.groupby(sorted(classes, key=str.casefold), key=str.casefold):
        twins = list(same)
        if len(twins) > 1:
            raise DataError(
                f"classes {twins[0]!r} and {twins[1]!r} in {location} differ only in case; name both {folded!r} or"
                " rename one."
            )


def without_own_output(
    files: Sequence[str], folders: Sequence[str], left: LeftOut, begin: Callable[[str], bytes] | None
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the files and folders without those that sightline has written, which are counted.

    Generated images are kept where they are all that there is, and can be trained on.
    """
    own = find_own_output(files, folders, is_image_name, begin)
    if GENERATED in own.folders.values() and not any(
        is_image_name(name, begin) and not is_hidden(name) and not own.holds(name) for name in files
    ):
        own = OwnOutput({name: kind for name, kind in own.folders.items() if kind != GENERATED})
    if not own.folders:
        return files, folders
    for name in files:
        if own.holds(name):
            left.add(OWN, name)
    if not left.counts[OWN]:
        left.suffixes.setdefault(OWN, Counter())
    return [name for name in files if not own.holds(name)], [name for name in folders if not own.holds(name)]


def say_left_out(counts: Mapping[str, int], suffixes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return what was left out, by reason and suffix, as lines such as ``left out: 3 other files (2 .txt, 1 .md)``."""
    lines = []
    for reason, count in counts.items():
        if not count:
            continue
        by_suffix = sorted(suffixes.get(reason, {}).items(), key=lambda pair: (-pair[1], pair[0]))
        named = [f"{number:,} {suffix or 'without a suffix'}" for suffix, number in by_suffix[:NAMED]]
        rest = sum(number for _, number in by_suffix[NAMED:])
        named += [f"{rest:,} others"] if rest else []
        what = _PLURAL.sub(r"\1\2", reason, count=1) if count == 1 else reason
        lines.append(f"left out: {count:,} {what}" + (f" ({', '.join(named)})" if named else ""))
    return lines


def class_folder(name: str) -> str:
    """Return the name of a folder for a class: its own, unless it would be taken for hidden or for a split.

    Then, and where ``file_name`` says so, it is written as in an address: ``train`` is ``%74rain``.
    """
    return file_name(name, odd=name.startswith(".") or name == "__MACOSX" or is_split_name(name))


def file_name(name: str, *, odd: bool = False) -> str:
    """Return a name that every file system takes: letters that some refuse are written as in an address.

    ``a/b`` is ``a%2Fb``, and ``con``, which Windows keeps for itself, ``%63on``.

    Args:
        name: any text.
        odd: write its first letter so, too.
    """
    last = len(name) - 1
    odd = odd or DEVICE.match(name) is not None
    return "".join(
        quote(letter, safe="", errors="surrogatepass")
        if letter in UNSAFE or not letter.isprintable()
        else f"%{ord(letter):02X}"
        if (odd and place == 0) or (place == last and letter in ". ")
        else letter
        for place, letter in enumerate(name)
    )
