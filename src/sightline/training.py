"""Train a classifier: an image set in, a finished run folder out."""

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console

from sightline.config import Recipe, read_recipe, resolve
from sightline.config.resolving import flatten, to_mapping
from sightline.data import ImageData, prepare
from sightline.describing import Progress, describe_training, show_measures, show_next_steps
from sightline.devices import (
    arithmetic,
    choose_device,
    describe,
    keep_freed_memory,
    refuse_without_compiler,
    set_determinism,
)
from sightline.errors import ConfigError, DataError, Interrupted, RunError, TrainingError
from sightline.evaluating import evaluate_rows
from sightline.extras import refuse_missing_trackers
from sightline.images.batches import EvaluationBatches, Normalization, derived_seed
from sightline.images.cache import CachedImages, open_images
from sightline.images.sources import ImageSource, find_source
from sightline.images.splits import Splits
from sightline.learners import ClassifierLearner
from sightline.metrics import fit_temperature
from sightline.nets import Network, build_network
from sightline.predicting import VIEWS, Classifier, combine
from sightline.runs import (
    MODEL_FORMAT,
    create_run,
    list_runs,
    mark_done,
    read_model,
    read_run_recipe,
    refuse_existing,
    write_csv,
    write_json,
    write_recipe,
    write_weights,
)
from sightline.tracking import Tracker, tracked
from sightline.trainer import CostMeter, build_trainer, checkpoint_to_resume

__all__ = ["choose_recipe", "train"]

MANY_SMALL = 10_000  # images up to 64 px; from here on the few large batches of ``fast`` are enough steps
MANY_LARGE = 20_000  # larger images
SMALL_SIDE = 64  # pixels
SMALLEST_SIDE = 16  # pixels that every network can read
WHITENING_IMAGES = 2_000  # images that a network is fitted to before the first step


@dataclass(frozen=True)
class _Plan:
    """Everything that is settled before the first step."""

    source: ImageSource
    recipe: Recipe
    why: str
    images: CachedImages
    splits: Splits
    normalization: Normalization
    network: Network


def train(
    data: str | os.PathLike[str] | None = None,
    *,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    dry_run: bool = False,
    console: Console | None = None,
) -> Path | None:
    """Train a classifier on an image set and measure it.

    Args:
        data: a folder, an archive, a manifest, or ``digits``; None where the recipe names it, or the run to resume.
        recipe: a recipe's name, a YAML file, its content, or ``auto`` to choose by the size and number of the images.
        settings: what to set over the recipe, nested as in its YAML.
        run: folder to make; None for ``runs/<data>-<recipe>-<n>``.
        resume: continue ``run``, or the newest unfinished run of the same data and settings.
        dry_run: describe the training and stop before the first step.
        console: where to report; None reports nothing.
    Returns:
        The folder of the finished run; None after a dry run.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do.
        Interrupted: Ctrl-C; the run can be resumed.
    """
    keep_freed_memory()
    console = console or Console(quiet=True)
    if run is not None and not resume:
        refuse_existing(run)
    plan = _plan(data, recipe, settings or {}, Path(run) if resume and run is not None else None, console)
    folder = _run_to_resume(run, plan) if resume else None
    if folder is not None and (folder / "DONE").exists():
        console.print(f"{folder} is finished already; nothing was done.", highlight=False)
        return folder
    describe_training(console, plan.recipe, plan.why, plan.images, plan.splits, plan.network)
    if dry_run:
        return None
    if folder is None:
        folder = create_run(f"{plan.source.name}-{plan.recipe.name}", run)
    elif resume:
        console.print(f"Continuing {folder}.", highlight=False)
    if not (folder / "model.json").exists():
        write_recipe(folder, plan.recipe)
        write_json(folder / "model.json", _describe_classifier(plan))
    with tracked(plan.recipe, folder, console) as trackers:
        learner, meter = _fit(plan, folder, trackers, console)
        _finish(plan, folder, learner.network, meter, console)
        for tracker in trackers:
            tracker.log_final(read_model(folder), learner.trainer.global_step)
    return folder


def choose_recipe(images: CachedImages, fraction: float = 1.0) -> tuple[str, str]:
    """Choose a recipe by the size and number of the images, of which a fraction will be trained on.

    Returns:
        Its name, and why in words.
    """
    count, side = round(len(images.readable) * fraction), max(images.size)
    small = side <= SMALL_SIDE
    many = count >= (MANY_SMALL if small else MANY_LARGE)
    name = ("fast" if small else "resnet18") if many else "small"
    return name, f"{count:,} images of {side} px: {'many' if many else 'few'}, {'small' if small else 'larger'}"


# ── before the first step ────────────────────────────────────────────────────────────────────────────────────────────


