"""Train a classifier, or a generator: an image set in, a finished run folder out.

What both have in common, from the run folder to the last step, is here once; what differs asks for the kind of the plan.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from rich.console import Console

from sightline.averaging import hand_on
from sightline.backbones import fit_to_images, write_seen
from sightline.config import FrozenConfig, trains_generator
from sightline.conformal import image_uniforms
from sightline.data import ImageData
from sightline.describing import Progress, describe_training, show_generator, show_kept, show_measures, show_next_steps
from sightline.devices import choose_device, describe, keep_freed_memory
from sightline.errors import ConfigError, Interrupted, TrainingError
from sightline.evaluating import evaluate_rows
from sightline.finders import FoundRate, settle, write_range
from sightline.generator_plans import describe_generator, finish_generator, notes_of_generator, prepare_generator
from sightline.images.augment import shown_size
from sightline.images.batches import TrainingBatches, augmentation_of
from sightline.images.embedded import GROCERIES
from sightline.learners import ACGANLearner, ClassifierLearner, DiffusionLearner, Learner, balanced_weights
from sightline.nets import ACGAN, training_flops
from sightline.picturing import draw_batch
from sightline.plans import AnyPlan, GeneratorPlan, Plan, describe_classifier, notes
from sightline.predicting import Classifier
from sightline.preparing import prepare_training, what_is_asked
from sightline.reporting import report
from sightline.resuming import as_found, changes_since, run_to_resume
from sightline.runs import (
    REPORT,
    create_run,
    helped,
    mark_done,
    read_model,
    refuse_existing,
    run_to_help,
    write_recipe,
    write_weights,
)
from sightline.samples import SampleGrid
from sightline.tracking import Tracker, tracked
from sightline.trainer import CostMeter, EpochLog, build_trainer, checkpoint_to_resume
from sightline.trusting import calibrate, measure_corruptions, measure_strangers
from sightline.views import VIEWS, Views, combine
from sightline.writing import write_csv, write_json

__all__ = ["train"]

UNNAMED = f"No image set was named: this trains on {GROCERIES}, the embedded photographs."
PATIENCE = 5.0  # seconds in which a process that lost its connection sees that the other one has ended


def train(
    data: str | os.PathLike[str] | None = None,
    *,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
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
    keep_freed_memory()
    helping = run_to_help()
    console = Console(quiet=True) if helping or console is None else console
    if run is not None and not resume:
        refuse_existing(run)
    plan = _prepare(data, recipe, settings or {}, Path(run) if resume and run is not None else None, console)
    if after_epoch is not None and plan.recipe.fit.processes > 1:
        raise ConfigError("--fit.processes must be 1 where the end of an epoch is waited for; leave it out.")
    if helping is not None:
        _help(plan, helping)
    folder = run_to_resume(run, plan) if resume else None
    if folder is not None and (folder / "DONE").exists():
        console.print(f"{folder} is finished already; nothing was done.", highlight=False)
        return folder
    plan = plan if folder is None else as_found(plan, folder)
    told = notes_of_generator(plan) if isinstance(plan, GeneratorPlan) else notes(plan)
    describe_training(console, plan.recipe, plan.why, plan.images, plan.splits, plan.network, told)
    if dry_run:
        return None
    if folder is None:
        folder = create_run(f"{plan.source.name}-{plan.recipe.name}", run)
    elif resume:
        console.print(f"Continuing {folder}.", highlight=False)
    if not (folder / "model.json").exists():
        plan = _begin(plan, folder, console)
    with tracked(plan.recipe, folder, console) as trackers:
        with helped(folder) if plan.recipe.fit.processes > 1 else nullcontext():
            learner, meter, kept = _fit(plan, folder, trackers, console, after_epoch)
        if isinstance(plan, GeneratorPlan):
            _hand_on(plan, folder, learner, meter, console)
        else:
            assert isinstance(learner, ClassifierLearner)
            _finish(plan, folder, learner, meter, kept, console)
        for tracker in trackers:
            tracker.log_final(read_model(folder), learner.trainer.global_step)
    return folder


def _prepare(
    data: str | os.PathLike[str] | None,
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    settings: Mapping[str, Any],
    begun: Path | None,
    console: Console,
) -> AnyPlan:
    """Settle what is trained, a generator where the recipe names one; arguments as ``prepare_training`` has them."""
    named, source = what_is_asked(data, recipe, begun, GROCERIES)
    if data is None and not (named or {}).get("image_set"):
        console.print(UNNAMED, highlight=False)
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
    plan, found, rate = _search(plan, run, console)
    write_recipe(run, plan.recipe)
    write_seen(run, plan.images, plan.splits, plan.built.seen)
    write_json(run / "model.json", describe_classifier(plan) | ({"found": found} if found else {}))
    if rate is not None:
        with _drawing("range.png", console):
            write_range(run, rate)
    return plan


def _search(plan: Plan, run: Path, console: Console) -> tuple[Plan, dict[str, Any], FoundRate | None]:
    """Settle what a plan leaves to searches; the folder of a run of which nothing is written yet goes where they fail."""
    try:
        return settle(plan, console)
    except BaseException:  # Ctrl-C, too
        with suppress(OSError):  # it is not empty: the training was begun before
            run.rmdir()
        raise


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────────


def _help(plan: AnyPlan, run: Path) -> NoReturn:
    """The part in a training of a process that another one started: take its share of every batch, and end.

    Where the loss is not finite all stop at the same step, and the first process says so; where the first has ended,
    whatever it ended of is its to say. Any other failure ends with a status, at which Lightning ends the others, who
    would wait for ever.
    """
    first = os.getppid()
    changed = changes_since(run, plan)
    if changed:
        raise ConfigError(f"{run} is trained with other settings: {'; '.join(changed)}; start one training a program.")
    try:
        with suppress(TrainingError):
            _fit(as_found(plan, run), run, [], Console(quiet=True))
    except RuntimeError as error:  # how torch.distributed reports a partner that is gone
        until = time.monotonic() + PATIENCE
        while os.getppid() == first and time.monotonic() < until:
            time.sleep(0.05)
        if os.getppid() == first:
            raise
        raise SystemExit(1) from error
    raise SystemExit(0)


# ── fitting and measuring ────────────────────────────────────────────────────────────────────────────────────────────


def _fit(
    plan: AnyPlan,
    run: Path,
    trackers: list[Tracker],
    console: Console,
    after_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[Learner, CostMeter, dict[str, Any] | None]:
    """Train the network of a plan, from the run's last checkpoint where there is one.

    Returns:
        The learner with the weights to hand on, the seconds, and which validation chose the weights, if one did.
    """
    more = []
    if isinstance(plan, GeneratorPlan):
        more.append(SampleGrid(run, plan.images.classes, plan.images.size, len(plan.splits.train), console))
    trainer = build_trainer(plan.recipe, run, None if console.quiet else console, trackers, after_epoch, more)
    checkpoint = checkpoint_to_resume(run)
    if checkpoint is None and run_to_help() is None:
        _picture(plan, run, console)
    start = time.perf_counter()
    if checkpoint is None and isinstance(plan, Plan) and plan.built.weights is None:
        fit_to_images(plan.network, plan.images, plan.splits.train, plan.normalization)
    plan.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = _learner(plan)
    meter = next(callback for callback in trainer.callbacks if isinstance(callback, CostMeter))  # type: ignore[attr-defined]
    meter.seconds += time.perf_counter() - start
    threads = torch.get_num_threads()
    _run_trainer(trainer, learner, ImageData(plan.source, plan.recipe, plan.normalization), checkpoint, run)
    torch.set_num_threads(threads)  # of which Lightning gives each of several processes its share
    kept = hand_on(trainer, learner)
    if kept is not None:
        show_kept(console, kept, plan.recipe.fit.epochs)
    return learner, meter, kept


def _learner(plan: AnyPlan) -> Learner:
    """What Lightning trains."""
    batches = -(-len(plan.splits.train) // plan.recipe.fit.batch_size)
    if isinstance(plan, GeneratorPlan):
        if isinstance(plan.network, ACGAN):
            return ACGANLearner(plan.network, plan.recipe, batches)
        return DiffusionLearner(plan.network, plan.recipe, batches)
    weighted = plan.recipe.fit.class_weights == "balanced"
    weights = balanced_weights(plan.images.labels[plan.splits.train], len(plan.images.classes)) if weighted else None
    return ClassifierLearner(plan.network, plan.recipe, batches, weights)


def _hand_on(plan: GeneratorPlan, run: Path, learner: Learner, meter: CostMeter, console: Console) -> None:
    """Write what a generator's run hands on, and its report."""
    losses = _last_losses(learner)
    finish_generator(plan, run, {"seconds": meter.seconds, "probe_flops": meter.probe_flops}, losses)
    with _drawing(REPORT, console):
        report(run)
    show_generator(console, run, losses, len(plan.splits.validation))


