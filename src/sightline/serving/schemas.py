"""The types of the service with explanations; FastAPI validates and describes by them."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

import sightline_runtime.serving.schemas as base
from sightline.config.explaining import Method
from sightline.config.serving import ServeConfig
from sightline_runtime.conformal import COVERAGES
from sightline_runtime.serving.schemas import ABSENT, Count, Described, Probability, describe_limits

__all__ = ["EXPLAINED", "Answers", "Model", "Question", "describe_model"]

EXPLAINED = (
    16  # images of a request that are explained, at most: a map costs up to a thousand times what an answer does
)


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────────


class Question(base.Question):
    """Images, and what is asked about them."""

    explain: Method | SkipJsonSchema[None] = ABSENT
    """Also show which pixels spoke for the class."""
    layer: str | SkipJsonSchema[None] = ABSENT
    """Layer whose map `explain=grad_cam` shows; without it a fitting one."""
    target: str | SkipJsonSchema[None] = ABSENT
    """Class that `explain` asks about; without it the most probable one."""


# ── what is answered ─────────────────────────────────────────────────────────────────────────────────────────────────


class Explanation(Described):
    """A map of the pixels that spoke for a class."""

    method: Method
    class_: str = Field(alias="class")
    """The class that was asked about."""
    overlay: str
    """A PNG as a data URI: the image as the network sees it, brighter where it speaks for the class."""


class Answer(base.Answer):
    """The answer of a classifier to an image."""

    explanation: Explanation | SkipJsonSchema[None] = ABSENT


class Answers(base.Answers):
    """The answers of a classifier to images."""

    images: list[Answer]  # type: ignore[assignment]
    """In the order in which they were sent."""


class Rate(Described):
    """The share of a set of images that is called none of the classes."""

    n: Count
    rate: Probability


class Unknown(Described):
    """The share of images of other kinds that are called none of the classes."""

    share_of_own: Probability
    rates: dict[str, Rate]
    """By set."""


class Limits(base.Limits):
    """Limits of a request."""

    explained_images: Count
    """Images of a request with `explain`."""


class Model(base.Model):
    """The classifier: its network, its classes, and how good it is."""

    parameters: int | None
    unknown: Unknown | None
    """Null if it cannot say."""
    methods: list[str]
    """Explanations that can be asked for."""
    limits: Limits


def describe_model(model: dict[str, Any], limits: ServeConfig, methods: Sequence[str]) -> dict[str, Any]:
    """Return what of ``model.json`` is for everyone: what is named here, and no folder of the machine.

    Args:
        model: of a classifier.
        limits: of the server.
        methods: of explanation that it has what it takes for.
    """
    metrics, trust = model.get("metrics") or {}, model.get("trust")
    accuracy = {"value": metrics["accuracy"], "n": metrics["n"]} if metrics else None
    if accuracy:  # of earlier versions some are missing
        accuracy |= {"interval": metrics.get("accuracy_interval"), "split": metrics.get("split")}
    calibration = {"temperatures": model["temperatures"], "n": model.get("calibrated_on")}
    return {
        **{name: model[name] for name in ("classes", "size", "views")},
        "parameters": model.get("parameters"),
        "accuracy": accuracy,
        "calibration": calibration | {"error": metrics.get("calibration_error")},
        "unknown": trust and {name: trust["unknown"][name] for name in ("share_of_own", "rates")},
        "coverages": list(COVERAGES) if trust else [],
        "methods": list(methods),
        "versions": model.get("versions", {}),
        "limits": describe_limits(limits) | {"explained_images": EXPLAINED},
    }
