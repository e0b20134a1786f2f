"""Explanations for the page: which ones a classifier can give, and the maps themselves. B images, H × W pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sightline.config import METHODS, AttributionConfig, Method
from sightline.errors import ConfigError
from sightline.explanation.explain import ExplainedImage, Explainer
from sightline.explanation.requirements import layer_named
from sightline.inference.classifier import Classifier
from sightline.machine.extras import refuse_missing_captum
from sightline.models.gradcam import grad_cam, map_sizes
from sightline.serving.worker import Asker

__all__ = ["Layer", "Maps"]

AT_ONCE = 8  # images of a gallery that the network is kept for before others have their turn
STEPS = 64  # of integrated gradients: an image that asks for thousands would keep the others waiting

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """A layer whose map Grad-CAM can show."""

    name: str
    size: tuple[int, int]
    """(h, w) of its map."""
    default: bool


class Maps:
    """Asks a classifier for explanations, on the thread that owns its network."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self.methods: tuple[Method, ...]
        """Those that the network has what it takes for and whose library is installed; Grad-CAM first."""
        self.left_out: dict[Method, str]
        """The others, and why."""
        self.layers: list[Layer]
        """Coarse to fine."""
        self.left_out, self.layers = asker.do(lambda: _possible(asker.classifier)).result()
        fit = [method for method in METHODS if method not in self.left_out]
        self.methods = tuple(sorted(fit, key=lambda method: method != "grad_cam"))

    def explain(self, pixels_HWC: Array, method: Method, layer: str | None, target: str | None) -> ExplainedImage:
        """Explain a uint8 image at its cached size.

        Args:
            pixels_HWC: the image.
            method: one of ``methods``.
            layer: the layer of Grad-CAM, whatever the method; None for the one that it shows by default.
            target: the class that is asked about; None for the most probable.
        Raises:
            ConfigError: the layer gives no map, or another method lacks something.
        """
        settings = AttributionConfig(
            layer=layer if method == "grad_cam" else None, steps=STEPS if method == "integrated_gradients" else None
        )

        def work() -> ExplainedImage:
            explainer = Explainer(self._asker.classifier, [method], settings)
            return explainer.explain(pixels_HWC[None], target, faithfulness=False)[0]

        return self._asker.do(work).result()

    def grad_cams(self, pixels_BHWC: Sequence[Array], classes_B: Sequence[int]) -> list[Array]:
        """Grad-CAM of images at their cached size, each for a class by its index: maps, (H, W), from 0 up.

        Raises:
            ConfigError: the network has no map of the image.
        """
        found: list[Array] = []
        for start in range(0, len(pixels_BHWC), AT_ONCE):
            pixels, classes = pixels_BHWC[start : start + AT_ONCE], classes_B[start : start + AT_ONCE]
            found += self._asker.do(lambda pixels=pixels, classes=classes: self._some(pixels, classes)).result()  # type: ignore[misc]
        return found

    def _some(self, pixels_BHWC: Sequence[Array], classes_B: Sequence[int]) -> list[Array]:
        classifier = self._asker.classifier
        images_BCHW = Explainer(classifier, ["grad_cam"]).images(np.stack(pixels_BHWC))
        layer = layer_named(classifier.network, None, images_BCHW)
        classes = torch.tensor(classes_B, device=classifier.device)
        return list(grad_cam(classifier.network, images_BCHW, classes, layer).cpu().numpy())


def _possible(classifier: Classifier) -> tuple[dict[Method, str], list[Layer]]:
    """The methods that are left out, with why, and the layers of Grad-CAM."""
    left_out: dict[Method, str] = {}
    for method in METHODS:
        try:
            refuse_missing_captum([method])
        except ConfigError:
            left_out[method] = "captum is not installed"
            continue
        try:
            Explainer(classifier, [method])
        except ConfigError as error:
            left_out[method] = str(error).removesuffix(".")
    plain = torch.zeros(1, 3, *classifier.size, device=classifier.device)
    sizes = map_sizes(classifier.network, plain)
    names = {module: name for name, module in classifier.network.named_modules() if module in sizes}
    try:
        default = layer_named(classifier.network, None, plain)
        grad_cam(classifier.network, plain, torch.zeros(1, dtype=torch.long, device=classifier.device), default)
    except (ConfigError, ValueError) as error:
        return left_out | {"grad_cam": str(error)}, []
    layers = [layer for layer in classifier.network.cam_layers if layer in names]
    return left_out, [Layer(names[layer], sizes[layer], layer is default) for layer in layers]
