"""Pack the embedded photographs, ``src/sightline/resources/box/groceries.zip``, from the Grocery Store Dataset's ``train/``.

    python benchmarks/embed_groceries.py ../shared/data/grocery.tar

Ten classes, 30 photographs of each. The set was photographed display by display, several times each, and its numbers are
shuffled; so the photographs were sorted into scenes by eye (2026-11), and a scene is a group that no split cuts: two
photographs of one crate, one to learn from and one to test on, would flatter. Photographs whose scene was in doubt are not
listed. Scenes that may be one display from two sides are one. The rest follows from SEED: the photographs of a class are
drawn scene by scene in turn. There are too few to set any aside for a test, so the set brings no splits.
"""

import csv
import io
import itertools
import random
import sys
import tarfile
import zipfile
from pathlib import Path

from PIL import Image

BOX = Path(__file__).parents[1] / "src" / "sightline" / "resources" / "box"
SEED = 0
A_CLASS = 30  # photographs
SIDE = 256  # pixels of the shorter side; the originals have 348
QUALITY = 55  # of the JPEG files: the highest, in steps of 5, at which all fit into MOST
MOST = 3_000_000  # bytes
LICENSE = "grocery/LICENSE"
EPOCH = (1980, 1, 1, 0, 0, 0)  # no member has a time of its own: the same photographs are the same bytes

SCENES = {
    "Golden-Delicious": [
        [1, 20, 23, 25, 29, 31, 37],
        [2, 4, 6, 8, 9, 10, 12, 13, 17, 21, 26, 27, 32, 36, 38, 39, 41],
        [7, 30, 33, 34],
        [3, 5, 14, 19, 22, 28, 35, 43],
        [11, 15, 16, 18, 24, 40, 42, 44, 45],
    ],
    "Granny-Smith": [
        [15, 17, 24, 33, 40, 50, 59],
        [21],
        [1, 4, 5, 8, 11, 12, 30, 32, 34, 48, 49, 52, 56, 58],
        [7, 9, 19, 31, 35, 42, 51],
        [2, 6, 13, 23, 27, 43, 45, 46, 57],
        [16, 26, 29, 38],
        [3, 20, 22, 25, 28, 55],
    ],
    "Pink-Lady": [
        [1, 16, 34, 43, 44, 48, 59],
        [3, 4, 5, 8, 10, 17, 18, 20, 23, 26, 27, 28, 31, 32, 33, 37, 40, 41, 46, 49, 52, 53, 54, 57],
        [2, 12, 15, 21, 22, 24, 25, 29, 36, 38, 42, 45, 47, 51, 55, 56],
        [6, 7, 9, 11, 13, 14, 19, 39, 50, 58],
        [30, 35],
    ],
    "Royal-Gala": [
        [5, 7, 23, 25, 26, 55],
        [1, 14, 24, 29, 31, 36, 37, 42, 43, 44, 45, 60, 61],
        [19, 27, 30, 35, 38, 46, 49, 53, 54, 56, 62],
        [2, 3, 4, 6, 8, 9, 10, 11, 12, 17, 18, 28, 32, 40, 41, 47, 51, 58, 59, 64, 65],
        [15, 16, 21, 39, 50, 63],
        [13, 20, 34, 48, 57],
    ],
    "Arla-Medium-Fat-Milk": [
        [5, 7, 9, 12, 16, 19, 20, 28],
        [21, 22],
        [14, 17, 24, 25, 34],
        [2, 11],
        [1, 3, 6, 8, 13, 29, 33],
        [4, 10, 15, 18, 23, 26, 27, 30, 31, 32],
    ],
    "Garant-Ecological-Medium-Fat-Milk": [
        [2, 5, 6, 8, 9, 11, 17, 20, 23, 35],
        [7],
        [1, 10, 13, 14, 16, 18, 19, 22, 24, 25, 28, 31, 33, 34],
        [3, 4, 12, 26, 29, 30],
        [15, 21, 27, 32],
    ],
    "Orange": [
        [5, 8, 13, 20, 25, 26, 27, 28, 31, 38, 43, 45, 52, 55, 56],
        [1, 4, 12, 17, 29, 30, 44, 46],
        [10, 11, 16, 34, 48, 49],
        [2, 6, 14, 15, 19, 23, 24, 32, 36, 41, 42, 47, 50, 53, 57],
        [3, 7, 9, 22, 33, 35, 37, 39, 40, 51, 54],
    ],
    "Satsumas": [
        [
            *[1, 2, 3, 4, 5, 8, 9, 11, 12, 15, 16, 18, 19, 21, 22, 28, 30, 31, 32, 33],
            *[35, 36, 38, 41, 42, 43, 44, 48, 52, 53, 57, 59, 60, 61, 64, 65, 67, 69],
        ],
        [23, 29, 39, 40, 50, 68],
        [7, 45, 51, 56, 58, 63],
        [14, 17, 47, 49, 62, 66],
        [6, 10, 13, 24, 25, 26, 27, 34, 37, 46, 54, 55, 70],
    ],
    "Regular-Tomato": [
        [12, 19],
        [7, 15, 24, 32, 38],
        [1, 2, 3, 4, 5, 8, 9, 10, 11, 13, 17, 18, 20, 21, 22, 28, 30, 33, 34, 35, 36, 37, 39, 40, 42, 43, 45, 47],
        [6, 14, 16, 23, 25, 26, 27, 29, 31, 41, 44, 48, 49, 50],
    ],
    "Vine-Tomato": [
        [25, 41],
        [1, 2, 3, 5, 7, 10, 11, 13, 15, 16, 18, 20, 23, 24, 27, 28, 31, 32, 34, 35, 38, 39, 40, 42, 43],
        [4, 6, 8, 9, 12, 17, 21, 36, 37],
        [14, 19, 22, 26, 29, 30, 33],
    ],
}
"""Numbers of the files of a class, scene by scene."""

