"""How far made images lie from real ones, in the features of a classifier: what the benchmarks of generators share."""

from pathlib import Path

import numpy as np

from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.inference.encoder import Encoder
from sightline.inference.predict import load
from sightline.measures.fidelity import Fidelity, fidelity_of
from sightline.runs.folder import read_model, read_run_recipe


class Reference:
    """The real images that a classifier was trained on, as it sees them."""

    def __init__(self, run: Path, most: int) -> None:
        """
        Args:
            run: of the classifier.
            most: training images to compare with; as many as there are, where there are fewer.
        """
        self._classifier = load(run)
        self._encoder = Encoder(self._classifier)
        location, data = read_model(run)["data"]["location"], read_run_recipe(run).data
        images = self._open(location)
        parts = split(images, validation=data.validation, fraction=data.fraction, seed=data.split_seed)
        rows = parts.train[np.linspace(0, len(parts.train) - 1, min(most, len(parts.train))).astype(np.int64)]
        self.real = self._encoder.encode_rows(images.pixels, rows)
        self._unseen = self._encoder.encode_rows(images.pixels, parts.validation)

    def floor(self, count: int) -> Fidelity:
        """What real images would score that the classifier did not learn from: some of validation."""
        rows = np.linspace(0, len(self._unseen) - 1, min(count, len(self._unseen))).astype(np.int64)
        return fidelity_of(self._unseen[rows], self.real)

    def measure(self, folder: Path) -> tuple[Fidelity, float]:
        """Made images against the real ones; and the share of them that the classifier takes for the class asked for."""
        images = self._open(folder)
        found = fidelity_of(self._encoder.encode_rows(images.pixels, images.readable), self.real)
        answers = self._classifier.probabilities(images.pixels[images.readable]).argmax(1)
        names = np.array(self._classifier.classes)[answers]
        asked = np.array(images.classes)[images.labels[images.readable]]
        return found, float((names == asked).mean())

    def _open(self, location: str | Path):
        return open_images(find_source(location), exactly=(self._classifier.size, self._classifier.resize))


def told(found: Fidelity, agreed: float | None = None) -> str:
    """Measures in a line."""
    agreement = "" if agreed is None else f", taken for their class {agreed:.4f}"
    return (
        f"Fréchet distance {found.frechet:.3f}, precision {found.precision:.3f}, recall {found.recall:.3f}{agreement};"
        f" n = {found.made:,} against {found.real:,}"
    )
