"""Explanations of a server: which ones a classifier can give, and the maps themselves. B images, H × W pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from sightline.config.explaining import FAITHFUL, METHODS, AttributionConfig, Method
from sightline.data.augment.augment import center
from sightline.errors import ConfigError
from sightline.explanation.explainer import ExplainedImage, Explainer, what_spoke
from sightline.explanation.requirements import layer_named
from sightline.inference.classifier import Classifier
from sightline.machine.extras import refuse_missing_captum
from sightline.models.gradcam import grad_cam, map_sizes
from sightline_runtime.serving.worker import Asker

__all__ = ["Layer", "Maps", "explain", "seen"]

AT_ONCE = 8  # images of a gallery that the network is kept for before others have their turn

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """A layer whose map Grad-CAM can show."""

    name: str
    size: tuple[int, int]
    """(h, w) of its map."""
    default: bool


class Maps:
    """The explanations that a classifier can give; they are computed on the thread that owns its network."""

    def __init__(self, asker: Asker[Classifier]) -> None:
        self._asker = asker
        self.left_out: dict[Method, str]
        """Methods that the network, or this machine, lacks something for, and what."""
        self.layers: list[Layer]
        """Coarse to fine."""
        self.left_out, self.layers = asker.do(lambda: _possible(asker.classifier)).result()
        self.methods = [method for method in FAITHFUL if method not in self.left_out]
        """The others, the most faithful first."""
        self.quick: Method | None = next((one for one in self.methods if one in ("deeplift", "grad_cam")), None)
        """The most faithful one that takes a single pass."""

    def quick_maps(self, pixels_BHWC: Sequence[Array], classes_B: Sequence[int]) -> list[Array]:
        """Return what spoke in images at their cached size, each for a class by its index: maps, (H, W), from 0 up.

        Raises:
            ConfigError: the network has no map of the image.
        """
        maps: list[Array] = []
        for start in range(0, len(pixels_BHWC), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            maps += self._asker.do(partial(self._some, pixels_BHWC[part], classes_B[part])).result()
        return maps

    def _some(self, pixels_BHWC: Sequence[Array], classes_B: Sequence[int]) -> list[Array]:
        assert self.quick is not None
        return list(what_spoke(self._asker.classifier, np.stack(pixels_BHWC), classes_B, self.quick))


def explain(
    classifier: Classifier,
    pixels_HWC: Array,
    method: Method,
    layer: str | None,
    target: str | None,
    steps: int | None = None,
) -> ExplainedImage:
    """Explain a uint8 image at its cached size. Only on the thread of an ``Asker``.

    Args:
        classifier: it is asked.
        pixels_HWC: the image.
        method: one that the classifier has what it takes for.
        layer: of Grad-CAM; None for the one that it shows by default.
        target: the class that is asked about; None for the most probable.
        steps: of integrated gradients; None for as many as it takes.
    Raises:
        ConfigError: the layer gives no map, or the method lacks something.
    """
    explainer = Explainer(classifier, [method], AttributionConfig(layer=layer, steps=steps))
    return explainer.explain(pixels_HWC[None], target, faithfulness=False)[0]


def seen(classifier: Classifier, pixels_HWC: Array) -> Array:
    """Return the part of an image at its cached size that the network sees, (H, W, 3), uint8."""
    middle: Array = center(torch.from_numpy(pixels_HWC[None]), classifier.size).numpy()[0]
    return middle


def _possible(classifier: Classifier) -> tuple[dict[Method, str], list[Layer]]:
    """Return the methods that are left out, with why, and the layers of Grad-CAM."""
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
    network, plain = classifier.network, torch.zeros(1, 3, *classifier.size, device=classifier.device)
    sizes = map_sizes(network, plain)
    names = {module: name for name, module in network.named_modules() if module in sizes}
    try:
        default = layer_named(network, None, plain)
        grad_cam(network, plain, torch.zeros(1, dtype=torch.long, device=classifier.device), default)
    except (ConfigError, ValueError) as error:
        return left_out | {"grad_cam": str(error)}, []
    layers = [Layer(names[layer], sizes[layer], layer is default) for layer in network.cam_layers if layer in names]
    return left_out, layers
