"""Train a classifier: an image set in, a finished run folder out."""

import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import numpy as np
import torch
from rich.console import Console

from sightline.averaging import hand_on
from sightline.backbones import SEEN, Built, build, describe_network, with_whole_paths, write_seen
from sightline.config import DataConfig, PadCropConfig, Recipe, read_recipe, resolve
from sightline.config.resolving import flatten, refuse_hopeless, to_mapping
from sightline.data import ImageData, prepare
from sightline.describing import Progress, describe_training, show_kept, show_measures, show_next_steps
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
from sightline.images.augment import shrunk_side
from sightline.images.batches import EvaluationBatches, Normalization, TrainingBatches, derived_seed
from sightline.images.cache import CachedImages, open_images
from sightline.images.sources import ImageSource, find_source
from sightline.images.splits import Splits
from sightline.learners import ClassifierLearner, balanced_weights
from sightline.metrics import fit_temperature
from sightline.nets import Network
from sightline.picturing import draw_batch
from sightline.predicting import VIEWS, Classifier, combine
from sightline.runs import (
    MODEL_FORMAT,
    create_run,
    helped,
    list_runs,
    mark_done,
    read_model,
    read_run_recipe,
    refuse_existing,
    run_to_help,
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
    built: Built

    @property
    def network(self) -> Network:
        return self.built.network


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
        data: a folder, an archive, a manifest, or a name such as ``digits``; None where the recipe names it, or the run
            to resume.
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
    helping = run_to_help()
    console = Console(quiet=True) if helping or console is None else console
    if run is not None and not resume:
        refuse_existing(run)
    plan = _plan(data, recipe, settings or {}, Path(run) if resume and run is not None else None, console)
    if helping is not None:
        _help(plan, helping)
    folder = _run_to_resume(run, plan) if resume else None
    if folder is not None and (folder / "DONE").exists():
        console.print(f"{folder} is finished already; nothing was done.", highlight=False)
        return folder
    describe_training(console, plan.recipe, plan.why, plan.images, plan.splits, plan.network, _notes(plan))
    if dry_run:
        return None
    if folder is None:
        folder = create_run(f"{plan.source.name}-{plan.recipe.name}", run)
    elif resume:
        console.print(f"Continuing {folder}.", highlight=False)
    if not (folder / "model.json").exists():
        write_recipe(folder, plan.recipe)
        write_seen(folder, plan.images, plan.splits, plan.built.seen)
        write_json(folder / "model.json", _describe_classifier(plan))
    with tracked(plan.recipe, folder, console) as trackers:
        with helped(folder) if plan.recipe.fit.processes > 1 else nullcontext():
            learner, meter, kept = _fit(plan, folder, trackers, console)
        _finish(plan, folder, learner.network, meter, kept, console)
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
        raise DataError("no image set was named; give a folder, an archive, a manifest, or a name such as digits.")
    source = find_source(location)
    if automatic:
        refuse_hopeless(settings)
    refuse_missing_trackers(named, settings)
    why = "as asked"
    with Progress(console, f"Reading {source.name}") as progress:
        if automatic:
            wanted = settings.get("data") or {}
            name, why = choose_recipe(open_images(source, wanted.get("size"), progress), wanted.get("fraction", 1.0))
            named = read_recipe(name)
        chosen = with_whole_paths(resolve(named, settings, {"image_set": source.location}))
        arithmetic(chosen.fit.precision, choose_device())  # refuses what the device cannot
        set_determinism(chosen.fit.deterministic)
        if chosen.fit.compile:
            refuse_without_compiler(choose_device())
        opened = open_images(source, chosen.data.size, progress)
        if "val" in opened.splits:
            chosen = _without_validation(chosen, settings, source.name)
        _refuse_split_seed(chosen, settings, opened)
        images, splits, normalization = prepare(source, chosen, progress)
    chosen = _without_scales(chosen, settings)
    if automatic and "scales" not in (settings.get("augment") or {}):
        chosen = _within_reach(chosen, min(images.size))
    _refuse_misfits(chosen, min(images.size))
    _refuse_processes(chosen, len(splits.train))
    _refuse_small_padding(chosen, images)
    _refuse_without_effect(chosen, images, splits)
    torch.manual_seed(derived_seed(chosen.fit.seed, "network"))
    built = build(chosen, images, splits)
    if built.weights is not None and built.weights.mean is not None and built.weights.std is not None:
        normalization = Normalization(built.weights.mean, built.weights.std)
    return _Plan(source, chosen, why, images, splits, normalization, built)


def _notes(plan: _Plan) -> list[str]:
    """What a user should know of the weights that the training starts from."""
    if plan.built.weights is None:
        return []
    mean, std = (
        " ".join(f"{value:.3f}" for value in part) for part in (plan.normalization.mean, plan.normalization.std)
    )
    return [
        *plan.built.weights.lines(),
        f"  normalised by the statistics these weights were trained with: mean {mean}, deviation {std}",
    ]


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
    for scale in recipe.augment.scales:
        if scale < 1 and shrunk_side(side, scale) >= side:
            raise ConfigError(
                f"--augment.scales {scale:g} has no effect: the even side that is nearest to {side * scale:.1f} px is the full"
                f" one, {side} px; choose {(side - 2) / side:.2f} or less, or 1."
            )


def _refuse_without_effect(recipe: Recipe, images: CachedImages, splits: Splits) -> None:
    """Refuse what would change nothing with these training images."""
    batches = -(-len(splits.train) // recipe.fit.batch_size)
    most = max(recipe.fit.batches_a_step(epoch) for epoch in range(recipe.fit.epochs))
    if most > batches:
        raise ConfigError(
            f"--fit.accumulate {most} is more than the {batches} batches of an epoch ({len(splits.train)} images in batches"
            f" of {recipe.fit.batch_size}); choose at most {batches}."
        )
    counts = np.bincount(images.labels[splits.train], minlength=len(images.classes))
    if counts.min() == counts.max():
        for flag, value in (("fit.class-weights", recipe.fit.class_weights), ("data.sampling", recipe.data.sampling)):
            if value == "balanced":
                raise ConfigError(
                    f"--{flag} balanced has no effect: every class of {images.name} has {counts[0]} training images; leave"
                    " it out."
                )


def _without_validation(chosen: Recipe, settings: Mapping[str, Any], name: str) -> Recipe:
    """The recipe for a set that brings a validation split: none is cut, and asking for one is refused."""
    if (settings.get("data") or {}).get("validation") is not None:
        raise ConfigError(f"--data.validation has no effect: {name} brings a validation split; leave the option out.")
    return resolve(to_mapping(chosen), {"data": {"validation": None}})


def _refuse_small_padding(recipe: Recipe, images: CachedImages) -> None:
    """Refuse a shift that is lost in what larger images are cached with to crop from."""
    crop = recipe.augment.crop
    margin = min((found - wanted) // 2 for found, wanted in zip(images.pixels.shape[1:3], images.size, strict=True))
    if isinstance(crop, PadCropConfig) and crop.padding < margin:
        raise ConfigError(
            f"--augment.crop.padding ({crop.padding}) has no effect: images of {min(images.size)} px are cut from larger ones,"
            f" shifted by up to {margin} px; choose {margin} or more, or another --augment.crop.kind."
        )


def _refuse_split_seed(chosen: Recipe, settings: Mapping[str, Any], images: CachedImages) -> None:
    """Refuse to choose among the splits of a set of which nothing is cut."""
    asked = (settings.get("data") or {}).get("split_seed") not in (None, DataConfig().split_seed)
    if asked and chosen.data.fraction == 1 and {"val", "test"} <= set(images.splits):
        raise ConfigError(
            f"--data.split-seed has no effect: {images.name} brings its test and validation splits, and nothing else is cut;"
            " leave the option out."
        )


def _without_scales(chosen: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe for a training too short for smaller images: a recipe's are left out, asking for them is refused."""
    epochs, scales = chosen.fit.epochs, chosen.augment.scales
    if not scales or any(chosen.augment.scale(epoch, epochs) < 1 for epoch in range(epochs)):
        return chosen
    if (settings.get("augment") or {}).get("scales"):
        raise ConfigError(
            f"--augment.scales {' '.join(f'{scale:g}' for scale in scales)} has no effect with --fit.epochs {epochs}: every"
            " epoch is shown in full; train longer, or leave the option out."
        )
    return resolve(to_mapping(chosen), {"augment": {"scales": []}})


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
        if any(not item.name.startswith(".") and item.name not in ("recipe.yaml", SEEN) for item in folder.iterdir()):
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
        **describe_network(plan.built),
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


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────────


def _refuse_processes(recipe: Recipe, images: int) -> None:
    """Refuse more processes than there can be, or than there is work for."""
    wanted, device = recipe.fit.processes, choose_device()
    if wanted == 1:
        return
    main = sys.modules["__main__"]
    if main.__spec__ is None and not os.path.isfile(sys.argv[0]):
        raise ConfigError(
            f"--fit.processes {wanted} starts this program again, and it has no file (a notebook, or python -c); use the"
            " command line or a script."
        )
    most = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type, os.cpu_count() or 1)
    if wanted > most:
        raise ConfigError(
            f"--fit.processes is {wanted}, and this machine has {most} {'GPUs' if device.type == 'cuda' else 'cores'};"
            f" choose at most {most}."
        )
    batches = -(-images // recipe.fit.batch_size)
    if images // batches < 2 * wanted:
        raise ConfigError(
            f"{images} training images leave less than two a batch to each of --fit.processes ({wanted}); choose fewer."
        )


def _help(plan: _Plan, run: Path) -> NoReturn:
    """The part in a training of a process that another one started: take its share of every batch, and end.

    Where the loss is not finite all stop at the same step, and the first process says so. Any other failure ends with
    a status, at which Lightning ends the others, who would wait for ever.
    """
    changed = _changed(read_run_recipe(run), plan.recipe)
    if changed:
        raise ConfigError(f"{run} is trained with other settings: {'; '.join(changed)}; start one training a program.")
    with suppress(TrainingError):
        _fit(plan, run, [], Console(quiet=True))
    raise SystemExit(0)


# ── fitting and measuring ────────────────────────────────────────────────────────────────────────────────────────────


def _fit(
    plan: _Plan, run: Path, trackers: list[Tracker], console: Console
) -> tuple[ClassifierLearner, CostMeter, dict[str, Any] | None]:
    """Train the network of a plan, from the run's last checkpoint where there is one.

    Returns:
        The learner with the weights to hand on, the seconds, and which validation chose the weights, if one did.
    """
    trainer = build_trainer(plan.recipe, run, None if console.quiet else console, trackers)
    checkpoint = checkpoint_to_resume(run)
    if checkpoint is None and run_to_help() is None:
        _picture(plan, run, console)
    start = time.perf_counter()
    if checkpoint is None and plan.built.weights is None:
        sample = EvaluationBatches(
            plan.images,
            plan.splits.train[:: max(1, len(plan.splits.train) // WHITENING_IMAGES)][:WHITENING_IMAGES],
            plan.normalization,
            batch_size=WHITENING_IMAGES,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        plan.network.fit_to(next(iter(sample)).images)
    plan.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = -(-len(plan.splits.train) // plan.recipe.fit.batch_size)
    weighted = plan.recipe.fit.class_weights == "balanced"
    weights = balanced_weights(plan.images.labels[plan.splits.train], len(plan.images.classes)) if weighted else None
    learner = ClassifierLearner(plan.network, plan.recipe, batches, weights)
    meter = next(callback for callback in trainer.callbacks if isinstance(callback, CostMeter))  # type: ignore[attr-defined]
    meter.seconds += time.perf_counter() - start
    threads = torch.get_num_threads()
    _run_trainer(trainer, learner, ImageData(plan.source, plan.recipe, plan.normalization), checkpoint, run)
    torch.set_num_threads(threads)  # of which Lightning gives each of several processes its share
    kept = hand_on(trainer, learner)
    if kept is not None:
        show_kept(console, kept, plan.recipe.fit.epochs)
    return learner, meter, kept


def _picture(plan: _Plan, run: Path, console: Console) -> None:
    """Write ``batch.png``, the first batch as the network sees it; one that fails is reported and costs nothing else."""
    fit = plan.recipe.fit
    try:
        batches = TrainingBatches(
            plan.images,
            plan.splits.train,
            plan.normalization,
            plan.recipe.augment,
            batch_size=fit.batch_size,
            epochs=fit.epochs,
            seed=fit.seed,
            device=torch.device("cpu"),
            dtype=torch.float32,
            balanced=plan.recipe.data.sampling == "balanced",
        )
        draw_batch(run / "batch.png", batches.make(0, 0, batches.order(0)), plan.normalization, plan.images.classes)
    except Exception as error:  # whatever a drawing library may raise
        console.print(
            f"no batch.png: {' '.join(str(error).split()) or type(error).__name__}", markup=False, highlight=False
        )


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


def _finish(
    plan: _Plan, run: Path, network: Network, meter: CostMeter, kept: dict[str, Any] | None, console: Console
) -> None:
    """Calibrate, read the test split once, write what is handed on."""
    start = time.perf_counter()
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
        views = [name for name, count in VIEWS.items() if count <= VIEWS[recipe.evaluation.views]]
        logits_VNK = classifier.view_logits(images.pixels, recipe.evaluation.views, rows=splits.calibrate)
        labels = images.labels[splits.calibrate]
        model["temperatures"] = {name: fit_temperature(combine(logits_VNK, name), labels) for name in views}  # type: ignore[arg-type]
        model["calibrated_on"] = len(labels)
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
