"""Photographs: what follows a linear probe within the time that there is, kept only where it is better on validation.

That is fine-tuning from the probe's head, or a rival: another recipe, trained from nothing. N images, K classes.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sightline.config.finetuning import UpperConfig
from sightline.config.probing import MOST_SECONDS, TIMES_FEATURES
from sightline.config.resolving import merge, read_recipe, resolve, to_mapping
from sightline.data.units import group_numbers
from sightline.display.reporting import Listener, ignore, stage
from sightline.display.waiting import spoken_seconds
from sightline.errors import ConfigError
from sightline.inference.classifier import Classifier
from sightline.inference.views import combine, shown
from sightline.machine.devices import choose_device, convolution_flops
from sightline.measures.significance import mcnemar, paired_interval
from sightline.runs.writing import write_csv
from sightline.training.base import Trained, with_settings
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.estimates import estimate_training
from sightline.training.finetune_costs import Candidate, candidates
from sightline.training.finish import REFERENCE_IMAGES
from sightline.training.preparation import prepare_classifier
from sightline.training.probe import Probed, measure_logits, run_probe
from sightline.training.request import Request

__all__ = ["keep_better", "plan_finetuning", "train_from_probe"]

TELLING = 50  # validation images, below which they cannot tell whether fine-tuning helped
LEAST_EPOCHS, MOST_EPOCHS = 3, 30
PLANNED = 0.9  # of the time that is left: the speed of machines that are shared drifts
START_UP, WRITE = 5.0, 15.0  # seconds: until the verb is called; to load Lightning, and to write the run
RESERVE = 10.0  # seconds, of a training with a limit: to write the run

Array = np.ndarray[Any, Any]


def train_from_probe(
    plan: ClassifierPlan,
    settings: Mapping[str, Any],
    run: Path,
    started: float,
    on_event: Listener,
) -> None:
    """Solve for a linear head, try what may be better, keep the better of the two, and finish the run.

    Args:
        plan: of the training.
        settings: what the user set over its recipe.
        run: its folder.
        started: by ``time.monotonic``, when the training was called.
        on_event: where it is reported.
    """
    begun = (run / "model.json").exists()
    rival = None
    if plan.rival and not plan.splits.cross_validated and not begun:
        rival = _prepare_rival(plan, settings)
    minutes = plan.recipe.probe.minutes if plan.recipe.probe else None
    probed = run_probe(plan, on_event)
    if rival is not None and _rival_fits(rival, plan, probed, started, on_event):
        _train_rival(plan, probed, rival, run, on_event)
        return
    if not begun:
        plan, searched = plan_finetuning(plan, probed, started, on_event)
        plan.begin(run, {"found": searched} if searched else {})
    if isinstance(plan.recipe.finetune, UpperConfig):
        plan.network.cut_after(plan.recipe.finetune.after)
    assert plan.recipe.probe is not None
    if plan.recipe.probe.then == "nothing":
        _finish_with_probe(plan, probed, run, on_event)
        return
    from sightline.training.fit import fitted

    before = {name: tensor.clone() for name, tensor in plan.network.state_dict().items()}
    deadline = inf
    if minutes is not None and not begun:  # validation and test still have to fit
        reference = min(len(plan.splits.train), REFERENCE_IMAGES)
        measured = len(plan.splits.test) + len(plan.splits.validation) + reference
        measuring = measured / probed.images_per_second
        deadline = started + minutes * 60 - measuring - RESERVE
    flops = _speed(probed)
    with fitted(plan, run, on_event, deadline) as trained:
        compared = keep_better(plan, probed, before, on_event)
        trained = replace(
            trained,
            seconds=probed.seconds + trained.seconds,
            probe_flops=flops,
            facts={"probe": probed.facts | compared} | trained.facts,
            **(_kept(plan, probed) if compared["kept"] == "probe" else {}),
        )
        plan.finish(run, trained, on_event)


def _train_rival(
    plan: ClassifierPlan,
    probed: Probed,
    rival: ClassifierPlan,
    run: Path,
    on_event: Listener,
) -> None:
    """Train the rival of a probe by steps, and finish the run with the better of the two."""
    from sightline.training.fit import fitted

    rival.begin(run)
    with fitted(rival, run, on_event) as trained:
        compared = _compare_rival(plan, probed, rival, on_event)
        trained = replace(trained, seconds=probed.seconds + trained.seconds, facts={"probe": probed.facts | compared})
        if compared["kept"] != "probe":
            rival.finish(run, trained, on_event)
            return
        plan = replace(plan, recipe=with_settings(plan.recipe, "probe", then="nothing", minutes=None), searches=())
        plan.begin(run)
        plan.finish(run, replace(trained, phases=(), epochs=0, **_kept(plan, probed)), on_event)


def _finish_with_probe(plan: ClassifierPlan, probed: Probed, run: Path, on_event: Listener) -> None:
    """Finish a run of which the probe is all that there is."""
    write_csv(run / "metrics.csv", ("epoch", "train_loss", "train_acc", "val_loss", "val_acc"), [])
    trained = Trained(
        probed.seconds,
        _speed(probed),
        facts={"probe": probed.facts},
        crossed=probed.crossed,
        **_kept(plan, probed),
    )
    plan.finish(run, trained, on_event)


def _speed(probed: Probed) -> float:
    """Measure the operations a second of the machine, in the number format of the features."""
    return convolution_flops(choose_device(), probed.store.dtype)


def _kept(plan: ClassifierPlan, probed: Probed) -> dict[str, Any]:
    """Return what answers from kept features, for ``Trained``: logits only where one view is used."""
    ask = probed.ask if plan.recipe.evaluation.views == "one" else None
    return {"ask": ask, "features": probed.store.compared}


def plan_finetuning(
    plan: ClassifierPlan, probed: Probed, started: float, on_event: Listener
) -> tuple[ClassifierPlan, dict[str, Any]]:
    """Decide how many epochs of how many layers follow the probe within the time, or none.

    Args:
        plan: whose recipe may leave it open (``probe.then`` auto).
        probed: the probe.
        started: by ``time.monotonic``, when the command was called.
        on_event: where the decision is said.
    Returns:
        The plan with everything settled, and what was settled, for ``model.json``.
    """
    probe = plan.recipe.probe
    assert probe is not None
    if probe.then != "auto":
        return plan, {}
    options, why = _options(plan)
    if probe.minutes is not None:
        measure = (len(plan.splits.test) + len(plan.splits.validation)) / probed.images_per_second
        left = probe.minutes * 60 - (time.monotonic() - started) - START_UP - measure - WRITE
    else:
        left = min(TIMES_FEATURES * probed.facts["feature_seconds"], MOST_SECONDS)
    chosen = None
    if options:
        chosen, why = _choose(options, left)
    settings: dict[str, Any] = {"probe": {"then": "nothing", "minutes": None}}
    if chosen is not None:
        epochs = min(MOST_EPOCHS, int((left * PLANNED - chosen.once) / chosen.epoch))
        settings = {
            "probe": {"then": "finetune", "minutes": None},
            "fit": {"epochs": epochs},
            "finetune": None if chosen.after is None else {"kind": "upper", "after": chosen.after},
        }
        if chosen.after is not None:
            settings["augment"] = {"crop": None, "policy": None}
        layers = "all layers" if chosen.after is None else f"the layers behind {chosen.after.removeprefix('body.')}"
        why = (
            f"fine-tuning: {epochs} epochs of {layers}, about {spoken_seconds(chosen.once + epochs * chosen.epoch)}; it"
            " is kept only if it is better on validation"
        )
    on_event(why)
    searched = {"from": {"probe.then": "auto", "probe.minutes": probe.minutes}, "settings": settings}
    recipe = resolve(to_mapping(plan.recipe), settings)
    return replace(plan, recipe=recipe, searches=()), {"fit.epochs": searched}


def _options(plan: ClassifierPlan) -> tuple[list[Candidate], str]:
    """Return the ways to fine-tune, the most layers first; or none, and why."""
    n = len(plan.splits.validation)
    if plan.splits.cross_validated:
        return [], (
            "no fine-tuning, whatever the minutes: of so few images none could be set aside to tell whether it helps"
            " (--data.validation 60 sets some aside, and a fifth to test on)"
        )
    if n < TELLING:
        return [], f"no fine-tuning: {n} validation images could not tell whether it helps"
    return candidates(plan), ""


def _choose(options: list[Candidate], left: float) -> tuple[Candidate | None, str]:
    """Choose the layers to fine-tune in so many seconds: as many as get enough epochs; or none, and why."""
    for option in options:
        if option.once + LEAST_EPOCHS * option.epoch <= left * PLANNED:
            return option, ""
    needed = min(option.once + LEAST_EPOCHS * option.epoch for option in options) / PLANNED
    return None, (
        f"no fine-tuning: it would take {spoken_seconds(needed)} and there are {spoken_seconds(max(left, 0))};"
        " --minutes allows more"
    )


def keep_better(plan: ClassifierPlan, probed: Probed, before: dict[str, Tensor], on_event: Listener) -> dict[str, Any]:
    """Compare the fine-tuned network with the probe on validation, and put the better one into the plan's network.

    Args:
        plan: whose network is fine-tuned.
        probed: the probe.
        before: tensors of the network with the probe's head.
        on_event: where the outcome is said.
    Returns:
        Both, their paired difference, and which was ``kept``, for ``model.json``.
    """
    rows = plan.splits.validation
    classifier = Classifier(plan.network, plan.describe(), probed.store.device)
    with stage(on_event, "Comparing on validation") as progress:
        tuned_NK = classifier.view_logits(
            plan.images.pixels, "one", rows=rows, progress=lambda done: progress(done, len(rows))
        )[0]
    compared = _compared(plan, probed, tuned_NK + plan.answer_shift, "fine-tuned", on_event)
    if compared["kept"] == "probe":
        plan.network.load_state_dict(before)
    return compared


def _compared(plan: ClassifierPlan, probed: Probed, logits_NK: Array, name: str, on_event: Listener) -> dict[str, Any]:
    """Compare another classifier's logits of the validation images with the probe's."""
    rows = plan.splits.validation
    labels_N, groups_N = plan.images.labels[rows], group_numbers(plan.images, rows)
    right_N, other_right_N = (logits.argmax(1) == labels_N for logits in (probed.logits_NK, logits_NK))
    probe, other = (measure_logits(logits, labels_N, groups_N) for logits in (probed.logits_NK, logits_NK))
    better = (other["accuracy"], -other["loss"]) > (probe["accuracy"], -probe["loss"])
    difference, low, high = paired_interval(other_right_N, right_N, groups_N)
    chance = mcnemar(other_right_N, right_N, groups_N)
    on_event(
        f"validation, {len(labels_N):,} images: probe {probe['accuracy']:.4f}, {name} {other['accuracy']:.4f}"
        f" (difference {difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}, McNemar's p = {chance:.2g});"
        f" {name if better else 'the probe'} is kept"
    )
    return {
        "other": name,
        "finetuned": other,
        "difference": {"estimate": difference, "low": low, "high": high, "p": chance},
        "kept": name if better else "probe",
    }


def _prepare_rival(plan: ClassifierPlan, settings: Mapping[str, Any]) -> ClassifierPlan | None:
    """Prepare the recipe that is tried besides a probe, on the same images; None where the settings do not suit it."""
    own = {name: value for name, value in settings.items() if name != "probe"}
    data = plan.recipe.data  # of which these two may have been chosen by the images
    own = merge(own, {"data": {"fit": data.fit} | ({"validation": data.validation} if data.validation else {})})
    if plan.mirrored.left_out:
        own = merge(own, {"augment": {"flip": "none"}, "evaluation": {"views": "one"}})
    named = read_recipe(plan.rival)
    try:
        request = Request(named, own, plan.source, False, resolve(named, own), plan.splits.rule)
        return replace(prepare_classifier(request, ignore), mirrored=plan.mirrored)
    except ConfigError:
        return None


def _rival_fits(
    rival: ClassifierPlan, plan: ClassifierPlan, probed: Probed, started: float, on_event: Listener
) -> bool:
    """Tell whether there is time to train the rival of a probe; it is said either way."""
    probe = plan.recipe.probe
    assert probe is not None
    if probe.then != "auto":
        return False
    train, held_out = len(rival.splits.train), len(rival.splits.validation)
    seconds = estimate_training(rival.recipe, rival.network, rival.images.size, train, held_out).seconds
    left = MOST_SECONDS
    if probe.minutes is not None:
        left = probe.minutes * 60 - (time.monotonic() - started) - START_UP - WRITE
    name = rival.recipe.name
    line = (
        f"recipe {name} next, from nothing, on images of {max(rival.images.size)} px: about {spoken_seconds(seconds)}"
    )
    line += "; it is kept only if it is better on validation"
    if seconds > left:
        line = f"recipe {name} would take {spoken_seconds(seconds)} and there are {spoken_seconds(left)}: not tried"
    on_event(line)
    return seconds <= left


def _compare_rival(plan: ClassifierPlan, probed: Probed, rival: ClassifierPlan, on_event: Listener) -> dict[str, Any]:
    """Compare a rival that was trained with the probe, on the validation images that both kept out."""
    rows = rival.splits.validation
    if [rival.images.paths[row] for row in rows] != [plan.images.paths[row] for row in plan.splits.validation]:
        raise AssertionError("the rival of a probe validates on other images")
    model = rival.describe()
    classifier = Classifier(rival.network, model, probed.store.device)
    views = shown(model["views"])
    logits_NK = combine(classifier.view_logits(rival.images.pixels, views, rows=rows), views)
    return _compared(plan, probed, logits_NK + rival.answer_shift, f"recipe {rival.recipe.name}", on_event)
