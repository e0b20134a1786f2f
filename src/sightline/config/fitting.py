"""The settings of fitting: which images, how long, what is saved, measured and tracked."""

from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta

from sightline.config.building import Block, Kind
from sightline.config.checks import (
    LARGEST,
    AboveZero,
    BelowOne,
    Count,
    Dropout,
    Finite,
    OpenShare,
    ShareAboveZero,
    Whole,
    ZeroOrMore,
    within,
)
from sightline.errors import ConfigError

__all__ = [
    "AveragingConfig",
    "ClipConfig",
    "DataConfig",
    "EMAConfig",
    "EarlyStoppingConfig",
    "EvaluationConfig",
    "FitConfig",
    "NormClipConfig",
    "SWAConfig",
    "TrackConfig",
    "ValueClipConfig",
]


# ── the image set ────────────────────────────────────────────────────────────────────────────────────────────────────


class DataConfig(Block, frozen=True, kw_only=True):
    """Settings of the images that are trained on, and their size."""

    validation: Count | None = None
    """Images kept out of train to validate on, where the set has no validation split of its own; null: a tenth of
    train, at least 500 and at most 5,000, but never more than a fifth."""
    split_seed: Whole = 0
    """Which of the possible splits is cut; the run's seed never moves an image from one side to the other."""
    fraction: ShareAboveZero = 1.0
    """Share of the training images to use, drawn class by class by the split seed; validation and test stay whole."""
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """How an epoch draws its images: each once; or as many in all, every class as often as any other, so that images of
    rare classes come several times and not every image of a common class comes in every epoch."""
    size: Annotated[int, Meta(ge=16, le=1024)] | None = None
    """Side of the images that the network sees, in pixels; null: their own up to 64, else at most 128."""
    fit: Literal["crop", "squash", "pad"] = "crop"
    """How an image that is wider or higher than the network's is brought to its shape: the center is cut out; its sides
    are scaled on their own; or black is laid around it. Without a recipe, squash is chosen where the crop would hide
    more than half of the median image."""
    exclude: str | None = None
    """File that lists images to leave out of training and validation: a CSV with a column file, such as the exclude.csv
    of sightline check, or a text file with a path a line. All others stay where they are. Listed test images stay, too:
    a result from which the hard images were taken would mean nothing."""
    corrections: str | None = None
    """File of decisions on labels, as the review of sightline check writes it (corrections.csv): labels of train and
    validation are corrected, and images left out, wherever they lie now, since they are known by their pixels. The
    splits are those of the labels as they were."""
    correct_test: bool = False
    """Correct the test split by the corrections as well; both accuracies are then shown, as corrected and as
    labeled."""
    add_classes: tuple[str, ...] = ()
    """Classes that the set does not have, and that corrections may give its images; any other is refused as a slip, but
    for those that were added on the review page."""
    classes: Literal["top", "leaf"] | None = None
    """Which folders are the classes: top, each folder at the top, even where its name is that of a split; leaf, each
    folder that holds images, however deep, below the splits; null: those at the top, or below the splits."""
    merge: tuple[str, ...] = ()
    """Classes to tell apart no more, such as cat+dog, which become one class of that name, or pet=cat+dog; several are
    separated by spaces. Every image stays in its split."""
    keep_split: str | None = None
    """Folder of an earlier run: its training, validation and test images stay what they were for it, and only images
    that it did not have are dealt. For a folder that has grown, with or without new classes, also where the network is
    that run's (--network run:FOLDER)."""
    synthetic: str | None = None
    """Generated images to train on beside the set: a folder of class folders, as sightline generate writes it.
    Validation and test stay as they are, and so do the mean and deviation of the pixels."""
    synthetic_share: ShareAboveZero | None = None
    """Share of the training images that are generated ones; null: all that there are; 1: no real ones, whose mean and
    deviation are then not used either."""

    def _check(self) -> None:
        if self.synthetic_share is not None and self.synthetic is None:
            raise ConfigError(
                f"--data.synthetic-share {self.synthetic_share:g} has no effect without --data.synthetic; name a folder"
                " of generated images."
            )
        for flag, given in (("correct-test", self.correct_test), ("add-classes", bool(self.add_classes))):
            if given and self.corrections is None:
                raise ConfigError(f"--data.{flag} has no effect without --data.corrections; name the file.")
        for name in self.add_classes:
            if not name.strip() or self.add_classes.count(name) > 1:
                raise ConfigError(f"--data.add-classes holds {name!r}; wanted names of classes, each once.")


# ── clipping, averaging, stopping early ──────────────────────────────────────────────────────────────────────────────


class NormClipConfig(Kind, frozen=True, kw_only=True, tag="norm"):
    """Shorten the gradient of all weights together to a largest length, keeping its direction."""

    limit: AboveZero = 1.0
    """Largest length of the whole gradient (norm), or largest size of each of its numbers (value)."""


