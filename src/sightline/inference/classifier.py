"""A finished classifier: a plain network with what it knows of itself. B images, height H, width W, K classes."""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch

from sightline.data.augment.augment import center, normalize
from sightline.data.batches import Normalization
from sightline.errors import ConfigError, DataError
from sightline.inference.ood import Reference, features_of
from sightline.inference.views import VIEWS, Views, combine, logits_of_views
from sightline.machine.cores import adjust_threads
from sightline.machine.devices import arithmetic
from sightline.measures.metrics import energies, probabilities
from sightline.models.base import Network, recorded
from sightline_runtime.conformal import class_scores, classes_within, image_uniforms
from sightline_runtime.decoding.decode import UnreadableImageError
from sightline_runtime.decoding.preprocessing import preprocessing_of
from sightline_runtime.inputs import ImageLike, as_list, read_input
from sightline_runtime.predictions import Prediction

__all__ = ["BATCH", "Classifier", "Outputs"]

Array = np.ndarray[Any, Any]
BATCH = 256  # images; larger batches fall out of the processor's cache
AT_ONCE = 8 * BATCH  # images whose pixels are held at a time; a GPU is given as many


@dataclass(frozen=True)
class Outputs:
    """What a classifier computes of images, before it is compared with any threshold."""

    logits_VNK: Array
    distances_N: Array | None = None
    """From the reference of ``inference.ood``, of the first view; None of a classifier without one."""
    energy_weight: float = 0.0
    """Of the reference."""

    def unknown_scores(self, views: Views) -> Array:
        """Return how little each image looks like the training images, (N,)."""
        energies_N = energies(combine(self.logits_VNK, views))
        return energies_N if self.distances_N is None else self.distances_N + self.energy_weight * energies_N