def _last_losses(learner: Learner) -> dict[str, float]:
    """Those of the last epoch, which the log keeps: a training that resumes after it measures none."""
    log = next(callback for callback in learner.trainer.callbacks if isinstance(callback, EpochLog))  # type: ignore[attr-defined]
    return {name: value for name, value in log.rows[-1].items() if name.endswith("_loss")}


def _picture(plan: AnyPlan, run: Path, console: Console) -> None:
    """Write ``batch.png``, the first batch as the network sees it."""
    fit = plan.recipe.fit
    with _drawing("batch.png", console):
        batches = TrainingBatches(
            plan.images,
            plan.splits.train,
            plan.normalization,
            augmentation_of(plan.recipe),
            batch_size=fit.batch_size,
            epochs=fit.epochs,
            seed=fit.seed,
            device=torch.device("cpu"),
            dtype=torch.float32,
            balanced=plan.recipe.data.sampling == "balanced",
        )
        draw_batch(run / "batch.png", batches.make(0, 0, batches.order(0)), plan.normalization, plan.images.classes)


@contextmanager
def _drawing(name: str, console: Console) -> Iterator[None]:
    """A picture that fails is reported and costs nothing else."""
    try:
        yield
    except Exception as error:  # whatever a drawing library may raise
        reason = " ".join(str(error).split()) or type(error).__name__
        console.print(f"no {name}: {reason}", markup=False, highlight=False)


