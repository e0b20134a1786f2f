"""Every method of explanation on test images of finished runs: gaps of the sums, areas of deletion and insertion, seconds.

    python benchmarks/explain.py RUN... [--images 200] [--method all] [--out FOLDER] [--data SET]

The images are drawn from the run's own test split, the same ones each time, as evenly over the classes as they go; or of
a set that --data names: its test split, else all of it. Intervals of 95 % are Student's over the
images; those against a random map are paired by image.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

import sightline
from sightline.data.cache import open_as_trained
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split_as
from sightline.display.events import Table
from sightline.display.lines import Lines
from sightline.explanation.explain import summarize_explanations
from sightline.explanation.explainer import ExplainedImage
from sightline.machine.devices import choose_device, describe
from sightline.measures.significance import mean_interval
from sightline.runs.folder import read_model_of_finished, read_run_recipe

SEED = 42


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--method", nargs="+", default=["all"])
    parser.add_argument("--out", type=Path, help="keep the sheets below this folder")
    parser.add_argument("--data", help="a set in place of the run's own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, run in enumerate(options.runs, 1):
            images = Path(folder) / f"{number}"
            write_test_images(run, options.images, images, options.data)
            out = (options.out or Path(folder) / "sheets") / f"{number}-{run.name}"
            report(run, images, out, options.method)


def report(run: Path, images: Path, out: Path, methods: Sequence[str]) -> None:
    """Explain the images of a folder, and print what was measured."""
    start = time.perf_counter()
    results = sightline.explain(run, [images], out=out, methods=methods, arrays=True)
    seconds = time.perf_counter() - start
    recipe = read_run_recipe(run)
    model = read_model_of_finished(run)
    size = "×".join(map(str, model["size"]))
    right = sum(
        image.predicted == Path(file).parent.name for file, image in zip(results.files, results.images, strict=True)
    )
    title = f"{run}: {recipe.network.kind}, {size} px; {len(results.files)} test images, {right} answered right; {seconds:.0f} s"
    show = Lines(Console(width=120))
    show(replace(summarize_explanations(results.images), title=title))
    show(replace(intervals(results.images), title="with intervals of 95 %"))
    for method, reason in results.left_out.items():
        print(f"left out {method}: {reason}")
    versions = ", ".join(f"{name} {version(name)}" for name in ("sightline-vision", "torch", "captum"))
    print(f"{versions}; {describe(choose_device())}", flush=True)


def intervals(images: Sequence[ExplainedImage]) -> Table:
    """Return the areas of each method with their intervals, also minus those of the random map on the same images."""
    columns = ["method", "n", "empty maps"]
    for curve in ("deletion", "insertion"):
        columns += [curve, f"{curve} - random"]
    rows = []
    for place, one in enumerate(images[0].explanations):
        of_method = [image.explanations[place] for image in images]
        row = [one.method, str(len(of_method)), str(sum(not item.map_HW.any() for item in of_method))]
        for curve in ("deletion", "insertion"):
            areas = np.array([getattr(item, curve) for item in of_method])
            for values in (areas, areas - np.array([getattr(image.random, curve) for image in images])):
                low, high = mean_interval(values) or (np.nan, np.nan)
                row.append(f"{values.mean():.3f} ({low:.3f} to {high:.3f})")
        rows.append(row)
    return Table(columns, rows)


def write_test_images(run: Path, count: int, folder: Path, data: str | None = None) -> None:
    """Write test images as PNG files in a folder for each class, at the size of the cache."""
    recipe, model = read_run_recipe(run), read_model_of_finished(run)
    exactly = (tuple(model["size"]), tuple(model["resize"]))
    images = open_as_trained(find_source(data or model["data"]["location"]), recipe.data.size, exactly)
    if data is None:
        test = split_as(recipe, images, model["data"].get("split_rule", 1), run).test
    else:
        of_test = [row for row in images.readable.tolist() if images.splits[row] == "test"]
        test = np.array(of_test or images.readable, np.int64)
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
