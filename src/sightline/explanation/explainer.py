"""Ask a classifier which pixels spoke for a class. B images, H × W pixels, K classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.config.explaining import ALL, AttributionConfig, Method, index_of_class, methods_of
from sightline.data.augment.augment import center, normalize
from sightline.errors import ConfigError
from sightline.explanation.attribution import Attribution, attribute
from sightline.explanation.faithfulness import measure_faithfulness, random_maps
from sightline.explanation.requirements import refuse_unfit
from sightline.inference.classifier import Classifier
from sightline.machine.extras import refuse_missing_captum

__all__ = ["ExplainedImage", "Explainer", "Explanation", "quick_method", "what_spoke"]

RANDOM = "random"  # what stands in for a method's name where the map is random

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Explanation:
    """One image by one method."""

    method: str
    """Name of the method, or ``random``."""
    map_HW: Array
    """float32; see ``attribution`` for what its numbers are."""
    gap: float | None
    """Share of the difference to the mean image that the map fails to add up to, where the method promises a sum."""
    deletion: float | None
    """Area under the deletion curve, None where it was not asked for; lower is better."""
    insertion: float | None
    """Area under the insertion curve; higher is better."""


@dataclass(frozen=True)
class ExplainedImage:
    """Explanations of one image by all methods."""

    label: str
    """The class that was asked about."""
    probability: float
    """Of that class, as ``predict`` gives it."""
    predicted: str
    """The most probable class."""
    explanations: list[Explanation]
    random: Explanation | None
    """A random map, with its areas, to compare with; None where none were asked for."""


class Explainer:
    """Explains images by a classifier: which pixels spoke for a class."""

    def __init__(
        self, classifier: Classifier, methods: Sequence[str], settings: AttributionConfig | None = None
    ) -> None:
        """Choose the methods, and refuse what the network lacks something for.

        Args:
            classifier: from ``load``.
            methods: names, or ``all`` for those that the network has what it takes for.
            settings: numbers of the methods.
        Raises:
            ConfigError: the network lacks what a method needs, or a setting has no effect.
        """
        self.classifier = classifier
        self.settings = settings or AttributionConfig()
        names = methods_of(methods)
        self.settings.refuse_unused(names)
        refuse_missing_captum(names)
        self.left_out: dict[Method, str] = {}
        plain = torch.zeros(1, 3, *classifier.size, device=classifier.device)
        for method in names:
            of_its_own = {"grad_cam": self.settings.layer, "occlusion": self.settings.window}.get(method)
            try:
                refuse_unfit(method, classifier.network, plain, self.settings)
            except ConfigError as error:
                if list(methods) != [ALL] or of_its_own is not None:  # whoever set it wants the method
                    raise
                self.left_out[method] = str(error)
        self.methods = tuple(method for method in names if method not in self.left_out)

    def images(self, pixels_BHWC: Array) -> Tensor:
        """Turn uint8 images at the cached size into what the network is given, (B, 3, H, W), in float32."""
        classifier = self.classifier
        pixels = torch.from_numpy(pixels_BHWC).to(classifier.device)
        return normalize(center(pixels, classifier.size), classifier.mean, classifier.std, torch.float32)

    def explain(
        self, pixels_BHWC: Array, target: str | None = None, *, faithfulness: bool = True
    ) -> list[ExplainedImage]:
        """Explain uint8 images already at the cached size.

        Args:
            pixels_BHWC: (B, H, W, 3).
            target: the class to ask about; None for the most probable of each image.
            faithfulness: also measure deletion and insertion, of each map and of a random one.
        Raises:
            ConfigError: there is no such class.
        """
        classes = self.classifier.classes
        chances_BK = self.classifier.probabilities(pixels_BHWC)
        predicted_B = chances_BK.argmax(axis=1)
        chosen_B = predicted_B
        if target is not None:
            chosen_B = np.full_like(predicted_B, index_of_class(target, classes))
        images_BCHW = self.images(pixels_BHWC)
        classes_B = torch.from_numpy(chosen_B).to(images_BCHW.device)

        def measured(method: str, maps: Attribution) -> list[Explanation]:
            areas = None
            if faithfulness:
                areas = measure_faithfulness(self._probabilities, images_BCHW, classes_B, maps.maps_BHW)
            return [
                Explanation(
                    method,
                    map_HW.float().cpu().numpy(),
                    None if maps.gaps_B is None else float(maps.gaps_B[i]),
                    None if areas is None else float(areas.deletion_B[i]),
                    None if areas is None else float(areas.insertion_B[i]),
                )
                for i, map_HW in enumerate(maps.maps_BHW)
            ]

        explanations = [
            measured(method, attribute(method, self.classifier.network, images_BCHW, classes_B, self.settings))
            for method in self.methods
        ]
        random: list[Explanation | None] = [None] * len(pixels_BHWC)
        if faithfulness:
            random[:] = measured(RANDOM, Attribution(random_maps(images_BCHW), None))
        return [
            ExplainedImage(
                classes[chosen],
                float(chances_K[chosen]),
                classes[predicted],
                [of_method[i] for of_method in explanations],
                random[i],
            )
            for i, (chosen, predicted, chances_K) in enumerate(zip(chosen_B, predicted_B, chances_BK, strict=True))
        ]

    def _probabilities(self, images_BCHW: Tensor) -> Tensor:
        """Compute calibrated probabilities of one view, (B, K), in float32: what the curves are made of."""
        temperatures = self.classifier.model["temperatures"]
        shift_K = torch.from_numpy(self.classifier.prior_shift("one")).to(images_BCHW.device)
        logits_BK: Tensor = self.classifier.network(images_BCHW).float() + shift_K
        chances_BK: Tensor = (logits_BK / temperatures["one"]).softmax(dim=1)
        return chances_BK


def quick_method(classifier: Classifier) -> Method:
    """Return the most faithful method that takes one pass: DeepLift, or Grad-CAM where that is not possible."""
    try:
        Explainer(classifier, ["deeplift"])
    except ConfigError:
        return "grad_cam"
    return "deeplift"


def what_spoke(classifier: Classifier, pixels_BHWC: Array, classes_B: Sequence[int], method: Method) -> Array:
    """Compute what spoke for classes of uint8 images at the cached size, (B, H, W), from 0 up.

    Args:
        classifier: from ``load``.
        pixels_BHWC: the images, (B, H, W, 3).
        classes_B: an index for each.
        method: see ``quick_method``.
    Raises:
        ConfigError: the network has no map of the images.
    """
    explainer = Explainer(classifier, [method])
    images_BCHW = explainer.images(pixels_BHWC)
    classes = torch.tensor(classes_B, device=images_BCHW.device)
    maps_BHW = attribute(method, classifier.network, images_BCHW, classes, explainer.settings).maps_BHW
    positive: Array = maps_BHW.float().clamp(min=0).cpu().numpy()
    return positive
