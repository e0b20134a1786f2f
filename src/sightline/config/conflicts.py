"""Settings that do not go together, or of which one would have no effect beside another: a table for each recipe.

A row is (when, sentence). ``when`` is asked of the recipe and of the epochs of its phases; the sentence is formatted with
both, as ``r`` and ``e``. What only one block is about, the block checks itself.
"""

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

from sightline.config.finetuning import phase_epochs
from sightline.errors import ConfigError

__all__ = ["CLASSIFIER", "EVERY", "GENERATOR", "Conflict", "refuse_conflicts", "shown_in_new_ways"]


class Epochs:
    """The epochs of a training, and what its schedule and its averaging make of them."""

    def __init__(self, recipe: Any) -> None:
        self._recipe = recipe
        self.lengths = phase_epochs(recipe.finetune, recipe.fit.epochs)
        self.total, self.shortest, self.longest = sum(self.lengths), min(self.lengths), max(self.lengths)
        phased = len(self.lengths) > 1
        self.short_span = "the shortest phase of --finetune" if phased else "--fit.epochs"
        self.long_span = "the longest phase of --finetune" if phased else "--fit.epochs"
        self.whole_span = f"{self.long_span} ({self.longest} epochs)" if phased else f"--fit.epochs {self.total}"
        self.last_schedule = "the schedule in the last phase of --finetune" if phased else "the schedule"
        self.warmup = getattr(recipe.schedule, "warmup_epochs", 0)
        self.unwarmed = self.shortest - self.warmup
        self.every = recipe.fit.validate_every
        self.every_words = f"{self.every} epochs" if self.every > 1 else "epoch"

    @property
    def cuts(self) -> tuple[int, ...]:
        """Epochs at which the schedule cuts the rate."""
        schedule = self._recipe.schedule
        return getattr(schedule, "epochs", ()) or ((schedule.every_epochs,) if schedule.kind == "step" else ())

    @property
    def cut_words(self) -> dict[str, str]:
        """The first and the last of them, as flags."""
        flag = "--schedule.every-epochs" if self._recipe.schedule.kind == "step" else "--schedule.epochs"
        return {"first": f"{flag} {self.cuts[0]}", "last": f"{flag} {self.cuts[-1]}"}

    @property
    def start(self) -> float:
        """The epoch at which the averaging begins."""
        return float(self._recipe.averaging.start * self.total)

    @property
    def left(self) -> float:
        """The epochs that are averaged."""
        return self.total - self.start

    @property
    def peak(self) -> float:
        """The epoch at which the rate has its last peak."""
        return float(getattr(self._recipe.schedule, "peak_epoch", self.warmup)) + self.total - self.lengths[-1]

    @property
    def validations(self) -> list[int]:
        """Validations in each phase but the last."""
        ends = accumulate(self.lengths, initial=0)
        return [end // self.every - start // self.every if self.every else 0 for start, end in pairwise(ends)][:-1]


Conflict = tuple[Callable[[Any, Epochs], Any], str]


def refuse_conflicts(recipe: Any, *tables: tuple[Conflict, ...]) -> None:
    """Refuse a recipe to which a row of the tables applies.

    Raises:
        ConfigError: with the sentence of the first such row; or the phases do not fit into the training.
    """
    epochs = Epochs(recipe)
    for when, sentence in (row for table in tables for row in table):
        if when(recipe, epochs):
            raise ConfigError(sentence.format(r=recipe, e=epochs, new_ways=shown_in_new_ways(recipe.augment)))


def shown_in_new_ways(augment: Any) -> str:
    """Return the setting by which an image is shown in more than two ways; empty where there is none."""
    blocks = ("crop", "rotation", "policy", "color", "cutout", "mix", "scales")
    return next((name for name in blocks if getattr(augment, name, None)), "")


def _patience(block: str, more: int, only: str = "") -> tuple[Conflict, Conflict]:
    """Two rows for a block that waits for a measure: it is not measured, or the wait cannot end.

    Args:
        block: its name in the recipe.
        more: measurements until the patience has run out, beyond it: the first, which is the best so far, and the one that is
            not borne any more.
        only: the kind of the block that waits; empty for every kind.
    """
    flag, here = f"--{block.replace('_', '-')}", f"{{r.{block}.monitor}}"

    def waits(r: Any) -> Any:
        waiting = getattr(r, block)
        return waiting if waiting is not None and only in ("", waiting.kind) else None

    def every(r: Any) -> int:
        return 1 if getattr(r, block).monitor == "train_acc" else int(r.fit.validate_every)

    return (
        (
            lambda r, e: waits(r) and every(r) == 0,
            f"{flag} waits for {here}, but --fit.validate-every 0 measures it only after the last epoch; choose"
            " --fit.validate-every 1.",
        ),
        (
            lambda r, e: waits(r) and (waits(r).patience + more) * every(r) >= e.longest,
            f"{flag}.patience {{r.{block}.patience}} cannot run out within {{e.whole_span}} with a measurement every"
            " {e.every_words}; choose less patience or more epochs.",
        ),
    )


EVERY: tuple[Conflict, ...] = (
    (
        lambda r, e: not r.name or "/" in r.name or "\\" in r.name,
        "the recipe's name is {r.name!r}; it must be a word for a folder, without slashes.",
    ),
    (
        lambda r, e: r.schedule.kind == "one_cycle" and r.schedule.peak_epoch >= e.shortest,
        "--schedule.peak-epoch ({r.schedule.peak_epoch:g}) must be shorter than {e.short_span} ({e.shortest}); the learning"
        " rate would never come down.",
    ),
    (
        lambda r, e: e.warmup >= e.shortest,
        "--schedule.warmup-epochs ({e.warmup:g}) must be shorter than {e.short_span} ({e.shortest}); the learning rate would"
        " never come down.",
    ),
    (
        lambda r, e: e.cuts and e.cuts[-1] >= e.longest,
        "{e.cut_words[last]} has no effect: it must be less than {e.long_span} ({e.longest}).",
    ),
    (
        lambda r, e: e.cuts and e.cuts[0] <= e.warmup,
        "{e.cut_words[first]} cuts the rate before the warm-up ends (--schedule.warmup-epochs {e.warmup:g}); choose a"
        " later epoch or a shorter warm-up.",
    ),
    (
        lambda r, e: r.schedule.kind == "cyclic" and r.schedule.period_epochs > e.unwarmed,
        "--schedule.period-epochs ({r.schedule.period_epochs:g}) is more than the {e.unwarmed:g} epochs that {e.short_span}"
        " and the warm-up leave; the learning rate would never come back down.",
    ),
    *_patience("schedule", 2, only="plateau"),
    (
        lambda r, e: r.averaging and r.averaging.kind == "ema" and e.left < 1,
        "--averaging.start {r.averaging.start:g} of --fit.epochs {e.total} leaves less than an epoch to average; choose an"
        " earlier start.",
    ),
)
"""For every recipe."""

CLASSIFIER: tuple[Conflict, ...] = (
    (
        lambda r, e: _swa(r) and r.schedule.kind == "plateau",
        "--averaging.kind swa and --schedule.kind plateau both set the rate of the last epochs; choose another schedule, or"
        " --averaging.kind ema.",
    ),
    (
        lambda r, e: _swa(r) and r.early_stopping,
        "--averaging.kind swa averages the last epochs, which --early-stopping would cut off; choose one of the two, or"
        " --averaging.kind ema.",
    ),
    (
        lambda r, e: _swa(r) and e.left < 2,
        "--averaging.start {r.averaging.start:g} of --fit.epochs {e.total} leaves {e.left:g} epochs to average; two or more are"
        " needed: choose an earlier start, or more epochs.",
    ),
    (
        lambda r, e: _swa(r) and r.averaging.anneal_epochs >= e.left,
        "--averaging.anneal-epochs ({r.averaging.anneal_epochs:g}) must be less than the {e.left:g} epochs after"
        " --averaging.start; the rate would never be reached.",
    ),
    (
        lambda r, e: _swa(r) and e.start < e.peak,
        "--averaging.start {r.averaging.start:g} is epoch {e.start:g}, before the peak of {e.last_schedule} (epoch {e.peak:g});"
        " choose a later start.",
    ),
    (
        lambda r, e: _phases(r) and r.early_stopping and len(e.lengths) > 1,
        "--early-stopping would end the training before all phases of --finetune.kind {r.finetune.kind} have begun; leave it"
        " out (--fit.keep saves the best weights, --finetune.restore-best begins a phase with them).",
    ),
    (
        lambda r, e: _restores(r) and (min(e.validations) < 1 or max(e.validations) < 2),
        "--finetune.restore-best {r.finetune.restore_best} needs a validation in each phase before the last, and two or more in"
        " one of them; with --fit.validate-every {e.every} they have {e.validations}: validate more often, or give the"
        " phases more epochs.",
    ),
    *_patience("early_stopping", 1),
    (
        lambda r, e: r.early_stopping and r.fit.keep != "last",
        "--fit.keep {r.fit.keep} has no effect with --early-stopping, which saves the weights that are best by its own"
        " monitor; leave --fit.keep out.",
    ),
    (
        lambda r, e: r.fit.class_weights == r.data.sampling == "balanced",
        "--fit.class-weights balanced and --data.sampling balanced both make up for rare classes, together twice over; choose"
        " one.",
    ),
    (
        lambda r, e: r.augment.cutout and r.data.size is not None and r.augment.cutout.size > r.data.size,
        "--augment.cutout.size ({r.augment.cutout.size}) is larger than the images (--data.size {r.data.size}); a hole must fit"
        " into the image.",
    ),
    (
        lambda r, e: _upper(r) and shown_in_new_ways(r.augment),
        "--augment.{new_ways} has no effect with --finetune upper, which keeps the maps of an image as it is, and mirrored;"
        " leave one of the two out.",
    ),
    (lambda r, e: _upper(r) and r.fit.compile, "--fit.compile has no effect with --finetune upper; leave it out."),
    (
        lambda r, e: _upper(r) and r.fit.processes > 1,
        "--fit.processes has no effect with --finetune upper; leave it out.",
    ),
    (
        lambda r, e: _frozen(r) and r.finetune.features and shown_in_new_ways(r.augment),
        "--finetune.features {r.finetune.features} has no effect with --augment.{new_ways}, which shows an image in ever new"
        " ways; leave one of the two out.",
    ),
    (
        lambda r, e: _frozen(r) and r.finetune.features == "keep" and r.fit.compile,
        "--fit.compile has no effect on frozen layers that compute once (--finetune.features keep); leave one of the two out.",
    ),
    (
        lambda r, e: r.head and r.head.kind in ("graph_attention", "self_attention") and r.augment.scales,
        "--augment.scales shows smaller images first, and --head {r.head.kind} reads one size only: it learns a position and"
        " weights for each patch of the map; add --augment.no-scales, or choose --head attention_pool.",
    ),
    (
        lambda r, e: r.probe and r.network.kind != "run" and not getattr(r.network, "weights", None),
        "{r.probe.flag} needs a network that has learned already, and {r.network.kind} starts from nothing; add --backbone box,"
        " or take --recipe photos.",
    ),
    (
        lambda r, e: r.probe and r.head,
        "--head {r.head.kind} has no effect with a probe, whose head is linear; leave it out.",
    ),
    (
        lambda r, e: r.probe and r.fit.processes > 1,
        "--fit.processes: a probe is solved by one process; leave the option out.",
    ),
    (
        lambda r, e: r.probe and _frozen(r),
        "--finetune frozen has no effect behind a probe, which is the best head of the frozen network; leave it out, or add"
        " --probe.kind none.",
    ),
)
"""For a classifier's."""

_NO_CLASSES = "has no effect on a generator, which tells no classes apart; leave it out."
GENERATOR: tuple[Conflict, ...] = (
    (lambda r, e: r.fit.label_smoothing != 0, f"--fit.label-smoothing {{r.fit.label_smoothing}} {_NO_CLASSES}"),
    (lambda r, e: r.fit.class_weights != "none", f"--fit.class-weights {{r.fit.class_weights}} {_NO_CLASSES}"),
    (lambda r, e: r.fit.keep != "last", f"--fit.keep {{r.fit.keep}} {_NO_CLASSES}"),
    (
        lambda r, e: r.data.synthetic is not None,
        "--data.synthetic: a generator learns from real images alone; leave the option out.",
    ),
    (
        lambda r, e: r.generator.kind == "acgan" and r.fit.processes > 1,
        "--fit.processes {r.fit.processes}: in each step of --generator.kind acgan only one of two networks learns, which several"
        " processes cannot settle beforehand; leave it out.",
    ),
    (
        lambda r, e: r.generator.kind == "acgan" and r.fit.compile,
        "--fit.compile has no effect on --generator.kind acgan, whose two networks learn apart; leave it out.",
    ),
)
"""For a generator's."""


def _kind(block: Any) -> str:
    return "" if block is None else str(block.kind)


def _swa(recipe: Any) -> bool:
    return _kind(recipe.averaging) == "swa"


def _phases(recipe: Any) -> bool:
    return _kind(recipe.finetune) in ("gradual", "phases")


def _restores(recipe: Any) -> bool:
    return _phases(recipe) and recipe.finetune.restore_best != "none"


def _upper(recipe: Any) -> bool:
    return _kind(recipe.finetune) == "upper"


def _frozen(recipe: Any) -> bool:
    return _kind(recipe.finetune) == "frozen"
