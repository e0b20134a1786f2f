"""Ask a classifier which pixels spoke for a class. B images, H × W pixels, K classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.config import ALL, AttributionConfig, Method, index_of_class, methods_of
from sightline.data.augment.augment import centre, normalize
from sightline.errors import ConfigError
from sightline.explanation.attribution import Attribution, attribute
from sightline.explanation.faithfulness import Faithfulness, measure_faithfulness, random_maps
from sightline.explanation.requirements import refuse_unfit
from sightline.inference.classifier import Classifier
from sightline.machine.extras import refuse_missing_captum

__all__ = ["ExplainedImage", "Explainer", "Explanation"]

RANDOM = "random"  # what stands in for a method's name where the map is random

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Explanation:
    """One image by one method."""

    method: Method
    map_HW: Array
    """float32; see ``attributing`` for what its numbers are."""
    gap: float | None
    """Share of the difference to the mean image that the map fails to add up to, where the method promises a sum."""
    deletion: float | None
    """Area under the deletion curve, None where it was not asked for; lower is better."""
    insertion: float | None
    """Area under the insertion curve; higher is better."""


@dataclass(frozen=True)
class ExplainedImage:
    """What the methods say of one image."""

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
    """Asks a classifier which pixels spoke for a class."""

    def __init__(
        self, classifier: Classifier, methods: Sequence[str], settings: AttributionConfig | None = None
    ) -> None:
        """
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
            try:
                refuse_unfit(method, classifier.network, plain, self.settings)
            except ConfigError as error:
                if list(methods) != [ALL] or self._reads_setting(method):
                    raise
                self.left_out[method] = str(error)
        self.methods = tuple(method for method in names if method not in self.left_out)

    def _reads_setting(self, method: Method) -> bool:
        """Whether a method was given a setting of its own: it is then not left out silently."""
        return (method == "grad_cam" and self.settings.layer is not None) or (
            method == "occlusion" and self.settings.window is not None
        )

    def images(self, pixels_BHWC: Array) -> Tensor:
        """uint8 images at the cached size to what the network is given, (B, 3, H, W), in float32."""
        asked = self.classifier
        pixels = torch.from_numpy(pixels_BHWC).to(asked.device)
        return normalize(centre(pixels, asked.size), asked.mean, asked.std, torch.float32)

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
        asked = self.classifier
        chances_BK = asked.probabilities(pixels_BHWC)
        predicted_B = chances_BK.argmax(axis=1)
        chosen_B = predicted_B
        if target is not None:
            chosen_B = np.full_like(predicted_B, index_of_class(target, asked.classes))
        images_BCHW, classes_B = self.images(pixels_BHWC), torch.from_numpy(chosen_B).to(asked.device)
        found: dict[str, list[Explanation]] = {}
        for method in self.methods:
            maps = attribute(method, asked.network, images_BCHW, classes_B, self.settings)
            found[method] = self._measured(method, images_BCHW, classes_B, maps, faithfulness)
        if faithfulness:
            nothing = Attribution(random_maps(images_BCHW), None)
            found[RANDOM] = self._measured(RANDOM, images_BCHW, classes_B, nothing, True)
        return [
            ExplainedImage(
                asked.classes[chosen_B[i]],
                float(chances_BK[i, chosen_B[i]]),
                asked.classes[predicted_B[i]],
                [found[method][i] for method in self.methods],
                found[RANDOM][i] if faithfulness else None,
            )
            for i in range(len(pixels_BHWC))
        ]

    def _measured(
        self, method: str, images_BCHW: Tensor, classes_B: Tensor, maps: Attribution, faithfulness: bool
    ) -> list[Explanation]:
        areas: Faithfulness | None = None
        if faithfulness:
            areas = measure_faithfulness(self._probabilities, images_BCHW, classes_B, maps.maps_BHW)
        return [
            Explanation(
                method,  # type: ignore[arg-type]
                map_HW.float().cpu().numpy(),
                None if maps.gaps_B is None else float(maps.gaps_B[i]),
                None if areas is None else float(areas.deletion_B[i]),
                None if areas is None else float(areas.insertion_B[i]),
            )
            for i, map_HW in enumerate(maps.maps_BHW)
        ]

    def _probabilities(self, images_BCHW: Tensor) -> Tensor:
        """Calibrated probabilities of one view, (B, K), in float32: what the curves are made of."""
        temperatures = self.classifier.model["temperatures"]
        logits_BK: Tensor = self.classifier.network(images_BCHW)
        chances_BK: Tensor = (logits_BK.float() / temperatures["one"]).softmax(dim=1)
        return chances_BK
