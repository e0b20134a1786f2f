"""The types of the service: what a caller sends and what is answered. FastAPI validates and describes by them."""

import re
from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from sightline_runtime.conformal import COVERAGES
from sightline_runtime.exported import ExportedClassifier
from sightline_runtime.serving.settings import ServiceLimits
from sightline_runtime.views import Views

__all__ = [
    "ABSENT",
    "ERRORS",
    "Answer",
    "Answers",
    "Count",
    "Described",
    "Error",
    "Health",
    "Identified",
    "Limits",
    "Model",
    "Probability",
    "Question",
    "describe_exported",
    "describe_limits",
]

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
    """Classes that hold the true one as often as `coverage` asks for; empty where no class is likely enough: the
    image needs a look."""


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
    """Accuracy on images that the classifier did not learn from, as its run measured it."""

    value: Probability
    interval: tuple[Probability, Probability] | None
    """95 %."""
    n: Count
    split: str | None
    """How the images were held out, such as test or cross-validation."""


class Calibration(Described):
    """The scaling of the probabilities, and how far they are off."""

    temperatures: dict[str, float]
    """By views."""
    n: int | None
    """Images that it was calibrated on."""
    error: float | None
    """Expected calibration error, as measured with accuracy."""


class Limits(Described):
    """Limits of a request."""

    megabytes: float
    """Of the request."""
    images: Count
    megapixels: float
    """Of an image."""


class Model(Identified):
    """The classifier: its network, its classes, and how good it is."""

    classes: list[str]
    """In the order of their indices."""
    size: tuple[int, int]
    """Height and width of what the network sees, in pixels."""
    views: str
    """Views of an image that are averaged unless others are asked for."""
    accuracy: Accuracy | None
    """Null if it was not measured on such images."""
    calibration: Calibration
    coverages: list[Probability]
    """Of prediction sets that can be asked for."""
    versions: dict[str, str | None]
    """That it was trained with."""
    limits: Limits


def describe_exported(classifier: ExportedClassifier, limits: ServiceLimits) -> dict[str, Any]:
    """Return what is known of an exported classifier, as ``Model`` has it."""
    metadata = classifier.metadata
    held_out = metadata.held_out
    return {
        "classes": metadata.classes,
        "size": classifier.resize,
        "views": metadata.views,
        "accuracy": held_out
        and {
            "value": held_out.accuracy,
            "interval": held_out.interval,
            "n": held_out.n,
            "split": held_out.split,
        },
        "calibration": {"temperatures": classifier.temperatures, "n": None, "error": None},
        "coverages": list(COVERAGES) if classifier.set_limits else [],
        "versions": {"sightline": metadata.sightline},
        "limits": describe_limits(limits),
    }


def describe_limits(limits: ServiceLimits) -> dict[str, Any]:
    """Return the limits of a request, as ``Limits`` has them."""
    return {
        "megabytes": limits.max_megabytes,
        "images": limits.max_images,
        "megapixels": limits.max_megapixels,
    }
