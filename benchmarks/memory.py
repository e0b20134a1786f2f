"""Memory of the recipe ``fast``: above the imports on the whole set, and what a set ten times larger adds.

The larger set is the same files, each named ten times in a manifest; an epoch of a tenth of it is trained. Anonymous
memory (what the process itself holds) is told from file pages (the cache, which the system drops when it needs the
room) by looking every 50 ms.

    python benchmarks/memory.py ../shared/data/cifar10-jpeg.tar.xz
"""

import csv
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

TRAIN = """
import json, sys
import sightline
from sightline.training import fit

def held():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
print(held(), flush=True)
sightline.train(sys.argv[1], recipe="fast", settings=json.loads(sys.argv[3]), run=sys.argv[2])
"""
FEW = {"fit": {"epochs": 1}, "evaluation": {"on": "none"}}  # the last epoch is at full size and holds the most
TIMES = 10


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        with tarfile.open(sys.argv[1]) as archive:
            archive.extractall(whole, filter="data")
        files = sorted(path.relative_to(whole) for path in whole.rglob("*.jp*g"))
        manifests = {times: _manifest(whole, files, times) for times in (1, TIMES)}
        base, peak, _ = _train(sys.argv[1], Path(folder) / "full", {})
        print(f"fast, whole set: {(peak - base) / 1e6:.2f} GB above the imports ({base / 1e6:.2f} GB)", flush=True)
        peaks = {}
        for times, manifest in manifests.items():
            base, peak, files_mapped = _train(
                str(manifest), Path(folder) / f"run{times}", FEW | {"data": {"fraction": 1 / times}}
            )
            peaks[times] = peak - base
            print(
                f"one epoch of {times} × {len(files):,} images: {peaks[times] / 1e6:.2f} GB held above the imports,"
                f" {files_mapped / 1e6:.2f} GB of file pages",
                flush=True,
            )
        print(f"a set {TIMES} times larger holds {(peaks[TIMES] - peaks[1]) / 1e6:+.2f} GB")


def _manifest(root: Path, files: list[Path], times: int) -> Path:
    """Each file ``times`` times; the class is its folder, the split the folder above."""
    path = root / f"times{times}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for _ in range(times):
            writer.writerows((name.as_posix(), name.parent.name, name.parent.parent.name) for name in files)
    return path


def _train(data: str, run: Path, settings: dict[str, object]) -> tuple[int, int, int]:
    """(KiB held after the imports, at most, and of mapped files at most)."""
    command = [sys.executable, "-c", TRAIN, data, str(run), json.dumps(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    base = int(process.stdout.readline())
    held = mapped = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        found = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
        held, mapped = max(held, found.get("RssAnon", 0)), max(mapped, found.get("RssFile", 0))
        time.sleep(0.05)
    if process.wait():
        raise SystemExit("the training failed")
    return base, held, mapped


if __name__ == "__main__":
    main()