class Classifier:
    """A trained network with everything it needs to read an image; made by ``load``."""

    def __init__(
        self,
        network: Network,
        model: dict[str, Any],
        device: torch.device,
        precision: str | None = None,
        reference: Reference | None = None,
    ) -> None:
        self.network = network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.model = model
        self.reference = reference
        self.classes: list[str] = model["classes"]
        self.size: tuple[int, int] = tuple(model["size"])
        self.resize: tuple[int, int] = tuple(model["resize"])
        self.preprocessing = preprocessing_of(model)
        self.views: Views = model["views"]
        self.device = device
        # older runs were calibrated in the format of their training, which depended on the machine where it was auto
        precision = precision or model.get("answer_precision") or model["precision"]
        self.dtype = arithmetic(precision, device, "--precision")
        self.mean, self.std = Normalization(**model["normalization"]).tensors(device)

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

    def _read(self, image: ImageLike, place: str) -> Array:
        try:
            return read_input(image, self.resize, self.preprocessing)
        except (UnreadableImageError, OSError) as error:
            name = os.fspath(image) if isinstance(image, str | os.PathLike) else f"{type(image).__name__}{place}"
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"image {name} cannot be read: {reason}; leave it out or mend it.") from error

    def answers(
        self, pixels_BHWC: Array, views: Views | None = None, *, coverage: float | None = None
    ) -> list[Prediction]:
        """Return the predictions for uint8 images already at the cached size; arguments as ``predict`` has them."""
        views = self._calibrated(views)
        if coverage is not None:
            self.limit(views, coverage)  # refused before anything is computed
        uniforms = None if coverage is None else image_uniforms(pixels_BHWC)
        return self.read(self.outputs(pixels_BHWC, views), views, coverage, uniforms)

    def read(
        self, outputs: Outputs, views: Views, coverage: float | None = None, uniforms_B: Array | None = None
    ) -> list[Prediction]:
        """Turn outputs into predictions.

        Args:
            outputs: of the images.
            views: whose logits are combined.
            coverage: of the sets; None makes none.
            uniforms_B: of ``image_uniforms``, for sets.
        """
        chances_BK = probabilities(combine(outputs.logits_VNK, views), self.model["temperatures"][views])
        unknown: list[bool | None] = [None] * len(chances_BK)
        if self.trust is not None:
            unknown = (outputs.unknown_scores(views) > self.trust["unknown"]["thresholds"][views]).tolist()
        within: Array | None = None
        if coverage is not None and uniforms_B is not None:
            scores_BK = class_scores(chances_BK, uniforms_B)
            within = classes_within(scores_BK, self.limit(views, coverage))
        predictions = []
        for row, chances in enumerate(chances_BK):
            order = np.argsort(-chances, kind="stable")
            ranked = {self.classes[index]: float(chances[index]) for index in order}
            label = next(iter(ranked))
            held = None if within is None else tuple(self.classes[index] for index in order if within[row, index])
            predictions.append(Prediction(label, ranked[label], ranked, unknown[row], held))
        return predictions

    def limit(self, views: Views, coverage: float) -> float | None:
        """Return the score up to which a class is within a set.

        Raises:
            ConfigError: the classifier has none for such a coverage.
        """
        if self.trust is None:
            raise ConfigError(
                "this classifier was trained before there were prediction sets; train it again to have them."
            )
        limits: dict[str, float | None] = self.trust["sets"]["thresholds"][self._calibrated(views)]
        if f"{coverage:g}" not in limits:
            raise ConfigError(f"sets of a coverage of {coverage:g}: wanted 0.8 to 0.99, in steps of 0.01.")
        return limits[f"{coverage:g}"]

    def probabilities(self, pixels_BHWC: Array, views: Views | None = None) -> Array:
        """Return calibrated probabilities, (B, K), of uint8 images already at the cached size.

        Raises:
            ConfigError: the classifier was not calibrated for these views.
        """
        views = self._calibrated(views)
        return probabilities(combine(self.view_logits(pixels_BHWC, views), views), self.model["temperatures"][views])

    def _calibrated(self, views: Views | None) -> Views:
        views = views or self.views
        temperatures = self.model["temperatures"]
        if views not in temperatures:
            raise ConfigError(
                f"--views {views}: this classifier was calibrated for {', '.join(temperatures)}; choose one of them."
            )
        return views

    @property
    def trust(self) -> dict[str, Any] | None:
        """Return ``trust`` of ``model.json``; None where a threshold is missing, as in runs from before there were
        any.
        """
        trust = self.model.get("trust") or {}
        limits = [(trust.get(part) or {}).get("thresholds", {}) for part in ("sets", "unknown")]
        return trust if all(self.model["temperatures"].keys() <= views.keys() for views in limits) else None

    def view_logits(
        self,
        pixels_NHWC: Array,
        views: Views,
        *,
        rows: Array | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Array:
        """Return logits of each view, (V, N, K), in float32, as ``outputs`` does."""
        return self._computed(pixels_NHWC, views, None, rows, progress)[0]

    def outputs(
        self,
        pixels_NHWC: Array,
        views: Views,
        *,
        rows: Array | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Outputs:
        """Return logits of each view and distances from the reference of uint8 images already at the cached size.

        Logits are finite: where the network's are not, every class gets the same.

        Args:
            pixels_NHWC: the images, (N, H, W, 3); may be memory-mapped.
            views: which views.
            rows: which of the images, (n,); None for all of them.
            progress: called with the images done.
        Raises:
            RunError: the reference does not fit the network.
        """
        reference = self.reference
        layer = None if reference is None else reference.layer
        logits_VNK, features_ND = self._computed(pixels_NHWC, views, layer, rows, progress)
        if reference is None:
            return Outputs(logits_VNK)
        return Outputs(logits_VNK, reference.distances(features_ND), reference.energy_weight)

    def features_at(
        self, layer: str, pixels_NHWC: Array, rows: Array, progress: Callable[[int], None] | None = None
    ) -> Array:
        """Return the features that a reference is fitted to, (n, D), of rows of uint8 images."""
        return self._computed(pixels_NHWC, "one", layer, rows, progress)[1]

    def _computed(
        self,
        pixels_NHWC: Array,
        views: Views,
        layer: str | None,
        rows: Array | None,
        progress: Callable[[int], None] | None,
    ) -> tuple[Array, Array]:
        """Return logits, and the features of the first view at a layer; of none where no layer is named."""
        rows = np.arange(len(pixels_NHWC)) if rows is None else rows
        watched = {} if layer is None else {layer: self.network.get_submodule(layer)}
        logits, features = [], []
        step = BATCH // VIEWS[views] if self.device.type == "cpu" else AT_ONCE
        with torch.inference_mode(), self.autocast():
            for start in range(0, len(rows), step):
                adjust_threads()
                images = self.prepare(pixels_NHWC[rows[start : start + step]])
                with recorded(watched, lambda inputs, output: (inputs, output)) as calls:
                    logits.append(logits_of_views(self.network, images, views).cpu())
                features += [features_of(name, *call, len(images)) for name, call in calls[-1:]]
                if progress:
                    progress(min(start + step, len(rows)))
        logits_VNK = torch.cat(logits, 1) + torch.from_numpy(self.prior_shift(views))
        # the arithmetic may overflow though all weights are finite
        logits_VNK = torch.where(torch.isfinite(logits_VNK).all(-1, keepdim=True), logits_VNK, 0.0)
        return logits_VNK.numpy(), np.concatenate(features) if features else np.zeros((0, 0), np.float32)

    def prior_shift(self, views: Views) -> Array:
        """Return what the known frequencies of classes add to the logits of views, (K,), in float32; zeros before."""
        shift: list[float] | None = self.model.get("prior_shift")
        if shift is None:
            return np.zeros(len(self.classes), np.float32)
        return np.asarray(shift, np.float32) * np.float32(self.model["temperatures"][views])

    def prepare(self, pixels_BHWC: Array) -> torch.Tensor:
        """Return uint8 images of the cached size as the network reads them, (B, 3, H, W), on its device."""
        pixels = torch.from_numpy(pixels_BHWC).to(self.device)
        return normalize(center(pixels, self.size), self.mean, self.std, self.dtype)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the number format of the arithmetic, as a context."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