def _plan(
    data: str | os.PathLike[str] | None,
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    settings: Mapping[str, Any],
    begun: Path | None,
    console: Console,
) -> _Plan:
    if begun is not None and data is None and recipe == "auto":
        if not (begun / "recipe.yaml").exists():
            raise RunError(
                f"{begun} is no run that could be continued: it has no recipe.yaml; name the image set to start it."
            )
        recipe = begun / "recipe.yaml"
    automatic = recipe == "auto"
    named = {} if automatic else dict(recipe) if isinstance(recipe, Mapping) else read_recipe(recipe)
    location = data if data is not None else named.get("image_set")
    if location is None:
        raise DataError("no image set was named; give a folder, an archive, a manifest, or the name digits.")
    source = find_source(location)
    refuse_missing_trackers(named, settings)
    why = "as asked"
    with Progress(console, f"Reading {source.name}") as progress:
        if automatic:
            wanted = settings.get("data") or {}
            name, why = choose_recipe(open_images(source, wanted.get("size"), progress), wanted.get("fraction", 1.0))
            named = read_recipe(name)
        chosen = resolve(named, settings, {"image_set": source.location})
        arithmetic(chosen.fit.precision, choose_device())  # refuses what the device cannot
        set_determinism(chosen.fit.deterministic)
        if chosen.fit.compile:
            refuse_without_compiler(choose_device())
        if "val" in open_images(source, chosen.data.size, progress).splits:
            chosen = _without_validation(chosen, settings, source.name)
        images, splits, normalization = prepare(source, chosen, progress)
    if automatic and "scales" not in (settings.get("augment") or {}):
        chosen = _within_reach(chosen, min(images.size))
    _refuse_misfits(chosen, min(images.size))
    torch.manual_seed(derived_seed(chosen.fit.seed, "network"))
    network = build_network(chosen.network, len(images.classes), images.size)
    return _Plan(source, chosen, why, images, splits, normalization, network)


def _within_reach(chosen: Recipe, side: int) -> Recipe:
    """A recipe that was not asked for by name: images of a side in pixels are shown no smaller than networks can read."""
    scales = [max(scale, min(1.0, SMALLEST_SIDE / side)) for scale in chosen.augment.scales]
    return resolve(to_mapping(chosen), {"augment": {"scales": scales if min(scales, default=1.0) < 1 else []}})


def _refuse_misfits(recipe: Recipe, side: int) -> None:
    """Refuse what cannot be done with images of a side in pixels."""
    cutout = recipe.augment.cutout
    if cutout is not None and cutout.size > side:
        raise ConfigError(
            f"--augment.cutout.size ({cutout.size}) is larger than the images ({side} px); a hole must fit into the image."
        )
    scale = min(recipe.augment.scales, default=1.0)
    if round(side * scale, 3) < SMALLEST_SIDE:
        raise ConfigError(
            f"--augment.scales {scale:g} makes {side * scale:.0f} px of {side} px; the networks need at least"
            f" {SMALLEST_SIDE} px: choose {SMALLEST_SIDE / side:.2f} or more."
        )


def _without_validation(chosen: Recipe, settings: Mapping[str, Any], name: str) -> Recipe:
    """The recipe for a set that brings a validation split: none is cut, and asking for one is refused."""
    if (settings.get("data") or {}).get("validation") is not None:
        raise ConfigError(f"--data.validation has no effect: {name} brings a validation split; leave the option out.")
    return resolve(to_mapping(chosen), {"data": {"validation": None}})


def _run_to_resume(run: str | os.PathLike[str] | None, plan: _Plan) -> Path | None:
    """The run to continue; None where the one that was named does not exist yet."""
    if run is None:
        for summary in reversed(list_runs()):
            if (
                not summary.finished
                and summary.recipe != "?"
                and not _changed(read_run_recipe(summary.folder), plan.recipe)
            ):
                return summary.folder
        raise RunError(
            f"no unfinished run of {plan.source.name} with these settings in runs/; start one without --resume, or name"
            " it with --run."
        )
    folder = Path(run)
    if not folder.exists():
        return None
    if not (folder / "model.json").exists():  # killed before anything was kept
        if any(not item.name.startswith(".") and item.name != "recipe.yaml" for item in folder.iterdir()):
            raise RunError(f"{folder} is no run that could be continued: it has no model.json; choose another --run.")
        return folder
    changed = _changed(read_run_recipe(folder), plan.recipe)
    if changed:
        raise ConfigError(
            f"{folder} cannot be continued with other settings: {'; '.join(changed)}; leave them as they were, or start"
            " a new run."
        )
    if read_model(folder)["data"]["fingerprint"] != plan.images.fingerprint:
        raise DataError(
            f"{folder} cannot be continued: the images in {plan.source.location} have changed since it began; start a new run."
        )
    return folder