class ValueClipConfig(Kind, frozen=True, kw_only=True, tag="value"):
    """Cut every number of the gradient to a largest size."""

    limit: AboveZero = 0.5
    """Largest size of each number of the gradient."""


ClipConfig = NormClipConfig | ValueClipConfig


class EMAConfig(Kind, frozen=True, kw_only=True, tag="ema"):
    """Save a running mean of the weights, taken at every step."""

    start: BelowOne = 0.0
    """Share of the training after which the averaging begins."""
    decay: OpenShare = 0.999
    """Share of the mean that is kept at a step; less over its first steps: (1 + n) / (10 + n) after n of them."""


class SWAConfig(Kind, frozen=True, kw_only=True, tag="swa"):
    """Save the mean of the weights at the ends of the last epochs, trained at a rate of their own."""

    start: BelowOne = 0.75
    """Share of the training after which the averaging begins."""
    rate: ShareAboveZero = 0.1
    """Rate while averaging as a share of the peak."""
    anneal_epochs: Finite = 1.0
    """Epochs over which the rate goes there from where the schedule is, along half a cosine; fractions allowed."""


AveragingConfig = EMAConfig | SWAConfig


class EarlyStoppingConfig(Kind, frozen=True, kw_only=True, tag="patience"):
    """Stop when validation has not improved for a while, and save the weights of the best validation."""

    monitor: Literal["val_loss", "val_acc"] = "val_acc"
    """What must improve, and chooses the weights."""
    patience: Count = 3
    """Validations in a row without improvement after which the training stops."""
    min_delta: Finite = 0.0
    """Smallest gain that counts as an improvement; the best weights are the best however small their lead."""


# ── fitting and evaluation ───────────────────────────────────────────────────────────────────────────────────────────


class FitConfig(Block, frozen=True, kw_only=True):
    """Settings of the fit: how long, how fast and how reproducibly to train."""

    epochs: Count = 8
    """Passes over the training images."""
    batch_size: Annotated[int, Meta(ge=2, le=LARGEST)] = 128
    """Images a batch, over all processes; the batches of an epoch differ by one image at most. An optimizer step sees
    so many times ``accumulate``. auto: the smallest that is about as fast as the fastest that fits into memory, found
    before the training."""
    accumulate: Count | dict[Whole, Count] = 1
    """Batches whose gradients are averaged for one optimizer step: a number, or one from each of some epochs on,
    counted from 0; in YAML {0: 8, 4: 4, 8: 1}, as a flag 0:8 4:4 8:1. The last step of an epoch sees what is left, and
    each image weighs the same in it."""
    loss: Literal["cross_entropy", "generalized_cross_entropy"] = "cross_entropy"
    """What training minimizes: cross-entropy; or (1 - p^0.7) / 0.7 of the probability p of the label (Zhang and
    Sabuncu, 2018), in which a label that the network finds improbable counts little: for labels with errors. Validation
    is measured by cross-entropy either way."""
    label_smoothing: Dropout = 0.0
    """Share of the target that is spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """How much an image counts in the training loss: each the same, or by the number of train images, over classes
    times images of its class. Validation and test are not weighted, and the answers are corrected to the frequencies
    of the training images; see --evaluation.prior."""
    validate_every: ZeroOrMore = 1
    """Epochs between two validations; 0: only after the last."""
    keep: Literal["last", "val_acc", "val_loss"] = "last"
    """Which weights are saved: those of the last epoch, or of the validation with the best accuracy or loss. Half of
    validation then chooses, and only the other half calibrates; so too with early stopping and plateau on
    validation."""
    checkpoint_seconds: Finite = 60.0
    """Seconds between two checkpoints within an epoch; there is one at the end of every epoch too."""
    seed: ZeroOrMore = 42
    """Seed of everything random in the training."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the arithmetic; auto: bfloat16 where the processor or GPU computes it fast, else float32."""
    processes: Annotated[int, Meta(ge=1, le=1024)] = 1
    """Processes that train together, each on a GPU of its own, or on its share of a processor's cores; each takes its
    part of every batch. Batch-norm sees the part of its process only."""
    deterministic: bool = False
    """Refuse every operation whose result may differ from run to run. On a processor nothing differs either way, but
    that trainings in bfloat16 which run at once share its cores, unless this is set or OMP_NUM_THREADS is."""
    compile: bool = False
    """Compile the network for the training steps (torch.compile), anew for every batch size and scale: for long
    trainings on a GPU. Where it was tried, on 2 busy cores, each took one to two minutes (a few seconds the next time)
    and the steps were not faster. Losses differ in the last digits."""

    def _check(self) -> None:
        within("fit.validate-every", self.validate_every, 0, self.epochs)
        if self.loss != "cross_entropy" and self.label_smoothing:
            raise ConfigError(
                f"--fit.loss {self.loss} is defined for a label, not for one that is spread over all classes"
                f" (--fit.label-smoothing {self.label_smoothing:g}, of the flags or the recipe); add"
                " --fit.label-smoothing 0."
            )
        if self.batch_size < 2 * self.processes:
            raise ConfigError(
                f"--fit.batch-size ({self.batch_size}) leaves less than two images to each of --fit.processes"
                f" ({self.processes}); batch-norm needs two: choose {2 * self.processes} or more."
            )
        if isinstance(self.accumulate, dict):
            self._check_accumulation(self.accumulate)
        if self.keep != "last" and not 0 < self.validate_every <= self.epochs // 2:
            raise ConfigError(
                f"--fit.keep {self.keep} has nothing to choose from with --fit.validate-every {self.validate_every} of"
                f" {self.epochs} epochs; validate twice or more, or leave it out."
            )

    def batches_a_step(self, epoch: int) -> int:
        """Return the batches of an optimizer step in an epoch, counted from 0."""
        if not isinstance(self.accumulate, dict):
            return self.accumulate
        return self.accumulate[max(first for first in self.accumulate if first <= epoch)]

    def _check_accumulation(self, schedule: dict[int, int]) -> None:
        epochs, counts = list(schedule), list(schedule.values())
        spoken = " ".join(f"{epoch}:{count}" for epoch, count in schedule.items())
        if not epochs or epochs[0] != 0 or any(later <= earlier for earlier, later in pairwise(epochs)):
            raise ConfigError(f"--fit.accumulate is {spoken or 'empty'}; its epochs must begin with 0 and rise.")
        if epochs[-1] >= self.epochs:
            raise ConfigError(
                f"--fit.accumulate {epochs[-1]}:{counts[-1]} has no effect: the epochs of --fit.epochs {self.epochs}"
                f" are 0 to {self.epochs - 1}; leave it out."
            )
        same = next(
            (epoch for epoch, (one, other) in zip(epochs[1:], pairwise(counts), strict=True) if one == other), None
        )
        if same is not None or counts == [1]:
            raise ConfigError(
                f"--fit.accumulate {same or 0}:{schedule[same or 0]} has no effect: it is so already; leave it out."
            )


