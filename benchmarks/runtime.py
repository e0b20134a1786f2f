"""The runtime without torch: size installed, seconds from a cold start to the first answer, memory, and equal answers.

    python benchmarks/runtime.py MODEL.onnx IMAGES [STARTS] [RUN]

Builds the wheel of packaging/runtime, installs it into an empty environment (without compiled files, as the Dockerfile
does), and starts a new process STARTS times (20) that imports it, loads MODEL and answers for one image. The files are in
the memory of the system by then (one start before is not counted). RUN is what MODEL was exported from; unless named the
classifier in the box. Answers of both for all of IMAGES, at most 2,000, are compared by their tables.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 2000  # images whose answers are compared
START = """
import time; began = time.perf_counter()
import json, resource, sys
import sightline_runtime
classifier = sightline_runtime.load(sys.argv[1])
loaded = time.perf_counter() - began
classifier.predict(sys.argv[2])
first = time.perf_counter() - began
assert "torch" not in sys.modules
used = resource.getrusage(resource.RUSAGE_SELF)
peak = used.ru_maxrss * 1024 / 1e6
pages = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
print(json.dumps([loaded, first, used.ru_utime + used.ru_stime, pages, peak]))
"""


def main() -> None:
    model, images = sys.argv[1:3]
    starts, run = int(sys.argv[3]) if len(sys.argv) > 3 else 20, sys.argv[4:5]
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder))
        paths = sorted(
            str(path) for path in Path(images).rglob("*.*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        )
        paths = paths[:: max(1, len(paths) // MOST)][:MOST]
        cold_starts(python, model, paths[0], starts)
        compare(python, model, paths, run, Path(folder))


def install(folder: Path) -> str:
    """Install the runtime into an empty environment; returns its Python."""
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / "bin" / "python")
    before = installed(folder)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-compile", ROOT / "packaging" / "runtime"], check=True)
    print(f"installed: {installed(folder) - before:.1f} MB without compiled files")
    return python


def installed(folder: Path) -> float:
    """Megabytes of all files but compiled ones, which Python writes when a module is first imported."""
    files = (path for path in (folder / "venv" / "lib").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sum(path.stat().st_size for path in files) / 1e6


def cold_starts(python: str, model: str, image: str, starts: int) -> None:
    rows = []
    for _ in range(starts + 1):
        began = time.perf_counter()
        ended = subprocess.run([python, "-c", START, model, image], capture_output=True, text=True, check=True, cwd="/")
        rows.append([*json.loads(ended.stdout), time.perf_counter() - began])
    names = (
        "import and load, s",
        "to the first answer, s",
        "processor, s",
        "resident, MB",
        "peak, MB",
        "whole process, s",
    )
    for name, *values in zip(names, *rows[1:], strict=True):
        print(f"{name}: median {statistics.median(values):.3f}, {min(values):.3f} to {max(values):.3f} (n = {starts})")


def compare(python: str, model: str, paths: list[str], run: list[str], folder: Path) -> None:
    tables = [folder / "runtime.csv", folder / "product.csv"]
    began = time.perf_counter()
    subprocess.run([python, "-m", "sightline_runtime", model, *paths, "--sets", "0.9", "--out", tables[0]], check=True)
    seconds = time.perf_counter() - began
    command = "import sys, sightline; sightline.predict(sys.argv[1] or None, sys.argv[3:], out=sys.argv[2], sets=0.9)"
    subprocess.run([sys.executable, "-c", command, run[0] if run else "", tables[1], *paths], check=True)
    first, second = (list(csv.DictReader(table.open(encoding="utf-8"))) for table in tables)
    pairs = list(zip(first, second, strict=True))
    largest = max(abs(float(one["probability"]) - float(two["probability"])) for one, two in pairs)
    for name in ("file", "class", "none_of_these", "set_0.9"):
        print(f"{name}: {sum(one[name] == two[name] for one, two in pairs):,} of {len(pairs):,} equal")
    print(
        f"largest difference of the first probability: {largest:.6f}; {len(pairs) / seconds:.0f} images/s with the start"
    )


if __name__ == "__main__":
    main()