def _changed(before: Recipe, now: Recipe) -> list[str]:
    """The settings that differ, as ``fit.epochs was 8 and is 10``."""
    old, new = flatten(to_mapping(before)), flatten(to_mapping(now))
    names = [name for name in {**old, **new} if name != "about" and old.get(name) != new.get(name)]
    return [f"{name} was {old.get(name)} and is {new.get(name)}" for name in names]


def _describe_classifier(plan: _Plan) -> dict[str, Any]:
    """``model.json`` as far as it is known before training."""
    recipe, images = plan.recipe, plan.images
    return {
        "format": MODEL_FORMAT,
        "kind": "classifier",
        "classes": images.classes,
        "network": to_mapping(recipe.network),
        "size": list(images.size),
        "resize": list(images.pixels.shape[1:3]),
        "normalization": {"mean": plan.normalization.mean, "std": plan.normalization.std},
        "views": recipe.evaluation.views,
        "precision": recipe.fit.precision,
        "temperatures": {},
        "test_readings": 0,
        "data": {
            "name": images.name,
            "location": images.location,
            "fingerprint": images.fingerprint,
            "counts": plan.splits.counts(),
            "shared_with_test": plan.splits.shared_with_test,
            "left_out": len(images.left_out),
        },
        "recipe": recipe.name,
        "seed": recipe.fit.seed,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("sightline", "torch", "lightning")},
    }


# ── fitting and measuring ────────────────────────────────────────────────────────────────────────────────────────────


def _fit(plan: _Plan, run: Path, trackers: list[Tracker], console: Console) -> tuple[ClassifierLearner, CostMeter]:
    """Train the network of a plan, from the run's last checkpoint where there is one."""
    trainer = build_trainer(plan.recipe, run, None if console.quiet else console, trackers)
    checkpoint = checkpoint_to_resume(run)
    start = time.perf_counter()
    if checkpoint is None:
        sample = EvaluationBatches(
            plan.images,
            plan.splits.train[:: max(1, len(plan.splits.train) // WHITENING_IMAGES)],
            plan.normalization,
            batch_size=WHITENING_IMAGES,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        plan.network.fit_to(next(iter(sample)).images)
    plan.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = -(-len(plan.splits.train) // plan.recipe.fit.batch_size)
    learner = ClassifierLearner(plan.network, plan.recipe, batches)
    meter = next(callback for callback in trainer.callbacks if isinstance(callback, CostMeter))  # type: ignore[attr-defined]
    meter.seconds += time.perf_counter() - start
    _run_trainer(trainer, learner, ImageData(plan.source, plan.recipe), checkpoint, run)
    return learner, meter


def _run_trainer(
    trainer: L.Trainer, learner: ClassifierLearner, data: ImageData, checkpoint: Path | None, run: Path
) -> None:
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


def _finish(plan: _Plan, run: Path, network: Network, meter: CostMeter, console: Console) -> None:
    """Calibrate, read the test split once, write what is handed on."""
    start = time.perf_counter()
    recipe, images, splits = plan.recipe, plan.images, plan.splits
    model = read_model(run)
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise TrainingError(
            f"the weights are not finite after the last step; {run} is not finished. Try a smaller rate."
        )
    classifier = Classifier(network, model, choose_device())
    with Progress(console, "Calibrating and testing") as progress:
        views = [name for name, count in VIEWS.items() if count <= VIEWS[recipe.evaluation.views]]
        logits_VNK = classifier.view_logits(images.pixels, recipe.evaluation.views, rows=splits.calibrate)
        labels = images.labels[splits.calibrate]
        model["temperatures"] = {name: fit_temperature(combine(logits_VNK, name), labels) for name in views}  # type: ignore[arg-type]
        model["calibrated_on"] = len(labels)
        rows = {"test": splits.test, "validation": splits.validation, "none": splits.test[:0]}[recipe.evaluation.on]
        measured = None
        if len(rows):
            model["test_readings"] += recipe.evaluation.on == "test"
            write_json(run / "model.json", model)  # before the reading: one that is interrupted has been read, too
            measured, table = evaluate_rows(classifier, images, rows, progress)
            measured["split"] = recipe.evaluation.on
            write_csv(run / "predictions.csv", *table)
    seconds = time.perf_counter() - start
    model["cost"] = {
        "fit_seconds": meter.seconds,
        "evaluation_seconds": seconds,
        "probe_flops": meter.probe_flops,
        "cost": (meter.seconds + seconds) * meter.probe_flops,
        "device": describe(classifier.device),
    }
    if measured is not None:
        measured["cost"] = model["cost"]
        left_to_table = ("classes", "confusion_matrix", "cost")
        model["metrics"] = {name: value for name, value in measured.items() if name not in left_to_table}
        write_json(run / "evaluation.json", measured)
    write_weights(run / "model.safetensors", network.state_dict(), model)
    write_json(run / "model.json", model)
    mark_done(run)
    if measured is not None:
        show_measures(console, measured)
    show_next_steps(console, run, plan.source.location, model)
