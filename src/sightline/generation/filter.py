"""The filter of generated images: which are worth training on, by a classifier and a look for copies.

B images, H × W pixels, K classes, D features.

A generated image passes if the classifier takes it for the class that was asked for, with a probability within a band,
and if it is no copy: farther from every image that the generator was trained on, in the classifier's features, than
nearly all of those are from each other.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config.generators import KeepConfig
from sightline.data.cache import open_images
from sightline.data.seen import trained_rows
from sightline.data.sources.find_source import source_of_run
from sightline.data.splits import split_as
from sightline.errors import ConfigError, DataError
from sightline.inference.encoder import Encoder
from sightline.inference.predict import load
from sightline.measures.fidelity import nearest, nearest_others
from sightline.runs.folder import read_any_recipe, read_model_of_finished
from sightline_runtime.decoding.decode import resize

__all__ = ["REASONS", "Filter", "Verdict"]

REASONS = {
    "class": "taken for another class",
    "doubt": "of a lower probability than asked for",
    "sure": "of a higher probability than asked for",
    "copy": "nearly a copy of a training image",
}
"""Why an image is refused, in the order in which it is tested."""
COMPARED = 2000  # training images, at most, whose nearest others say how near two images may be

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Verdict:
    """The filter's verdict on one generated image."""

    refused: str
    """Why, by a key of ``REASONS``; empty where it passes."""
    probability: float
    """Of the class that was asked for."""
    distance: float
    """To the nearest training image, in the classifier's features."""
    nearest: str
    """That image's path in its set."""


class Filter:
    """Looks at generated images, and says which pass."""

    def __init__(self, keep: KeepConfig, generator: str | os.PathLike[str]) -> None:
        """Load the classifier, and compute the features of the generator's training images.

        Args:
            keep: the classifier, and what passes.
            generator: run of the generator, whose training images are looked up.
        Raises:
            ConfigError: the classifier does not know the generator's classes.
            DataError: the images that the generator was trained on are not there any more.
            RunError: no finished run of a classifier.
        """
        self.keep = keep
        model = read_model_of_finished(generator, generator=True)
        self.classifier = load(keep.run)
        unknown = next((name for name in model["classes"] if name not in self.classifier.classes), None)
        if unknown is not None:
            raise ConfigError(
                f"--keep-if {keep.run}: the classifier does not know the class {unknown!r} of the generator; choose one"
                " that was trained on the same classes."
            )
        self._classes = [self.classifier.classes.index(name) for name in model["classes"]]
        self._encoder = Encoder(self.classifier)
        images = open_images(
            source_of_run(model),
            exactly=(self.classifier.size, self.classifier.resize),
            preprocessing=self.classifier.preprocessing,
        )
        if images.fingerprint != model["data"]["fingerprint"]:
            raise DataError(
                f"{images.location} does not hold the images that {generator} was trained on any more, so copies of"
                " them cannot be found; bring them back."
            )
        folder = Path(generator)
        splits = split_as(read_any_recipe(folder), images, model["data"].get("split_rule", 1), folder)
        train = trained_rows(folder, images, splits.train)
        self._files = [images.paths[row] for row in train]
        self._features = self._encoder.encode_rows(images.pixels, train)
        # the distance that so small a share of the training images have a nearer other one than
        rows = np.linspace(0, len(train) - 1, min(len(train), COMPARED)).astype(np.int64)
        self.reach = float(np.quantile(nearest_others(self._features, rows), keep.copies))

    def look(self, pixels_BHWC: Array, labels: Sequence[int]) -> list[Verdict]:
        """Look at images.

        Args:
            pixels_BHWC: uint8, of any size.
            labels: the classes they were made for, as indices of the generator.
        """
        size = self.classifier.resize
        shown = np.stack([resize(pixels, *size, self.classifier.preprocessing.fit) for pixels in pixels_BHWC])
        chances_BK = self.classifier.probabilities(shown)
        rows, distances = nearest(self._encoder.encode(shown), self._features)
        verdicts = []
        for chances_K, label, distance, row in zip(chances_BK, labels, distances.tolist(), rows, strict=True):
            wanted = self._classes[label]
            probability = float(chances_K[wanted])
            reasons = {
                "class": int(chances_K.argmax()) != wanted,
                "doubt": probability < self.keep.least,
                "sure": probability > self.keep.most,
                "copy": distance <= self.reach,
            }
            refused = next((reason for reason in REASONS if reasons[reason]), "")
            verdicts.append(Verdict(refused, probability, distance, self._files[row]))
        return verdicts
