"""The recipe ddpm, or edm, on many images: images/s and cost, the distance to real images after each epoch, and what a classifier learns of
its images alone.

    python benchmarks/ddpm.py ARCHIVE CLASSIFIER FOLDER [RECIPE]

CLASSIFIER is a finished run on ARCHIVE, in whose features distances are measured; FOLDER is gone on with where it was stopped.
Guidance, and the interval that it is in, are chosen by the distance to training images; the test images are read once, by a
classifier of made images alone. Another one, measured on validation,
learns from the same images as JPEG: whether the former fell for traces that no photograph has.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from against_real import Reference, told
from sightline.machine.environment import environment
from sightline.runs.folder import mark_done, read_any_recipe, read_model, write_weights
from sightline.runs.writing import write_json

GUIDANCE = (0.0, 0.5, 1.0, 1.8)
INTERVALS = ((1.8, 1.0), (1.8, 3.0), (3.0, 1.0), (3.0, 3.0))
"""Guidance, and the strength of noise below which it is given; Kynkäänniemi et al., 2024, guide from 0.28 to 2.9 on photographs."""
STEPS = 20
FEW, MANY = 50, 500  # images of a class: to measure a distance, and to train on
QUALITY = 90  # of JPEG
ALONE = [
    *("--recipe", "small", "--network", "speednet", "--network.widths", "32", "128", "128", "--augment.flip", "random"),
    *("--augment.crop", "pad_crop", "--augment.crop.padding", "4", "--fit.epochs", "16"),
    *("--evaluation.views", "one", "--evaluation.no-robustness"),
]
"""What learns of made images alone: the classifier of the study ``generated``."""


def sightline(*arguments: object) -> list[str]:
    """A command of ours."""
    return [sys.executable, "-m", "sightline", *map(str, arguments)]


def train(archive: str, recipe: str, run: Path, states: Path) -> None:
    """Train the generator, or go on with it, and keep the checkpoint of every epoch."""
    states.mkdir(parents=True, exist_ok=True)
    # only at the ends of epochs is there a checkpoint
    flags = ("--augment.flip", "random", "--fit.checkpoint-seconds", 1_000_000, "--run", run, "--resume")
    training = subprocess.Popen(sightline("train", archive, "--recipe", recipe, *flags))
    while training.poll() is None:
        time.sleep(2)
        checkpoint = run / "last.ckpt"
        try:
            kept = states / f"{checkpoint.stat().st_mtime_ns}.ckpt"
            os.link(checkpoint, kept)  # another name for the file, which the next checkpoint takes the first name from
        except (FileNotFoundError, FileExistsError):
            pass
    if training.returncode:
        sys.exit(training.returncode)


def generators(run: Path, states: Path, folder: Path) -> dict[int, Path]:
    """A finished run for each epoch, as it would have been handed on then."""
    model, found = read_model(run), {}
    for state in sorted(states.glob("*.ckpt")):
        checkpoint = torch.load(state, map_location="cpu", weights_only=True)
        tensors = {
            name.removeprefix("network."): tensor
            for name, tensor in checkpoint["state_dict"].items()  # averaged, where the recipe averages
            if name.startswith("network.")
        }
        epoch = int(checkpoint["epoch"]) + 1
        found[epoch] = folder / f"epoch-{epoch:02d}"
        if not (found[epoch] / "DONE").exists():
            found[epoch].mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / "recipe.yaml", found[epoch] / "recipe.yaml")
            write_weights(found[epoch] / "model.safetensors", tensors, model)
            write_json(found[epoch] / "model.json", model)
            mark_done(found[epoch])
    found[read_any_recipe(run).fit.epochs] = run
    return dict(sorted(found.items()))


def make(generator: Path, out: Path, each: int, guidance: float, below: float | None = None) -> Path:
    """Images of every class; those that are there already are not made again."""
    how = ("--guidance", guidance, "--steps", STEPS, "--per-class", each)
    how += () if below is None else ("--guide-below", below)
    subprocess.run(sightline("generate", generator, *how, "--out", out), check=True, stdout=subprocess.DEVNULL)
    return out


def as_jpeg(made: Path, out: Path) -> Path:
    """Made images compressed as photographs are, which takes fine traces of colour out of them."""
    for file in made.glob("*/*.png"):
        place = out / file.parent.name / f"{file.stem}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(place, quality=QUALITY)
    return out


def main() -> None:
    archive, classifier, root = sys.argv[1], Path(sys.argv[2]).absolute(), Path(sys.argv[3]).absolute()
    recipe = sys.argv[4] if len(sys.argv) > 4 else "ddpm"
    run = root / "run"
    if not (run / "DONE").exists():
        train(archive, recipe, run, root / "states")
    model = read_model(run)
    cost, count = model["cost"], model["data"]["counts"]["train"]
    shown = count * read_any_recipe(run).fit.epochs
    print(
        f"{count:,} training images, {shown:,} shown: {cost['training_flops'] / shown / 1e9:.3f} GFLOP an image,"
        f" {cost['fit_seconds']:.0f} s, {shown / cost['fit_seconds']:.1f} images/s,"
        f" cost {cost['cost']:.3g}; {cost['device']}; torch {environment()['torch']}"
    )
    reference = Reference(classifier, FEW * len(model["classes"]))
    print(f"real images of validation: {told(reference.floor(FEW * len(model['classes'])))}")
    epochs = generators(run, root / "states", root / "epochs")
    for epoch, generator in epochs.items():
        made = make(generator, root / "made" / f"epoch-{epoch:02d}", FEW, 0.5)
        print(f"epoch {epoch}, guidance 0.5: {told(*reference.measure(made))}", flush=True)
    distances = {}
    for guidance, below in (*((guidance, None) for guidance in GUIDANCE), *INTERVALS):
        interval = "" if below is None else f"-below-{below:g}"
        made = make(run, root / "made" / f"guidance-{guidance:g}{interval}", FEW, guidance, below)
        found, agreed = reference.measure(made)
        distances[guidance, below] = found.frechet
        print(f"guidance {guidance:g}{interval}: {told(found, agreed)}", flush=True)
    best = min(distances, key=lambda how: distances[how])
    started = time.perf_counter()
    made = make(run, root / "made" / "all", MANY, *best)
    took = time.perf_counter() - started
    print(f"guidance {best[0]:g} below {best[1]}: {told(*reference.measure(made))}; made in {took:.0f} s")
    alone = root / "alone"
    if not (alone / "DONE").exists():
        flags = ("--data.synthetic", made, "--data.synthetic-share", 1, "--run", alone, "--resume")
        subprocess.run(sightline("train", archive, *ALONE, *flags), check=True)
    measured = json.loads((alone / "evaluation.json").read_text())
    print(f"a classifier of made images alone: {measured['accuracy']:.4f} of {measured['n']:,} real test images")
    compressed = root / "alone-jpeg"
    if not (compressed / "DONE").exists():
        flags = ("--data.synthetic", as_jpeg(made, root / "made" / "jpeg"), "--data.synthetic-share", 1)
        again = ("--evaluate", "validation", "--run", compressed, "--resume")
        subprocess.run(sightline("train", archive, *ALONE, *flags, *again), check=True)
    for what, folder in (("as they are", alone), ("as JPEG", compressed)):
        found = read_model(folder)["validation"]
        print(f"made images {what}: {found['accuracy']:.4f} of {found['n']:,} real validation images")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main()
