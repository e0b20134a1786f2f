"""Schemas of what a run says of itself: ``model.json``, also inside ``model.safetensors``, and ``evaluation.json``.

Only what is read stands here; other keys are allowed, since newer minor versions add facts. Nothing here loads torch.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from sightline.measures.metrics import wilson_interval

__all__ = ["CROSSED", "Begun", "Classifier", "Corrections", "Facts", "Generator", "Measured", "Measures"]

CROSSED = "cross-validation"
"""Split of a run that was measured without a test split."""
Views = Literal["one", "flip", "six", "adaptive"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Some = Annotated[int, Meta(ge=1, le=2**53)]
Share = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(ge=1e-3, le=1e3)]
Sides = tuple[Annotated[int, Meta(ge=1, le=2048)], Annotated[int, Meta(ge=1, le=2048)]]  # (height, width) in pixels
Level = Annotated[float, Meta(ge=-1e6, le=1e6)]
Spread = Annotated[float, Meta(ge=0, le=1e6)]

# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Measured(Struct):
    """An accuracy, of n images."""

    accuracy: Share
    n: Some
    accuracy_interval: tuple[float, float] | None = None
    groups: Count | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """Return the interval of 95 % that was noted, or else Wilson's."""
        return self.accuracy_interval or wilson_interval(round(self.accuracy * self.n), self.n)


class Loss(Measured, kw_only=True):
    """An accuracy with its loss."""

    loss: float | None


class Network(Struct):
    """The kind of a network; its other settings are those of ``config.networks``."""

    kind: str


class Normalization(Struct):
    """Mean and standard deviation of each channel."""

    mean: tuple[Level, Level, Level]
    std: tuple[Spread, Spread, Spread]


class Counts(Struct):
    """Images by split."""

    train: Count
    validation: Count
    test: Count


class Corrections(Struct):
    """How labels of an image set were corrected."""

    digest: str
    """Of all images that were labeled otherwise."""
    validation: str | None = None
    """Of those of validation alone; None where there are none."""
    test: str | None = None
    """Of those of test alone; None where there are none."""


class Data(Struct):
    """The image set of a run."""

    name: str
    fingerprint: str
    counts: Counts
    location: str | None = None
    classes: Literal["top", "leaf"] | None = None
    merge: dict[str, str] = {}
    split_rule: int = 1
    batch_rule: int = 1
    split_notes: list[str] = []
    shared_with_test: Count | None = None
    left_out: Count | None = None
    excluded: str | None = None
    generated: str | None = None
    corrections: Corrections | None = None


class Cost(Struct):
    """The cost of a training. Numbers that older versions did not write are None."""

    fit_seconds: float | None
    evaluation_seconds: float = 0.0
    cost: float | None = None
    training_flops: int | float | None = None
    device: str | None = None

    @property
    def seconds(self) -> float | None:
        """Return the seconds of fit and evaluation."""
        return None if self.fit_seconds is None else self.fit_seconds + self.evaluation_seconds


class Bin(Struct):
    """Answers of similar confidence."""

    n: Count
    confidence: Share | None
    accuracy: Share | None

    def __post_init__(self) -> None:
        if self.n and (self.confidence is None or self.accuracy is None):
            raise ValueError("a bin of images lacks their confidence or accuracy")


class SetSize(Struct):
    """Prediction sets of one coverage."""

    mean_size: float
    coverage: float | None = None


class Sets(Struct):
    """Thresholds of prediction sets, by views and coverage; of None every class is within."""

    coverages: dict[str, SetSize]
    thresholds: dict[Views, dict[str, float | None]] = {}

    def __post_init__(self) -> None:
        if any(not {"0.9", "0.95"} <= limits.keys() for limits in self.thresholds.values()):
            raise ValueError("thresholds for sets of 90 or 95 % are missing")


class Rate(Struct):
    """The share of n images that is called none of the classes."""

    n: Count
    rate: Share


class Unknown(Struct):
    """Thresholds from which on an image is called none of the classes, by views."""

    share_of_own: Share
    thresholds: dict[Views, float] = {}
    rates: dict[str, Rate] = {}
    score: Literal["energy", "mahalanobis"] = "energy"
    layer: str | None = None
    """Whose features are compared with the reference; of the energy there is none."""

    def __post_init__(self) -> None:
        if self.score == "mahalanobis" and self.layer is None:
            raise ValueError("the layer of the reference is missing")


class Corruptions(Struct):
    """Accuracy on corrupted images, by corruption and severity."""

    n: Count
    views: str
    clean: Share
    accuracy: dict[str, list[Share]]

    def __post_init__(self) -> None:
        if len({len(values) for values in self.accuracy.values()}) != 1:
            raise ValueError("corruptions have different severities, or there are none")


class Adaptive(Struct):
    """When an image is shown more than once, and what that reached on n validation images by views."""

    threshold: Share
    """Probability below which it is; 1: always."""
    n: Some
    passes: Annotated[float, Meta(ge=1, le=6)]
    accuracy: dict[Views, Share]
    log_likelihood: dict[Views, float]

    def __post_init__(self) -> None:
        if any(not {"one", "six", "adaptive"} <= measured.keys() for measured in (self.accuracy, self.log_likelihood)):
            raise ValueError("adaptive: a measure of one, six or adaptive views is missing")


