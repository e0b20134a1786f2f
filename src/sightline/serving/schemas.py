"""The types of the service: what a caller sends and what is answered. FastAPI validates and describes by them."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from sightline.config.explaining import Method
from sightline.config.serving import ServeConfig
from sightline.inference.views import Views
from sightline_runtime.conformal import COVERAGES

__all__ = ["ERRORS", "EXPLAINED", "Answers", "Error", "Health", "Model", "Question", "describe_model"]

EXPLAINED = (
    16  # images of a request that are explained, at most: a map costs up to a thousand times what an answer does
)
ERRORS = {
    400: "The form is broken, holds no image, or has a field that is unknown or there twice.",
    401: "The token is missing or wrong.",
    403: "A page of another site asks, or the request was sent to a name that is not this machine's.",
    404: "There is no such path.",
    405: "The path has no such method.",
    408: "The body did not come.",
    413: "Too many bytes or pixels.",
    415: "The body is no form.",
    422: "An image cannot be read, there are too many of them, or a field has a value that is unknown or of no effect.",
    500: "Something went wrong in the server.",
    503: "Too many requests wait; `Retry-After` says after how many seconds to come again.",
}
"""What each status of an error means."""


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────────


def _digits(value: object) -> object:
    return value if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else None


def _coverage(value: object) -> object:
    """Return one of ``COVERAGES``, as the literal that means it; None where there is none."""
    known = (one for one in COVERAGES if re.fullmatch(rf"0?{re.escape(f'{one:g}'[1:])}0*", str(value)))
    return next(known, None)


ABSENT: Any = Field(default_factory=lambda: None)  # what a schema does not call null
Coverage = Annotated[float, BeforeValidator(_coverage), Field(json_schema_extra={"enum": list(COVERAGES)})]


class Described(BaseModel):
    """A type whose fields are described by the docstrings below them."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Question(Described):
    """Images, and what is asked about them."""

    model_config = ConfigDict(extra="forbid")

    images: list[UploadFile] = Field(min_length=1)
    """Files of images, in their order."""
    top: Annotated[int, Field(ge=1, le=999_999_999), BeforeValidator(_digits)] = 5
    """Classes to name for each image, at most."""
    views: Views | SkipJsonSchema[None] = ABSENT
    """Views of an image to average; without it those of the classifier's recipe."""
    coverage: Coverage | SkipJsonSchema[None] = ABSENT
    """Also give the set of classes that holds the true one this often."""
    explain: Method | SkipJsonSchema[None] = ABSENT
    """Also show which pixels spoke for the class."""
    layer: str | SkipJsonSchema[None] = ABSENT
    """Layer whose map `explain=grad_cam` shows; without it a fitting one."""
    target: str | SkipJsonSchema[None] = ABSENT
    """Class that `explain` asks about; without it the most probable one."""


# ── what is answered ─────────────────────────────────────────────────────────────────────────────────────────────────

Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Identified(Described):
    """An answer with the id of its request."""

    request_id: str
    """Also the header X-Request-Id; the server's log has it."""


class Error(Identified):
    """Why a request was refused."""

    error: str
    """What was found, what was wanted, what to do."""


class Chance(Described):
    """A class with its probability."""

    class_: str = Field(alias="class")
    probability: Probability


class Explanation(Described):
    """A map of the pixels that spoke for a class."""

    method: Method
    class_: str = Field(alias="class")
    """The class that was asked about."""
    overlay: str
    """A PNG as a data URI: the image as the network sees it, brighter where it speaks for the class."""


class Answer(Described):
    """The answer of a classifier to an image."""

    file: str
    """Base name of the file."""
    class_: str = Field(alias="class")
    """The most probable class."""
    probability: Probability
    """Of that class, calibrated."""
    classes: list[Chance]
    """The most probable classes, as many as `top` asks for."""
    none_of_these: bool | None
    """Whether the image looks like none of the classes; null of a classifier that cannot say."""
    set: list[str] | SkipJsonSchema[None] = ABSENT
    """Classes that hold the true one as often as `coverage` asks for; may be empty."""
    explanation: Explanation | SkipJsonSchema[None] = ABSENT


class Answers(Identified):
    """The answers of a classifier to images."""

    images: list[Answer]
    """In the order in which they were sent."""
    views: Views
    """Views of each image that were averaged."""


class Health(Identified):
    """The state of the server."""

    status: Literal["ok"]
    uptime_seconds: Annotated[float, Field(ge=0)]
    waiting_images: Count
    """Images that are not answered yet."""


class Accuracy(Described):
    """Accuracy on images that the classifier did not learn from."""

    value: Probability
    interval: tuple[Probability, Probability] | None
    """95 %."""
    n: Count
    split: str | None


class Calibration(Described):
    """The scaling of the probabilities, and how far they are off."""

    temperatures: dict[str, float]
    """By views."""
    n: int | None
    """Images that it was calibrated on."""
    error: float | None
    """Expected calibration error, as measured with accuracy."""


class Rate(Described):
    """The share of a set of images that is called none of the classes."""

    n: Count
    rate: Probability


class Unknown(Described):
    """The share of images of other kinds that are called none of the classes."""

    share_of_own: Probability
    rates: dict[str, Rate]
    """By set."""


class Limits(Described):
    """Limits of a request."""

    megabytes: float
    """Of the request."""
    images: Count
    megapixels: float
    """Of an image."""
    explained_images: Count
    """Images of a request with `explain`."""


class Model(Identified):
    """The classifier: its network, its classes, and how good it is."""

    classes: list[str]
    """In the order of their indices."""
    size: tuple[int, int]
    """Height and width of what the network sees, in pixels."""
    views: str
    """Views of an image that are averaged unless others are asked for."""
    parameters: int | None
    accuracy: Accuracy | None
    """Null if it was not measured."""
    calibration: Calibration
    unknown: Unknown | None
    """Null if it cannot say."""
    coverages: list[Probability]
    """Of prediction sets that can be asked for."""
    methods: list[str]
    """Explanations that can be asked for."""
    versions: dict[str, str | None]
    """That it was trained with."""
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
        "limits": {
            "megabytes": limits.max_megabytes,
            "images": limits.max_images,
            "megapixels": limits.max_megapixels,
            "explained_images": EXPLAINED,
        },
    }