README = """Photographs of groceries, embedded in sightline: 10 classes, {count} photographs.

From train/ of the Grocery Store Dataset (Klasson, Zhang, Kjellstrom: A Hierarchical Grocery Store Image Dataset with
Visual and Semantic Labels, WACV 2019; MIT license, see LICENSE), resized to {side} px on the shorter side and encoded anew
as JPEG of quality {quality}. Nothing is from its val/ or test/. manifest.csv names the class of each photograph and the
scene that it is of (its group; sorted by eye).
"""


def main(archive: str) -> None:
    rows = [row for name, scenes in SCENES.items() for row in deal(name, scenes)]
    wanted = {f"grocery/train/{row['path']}" for row in rows} | {LICENSE}
    with tarfile.open(archive) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar if member.name in wanted}  # type: ignore[union-attr]
    files = {
        "README.txt": README.format(count=len(rows), side=SIDE, quality=QUALITY).encode(),
        "LICENSE": found[LICENSE],
        "manifest.csv": as_csv(rows),
    } | {row["path"]: smaller(found[f"grocery/train/{row['path']}"]) for row in rows}
    with zipfile.ZipFile(BOX / "groceries.zip", "w", zipfile.ZIP_STORED) as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name, EPOCH), content)
    (BOX / "LICENSE-groceries.txt").write_bytes(found[LICENSE])
    size = (BOX / "groceries.zip").stat().st_size
    print(f"{len(rows)} photographs, {size:,} bytes; allowed: {MOST:,}")
    sys.exit(size > MOST)


def deal(name: str, scenes: list[list[int]]) -> list[dict[str, str]]:
    """Draw the photographs of a class, and give each its scene: rows of the manifest, by path."""
    rng = random.Random(f"{SEED} {name}")
    shuffled = [rng.sample(numbers, len(numbers)) for numbers in scenes]
    in_turn = [
        (scene, number)
        for turn in itertools.zip_longest(*shuffled)
        for scene, number in enumerate(turn)
        if number is not None
    ]
    drawn = in_turn[:A_CLASS]
    return [
        {
            "path": f"{name}/{name}_{number:03d}.jpg",
            "label": name,
            "group": f"{name} {scene + 1}",
        }
        for scene, number in sorted(drawn, key=lambda pair: pair[1])
    ]


def smaller(content: bytes) -> bytes:
    """A photograph with SIDE pixels on its shorter side, as JPEG without metadata."""
    with Image.open(io.BytesIO(content)) as image:
        scale = SIDE / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        file = io.BytesIO()
        image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def as_csv(rows: list[dict[str, str]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


if __name__ == "__main__":
    main(sys.argv[1])
