"""Train a classifier, or a generator: an image set in, a finished run folder out.

What both have in common, from the run folder to the last step, is here once; what differs asks for the kind of the plan.
Lightning is loaded by the fit alone: a probe that nothing follows does without.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from rich.console import Console

from sightline.config import resolve, trains_generator
from sightline.config.resolving import merge, to_mapping
from sightline.data.sources.embedded import GROCERIES
from sightline.data.sources.listing import listed_once
from sightline.display.pictures import drawing
from sightline.display.terminal import reporting_console, show
from sightline.errors import ConfigError
from sightline.machine.cores import sharing_cores
from sightline.machine.devices import arithmetic, choose_device, convolution_flops, keep_freed_memory
from sightline.reports.report import report
from sightline.runs.folder import REPORT, create_run, read_model, refuse_existing, run_to_help, write_recipe
from sightline.runs.locking import LOCK, alone
from sightline.runs.writing import write_csv, write_json
from sightline.training.checkpoints import settle_checkpoints
from sightline.training.conflicts import refuse_lone_program
from sightline.training.finish import Trained, finish
from sightline.training.generator_job import describe_generator, finish_generator, notes_of_generator, prepare_generator
from sightline.training.job import AnyPlan, GeneratorPlan, Plan, describe_classifier, notes
from sightline.training.network import write_seen
from sightline.training.prepare import prepare_training, what_is_asked
from sightline.training.probe import (
    Probed,
    compare_rival,
    keep_better,
    plan_finetuning,
    prepare_rival,
    rival_fits,
    run_probe,
)
from sightline.training.resume import as_found, run_to_resume
from sightline.training.summary import describe_training, show_generator

__all__ = ["train"]

UNNAMED = f"No image set was named: this trains on {GROCERIES}, the embedded photographs."
RESERVE = 10.0  # seconds, of a training with a limit: to write the run


@listed_once()
def train(
    data: str | os.PathLike[str] | None = None,
    *,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    restart: bool = False,
    dry_run: bool = False,
    console: Console | None = None,
    after_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Path | None:
    """Train a classifier on an image set and measure it; or a generator, where the recipe names one.

    Args:
        data: a folder, an archive, a manifest, or a name such as ``digits``; None for the one that the recipe or the run
            to resume names, or else for ``groceries``, the embedded photographs.
        recipe: a recipe's name, a YAML file, its content, or ``auto`` to choose by the size and number of the images.
        settings: what to set over the recipe, nested as in its YAML.
        run: folder to make; None for ``runs/<data>-<recipe>-<n>``.
        resume: continue ``run``, or the newest unfinished run of the same data and settings.
        restart: with ``resume``: begin the run again at its first epoch, and delete its checkpoints.
        dry_run: describe the training and stop before the first step.
        console: where to report; None reports nothing.
        after_epoch: called with each epoch, counted from 1, and its line of ``metrics.csv``, before its checkpoint is written;
            what it raises ends the training.
    Returns:
        The folder of the finished run; None after a dry run.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do.
        Interrupted: Ctrl-C; the run can be resumed.
    """
    started = time.monotonic()
    keep_freed_memory()
    helping = run_to_help()
    console = Console(quiet=True) if helping else reporting_console(console)
    if run is not None and not resume:
        refuse_existing(run)
    if restart and not resume:
        raise ConfigError("--restart begins a run again that is resumed, and has no effect without --resume.")
    begun = Path(run) if resume and run is not None else None
    with ExitStack() as stack:
        device = choose_device()
        share = stack.enter_context(sharing_cores(device, arithmetic("auto", device), helping is None))
        held = None
        if begun is not None and helping is None and not dry_run and _is_unfinished(begun):
            stack.enter_context(alone(begun, "trained"))  # refused before any image is read
            held = begun
            if not restart:
                settle_checkpoints(begun)
        plan = _prepare(data, recipe, settings or {}, begun, console)
        if plan.recipe.fit.deterministic or plan.recipe.fit.processes > 1:
            share.end()
        if after_epoch is not None and plan.recipe.fit.processes > 1:
            raise ConfigError("--fit.processes must be 1 where the end of an epoch is waited for; leave it out.")
        if helping is not None:
            from sightline.training.fit import help_fit

            help_fit(plan, helping)
        folder = run_to_resume(run, plan) if resume else None
        if folder is not None and (folder / "DONE").exists():
            show(f"{folder} is finished already; nothing was done.", console)
            return folder
        plan = plan if folder is None else as_found(plan, folder)
        told = notes_of_generator(plan) if isinstance(plan, GeneratorPlan) else notes(plan)
        describe_training(console, plan.recipe, plan.why, plan.images, plan.splits, plan.network, told)
        if dry_run:
            return None
        if folder is None:
            folder, resume = create_run(f"{plan.source.name}-{plan.recipe.name}", run), False
        if folder != held:
            stack.enter_context(alone(folder, "trained"))
        if (folder / "DONE").exists():  # by another process, since this one looked
            return folder
        older = settle_checkpoints(folder, restart=restart)
        if resume:
            show(f"Continuing {folder}. {older}".rstrip(), console)
        _train(plan, settings or {}, folder, started, console, after_epoch)
    return folder


def _is_unfinished(run: Path) -> bool:
    return os.path.exists(run / "recipe.yaml") and not os.path.exists(run / "DONE")


def _train(
    plan: AnyPlan,
    settings: Mapping[str, Any],
    run: Path,
    started: float,
    console: Console,
    after_epoch: Callable[[int, dict[str, float]], None] | None,
) -> None:
    """Train in a folder that this process holds: by a probe or by steps, from where its run stands."""
    begun = (run / "model.json").exists()
    if isinstance(plan, Plan) and plan.recipe.probe is not None:
        rival = prepare_rival(plan, settings) if plan.rival and not plan.splits.cross_validated and not begun else None
        _train_probe(plan, rival, run, started, console, after_epoch)
        return
    _train_by_steps(plan if begun else _begin(plan, run, console), run, console, after_epoch)


def _train_by_steps(
    plan: AnyPlan, run: Path, console: Console, after_epoch: Callable[[int, dict[str, float]], None] | None
) -> None:
    """Fit the network of a plan from the first epoch to the last, and finish the run."""
    from sightline.training.fit import fit
    from sightline.training.trackers import tracked

    with tracked(plan.recipe, run, console) as trackers:
        fitted = fit(plan, run, trackers, console, after_epoch)
        if isinstance(plan, GeneratorPlan):
            cost = {"seconds": fitted.seconds, "probe_flops": fitted.probe_flops}
            finish_generator(plan, run, cost, fitted.losses)
            with drawing(REPORT, console):
                report(run)
            show_generator(console, run, fitted.losses, len(plan.splits.validation))
        else:
            epochs = (fitted.kept or {}).get("stopped_after") or plan.recipe.fit.epochs
            facts = {} if fitted.kept is None else {"kept": fitted.kept}
            finish(plan, run, Trained(fitted.seconds, fitted.probe_flops, fitted.phases, epochs, facts), console)
        for tracker in trackers:
            tracker.log_final(read_model(run), fitted.steps)


def _train_probe(
    plan: Plan,
    rival: Plan | None,
    run: Path,
    started: float,
    console: Console,
    after_epoch: Callable[[int, dict[str, float]], None] | None,
) -> None:
    """Solve for a linear head, fine-tune from it where there is time, keep the better of the two, and finish the run.

    Args:
        rival: what is trained in place of fine-tuning, from nothing; it is kept only where it is better, too.
        started: by ``time.monotonic``, when the training was called.
    """
    minutes = plan.recipe.probe.minutes if plan.recipe.probe else None
    probed = run_probe(plan, console)
    begun = (run / "model.json").exists()
    if rival is not None and rival_fits(rival, plan, probed, started, console):
        _train_rival(plan, probed, rival, run, console, after_epoch)
        return
    if not begun:
        plan, found = plan_finetuning(plan, probed, started, console)
        _write_begun(plan, run, {"found": found} if found else {})
    seconds, facts = probed.seconds, {"probe": probed.facts}
    flops = convolution_flops(choose_device(), probed.store.dtype)
    assert plan.recipe.probe is not None
    if plan.recipe.probe.then == "nothing":
        write_csv(run / "metrics.csv", ("epoch", "train_loss", "train_acc", "val_loss", "val_acc"), [])
        ask = probed.ask if plan.recipe.evaluation.views == "one" else None
        finish(plan, run, Trained(seconds, flops, (), 0, facts, ask, probed.crossed), console)
        return
    from sightline.training.fit import fit
    from sightline.training.trackers import tracked

    before = {name: tensor.clone() for name, tensor in plan.network.state_dict().items()}
    deadline = inf if minutes is None or begun else _deadline(plan, started, minutes, probed.images_per_second)
    with tracked(plan.recipe, run, console) as trackers:
        fitted = fit(plan, run, trackers, console, after_epoch, deadline)
        compared = keep_better(plan, probed, before, console)
        ask = probed.ask if compared["kept"] == "probe" and plan.recipe.evaluation.views == "one" else None
        facts = {"probe": probed.facts | compared} | ({} if fitted.kept is None else {"kept": fitted.kept})
        epochs = (fitted.kept or {}).get("stopped_after") or fitted.epochs
        finish(plan, run, Trained(seconds + fitted.seconds, flops, fitted.phases, epochs, facts, ask), console)
        for tracker in trackers:
            tracker.log_final(read_model(run), fitted.steps)


def _train_rival(
    plan: Plan,
    probed: Probed,
    rival: Plan,
    run: Path,
    console: Console,
    after_epoch: Callable[[int, dict[str, float]], None] | None,
) -> None:
    """Train the rival of a probe by steps, and finish the run with the better of the two."""
    from sightline.training.fit import fit
    from sightline.training.trackers import tracked

    _write_begun(rival, run, {})
    with tracked(rival.recipe, run, console) as trackers:
        fitted = fit(rival, run, trackers, console, after_epoch)
        compared = compare_rival(plan, probed, rival, console)
        seconds, facts = probed.seconds + fitted.seconds, {"probe": probed.facts | compared}
        if compared["kept"] == "probe":
            settled = resolve(to_mapping(plan.recipe), {"probe": {"then": "nothing", "minutes": None}})
            plan = replace(plan, recipe=settled, searches=())
            _write_begun(plan, run, {})
            ask = probed.ask if plan.recipe.evaluation.views == "one" else None
            finish(plan, run, Trained(seconds, fitted.probe_flops, (), 0, facts, ask), console)
        else:
            trained = Trained(seconds, fitted.probe_flops, fitted.phases, fitted.epochs, facts)
            finish(rival, run, trained, console)
        for tracker in trackers:
            tracker.log_final(read_model(run), fitted.steps)


def _deadline(plan: Plan, started: float, minutes: float, images_per_second: float) -> float:
    """When the last epoch must have ended, by ``time.monotonic``, so that validation and test still fit."""
    still = (len(plan.splits.test) + len(plan.splits.validation)) / images_per_second
    return started + minutes * 60 - still - RESERVE


def _prepare(
    data: str | os.PathLike[str] | None,
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    settings: Mapping[str, Any],
    begun: Path | None,
    console: Console,
) -> AnyPlan:
    """Settle what is trained, a generator where the recipe names one; arguments as ``prepare_training`` has them."""
    named, source = what_is_asked(data, recipe, begun, GROCERIES, settings)
    fit = merge(named or {}, settings).get("fit")
    refuse_lone_program(fit.get("processes") if isinstance(fit, Mapping) else None)  # before any image is read
    if data is None and not (named or {}).get("image_set"):
        show(UNNAMED, console)
    if named is not None and trains_generator(named, settings):
        return prepare_generator(source, named, settings, console)
    return prepare_training(data, recipe, settings, begun, console, GROCERIES)


def _begin(plan: AnyPlan, run: Path, console: Console) -> AnyPlan:
    """Write what a run knows before its first step; returns the plan with all numbers that were searched for."""
    if isinstance(plan, GeneratorPlan):
        write_recipe(run, plan.recipe)
        write_seen(run, plan.images, plan.splits, None)
        write_json(run / "model.json", describe_generator(plan))
        return plan
    if not plan.searches:
        _write_begun(plan, run, {})
        return plan
    from sightline.training.finders.rate import write_range
    from sightline.training.finders.settle import settle

    try:
        plan, found, rate = settle(plan, console)
    except BaseException:  # Ctrl-C, too
        with suppress(OSError):  # it is not empty: the training was begun before
            (run / LOCK).unlink(missing_ok=True)
            run.rmdir()
        raise
    _write_begun(plan, run, {"found": found})
    if rate is not None:
        with drawing("range.png", console):
            write_range(run, rate)
    return plan


def _write_begun(plan: Plan, run: Path, more: dict[str, Any]) -> None:
    """Write what is known of a classifier before its first step."""
    write_recipe(run, plan.recipe)
    write_seen(run, plan.images, plan.splits, plan.built.seen)
    write_json(run / "model.json", describe_classifier(plan) | more)
