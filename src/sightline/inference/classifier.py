"""A finished classifier: a plain network with what it knows of itself. B images, height H, width W, K classes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sightline.data.augment.augment import center, normalize
from sightline.data.batches import Normalization
from sightline.inference.ood import Reference, features_of
from sightline.inference.views import VIEWS, Views, combine, decide, logits_of_views, unsure
from sightline.machine.cores import adjust_threads
from sightline.machine.devices import arithmetic
from sightline.measures.metrics import energies, probabilities
from sightline.models.base import Network, recorded
from sightline_runtime.answering import AT_ONCE, Answering
from sightline_runtime.conformal import image_uniforms
from sightline_runtime.decoding.preprocessing import preprocessing_of
from sightline_runtime.predictions import Prediction

__all__ = ["BATCH", "Classifier", "Outputs"]

Array = np.ndarray[Any, Any]
BATCH = 256  # images; larger batches fall out of the processor's cache


@dataclass(frozen=True)
class Outputs:
    """What a classifier computes of images, before it is compared with any threshold."""

    logits_VNK: Array
    distances_N: Array | None = None
    """From the reference of ``inference.ood``, of the first view; None of a classifier without one."""
    energy_weight: float = 0.0
    """Of the reference."""
    energies_N: Array | None = None
    """Of adaptive views: of the logits of as many views as each image was shown."""
    asked_N: Array | None = None
    """Of adaptive views: which images were shown again, bool."""

    def unknown_scores(self, views: Views) -> Array:
        """Return how little each image looks like the training images, (N,)."""
        energies_N = energies(combine(self.logits_VNK, views)) if self.energies_N is None else self.energies_N
        return energies_N if self.distances_N is None else self.distances_N + self.energy_weight * energies_N


class Classifier(Answering):
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

    def answers(
        self, pixels_BHWC: Array, views: Views | None = None, *, coverage: float | None = None
    ) -> list[Prediction]:
        """Return the predictions for uint8 images already at the cached size; arguments as ``predict`` has them."""
        views = self.calibrated(views)
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
        scores_B = None if self.trust is None else outputs.unknown_scores(views)
        return self.judged(chances_BK, scores_B, views, coverage, uniforms_B)

    def probabilities(self, pixels_BHWC: Array, views: Views | None = None) -> Array:
        """Return calibrated probabilities, (B, K), of uint8 images already at the cached size.

        Raises:
            ConfigError: the classifier was not calibrated for these views.
        """
        views = self.calibrated(views)
        return probabilities(combine(self.view_logits(pixels_BHWC, views), views), self.model["temperatures"][views])

    @property
    def temperatures(self) -> dict[Views, float]:
        """By the views that it was calibrated for."""
        temperatures: dict[Views, float] = self.model["temperatures"]
        return temperatures

    @property
    def set_limits(self) -> dict[Views, dict[str, float | None]] | None:
        """Limits of prediction sets, by views and coverage; None of a run from before there were any."""
        return None if self.trust is None else self.trust["sets"]["thresholds"]

    @property
    def unknown_limits(self) -> dict[Views, float] | None:
        """Scores above which an image is none of the classes, by views."""
        return None if self.trust is None else self.trust["unknown"]["thresholds"]

    @property
    def trust(self) -> dict[str, Any] | None:
        """Return ``trust`` of ``model.json``; None where a threshold is missing, as in runs from before there were
        any.
        """
        trust = self.model.get("trust") or {}
        limits = [(trust.get(part) or {}).get("thresholds", {}) for part in ("sets", "unknown")]
        return trust if all(self.model["temperatures"].keys() <= views.keys() for views in limits) else None

    @property
    def adaptive_threshold(self) -> float | None:
        """Return the probability below which an image is shown again; None without adaptive views."""
        adaptive = (self.model.get("trust") or {}).get("adaptive")
        return None if adaptive is None else float(adaptive["threshold"])

    def view_logits(
        self,
        pixels_NHWC: Array,
        views: Views,
        *,
        rows: Array | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Array:
        """Return logits of each view, (V, N, K), in float32, as ``outputs`` does."""
        if views == "adaptive":
            return self.outputs(pixels_NHWC, views, rows=rows, progress=progress).logits_VNK
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

        Of adaptive views there are two rows of logits: the first view, and what decides. Logits are finite: where the
        network's are not, every class gets the same.

        Args:
            pixels_NHWC: the images, (N, H, W, 3); may be memory-mapped.
            views: which views.
            rows: which of the images, (n,); None for all of them.
            progress: called with the images done.
        Raises:
            RunError: the reference does not fit the network.
        """
        if views == "adaptive":
            return self._adaptive_outputs(pixels_NHWC, rows, progress)
        reference = self.reference
        layer = None if reference is None else reference.layer
        logits_VNK, features_ND = self._computed(pixels_NHWC, views, layer, rows, progress)
        if reference is None:
            return Outputs(logits_VNK)
        return Outputs(logits_VNK, reference.distances(features_ND), reference.energy_weight)

    def _adaptive_outputs(
        self, pixels_NHWC: Array, rows: Array | None, progress: Callable[[int], None] | None
    ) -> Outputs:
        """Show every image once, and the other five views of those that it is unsure of."""
        rows = np.arange(len(pixels_NHWC)) if rows is None else rows
        temperatures, threshold = self.model["temperatures"], self.adaptive_threshold
        assert threshold is not None  # where there is a temperature for it
        first = self.outputs(pixels_NHWC, "one", rows=rows, progress=progress)
        one_NK = first.logits_VNK[0]
        asked_N = unsure(probabilities(one_NK, temperatures["one"]), threshold)
        six_NK = one_NK.copy()
        if asked_N.any():
            others_VNK, _ = self._computed(pixels_NHWC, "six", None, rows[asked_N], None, first=1)
            shifted_NK = one_NK[asked_N] + (self.prior_shift("six") - self.prior_shift("one"))
            six_NK[asked_N] = combine(np.concatenate([shifted_NK[None], others_VNK]), "six")
        decided_NK = decide(one_NK, six_NK, asked_N, temperatures["one"], temperatures["six"])
        energies_N = energies(six_NK)  # of images that are not shown again those of one view
        return Outputs(np.stack([one_NK, decided_NK]), first.distances_N, first.energy_weight, energies_N, asked_N)

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
        first: int = 0,
    ) -> tuple[Array, Array]:
        """Return logits, and the features of the first view at a layer; of none where no layer is named."""
        rows = np.arange(len(pixels_NHWC)) if rows is None else rows
        watched = {} if layer is None else {layer: self.network.get_submodule(layer)}
        logits, features = [], []
        step = BATCH // VIEWS[views] if self.device.type == "cpu" else AT_ONCE  # a GPU
        with torch.inference_mode(), self.autocast():
            for start in range(0, len(rows), step):
                adjust_threads()
                images = self.prepare(pixels_NHWC[rows[start : start + step]])
                with recorded(watched, lambda inputs, output: (inputs, output)) as calls:
                    logits.append(logits_of_views(self.network, images, views, first).cpu())
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
