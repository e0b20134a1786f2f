"""10,000 JPEG files from a folder to CSV with a classifier of the recipe ``fast``: seconds of a cold process, warm speed.

Then what answers in float32 cost against the fastest number format of this machine: both in turns, five times, as the
median ratio of images a second with its least and greatest.

Trains an untuned classifier first (one epoch of a hundredth of the set): speed does not depend on what it has learnt.

    python benchmarks/predict.py ../shared/data/cifar10-jpeg.tar.xz
"""

import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import sightline
from sightline.inference.classifier import BATCH
from sightline.inference.predict import load
from sightline.machine.devices import arithmetic, choose_device

COUNT = 10_000
TURNS, SAMPLE = 5, 2_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        with tarfile.open(sys.argv[1]) as packed:
            members = [member for member in packed if member.isfile() and member.name.startswith("test/")]
            packed.extractall(images, members[:COUNT], filter="data")
        settings = {"fit": {"epochs": 1}, "data": {"fraction": 0.01}, "evaluation": {"on": "none"}}
        run = sightline.train(sys.argv[1], recipe="fast", settings=settings, run=Path(folder) / "run")
        assert run is not None
        program = Path(sys.executable).with_name("sightline")
        for views in ("six", "one"):
            start = time.perf_counter()
            command = [program, "predict", run, images, "--out", Path(folder) / f"{views}.csv", "--views", views]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            cold = time.perf_counter() - start
            start = time.perf_counter()
            found = sightline.predict(run, [images], views=views)
            warm = time.perf_counter() - start
            assert len(found.files) == COUNT
            print(
                f"{views:4} views: {cold:.1f} s cold, {COUNT / warm:,.0f} images/s warm (decoding included)", flush=True
            )
        print(compare_formats(run, sorted(images.rglob("*.jpg"))[:SAMPLE]))


def compare_formats(run: Path, files: list[Path]) -> str:
    """Compare answers in float32 with those in the number format that is fast here; a sentence."""
    fast = arithmetic("auto", choose_device())
    if fast == torch.float32:
        return "float32 is the fastest number format of this machine: it costs nothing here."
    classifiers = [load(run, precision=precision) for precision in ("float32", "auto")]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    ratios = []
    for _ in range(TURNS + 1):
        seconds = []
        for classifier in classifiers:
            start = time.perf_counter()
            for first in range(0, len(pixels), BATCH):
                classifier.answers(pixels[first : first + BATCH])
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[1] / seconds[0])
    ratios = sorted(ratios[1:])  # the first turn warms up
    return (
        f"float32 answers {ratios[TURNS // 2]:.2f} times as many images a second as {fast} ({ratios[0]:.2f} to"
        f" {ratios[-1]:.2f}; {TURNS} turns of {len(pixels):,} decoded images, views as trained)"
    )


if __name__ == "__main__":
    main()
