"""Every method of explanation on test images of finished runs: gaps of the sums, areas of deletion and insertion, seconds.

    python benchmarks/explain.py RUN... [--images 20] [--out FOLDER]

The images are drawn from the run's own test split, the same ones each time, as evenly over the classes as they go.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

import sightline
from sightline.data.cache import open_as_trained
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.display.lines import Lines
from sightline.explanation.explain import summarize_explanations
from sightline.machine.devices import choose_device, describe
from sightline.runs.folder import read_model_of_finished, read_run_recipe

SEED = 42


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--out", type=Path, help="keep the sheets below this folder")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, run in enumerate(asked.runs, 1):
            images = Path(folder) / f"{number}"
            write_test_images(run, asked.images, images)
            out = (asked.out or Path(folder) / "sheets") / f"{number}-{run.name}"
            report(run, images, out)


def report(run: Path, images: Path, out: Path) -> None:
    """Explain the images of a folder by every method, and print what was measured."""
    start = time.perf_counter()
    found = sightline.explain(run, [images], out=out, methods=["all"], arrays=True)
    seconds = time.perf_counter() - start
    recipe = read_run_recipe(run)
    model = read_model_of_finished(run)
    size = "×".join(map(str, model["size"]))
    right = sum(
        image.predicted == Path(file).parent.name for file, image in zip(found.files, found.images, strict=True)
    )
    title = f"{run}: {recipe.network.kind}, {size} px; {len(found.files)} test images, {right} of them told right; {seconds:.0f} s"
    Lines(Console(width=120))(replace(summarize_explanations(found.images), title=title))
    for method, reason in found.left_out.items():
        print(f"left out {method}: {reason}")
    versions = ", ".join(f"{name} {version(name)}" for name in ("sightline-vision", "torch", "captum"))
    print(f"{versions}; {describe(choose_device())}", flush=True)


def write_test_images(run: Path, count: int, folder: Path) -> None:
    """Write images of a run's own test split as PNG files in a folder for each class, at the size of the cache."""
    settings, model = read_run_recipe(run).data, read_model_of_finished(run)
    exactly = (tuple(model["size"]), tuple(model["resize"]))
    images = open_as_trained(find_source(model["data"]["location"]), settings.size, exactly)
    test = split(images, validation=settings.validation, fraction=settings.fraction, seed=settings.split_seed).test
    shuffled = np.random.default_rng(SEED).permutation(test)
    labels = images.labels[shuffled]
    turns = np.zeros(len(shuffled), np.int64)  # whether an image is the first of its class, the second, ...
    for label in np.unique(labels):
        own = labels == label
        turns[own] = np.arange(own.sum())
    for row in shuffled[np.argsort(turns, kind="stable")[:count]]:
        path = folder / images.classes[images.labels[row]] / f"{images.classes[images.labels[row]]}-{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(images.pixels[row])).save(path)


if __name__ == "__main__":
    main()
