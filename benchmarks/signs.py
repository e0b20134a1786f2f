"""Photographs of hands: accuracy on a random fifth, and on students whom the classifier never saw.

Trains twice on the Sign Language Digits Dataset with the recipe that ``auto`` chooses: on the archive as it is, and on
a manifest in which the ten pictures of a student, numbered in consecutive tens from IMG_1118 on, are one group.

    python benchmarks/signs.py ../shared/data/sign-digits.tar.xz [EPOCHS]
"""

import csv
import re
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from rich.console import Console

import sightline
from sightline.display.events import Measured
from sightline.display.lines import Lines

FIRST = 1118  # number of the first picture


def main() -> None:
    archive = Path(sys.argv[1])
    settings = {"fit": {"epochs": int(sys.argv[2])}} if len(sys.argv) > 2 else {}
    with tempfile.TemporaryDirectory() as folder:
        _measure("a random fifth", archive, Path(folder) / "random", settings)
        _measure(
            "unseen students", write_manifest(archive, Path(folder) / "images"), Path(folder) / "students", settings
        )


def write_manifest(archive: Path, folder: Path) -> Path:
    """Unpack the archive and write a manifest with a group for each student."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group"])
        for image in sorted(folder.glob("*/*/*.JPG")):
            number = re.search(r"\d+", image.stem)
            assert number is not None
            student = (int(number.group()) - FIRST) // 10
            writer.writerow([image.relative_to(folder), image.parent.name, f"student {student}"])
    return manifest


def _measure(title: str, data: Path, run: Path, settings: dict) -> None:
    start = time.perf_counter()
    sightline.train(data, run=run, settings=settings)
    seconds = time.perf_counter() - start
    import json

    measured = json.loads((run / "evaluation.json").read_text())
    print(f"{title}: accuracy {measured['accuracy']:.4f}, n = {measured['n']}, {seconds:.0f} s with decoding")
    Lines(Console())(Measured(measured))


if __name__ == "__main__":
    main()
