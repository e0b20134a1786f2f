"""A folder of class folders, read in place. Nothing here loads torch."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sightline.data.sources.entries import OWN, Entry, LeftOut, Listing, without_own_output
from sightline.data.sources.listing import LISTED
from sightline.data.sources.source import FileTree, digest, read_files, size_and_time
from sightline.errors import DataError
from sightline_runtime.folders import CIRCLES, DANGLING, HIDDEN_LINKS, SPECIAL, TWICE, FolderTree
from sightline_runtime.sentences import quoted

__all__ = ["BESIDE", "CIRCLES", "DANGLING", "FolderSource"]

BESIDE = frozenset((DANGLING, CIRCLES, TWICE, HIDDEN_LINKS, SPECIAL, OWN))
"""Reasons to leave something out that has no part in the fingerprint of a folder."""
BEGINNING = 256  # bytes of a table that tell who wrote it, and of an image that tell its format


class FolderSource(FileTree):
    """A folder of class folders, with or without ``train/``, ``val/`` and ``test/`` above them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.resolve().name)

    def fingerprint(self) -> str:
        lines = [] if self.classes is None else [f"classes {self.classes}"]
        lines += [f"{name}\0{size_and_time(self.path / name)}" for name in self.list_files()[0]]
        return digest(sorted(lines))

    def list_files(self) -> tuple[list[str], list[str], LeftOut]:
        """Return the names below the folder without what sightline wrote; links are followed, each folder once."""
        tree = self._tree()
        if tree.kept is None:
            left = LeftOut(Counter(tree.left))
            files, folders = without_own_output(tree.files, tree.folders, left, self.begin)
            tree.kept = sorted(files), list(folders), left
        kept: tuple[list[str], list[str], LeftOut] = tree.kept
        files, folders, left = kept
        return files, folders, left.copy()

    def beside(self) -> LeftOut:
        """Count what has no part in the fingerprint: what sightline wrote, and links that are not followed."""
        return self.list_files()[2]

    def scan(self) -> Listing:
        if {"recipe.yaml", "model.json"} <= set(self._tree().files):
            raise DataError(
                f"{self.location} is a run of sightline, and no image set; name the folder of the images (a run's own:"
                f" sightline evaluate {quoted(str(self.path))})."
            )
        return super().scan()

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, bytes | OSError]]:
        yield from read_files(self.path, entries)

    def begin(self, name: str) -> bytes:
        try:
            with (self.path / name).open("rb") as file:
                return file.read(BEGINNING)
        except OSError:
            return b""

    def _tree(self) -> "FolderTree":
        known: dict[str, FolderTree] | None = LISTED.get()
        if known is None:
            return FolderTree(self.path)
        if self.location not in known:
            known[self.location] = FolderTree(self.path)
        return known[self.location]