def _run_trainer(trainer: L.Trainer, learner: Learner, data: ImageData, checkpoint: Path | None, run: Path) -> None:
    try:
        trainer.fit(learner, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        if trainer.interrupted:  # how Lightning ends after Ctrl-C
            raise Interrupted(run) from error
        raise
    except TrainingError as error:
        kept = checkpoint_to_resume(run)
        state = f"The last good state is {kept}." if kept else "No state was good enough to keep."
        raise TrainingError(f"{error} {state}") from error


def _finish(
    plan: Plan, run: Path, learner: ClassifierLearner, meter: CostMeter, kept: dict[str, Any] | None, console: Console
) -> None:
    """Calibrate, read the test split once, write what is handed on."""
    start = time.perf_counter()
    network = learner.network
    recipe, images, splits = plan.recipe, plan.images, plan.splits
    model = read_model(run)
    if kept is not None:
        model["kept"] = kept
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise TrainingError(
            f"the weights are not finite after the last step; {run} is not finished. Try a smaller rate."
        )
    classifier = Classifier(network, model, choose_device())
    with Progress(console, "Calibrating and testing") as progress:
        views: list[Views] = [name for name, count in VIEWS.items() if count <= VIEWS[recipe.evaluation.views]]
        logits_VNK = classifier.view_logits(images.pixels, recipe.evaluation.views, rows=splits.calibrate)
        labels = images.labels[splits.calibrate]
        uniforms = image_uniforms(images.pixels[row] for row in splits.calibrate)
        model["temperatures"], model["trust"] = calibrate(logits_VNK, labels, uniforms, views)
        model["calibrated_on"] = len(labels)
        answers = combine(logits_VNK, recipe.evaluation.views).argmax(1)
        model["validation"] = {"n": len(labels), "accuracy": float((answers == labels).mean())}
        # of validation only what chose nothing while training: all of it, or half
        rows = {"test": splits.test, "validation": splits.calibrate, "none": splits.test[:0]}[recipe.evaluation.on]
        measured = None
        if len(rows):
            model["test_readings"] += recipe.evaluation.on == "test"
            write_json(run / "model.json", model)  # before the reading: one that is interrupted has been read, too
            measured, table = evaluate_rows(classifier, images, rows, progress)
            measured["split"] = recipe.evaluation.on
            write_csv(run / "predictions.csv", *table)
    seconds = time.perf_counter() - start
    epochs = (kept or {}).get("stopped_after") or recipe.fit.epochs
    model["cost"] = {
        "fit_seconds": meter.seconds,
        "evaluation_seconds": seconds,
        "probe_flops": meter.probe_flops,
        "cost": (meter.seconds + seconds) * meter.probe_flops,
        "training_flops": _operations(plan, learner, epochs),
        "device": describe(classifier.device),
    }
    if recipe.evaluation.robustness:
        model["cost"]["robustness_seconds"] = _try_hard(classifier, plan, console)
    if measured is not None:
        measured["cost"] = model["cost"]
        left_to_table = ("classes", "confusion_matrix", "reliability", "cost")
        model["metrics"] = {name: value for name, value in measured.items() if name not in left_to_table}
        write_json(run / "evaluation.json", measured)
    write_weights(run / "model.safetensors", network.state_dict(), model)
    write_json(run / "model.json", model)
    mark_done(run)
    if measured is not None:
        show_measures(console, measured)
    with _drawing(REPORT, console):
        report(run, trust_code=getattr(recipe.network, "trust_code", False))
    show_next_steps(console, run, plan.source.location, model)


def _try_hard(classifier: Classifier, plan: Plan, console: Console) -> float:
    """Measure the classifier on spoilt images and on images of no class, into its ``trust``.

    Returns:
        The seconds, which are no part of the cost of a training.
    """
    start = time.perf_counter()
    pixels, rows = plan.images.pixels, plan.splits.calibrate
    trust = classifier.model["trust"]
    with Progress(console, "Trying spoilt images") as progress:
        trust["corruptions"] = measure_corruptions(classifier, pixels, rows, plan.images.labels[rows], progress)
        trust["unknown"]["rates"] = measure_strangers(classifier, pixels, rows)
    return time.perf_counter() - start


def _operations(plan: Plan, learner: ClassifierLearner, epochs: int) -> int:
    """Floating-point operations of so many epochs of a training: smaller images, and what is frozen, cost less."""
    recipe = plan.recipe
    shown = [shown_size(recipe.augment, plan.images.size, epoch, recipe.fit.epochs) for epoch in range(epochs)]
    trained = [learner.phases[learner.phase_at(epoch)].trained for epoch in range(epochs)]
    kept = isinstance(recipe.finetune, FrozenConfig) and recipe.finetune.features == "keep"
    views = 0 if not kept else 1 if recipe.augment.flip == "none" else 2
    epochs_as_shown = list(zip(shown, trained, strict=True))
    return training_flops(learner.network, epochs_as_shown, len(plan.splits.train), kept_views=views)
