"""The image sets in the package: handwritten digits and photographs of groceries. Nothing here loads torch."""

import csv
import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sightline.data.sources.archive import ZipSource
from sightline.data.sources.entries import Entry, Listing
from sightline.data.sources.source import ImageSource

__all__ = ["DIGITS", "EMBEDDED", "GROCERIES", "DigitsSource", "GroceriesSource"]

DIGITS = "digits"
GROCERIES = "groceries"  # what `sightline train` trains on where no image set is named
PHOTOGRAPHS = Path(__file__).parents[2] / "resources" / "box" / "groceries.zip"  # made by benchmarks/embed_groceries.py


class DigitsSource(ImageSource):
    """An embedded image set: 1,797 handwritten digits from scikit-learn, 8×8 pixels, grey."""

    name = location = DIGITS

    def fingerprint(self) -> str:
        return "scikit-learn digits 1"

    def scan(self) -> Listing:
        labels = self._bunch().target
        return Listing([Entry(f"{label}/{i:04d}.png", str(label)) for i, label in enumerate(labels)], Counter())

    def read(self, entries: list[Entry]) -> Iterator[tuple[int, "np.ndarray[Any, Any]"]]:
        gray = (self._bunch().images * (255 / 16)).round().astype(np.uint8)  # 17 levels, 0 to 16
        rows = [int(entry.path.rpartition("/")[2].removesuffix(".png")) for entry in entries]
        yield from enumerate(np.repeat(gray[rows][..., None], 3, axis=3))

    @staticmethod
    def _bunch() -> Any:
        from sklearn.datasets import load_digits

        return load_digits()


class GroceriesSource(ZipSource):
    """An embedded image set: 300 photographs of 10 kinds of groceries from the Grocery Store Dataset, grouped by
    scene.
    """

    def __init__(self) -> None:
        super().__init__(PHOTOGRAPHS)
        self.name = self.location = GROCERIES

    def fingerprint(self) -> str:
        """Return the hash of the archive: the same wherever and whenever the package was installed."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def scan(self) -> Listing:
        with zipfile.ZipFile(self.path) as archive, archive.open("manifest.csv") as file:
            rows = list(csv.DictReader(io.TextIOWrapper(file, "utf-8")))
        return Listing([Entry(row["path"], row["label"], None, row["group"]) for row in rows], Counter())


EMBEDDED: dict[str, Callable[[], ImageSource]] = {GROCERIES: GroceriesSource, DIGITS: DigitsSource}
