"""The service of a finished classifier: that of ``sightline_runtime.serving.service``, with explanations.

Numbers are those of ``sightline predict``. B images, height H, width W.
"""

import asyncio
import base64
import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI
from PIL import Image

from sightline.config.explaining import METHODS, SIGNED, AttributionConfig, refuse_unknown_class
from sightline.config.serving import ServeConfig
from sightline.display.pages import render
from sightline.display.pictures import overlaid
from sightline.display.terminal import show
from sightline.errors import ConfigError
from sightline.inference.classifier import Classifier
from sightline.machine.extras import own_version
from sightline.serving.maps import Maps, explain, seen
from sightline.serving.schemas import EXPLAINED, Answers, Model, Question, describe_model
from sightline_runtime.serving import service as base
from sightline_runtime.serving.schemas import ERRORS
from sightline_runtime.serving.worker import Asker

__all__ = ["build_service"]

Array = np.ndarray[Any, Any]


def build_service(
    asker: Asker[Classifier], limits: ServeConfig, log: Callable[[str], None] = lambda line: show(line, error=True)
) -> FastAPI:
    """Make the service of a classifier, as ``sightline_runtime.serving.service`` does.

    Args:
        asker: asks the classifier; it is not closed here.
        limits: whom to answer, and how much to take.
        log: is given a line for each request.
    """
    return base.build_service(Predictor(asker, limits), own_version(), log)


class Predictor(base.Predictor):
    """Answers questions about images, and explains the answers."""

    question, answers, model = Question, Answers, Model
    words = {"explain": METHODS}  # noqa: RUF012  # as the base has it

    def __init__(self, asker: Asker[Classifier], limits: ServeConfig) -> None:
        super().__init__(asker, limits)
        self.trained = asker.classifier
        self.config = limits
        self.maps = Maps(asker)

    def described(self) -> dict[str, Any]:
        return describe_model(self.trained.model, self.config, self.maps.methods)

    def page(self, base: str, described: Mapping[str, Any]) -> str:
        content = {
            "base": base,
            "token": self.limits.token is not None,
            "model": described,
            "fields": {name: field for name, field in Question.model_fields.items() if name != "images"},
            "errors": ERRORS,
            "limits": self.limits,
            "explained": EXPLAINED,
        }
        return render("service.html", **content)

    def narrow(self, schema: dict[str, Any]) -> None:
        super().narrow(schema)
        self.narrow_words(schema, "explain", self.maps.methods)
        self.narrow_words(schema, "layer", [layer.name for layer in self.maps.layers])
        self.narrow_words(schema, "target", self.trained.classes)
        schema["dependentRequired"] = {"layer": ["explain"], "target": ["explain"]}
        images = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
        schema["dependentSchemas"] = {
            "layer": {"properties": {"explain": {"const": "grad_cam"}}},
            "explain": {"properties": {"images": images | {"maxItems": EXPLAINED}}},
        }

    def refuse_unfit(self, question: Question) -> None:  # type: ignore[override]  # the one that it named
        classifier, method = self.trained, question.explain
        idle = [name for name in ("layer", "target") if getattr(question, name) is not None]
        if method is None and idle:
            raise ConfigError(
                f"{' and '.join(idle)} without explain has no effect; add explain=grad_cam, or leave it out."
            )
        if question.target is not None:
            refuse_unknown_class(question.target, classifier.classes)
        if method is not None:
            AttributionConfig(layer=question.layer).refuse_unused([method])
            if len(question.images) > EXPLAINED:
                raise ConfigError(
                    f"{len(question.images)} images to explain; at most {EXPLAINED} are explained in a request."
                )
            if reason := self.maps.left_out.get(method):
                raise ConfigError(f"{method} cannot be given here: {reason}.")
        super().refuse_unfit(question)

    async def add(self, images: list[dict[str, Any]], pixels_BHWC: Array, question: Question) -> None:  # type: ignore[override]
        if question.explain is not None:
            for image, pixels_HWC in zip(images, pixels_BHWC, strict=True):  # one at a time: others have their turn
                work = partial(_explained, self.trained, pixels_HWC, question)
                image["explanation"] = await asyncio.wrap_future(self.asker.do(work))


def _explained(classifier: Classifier, pixels_HWC: Array, question: Question) -> dict[str, Any]:
    """Return which pixels of an image at the cached size speak for a class. Only on the thread of an ``Asker``."""
    assert question.explain is not None
    image = explain(classifier, pixels_HWC, question.explain, question.layer, question.target)
    heat_HW = image.explanations[0].map_HW
    if question.explain in SIGNED:
        heat_HW = np.maximum(heat_HW, 0)  # what speaks for the class, as with the other methods
    file = io.BytesIO()
    Image.fromarray(overlaid(seen(classifier, pixels_HWC), heat_HW)).save(file, "PNG")
    overlay = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"method": question.explain, "class": image.label, "overlay": overlay}