class EvaluationConfig(Block, frozen=True, kw_only=True):
    """Settings of the finished classifier: how it reads an image, and what it is measured on."""

    views: Literal["one", "flip", "six", "adaptive"] = "one"
    """Views of an image whose logits are averaged: itself; with its mirror image; both also shifted by a pixel
    up-left and down-right (the shifted four share half of the weight); adaptive: itself, and the other five only where
    the probability of its answer is below a threshold, which is chosen on validation to be no worse than six. Of a
    recipe it is one where a test finds that mirrored images look like another class."""
    on: Literal["test", "validation", "none"] = "test"
    """What the finished classifier is measured on; the test split is read once."""
    prior: Literal["train", "equal"] = "train"
    """How frequent the answers take classes to be: as among the training images, also after class weights or balanced
    sampling, which train as if all were equally frequent; or equally frequent, which finds more images of rare classes
    at the price of false ones, with probabilities that hold where all are as frequent."""
    precision: Literal["float32", "auto", "bfloat16", "float16"] = "float32"
    """Number format in which the finished classifier is calibrated, measured and answers, whatever it was trained in;
    auto: bfloat16 where the processor or GPU computes it fast, which shifts probabilities by some hundredths."""
    robustness: bool = True
    """Measure on validation what the finished classifier does with corrupted images and with images of no class."""


class TrackConfig(Block, frozen=True, kw_only=True):
    """Places that the numbers of a training go to besides its run folder; ``metrics.csv`` is written always."""

    to: tuple[Literal["tensorboard", "wandb", "mlflow", "csv"], ...] = ()
    """Trackers, several at once: all settings, the rates step by step, the epochs and the final numbers, below logs/ in
    the run, of MLflow in its own store. TensorBoard and Weights & Biases come with the extra track, MLflow with the
    extra mlflow; empty: none."""
    every: Count | None = None
    """Steps between two learning rates that are tracked; null: 50."""
    project: str | None = None
    """Project of Weights & Biases, experiment of MLflow; null: sightline."""
    offline: bool = False
    """Keep the run of Weights & Biases in logs/wandb, for `wandb sync`; without a key or a network it stays there
    too."""

    def _check(self) -> None:
        for name in {name for name in self.to if self.to.count(name) > 1}:
            raise ConfigError(f"--track.to names {name} twice; once is enough.")
        if self.every is not None and not self.to:
            raise ConfigError("--track.every has no effect without a tracker; add --track.to csv, or leave it out.")
        if self.project is not None and not {"wandb", "mlflow"} & set(self.to):
            raise ConfigError(
                "--track.project has no effect without --track.to wandb or mlflow; add one, or leave it out."
            )
        if self.offline and "wandb" not in self.to:
            raise ConfigError("--track.offline has no effect without --track.to wandb; add it, or leave it out.")
        if self.project is not None and (not self.project.strip() or set(self.project) & set("/\\#?%:")):
            raise ConfigError(
                f"--track.project is {self.project!r}; it must be a name without any of / \\ # ? % :, such as flowers."
            )
