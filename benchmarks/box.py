"""Make the classifier in the box: pack a finished run into one small file, and show what that costs its answers.

    python benchmarks/box.py RUN

The weights become half floats, everything that a classifier knows of itself goes along but the place of its images. Then
both are asked about the validation images of the run: the test split is not read.
"""

import sys
from pathlib import Path

import numpy as np

import sightline
from sightline.data.cache import open_as_trained
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.runs.folder import (
    BOX,
    read_model_of_finished,
    read_run_recipe,
    read_weights_and_reference,
    write_weights,
)

LARGEST = 6_000_000  # bytes


def pack(run: Path) -> None:
    """Write the classifier of a run to its place in the package."""
    tensors, reference, model = read_weights_and_reference(run / "model.safetensors")
    model = read_model_of_finished(run) | {"weights_format": "float16"}
    del model["data"]["location"]
    BOX.parent.mkdir(exist_ok=True)
    write_weights(BOX, {name: tensor.half() for name, tensor in tensors.items()} | reference, model)
    assert BOX.stat().st_size <= LARGEST, f"{BOX} has {BOX.stat().st_size:,} bytes; wanted {LARGEST:,} at most"


def compare(run: Path) -> None:
    """Print how far the answers of the packed classifier are from those of the run."""
    recipe, model = read_run_recipe(run), read_model_of_finished(run)
    exactly = (tuple(model["size"]), tuple(model["resize"]))
    images = open_as_trained(find_source(model["data"]["location"]), recipe.data.size, exactly)
    assert images.fingerprint == model["data"]["fingerprint"], "the image set has changed since the training"
    data = recipe.data
    cut = split(
        images, validation=data.validation, fraction=data.fraction, seed=data.split_seed, selects=recipe.selects
    )
    rows = cut.calibrate
    labels = images.labels[rows]
    chances = [sightline.load(which).probabilities(images.pixels[rows]) for which in (run, None)]
    answers = [chance.argmax(1) for chance in chances]
    print(
        f"{BOX.name}: {BOX.stat().st_size / 1e6:.2f} MB, from {(run / 'model.safetensors').stat().st_size / 1e6:.2f} MB"
    )
    print(
        f"n = {len(rows):,} validation images: accuracy {(answers[0] == labels).mean():.4f} of the run,"
        f" {(answers[1] == labels).mean():.4f} of the box; {(answers[0] != answers[1]).sum()} answers differ;"
        f" probabilities by {np.abs(chances[0] - chances[1]).max():.5f} at most"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    pack(Path(sys.argv[1]))
    compare(Path(sys.argv[1]))
