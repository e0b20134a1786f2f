"""The data doctor on real sets: seconds with the set decoded and without, what is found, pairs between train and test.

    python benchmarks/doctor.py ../shared/data/cifar10-jpeg.tar.xz ../shared/data/sign-digits.tar.xz [PAGES]

Each set is checked twice, in a process of its own and with a cache of its own: the first time it is decoded, too. With PAGES,
50 near-duplicate pairs between train and test, drawn by a seed, are written there as pictures side by side, to be judged by
eye.
"""

import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sightline.data.batches import derived_seed
from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source

DRAWN, A_PAGE, COLUMNS = 50, 25, 5
SCALE = 4  # screen pixels a pixel


def main() -> None:
    sets = [argument for argument in sys.argv[1:] if os.path.isfile(argument)]
    pages = next((Path(argument) for argument in sys.argv[1:] if argument not in sets), None)
    for data in sets:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SIGHTLINE_CACHE"] = str(Path(folder) / "cache")
            seconds = [_check(data, Path(folder) / name) for name in ("first", "second")]
            findings = _table(Path(folder) / "second" / "findings.csv")
            for way, (passed, used) in zip(("with decoding", "decoded before"), seconds, strict=True):
                print(f"{data}, {way}: {passed:.0f} s, {used:.0f} s of a processor (n = 1)")
            print(f"  {dict(Counter(row['finding'] for row in findings))}")
            print(f"  {len(_table(Path(folder) / 'second' / 'exclude.csv'))} suggested to be left out")
            print(f"  check.html: {(Path(folder) / 'second' / 'check.html').stat().st_size / 1e6:.2f} MB")
            between = [
                row
                for row in findings
                if row["finding"] == "shared" and "/test/" in f"/{row['other']}" and "/train/" in f"/{row['file']}"
            ]
            tested = {row["other"] for row in between}
            print(f"  pairs between train/ and test/: {len(between)}, of {len(tested)} test images", flush=True)
            if pages is not None and between:
                _draw(data, between, pages)
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pillow"))
    print(
        f"Python {platform.python_version()}, {versions}, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads"
    )


def _check(data: str, out: Path) -> tuple[float, float]:
    """Check a set in a process of its own: (seconds that passed, seconds of a processor)."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-m", "sightline", "check", data, "--out", out], check=True, capture_output=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _draw(data: str, pairs: list[dict[str, str]], pages: Path) -> None:
    """Write pairs that are drawn by a seed as pages of pictures side by side, numbered, without their scores."""
    pages.mkdir(parents=True, exist_ok=True)
    images = open_images(find_source(data))
    row_of = {path: row for row, path in enumerate(images.paths)}
    random = np.random.default_rng(derived_seed(0, "drawn pairs"))
    drawn = [pairs[index] for index in np.sort(random.choice(len(pairs), min(DRAWN, len(pairs)), replace=False))]
    height, width = (SCALE * side for side in images.pixels.shape[1:3])
    cell_width, cell_height = 2 * width + 14, height + 18
    for page in range(0, len(drawn), A_PAGE):
        sheet = Image.new("RGB", (COLUMNS * cell_width, -(-A_PAGE // COLUMNS) * cell_height), "white")
        pen = ImageDraw.Draw(sheet)
        for place, pair in enumerate(drawn[page : page + A_PAGE]):
            left, top = place % COLUMNS * cell_width, place // COLUMNS * cell_height
            pen.text(
                (left, top), f"{page + place + 1}{' mirrored' if 'mirrored' in pair['detail'] else ''}", fill="black"
            )
            for offset, name in ((0, pair["file"]), (width + 2, pair["other"])):
                picture = Image.fromarray(np.asarray(images.pixels[row_of[name]]))
                sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left + offset, top + 14))
        sheet.save(pages / f"pairs-{page // A_PAGE + 1}.png")


if __name__ == "__main__":
    main()