class Trust(Struct):
    """Calibration, prediction sets, out-of-distribution images and corruptions."""

    n: Some
    temperature_interval: tuple[Spread, Spread] | None = None
    classwise_calibration_error: Share | None = None
    reliability: list[Bin] = []
    calibration_error: float | None = None
    calibration_error_unscaled: float | None = None
    sets: Sets | None = None
    unknown: Unknown | None = None
    corruptions: Corruptions | None = None
    adaptive: Adaptive | None = None


class Kept(Struct):
    """The epoch whose weights were kept, where one was chosen."""

    epoch: Count
    monitor: str
    value: float


class Point(Measured, kw_only=True):
    """A point of a probe's learning curve."""

    images: Count


class Difference(Struct):
    """A paired difference of two accuracies, with its interval."""

    estimate: float
    low: float
    high: float
    p: float | None = None


class Probe(Struct):
    """A probe, and what was compared with it."""

    validation: Loss | None = None
    finetuned: Loss | None = None
    difference: Difference | None = None
    other: str = "fine-tuned"
    kept: str = "probe"
    learning_curve: list[Point] = []

    def __post_init__(self) -> None:
        if self.finetuned is not None and self.difference is None:
            raise ValueError("the difference of fine-tuning and probe is missing")
        if len(self.learning_curve) == 1:
            raise ValueError("the learning curve has a single point")


class Found(Struct, rename={"start": "from"}):
    """The settings that a search before the training found, and where it started."""

    start: dict[str, Any]
    settings: dict[str, Any]


class Metrics(Measured):
    """Measures of a classifier on some split."""

    split: str = ""
    calibration_error: float | None = None
    calibration_error_unscaled: float | None = None
    classwise_calibration_error: Share | None = None
    sets: dict[str, SetSize] | None = None
    unknown_share: Share | None = None
    folds: Count | None = None
    repeats: Count | None = None


class ClassMeasures(Struct):
    """Measures of one class; None where there is nothing to divide by."""

    n: Count
    precision: Share | None
    recall: Share | None
    f1: Share | None


class Losses(Struct):
    """Losses of a generator's last epoch; those of the generator where it learned against a discriminator."""

    n: Count
    train_loss: float | None
    train_generator_loss: float | None = None
    val_loss: float | None = None
    val_generator_loss: float | None = None


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Facts(Struct, kw_only=True):
    """``model.json`` of any run, as far as the run has come."""

    kind: str = "classifier"
    classes: list[str] = []
    network: Network | None = None
    head: Network | None = None
    size: Sides | None = None
    built_for: Sides | None = None
    data: Data | None = None
    recipe: str | None = None
    versions: dict[str, str] = {}
    parameters: Count | None = None
    test_readings: Count = 0
    calibrated_on: Count | None = None
    validation: Measured | None = None
    metrics: Metrics | None = None
    trust: Trust | None = None
    cost: Cost | None = None
    kept: Kept | None = None
    probe: Probe | None = None
    found: dict[str, Found] = {}
    mirroring: str = ""

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("two classes have the same name")


class Begun(Facts, kw_only=True):
    """``model.json`` of a run that can be continued."""

    data: Data


class Finished(Facts, kw_only=True):
    """``model.json`` of a finished run."""

    classes: Annotated[list[str], Meta(min_length=1)]
    size: Sides
    normalization: Normalization
    precision: Precision
    data: Data
    fit: Literal["crop", "squash", "pad"] = "crop"
    intensity: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.intensity is not None and not self.intensity[0] < self.intensity[1]:
            raise ValueError("intensity: the lowest value is not below the highest")


class Classifier(Finished, kw_only=True):
    """``model.json`` of a finished classifier."""

    resize: Sides
    views: Views
    temperatures: dict[Views, Temperature]
    answer_precision: Precision | None = None  # as it was trained
    prior_shift: list[Level] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(whole < part for whole, part in zip(self.resize, self.size, strict=True)):
            raise ValueError(f"resize {self.resize} is smaller than size {self.size}")
        if self.views not in self.temperatures:
            raise ValueError(f"temperatures: there is none for {self.views!r} views")
        if "adaptive" in self.temperatures and (
            self.trust is None or self.trust.adaptive is None or not {"one", "six"} <= self.temperatures.keys()
        ):
            raise ValueError("trust.adaptive, or a temperature of one or six views, is missing")
        if self.prior_shift is not None and len(self.prior_shift) != len(self.classes):
            raise ValueError(f"prior_shift: there are {len(self.prior_shift)} numbers for {len(self.classes)} classes")


class Generator(Finished, kw_only=True):
    """``model.json`` of a finished generator."""

    generator: dict[str, Any]
    parameters: Count
    losses: Losses


class Measures(Metrics, kw_only=True):
    """``evaluation.json``."""

    accuracy_interval: tuple[float, float]
    calibration_error: float
    confusion_matrix: list[list[Count]]
    classes: dict[str, ClassMeasures]
    reliability: list[Bin] = []

    def __post_init__(self) -> None:
        if any(len(row) != len(self.classes) for row in (self.classes, *self.confusion_matrix, self.confusion_matrix)):
            raise ValueError("confusion_matrix: it has not one row and one column for each of the classes")
        if sum(map(sum, self.confusion_matrix)) != self.n:
            raise ValueError(f"confusion_matrix: its images are not the {self.n} that were measured")
        if self.split == CROSSED and None in (self.folds, self.repeats):
            raise ValueError("the folds and repeats of the cross-validation are missing")
