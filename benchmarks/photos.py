"""Photographs of groceries: the probe, a second training, ten minutes, an hour; the test split is read once a figure.

    python benchmarks/photos.py ../shared/data/grocery.tar PART [SEEDS] [ARGUMENTS...]

PART is one of
    probe   a bare loop that decodes and runs the same network on as many images, then the probe alone, then the probe again
            on the same cache: seconds from the command to DONE
    ten     --minutes 10, so many SEEDS (3)
    hour    --minutes 60, so many SEEDS (1)
Behind SEEDS may follow what else `sightline train` takes, such as --backbone lite2. Every training is a process with a cache
of its own, so decoding is counted. Run nothing beside it.
"""

import csv
import io
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

BARE = """
import io, sys, tarfile, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np, timm, torch
from PIL import Image
from safetensors.torch import load_file
start = time.perf_counter()
network = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
network.load_state_dict({name: value.float() for name, value in load_file(sys.argv[2]).items()})
network = network.eval().to(memory_format=torch.channels_last)
def decode(data):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = 258 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)))
with tarfile.open(sys.argv[1]) as tar:
    files = [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]
with ThreadPoolExecutor() as pool:
    pixels = np.stack(list(pool.map(decode, files)))
decoded = time.perf_counter()
with torch.inference_mode():
    for first in range(0, len(pixels), 32):
        images = torch.from_numpy(pixels[first : first + 32]).permute(0, 3, 1, 2).float() / 127.5 - 1
        network.forward_head(network.forward_features(images), pre_logits=True)
end = time.perf_counter()
print(len(files), decoded - start, end - decoded)
"""
"""Decode and one forward pass of every photograph, without anything of ours."""


def main(archive: str, part: str, seeds: int, arguments: list[str]) -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {versions()}", flush=True)
    coarse = coarse_classes(archive)
    if part == "probe":
        for _ in range(seeds):
            compare_with_bare(archive, coarse, arguments)
    else:
        minutes = {"ten": "10", "hour": "60"}[part]
        accuracies = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                named = ["--minutes", minutes, "--seed", str(seed), *arguments]
                _, run, done = train(archive, Path(folder), "run", named)
                accuracies.append(evaluation(run)["accuracy"])
                print(f"seed {seed}: {done:.1f} s to DONE; {spoken(run, coarse)}", flush=True)
        if len(accuracies) > 1:
            deviation = statistics.stdev(accuracies)
            print(
                f"mean {statistics.mean(accuracies):.4f}, standard deviation {deviation:.4f}, {len(accuracies)} seeds"
            )


def compare_with_bare(archive: str, coarse: dict[str, str], arguments: list[str]) -> None:
    """A bare loop and ours, one after the other, with what each took."""
    from sightline.config.backbones import BOX_FILE

    start = time.perf_counter()
    bare = subprocess.run(
        [sys.executable, "-c", BARE, archive, str(BOX_FILE)], check=True, capture_output=True, text=True
    )
    process = time.perf_counter() - start
    images, decode, forward = bare.stdout.split()
    print(f"bare, {images} photographs: {process:.1f} s the process, of it decoding {decode} s, forward {forward} s")
    with tempfile.TemporaryDirectory() as folder:
        seconds, run, done = train(archive, Path(folder), "run", ["--probe.then", "nothing", *arguments])
        probe = json.loads((run / "model.json").read_text())["probe"]
        ours = done - probe["solve_seconds"]
        print(
            f"ours: {done:.1f} s to DONE, of it the solver and the choice of the penalty {probe['solve_seconds']:.1f} s;"
            f" without them {ours / process:.3f} times the bare process; {seconds:.1f} s with the report; {spoken(run, coarse)}",
            flush=True,
        )
        seconds, again, done = train(archive, Path(folder), "again", ["--probe.then", "nothing", *arguments])
        print(f"again: {done:.1f} s to DONE, {seconds:.1f} s with the report; {spoken(again, coarse)}", flush=True)


def train(archive: str, folder: Path, name: str, arguments: list[str]) -> tuple[float, Path, float]:
    """Run ``sightline train``; returns the seconds of the process, the run, and the seconds until DONE."""
    run = folder / name
    command = [sys.executable, "-m", "sightline", "train", archive, "--run", str(run), *arguments]
    environment = os.environ | {"SIGHTLINE_CACHE": str(folder / "cache")}
    start, began = time.perf_counter(), time.time()
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if finished.returncode:
        sys.exit(finished.stderr[-2000:])
    for line in finished.stdout.splitlines():
        if line.startswith(("probe:", "fine-tuning", "no fine-tuning", "validation,", "stopped after")):
            print(f"  {line}", flush=True)
    return seconds, run, (run / "DONE").stat().st_mtime - began


def evaluation(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def spoken(run: Path, coarse: dict[str, str]) -> str:
    """Accuracy on the test split, fine and coarse, with n and Wilson's interval."""
    measured = evaluation(run)
    low, high = measured["accuracy_interval"]
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(coarse[row["true_class"]] == coarse[row["class"]] for row in rows)
    return (
        f"test {measured['accuracy']:.4f} (n = {measured['n']:,}, 95 % interval {low:.4f} to {high:.4f}), coarse"
        f" {right / len(rows):.4f}"
    )


def coarse_classes(archive: str) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        text = tar.extractfile("grocery/classes.csv").read().decode()  # type: ignore[union-attr]
    return {row["class"]: row["coarse_class"] for row in csv.DictReader(io.StringIO(text))}


def versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("sightline-vision", "torch", "timm", "lightning"))


if __name__ == "__main__":
    asked = sys.argv[2] if len(sys.argv) > 2 else "probe"
    count = int(sys.argv[3]) if len(sys.argv) > 3 else {"ten": 3}.get(asked, 1)
    main(sys.argv[1], asked, math.ceil(count), sys.argv[4:])
