"""What every classifier does with images, whatever computes its answers. B images, height H, width W, K classes."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, overload

import numpy as np

from sightline_runtime.conformal import class_scores, classes_within
from sightline_runtime.decoding.decode import UnreadableImageError
from sightline_runtime.decoding.preprocessing import Preprocessing
from sightline_runtime.errors import ConfigError, DataError
from sightline_runtime.inputs import ImageLike, as_list, read_input
from sightline_runtime.predictions import Prediction
from sightline_runtime.views import Views

__all__ = ["AT_ONCE", "Answering"]

AT_ONCE = 2048  # images whose pixels are held at a time

Array = np.ndarray[Any, Any]


class Answering(ABC):
    """A classifier with everything it needs to read an image and to say what it shows."""

    classes: list[str]
    """In the order of their indices."""
    views: Views
    """That are averaged unless others are asked for."""
    resize: tuple[int, int]
    """(height, width) that images are brought to."""
    preprocessing: Preprocessing

    @abstractmethod
    def answers(
        self, pixels_BHWC: Array, views: Views | None = None, *, coverage: float | None = None
    ) -> list[Prediction]:
        """Return the predictions for uint8 images already at the cached size; arguments as ``predict`` has them."""

    @property
    @abstractmethod
    def temperatures(self) -> Mapping[Views, float]:
        """By the views that can be asked for."""

    @property
    @abstractmethod
    def set_limits(self) -> Mapping[Views, Mapping[str, float | None]] | None:
        """Limits of prediction sets, by views and coverage; None of a classifier without sets."""

    @property
    @abstractmethod
    def unknown_limits(self) -> Mapping[Views, float] | None:
        """Scores above which an image is none of the classes, by views; None of a classifier that cannot say."""

    @overload
    def predict(  # type: ignore[overload-overlap]  # a path is a text, and a text is some texts
        self, images: ImageLike, views: Views | None = None, *, coverage: float | None = None
    ) -> Prediction: ...

    @overload
    def predict(
        self, images: Iterable[ImageLike], views: Views | None = None, *, coverage: float | None = None
    ) -> list[Prediction]: ...

    def predict(
        self, images: ImageLike | Iterable[ImageLike], views: Views | None = None, *, coverage: float | None = None
    ) -> Prediction | list[Prediction]:
        """Classify one image or many; by whatever way an image comes, the answer is the same.

        Args:
            images: a path, the bytes of a file, an open binary file, a Pillow image, or an array, (H, W) or (H, W, C)
                with channels as a file has them: RGB, and its opacity; or a list of these, mixed as you like, or an
                array of many, (N, H, W, C). Of colors with 16 bits a Pillow image that is loaded holds the upper 8:
                give its file.
            views: views to average; None takes those of the recipe.
            coverage: of prediction sets, such as 0.9; None makes none.
        Returns:
            One prediction of one image, a list of a list.
        Raises:
            ConfigError: the classifier was not calibrated for these views, or has no sets of this coverage.
            DataError: one of them cannot be read; it is named.
        """
        listed, single = as_list(images)
        predictions: list[Prediction] = []
        for start in range(0, len(listed), AT_ONCE):
            some = enumerate(listed[start : start + AT_ONCE], start=start + 1)
            pixels = [self._read(image, "" if single else f" {number} of {len(listed)}") for number, image in some]
            predictions.extend(self.answers(np.stack(pixels), views, coverage=coverage))
        return predictions[0] if single else predictions

    def limit(self, views: Views, coverage: float) -> float | None:
        """Return the score up to which a class is within a set.

        Raises:
            ConfigError: the classifier has none for such a coverage.
        """
        if self.set_limits is None:
            raise ConfigError(
                "this classifier was trained before there were prediction sets; train it again to have them."
            )
        limits = self.set_limits[self.calibrated(views)]
        if f"{coverage:g}" not in limits:
            raise ConfigError(f"sets of a coverage of {coverage:g}: wanted 0.8 to 0.99, in steps of 0.01.")
        return limits[f"{coverage:g}"]

    def calibrated(self, views: Views | None) -> Views:
        """Return the views that are asked for, or else the classifier's own.

        Raises:
            ConfigError: it was not calibrated for them.
        """
        views = views or self.views
        if views not in self.temperatures:
            raise ConfigError(
                f"--views {views}: this classifier was calibrated for {', '.join(self.temperatures)}; choose one of"
                " them."
            )
        return views

    def judged(
        self,
        chances_BK: Array,
        scores_B: Array | None,
        views: Views,
        coverage: float | None = None,
        uniforms_B: Array | None = None,
    ) -> list[Prediction]:
        """Turn probabilities into predictions.

        Args:
            chances_BK: calibrated probabilities.
            scores_B: how little each image looks like the training images; read where the classifier has limits.
            views: that were averaged.
            coverage: of the sets; None makes none.
            uniforms_B: of ``image_uniforms``, for sets.
        """
        unknown: list[bool | None] = [None] * len(chances_BK)
        if self.unknown_limits is not None and scores_B is not None:
            unknown = (scores_B > self.unknown_limits[views]).tolist()
        within_BK: Array | None = None
        if coverage is not None and uniforms_B is not None:
            within_BK = classes_within(class_scores(chances_BK, uniforms_B), self.limit(views, coverage))
        predictions = []
        for row, chances in enumerate(chances_BK):
            order = np.argsort(-chances, kind="stable")
            ranked = {self.classes[index]: float(chances[index]) for index in order}
            label = next(iter(ranked))
            held = None if within_BK is None else tuple(self.classes[index] for index in order if within_BK[row, index])
            predictions.append(Prediction(label, ranked[label], ranked, unknown[row], held))
        return predictions

    def _read(self, image: ImageLike, place: str) -> Array:
        try:
            return read_input(image, self.resize, self.preprocessing)
        except (UnreadableImageError, OSError) as error:
            name = os.fspath(image) if isinstance(image, str | os.PathLike) else f"{type(image).__name__}{place}"
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"image {name} cannot be read: {reason}; leave it out or mend it.") from error
