"""10,000 JPEG files from a folder to CSV: seconds of a cold process, by views, number format, and an exported file in int8.

Each way in turns, three times, in an order drawn anew: medians, with the least and the greatest. Then what answers in
float32 cost against the fastest number format of this machine: both in turns, five times, as the median ratio of images a
second with its least and greatest.

    python benchmarks/predict.py ../shared/data/cifar10-jpeg.tar.xz [RUN [model.onnx]]

RUN is of the recipe `fast`, with adaptive views where those are to be measured; without it one is trained for an epoch on a
hundredth of the set: speed does not depend on what it has learnt, but for adaptive views. model.onnx is its exported file.
"""

import random
import statistics
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
COLD_TURNS, TURNS, SAMPLE = 3, 5, 2_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        with tarfile.open(sys.argv[1]) as packed:
            members = [member for member in packed if member.isfile() and member.name.startswith("test/")]
            packed.extractall(images, members[:COUNT], filter="data")
        settings = {"fit": {"epochs": 1}, "data": {"fraction": 0.01}, "evaluation": {"on": "none"}}
        own = sys.argv[2] if len(sys.argv) > 2 else None
        run = Path(own or sightline.train(sys.argv[1], recipe="fast", settings=settings, run=Path(folder) / "run"))
        ways = {
            f"{views} views, {precision}": [run, "--views", views, "--precision", precision]
            for views in load(run).temperatures
            if views != "flip"
            for precision in ("float32", "bfloat16")
        }
        for model in sys.argv[3:4]:
            ways |= {f"{views} views, {Path(model).name}": [model, "--views", views] for views in ("adaptive", "six")}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(COLD_TURNS):
            for way in random.sample(list(ways), len(ways)):
                start = time.perf_counter()
                out = Path(folder) / f"{turn}-{way}.csv"
                command = [Path(sys.executable).with_name("sightline"), "predict", ways[way][0], images, *ways[way][1:]]
                subprocess.run([*command, "--out", out], check=True, stdout=subprocess.DEVNULL)
                seconds[way].append(time.perf_counter() - start)
        for way, taken in seconds.items():
            print(
                f"{way}: {statistics.median(taken):.1f} s ({min(taken):.1f} to {max(taken):.1f}, n = {len(taken)}) for"
                f" {COUNT:,} files, cold",
                flush=True,
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
