"""The steps of ``sightline.train``, from the request to the finished run folder. Loads torch.

What is trained is a plan, and this is what all plans have in common, from the run folder to the last step. Lightning
is loaded by the fit alone: a probe that nothing follows does without.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sightline.display.events import Epoch, Event
from sightline.display.pictures import drawing
from sightline.display.reporting import Listener, ignore
from sightline.errors import ConfigError
from sightline.machine.cores import sharing_cores
from sightline.machine.devices import arithmetic, choose_device, keep_freed_memory
from sightline.runs.folder import create_run, run_to_help
from sightline.runs.locking import LOCK, alone
from sightline.training.base import Plan
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.finetune import train_from_probe
from sightline.training.preparation import prepare_any
from sightline.training.request import Request
from sightline.training.resume import note_on_batches, note_on_images, run_to_resume, split_rule_of
from sightline.training.resume_point import settle_checkpoints
from sightline.training.summary import describe_training

__all__ = ["execute"]


def execute(
    request: Request,
    run: str | os.PathLike[str] | None,
    *,
    resume: bool,
    restart: bool,
    dry_run: bool,
    started: float,
    on_event: Listener,
    after_epoch: Callable[[int, dict[str, float]], None] | None,
) -> Path | None:
    """Train as ``sightline.train`` has it, which has refused what needs no torch.

    Args:
        request: what is trained on what.
        run, resume, restart, dry_run, on_event, after_epoch: as ``sightline.train`` has them.
        started: by ``time.monotonic``, when it was called.
    """
    keep_freed_memory()
    helping = run_to_help()
    if helping:
        on_event = ignore
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
        if begun is not None:
            request = replace(request, split_rule=split_rule_of(begun))
        plan = prepare_any(request, on_event)
        fit = plan.recipe.fit
        if fit.deterministic or fit.processes > 1 or arithmetic(fit.precision, device) != torch.bfloat16:
            share.end()
        if after_epoch is not None and fit.processes > 1:
            raise ConfigError("--fit.processes must be 1 where the end of an epoch is waited for; leave it out.")
        if helping is not None:
            from sightline.training.fit import help_fit

            help_fit(plan, helping)
        folder, plan = run_to_resume(run, plan) if resume else (None, plan)
        if (
            folder is not None and (rule := split_rule_of(folder)) != plan.splits.rule
        ):  # of the newest, not of a named run
            folder, plan = run_to_resume(folder, prepare_any(replace(request, split_rule=rule), on_event))
        if folder is not None and (folder / "DONE").exists():
            on_event(f"{folder} is finished already; nothing was done.")
            return folder
        if request.repeats is not None:
            on_event(note_on_images(request.repeats, plan))
        describe_training(on_event, plan)
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
            on_event(" ".join(filter(None, (f"Continuing {folder}.", older, note_on_batches(folder, plan)))))
        _train(plan, request.settings, folder, started, _telling(on_event, after_epoch))
    return folder


def _telling(on_event: Listener, after_epoch: Callable[[int, dict[str, float]], None] | None) -> Listener:
    """Return a listener that also tells an epoch that has ended, and its numbers, to ``after_epoch``."""

    def hear(event: Event) -> None:
        on_event(event)
        if isinstance(event, Epoch) and event.ended and after_epoch is not None:
            after_epoch(event.epoch, dict(event.metrics))

    return on_event if after_epoch is None else hear


def _is_unfinished(run: Path) -> bool:
    return os.path.exists(run / "recipe.yaml") and not os.path.exists(run / "DONE")


def _train(
    plan: Plan,
    settings: Mapping[str, Any],
    run: Path,
    started: float,
    on_event: Listener,
) -> None:
    """Train in a folder that this process holds: by a probe or by steps, from where its run stands."""
    if plan.recipe.probe is not None:
        assert isinstance(plan, ClassifierPlan)  # a generator has none
        train_from_probe(plan, settings, run, started, on_event)
        return
    from sightline.training.fit import fitted

    if not (run / "model.json").exists():
        plan = _begin(plan, run, on_event)
    with fitted(plan, run, on_event) as trained:
        plan.finish(run, trained, on_event)


def _begin(plan: Plan, run: Path, on_event: Listener) -> Plan:
    """Write what a run knows before its first step; returns the plan with all numbers that were searched for."""
    if not plan.searches:
        plan.begin(run)
        return plan
    assert isinstance(plan, ClassifierPlan)  # nothing of a generator is searched for
    from sightline.training.finders.auto import find_auto_settings
    from sightline.training.finders.rate import write_range

    try:
        plan, facts, rate = find_auto_settings(plan, on_event)
    except BaseException:  # Ctrl-C, too
        with suppress(OSError):  # it is not empty: the training was begun before
            (run / LOCK).unlink(missing_ok=True)
            run.rmdir()
        raise
    plan.begin(run, {"found": facts})
    if rate is not None:
        with drawing("range.png", on_event):
            write_range(run, rate)
    return plan
