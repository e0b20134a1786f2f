"""Two trainings of digits side by side against one alone; with threads that sleep while they wait, and that spin.

In turns, so that a machine that slows down slows all: alone and side by side with ``GOMP_SPINCOUNT=0`` (what sightline
sets), then both with libgomp's own way of waiting, and again. From the command to ``DONE``, decoding left out.

    python benchmarks/side_by_side.py [ROUNDS] [EPOCHS] [PRECISION]

In bfloat16 oneDNN's threads wait for each other in a loop of their own, which no setting of libgomp ends: two such
trainings of two threads each on two cores took 10.9 times as long as one. So they count each other and share the cores
(``sightline.machine.cores``). With OMP_NUM_THREADS set they do not.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

from sightline.machine.devices import describe

# libgomp's own way of waiting: 300,000 turns (its manual; without it, sightline would set 0)
WAYS = {"sleeping (GOMP_SPINCOUNT=0)": "0", "spinning (GOMP_SPINCOUNT=300000)": "300000"}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    precision = sys.argv[3] if len(sys.argv) > 3 else "auto"
    seconds: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        _train(Path(folder), 1, 1, "0", precision)  # decodes the set, and warms the file cache
        for number in range(1, rounds + 1):
            for way, count in WAYS.items():
                for together in (1, 2):
                    seconds[way][together - 1].append(_train(Path(folder), together, epochs, count, precision))
                alone, beside = (column[-1] for column in seconds[way])
                print(f"round {number}, {way}: alone {alone:.1f} s, two side by side {beside:.1f} s", flush=True)
    for way, columns in seconds.items():
        alone, beside = (statistics.median(column) for column in columns)
        print(
            f"{way}: medians of {rounds}: alone {alone:.1f} s, side by side {beside:.1f} s, {beside / alone:.2f} times as long"
        )
    alone, spinning = (statistics.median(seconds[way][0]) for way in WAYS)
    print(f"one training alone takes {alone / spinning:.2f} of its time where threads spin")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "sightline-vision"))
    print(
        f"{epochs} epochs of digits by the recipe small, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}, precision {precision}; {describe(torch.device('cpu')).split(', ')[0]}, {os.cpu_count()} cores,"
        f" load {os.getloadavg()[0]:.1f} at the end; Python {platform.python_version()}, {versions}"
    )


def _train(folder: Path, together: int, epochs: int, count: str, precision: str) -> float:
    """Seconds until the last of some trainings, started at once, has ended."""
    own = {"GOMP_SPINCOUNT": count, "SIGHTLINE_CACHE": str(folder / "cache")}
    variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | own
    start = time.perf_counter()
    running = []
    for _ in range(together):
        run = tempfile.mkdtemp(dir=folder) + "/run"
        command = [sys.executable, "-m", "sightline", "train", "digits", "--recipe", "small", "--run", run]
        command += ["--fit.epochs", str(epochs), "--fit.precision", precision]
        running.append(
            subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        )
    said = [child.communicate()[1] for child in running]
    failed = [text for child, text in zip(running, said, strict=True) if child.returncode]
    if failed:
        sys.exit(f"a training failed: {failed[0].strip()}")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
