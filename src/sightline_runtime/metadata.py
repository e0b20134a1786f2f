"""What an exported classifier says of itself: JSON in the metadata of its ONNX file, checked when it is read."""

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from sightline_runtime.errors import RunError

__all__ = ["FORMAT", "KEY", "HeldOut", "Measured", "Metadata", "parse_metadata", "to_text"]

KEY = "sightline"
FORMAT = 1  # rises when an older reader could misread a file

Views = Literal["one", "flip", "six", "adaptive"]
Some = Annotated[int, Meta(ge=1, le=2**53)]
Share = Annotated[float, Meta(ge=0, le=1)]
Side = Annotated[int, Meta(ge=1, le=2048)]
Temperature = Annotated[float, Meta(ge=1e-3, le=1e3)]
Level = Annotated[float, Meta(ge=-1e6, le=1e6)]


class Measured(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Measures of this very file, before it got its name, against the network that it was made from."""

    data: str
    """Name of the image set."""
    split: str
    """Which of its images: validation, or others where there is none."""
    n: Some
    accuracy: Share
    interval: tuple[Share, Share]
    """Of the accuracy, 95 %."""
    reference_accuracy: Share
    """Of the network in float32, on the same images."""
    difference: Annotated[float, Meta(ge=-1, le=1)]
    """Of the two accuracies."""
    difference_interval: tuple[float, float]
    """Of the paired difference, 95 %."""
    equal_answers: Annotated[int, Meta(ge=0)]
    """Images of which both have the same most probable class."""
    largest_difference: Share
    """Of two probabilities of the same class and image."""
    equal_unknown: Annotated[int, Meta(ge=0)] | None = None
    """Images that both call none of the classes, or neither does; None of a classifier without a threshold."""


class HeldOut(Struct, kw_only=True, frozen=True):
    """Accuracy on images that the classifier did not learn from."""

    data: str
    """Name of the image set."""
    split: str
    """How its images were held out, such as test, validation or cross-validation."""
    n: Some
    accuracy: Share
    interval: tuple[Share, Share]
    """Of the accuracy, 95 %."""

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.accuracy:.4f} ({low:.4f} to {high:.4f}; {self.split} of {self.data}, n = {self.n:,})"


class Metadata(Struct, kw_only=True, frozen=True):
    """All that a file says of itself."""

    format: int
    sightline: str
    """Version that wrote it."""
    classes: Annotated[list[str], Meta(min_length=1)]
    """In the order of the probabilities."""
    height: Side
    """Of the pixels that the graph takes: images are resized to it, by the rule that ``fit`` names."""
    width: Side
    fit: Literal["crop", "squash", "pad"]
    intensity: Literal["upper bits", "own"] | tuple[float, float]
    """Which values of files with more than 8 bits a channel are shown as 0 and as 255."""
    views: Views
    """Which the graph averages unless it is asked for others."""
    temperatures: dict[Views, Temperature]
    prior_shift: list[Level] | None = None
    """Added to the scaled logits, by class."""
    sets: dict[Views, dict[str, float | None]] | None = None
    """Limits of prediction sets, by views and coverage; of None every class is within."""
    unknown: dict[Views, float] | None = None
    """Thresholds by views: an image whose score is above is none of the classes."""
    adaptive: Share | None = None
    """Probability below which an image is asked about again, by more views; None where it is not."""
    numbers: Literal["float32", "int8"]
    """Number format of the layers' arithmetic."""
    fingerprint: str
    """Of the images that the classifier was trained on."""
    measured: Measured
    learned: Annotated[int, Meta(ge=0)] | None = None
    """Images of ``measured`` that the classifier learned from; None where that is not known."""
    run: HeldOut | None = None
    """What the run itself measured, in the number format that it answers in; None where it measured nothing, and in
    files of earlier versions."""

    @property
    def held_out(self) -> HeldOut | None:
        """Accuracy on images that the classifier did not learn from: the run's, or else the file's; None where the file
        was measured on images that it learned from.
        """
        if self.run is not None:
            return self.run
        one = self.measured
        if self.learned or one.split == "train":  # which files of earlier versions have of cross-validated runs
            return None
        return HeldOut(data=one.data, split=one.split, n=one.n, accuracy=one.accuracy, interval=one.interval)

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("two classes have the same name")
        if self.views not in self.temperatures:
            raise ValueError(f"temperatures: there is none for {self.views!r} views")
        if "adaptive" in self.temperatures and (
            self.adaptive is None or not {"one", "six"} <= self.temperatures.keys()
        ):
            raise ValueError("adaptive, or a temperature of one or six views, is missing")
        if self.prior_shift is not None and len(self.prior_shift) != len(self.classes):
            raise ValueError(f"prior_shift: {len(self.prior_shift)} numbers for {len(self.classes)} classes")
        for name, limits in (("sets", self.sets), ("unknown", self.unknown)):
            if limits is not None and self.views not in limits:
                raise ValueError(f"{name}: there is nothing for {self.views!r} views")
        if isinstance(self.intensity, tuple) and not self.intensity[0] < self.intensity[1]:
            raise ValueError("intensity: the lowest value is not below the highest")


def to_text(metadata: Metadata) -> str:
    """Return a description as JSON, in ASCII: names that are no UTF-8 are escaped."""
    return json.dumps(msgspec.to_builtins(metadata), allow_nan=False)


def parse_metadata(text: str, where: str) -> Metadata:
    """Parse and check the description in a file.

    Args:
        text: what the file has under ``KEY``.
        where: the file, for the sentence.
    Raises:
        RunError: it is of a newer format, or not what was written.
    """
    try:
        content: Any = json.loads(text, parse_constant=_refuse)
        if isinstance(content, dict) and isinstance(content.get("format"), int) and content["format"] > FORMAT:
            raise RunError(
                f"{where} has format {content['format']}, and this version reads up to {FORMAT}; upgrade it to read the"
                " file."
            )
        return msgspec.convert(content, Metadata)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).replace("`", "").split())[:200]
        raise RunError(
            f"the metadata of {where} is not what sightline wrote ({reason}); export the run again, or copy the file"
            " again."
        ) from error


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no finite number")
