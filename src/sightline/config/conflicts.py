"""Settings that do not go together, or of which one would have no effect beside another: a table for each recipe.

A row is (when, sentence). ``when`` is asked of a recipe and of the facts about it; the sentence is formatted with both,
as ``r`` and ``f``. What only one block is about, the block checks itself.
"""

import math
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

from sightline.config.finetuning import phase_epochs
from sightline.errors import ConfigError

__all__ = ["CLASSIFIER", "EVERY", "GENERATOR", "Conflict", "refuse_conflicts", "shown_in_new_ways"]


class Facts:
    """Facts that conflicts ask for: the epochs of a recipe by phase, and the kinds of its blocks that can be off."""

    def __init__(self, recipe: Any) -> None:
        schedule, averaging, every = recipe.schedule, recipe.averaging, recipe.fit.validate_every
        self.averaging, self.finetune, self.head = map(_kind, (averaging, recipe.finetune, recipe.head))
        self.phased = self.finetune in ("gradual", "phases")
        self.new_ways = shown_in_new_ways(recipe.augment)
        lengths = phase_epochs(recipe.finetune, recipe.fit.epochs)
        self.phases, self.epochs, self.shortest, self.longest = len(lengths), sum(lengths), min(lengths), max(lengths)
        several = self.phases > 1
        self.short_span = "the shortest phase of --finetune" if several else "--fit.epochs"
        self.long_span = "the longest phase of --finetune" if several else "--fit.epochs"
        self.whole_span = f"{self.long_span} ({self.longest} epochs)" if several else f"--fit.epochs {self.epochs}"
        self.last_schedule = "the schedule in the last phase of --finetune" if several else "the schedule"
        self.measured = f"{every} epochs" if every > 1 else "epoch"
        ends = accumulate(lengths, initial=0)
        self.validations = [end // every - start // every if every else 0 for start, end in pairwise(ends)][:-1]
        self.warmup = getattr(schedule, "warmup_epochs", 0)
        self.unwarmed = self.shortest - self.warmup
        step = schedule.kind == "step"
        self.cuts = (schedule.every_epochs,) if step else getattr(schedule, "epochs", ()) or (math.inf, 0)
        self.first_cut, self.last_cut = (
            f"--schedule.{'every-epochs' if step else 'epochs'} {cut}" for cut in (self.cuts[0], self.cuts[-1])
        )
        self.start = averaging.start * self.epochs if averaging else 0.0
        self.averaged = self.epochs - self.start
        self.peak = getattr(schedule, "peak_epoch", self.warmup) + self.epochs - lengths[-1]


def _kind(block: Any) -> str:
    return "" if block is None else str(block.kind)


Conflict = tuple[Callable[[Any, Facts], Any], str]


def refuse_conflicts(recipe: Any, *tables: tuple[Conflict, ...]) -> None:
    """Refuse a recipe to which a row of the tables applies.

    Raises:
        ConfigError: with the sentence of the first such row; or the phases do not fit into the training.
    """
    facts = Facts(recipe)
    for when, sentence in (row for table in tables for row in table):
        if when(recipe, facts):
            raise ConfigError(sentence.format(r=recipe, f=facts))


def shown_in_new_ways(augment: Any) -> str:
    """Return the setting by which an image is shown in more than two ways; empty where there is none."""
    blocks = ("crop", "rotation", "policy", "color", "own", "cutout", "mix", "scales")
    return next((name for name in blocks if getattr(augment, name, None)), "")


def _patience(block: str, more: int, only: str = "") -> tuple[Conflict, Conflict]:
    """Return two rows for a block that waits for a measure: it is not measured, or the wait cannot end.

    Args:
        block: its name in the recipe.
        more: measurements until the patience has run out, beyond it: the first, which is the best so far, and the one
            that is not borne any more.
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
            lambda r, f: waits(r) and every(r) == 0,
            f"{flag} waits for {here}, but --fit.validate-every 0 measures it only after the last epoch; choose"
            " --fit.validate-every 1.",
        ),
        (
            lambda r, f: waits(r) and (waits(r).patience + more) * every(r) >= f.longest,
            f"{flag}.patience {{r.{block}.patience}} cannot run out within {{f.whole_span}} with a measurement every"
            " {f.measured}; choose less patience or more epochs.",
        ),
    )


EVERY: tuple[Conflict, ...] = (
    (
        lambda r, f: not r.name or "/" in r.name or "\\" in r.name,
        "the recipe's name is {r.name!r}; it must be a word for a folder, without slashes.",
    ),
    (
        lambda r, f: r.schedule.kind == "one_cycle" and r.schedule.peak_epoch >= f.shortest,
        "--schedule.peak-epoch ({r.schedule.peak_epoch:g}) must be shorter than {f.short_span} ({f.shortest}); the"
        " learning rate would never come down.",
    ),
    (
        lambda r, f: f.warmup >= f.shortest,
        "--schedule.warmup-epochs ({f.warmup:g}) must be shorter than {f.short_span} ({f.shortest}); the learning rate"
        " would never come down.",
    ),
    (
        lambda r, f: f.cuts[-1] >= f.longest,
        "{f.last_cut} has no effect: it must be less than {f.long_span} ({f.longest}).",
    ),
    (
        lambda r, f: f.cuts[0] <= f.warmup,
        "{f.first_cut} cuts the rate before the warm-up ends (--schedule.warmup-epochs {f.warmup:g}); choose a"
        " later epoch or a shorter warm-up.",
    ),
    (
        lambda r, f: r.schedule.kind == "cyclic" and r.schedule.period_epochs > f.unwarmed,
        "--schedule.period-epochs ({r.schedule.period_epochs:g}) is more than the {f.unwarmed:g} epochs that"
        " {f.short_span} and the warm-up leave; the learning rate would never come back down.",
    ),
    *_patience("schedule", 2, only="plateau"),
    (
        lambda r, f: f.averaging == "ema" and f.averaged < 1,
        "--averaging.start {r.averaging.start:g} of --fit.epochs {f.epochs} leaves less than an epoch to average;"
        " choose an earlier start.",
    ),
)
"""For every recipe."""

CLASSIFIER: tuple[Conflict, ...] = (
    (
        lambda r, f: f.averaging == "swa" and r.schedule.kind == "plateau",
        "--averaging.kind swa and --schedule.kind plateau both set the rate of the last epochs; choose another"
        " schedule, or --averaging.kind ema.",
    ),
    (
        lambda r, f: f.averaging == "swa" and r.early_stopping,
        "--averaging.kind swa averages the last epochs, which --early-stopping would cut off; choose one of the two, or"
        " --averaging.kind ema.",
    ),
    (
        lambda r, f: f.averaging == "swa" and f.averaged < 2,
        "--averaging.start {r.averaging.start:g} of --fit.epochs {f.epochs} leaves {f.averaged:g} epochs to average;"
        " two or more are needed: choose an earlier start, or more epochs.",
    ),
    (
        lambda r, f: f.averaging == "swa" and r.averaging.anneal_epochs >= f.averaged,
        "--averaging.anneal-epochs ({r.averaging.anneal_epochs:g}) must be less than the {f.averaged:g} epochs after"
        " --averaging.start; the rate would never be reached.",
    ),
    (
        lambda r, f: f.averaging == "swa" and f.start < f.peak,
        "--averaging.start {r.averaging.start:g} is epoch {f.start:g}, before the peak of {f.last_schedule} (epoch"
        " {f.peak:g}); choose a later start.",
    ),
    (
        lambda r, f: f.phased and f.phases > 1 and r.early_stopping,
        "--early-stopping would end the training before all phases of --finetune.kind {r.finetune.kind} have begun;"
        " leave it out (--fit.keep saves the best weights, --finetune.restore-best begins a phase with them).",
    ),
    (
        lambda r, f: (
            f.phased and r.finetune.restore_best != "none" and (min(f.validations) < 1 or max(f.validations) < 2)
        ),
        "--finetune.restore-best {r.finetune.restore_best} needs a validation in each phase before the last, and two or"
        " more in one of them; with --fit.validate-every {r.fit.validate_every} they have {f.validations}: validate"
        " more often, or give the phases more epochs.",
    ),
    *_patience("early_stopping", 1),
    (
        lambda r, f: r.early_stopping and r.fit.keep != "last",
        "--fit.keep {r.fit.keep} has no effect with --early-stopping, which saves the weights that are best by its own"
        " monitor; leave --fit.keep out.",
    ),
    (
        lambda r, f: r.fit.class_weights == r.data.sampling == "balanced",
        "--fit.class-weights balanced and --data.sampling balanced both make up for rare classes, together twice over;"
        " choose one.",
    ),
    (
        lambda r, f: r.augment.cutout and r.data.size is not None and r.augment.cutout.size > r.data.size,
        "--augment.cutout.size ({r.augment.cutout.size}) is larger than the images (--data.size {r.data.size}); a hole"
        " must fit into the image.",
    ),
    (
        lambda r, f: f.finetune == "upper" and f.new_ways,
        "--augment.{f.new_ways} has no effect with --finetune upper, which keeps the maps of an image as it is, and"
        " mirrored; leave one of the two out.",
    ),
    (
        lambda r, f: f.finetune == "upper" and r.fit.compile,
        "--fit.compile has no effect with --finetune upper; leave it out.",
    ),
    (
        lambda r, f: f.finetune == "upper" and r.fit.processes > 1,
        "--fit.processes has no effect with --finetune upper; leave it out.",
    ),
    (
        lambda r, f: f.finetune == "frozen" and r.finetune.features and f.new_ways,
        "--finetune.features {r.finetune.features} has no effect with --augment.{f.new_ways}, which shows an image in"
        " ever new ways; leave one of the two out.",
    ),
    (
        lambda r, f: f.finetune == "frozen" and r.finetune.features == "keep" and r.fit.compile,
        "--fit.compile has no effect on frozen layers that compute once (--finetune.features keep); leave one of the"
        " two out.",
    ),
    (
        lambda r, f: f.head in ("graph_attention", "self_attention") and r.augment.scales,
        "--augment.scales shows smaller images first, and --head {r.head.kind} reads one size only: it learns a"
        " position and weights for each patch of the map; add --augment.no-scales, or choose --head attention_pool.",
    ),
    (
        lambda r, f: r.probe and r.network.kind != "run" and not getattr(r.network, "weights", None),
        "{r.probe.flag} needs a network that has learned already, and {r.network.kind} starts from nothing; train it by"
        " --recipe small or --probe none, or probe another network: --backbone box.",
    ),
    (
        lambda r, f: r.probe and r.head,
        "--head {r.head.kind} has no effect with a probe, whose head is linear; leave it out.",
    ),
    (
        lambda r, f: r.probe and r.fit.processes > 1,
        "--fit.processes: a probe is solved by one process; leave the option out.",
    ),
    (
        lambda r, f: r.probe and f.finetune == "frozen",
        "--finetune frozen has no effect behind a probe, which is the best head of the frozen network; leave it out, or"
        " add --probe.kind none.",
    ),
)
"""For a classifier's."""

_NO_CLASSES = "has no effect on a generator, which tells no classes apart; leave it out."
GENERATOR: tuple[Conflict, ...] = (
    (lambda r, f: r.fit.label_smoothing != 0, f"--fit.label-smoothing {{r.fit.label_smoothing}} {_NO_CLASSES}"),
    (lambda r, f: r.fit.loss != "cross_entropy", f"--fit.loss {{r.fit.loss}} {_NO_CLASSES}"),
    (lambda r, f: r.fit.class_weights != "none", f"--fit.class-weights {{r.fit.class_weights}} {_NO_CLASSES}"),
    (lambda r, f: r.fit.keep != "last", f"--fit.keep {{r.fit.keep}} {_NO_CLASSES}"),
    (
        lambda r, f: r.data.correct_test,
        "--data.correct-test has no effect on a generator, which is measured on no test image; leave it out.",
    ),
    (
        lambda r, f: r.data.synthetic is not None,
        "--data.synthetic: a generator learns from real images alone; leave the option out.",
    ),
    (
        lambda r, f: r.generator.kind == "acgan" and r.fit.processes > 1,
        "--fit.processes {r.fit.processes}: in each step of --generator.kind acgan only one of two networks learns,"
        " which several processes cannot settle beforehand; leave it out.",
    ),
    (
        lambda r, f: r.generator.kind == "acgan" and r.fit.compile,
        "--fit.compile has no effect on --generator.kind acgan, whose two networks learn apart; leave it out.",
    ),
)
"""For a generator's."""
