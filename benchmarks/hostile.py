"""Damaged and hostile files, thousands of them, over every reader: each is read, or refused by an error of our own.

    python benchmarks/hostile.py [COUNT] [--seed N] [--reader NAME] [--only NUMBER]

Input number i of a seed is always the same: a valid or hostile example of one kind of file, with up to four mutations
(bits, bytes, blocks, lengths, lines). A worker reads one after another; an input that takes more than CPU_SECONDS of
the processor ends it, the most memory that it held is read from the kernel after each input, and the next worker goes
on behind it. The table counts what came of them. The status is 1 where any input raised a foreign exception, ran out
of time, or held more than MEMORY.
"""

import argparse
import csv
import io
import multiprocessing
import os
import random
import resource
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from hostile_runs import made_run, mutate_json, mutate_weights, read_run, run_files
from sightline.config.resolving import read_recipe, resolve_any
from sightline.config.space_files import read_space
from sightline.config.studies import read_study
from sightline.data.cache import open_images
from sightline.data.excluding import read_excluded
from sightline.data.sources.find_source import find_source
from sightline.data.sources.unlabeled import plain_files
from sightline.errors import SightlineError
from sightline_runtime.decoding.decode import UnreadableImageError, decode

CPU_SECONDS = 5  # of one input
MEMORY = 1_500_000_000  # bytes that one input may hold, the worker's own included
ADDRESSES = 8_000_000_000  # bytes of address space: an input that asks for more cannot take the machine along
OUTCOMES = ("accepted", "refused", "foreign", "timeout", "memory")


@dataclass(frozen=True)
class Reader:
    """One way in: example files, and what reads one of them."""

    examples: Callable[[], dict[str, bytes]]
    """Names with suffixes, and contents."""
    read: Callable[[Path], object]
    mutate: Callable[[bytes, random.Random], bytes] | None = None
    """Damages what the file means; by half, beside the mutations of its bytes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=[*READERS], help="this one alone")
    parser.add_argument("--only", type=int, help="read one input in this process, with a traceback")
    asked = parser.parse_args()
    names = [asked.reader] if asked.reader else [*READERS]
    if asked.only is not None:
        with made_run(names), tempfile.TemporaryDirectory() as folder:
            name, path = make_input(names, asked.only, asked.seed, Path(folder))
            print(f"input {asked.only}: {name}, {path.name}, {path.stat().st_size:,} bytes")
            READERS[name].read(path)
        return 0
    start = time.perf_counter()
    counts, failures = measure(names, asked.count, asked.seed)
    print(f"{'reader':<14}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES))
    for name in names:
        print(f"{name:<14}" + "".join(f"{counts[name, outcome]:>10,}" for outcome in OUTCOMES))
    totals = {outcome: sum(counts[name, outcome] for name in names) for outcome in OUTCOMES}
    print(f"{'all':<14}" + "".join(f"{totals[outcome]:>10,}" for outcome in OUTCOMES))
    print(f"{asked.count:,} inputs of seed {asked.seed} in {time.perf_counter() - start:.0f} s; {os.cpu_count()} cores")
    for failure in failures[:20]:
        print(failure)
    return 1 if failures else 0


def measure(names: list[str], count: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Read inputs 0 to ``count`` in workers; returns (inputs by reader and outcome, a line for each failure)."""
    with made_run(names):
        return _measure(names, count, seed)


def _measure(names: list[str], count: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    counts: Counter[tuple[str, str]] = Counter()
    failures = []
    context = multiprocessing.get_context("spawn")
    first = 0
    while first < count:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(theirs, names, first, count, seed))
        worker.start()
        theirs.close()
        try:
            while True:
                name, outcome, what = ours.recv()
                counts[name, outcome] += 1
                if outcome not in ("accepted", "refused"):
                    failures.append(f"{outcome}: input {first}, {name}: {what}")
                first += 1
        except EOFError:
            worker.join()
        if first < count:  # the worker was ended by the input that it was reading
            with tempfile.TemporaryDirectory() as folder:
                name, path = make_input(names, first, seed, Path(folder))
            outcome = "timeout" if worker.exitcode == -24 else "memory"  # SIGXCPU; else killed, or it crashed
            counts[name, outcome] += 1
            failures.append(f"{outcome}: input {first}, {name}: {path.name}, status {worker.exitcode}")
            first += 1
    return counts, failures


def _work(results: Connection, names: list[str], first: int, count: int, seed: int) -> None:
    """Read inputs one after another, and send what came of each."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the worker ends
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, count):
            name, path = make_input(names, number, seed, Path(folder) / "input")
            used = resource.getrusage(resource.RUSAGE_SELF)
            limit = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            Path("/proc/self/clear_refs").write_text("5")  # forgets the most memory that was held
            outcome, what = _outcome(READERS[name].read, path)
            held = _most_memory()
            if held > MEMORY:
                outcome, what = "memory", f"{path.name}, {held / 1e9:.1f} GB"
            results.send((name, outcome, what))


def _outcome(read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    try:
        read(path)
    except (SightlineError, UnreadableImageError) as error:
        long = len(str(error)) > 3000
        return ("foreign", f"a sentence of {len(str(error)):,} letters") if long else ("refused", "")
    except MemoryError:
        return "memory", f"{path.name}: MemoryError"
    except BaseException:
        return "foreign", f"{path.name}: {' | '.join(traceback.format_exc(limit=-2).split(chr(10))[-4:])}"
    return "accepted", ""


def _most_memory() -> int:
    """Bytes in memory at most since it was forgotten last, as the kernel counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no VmHWM")


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_input(names: list[str], number: int, seed: int, folder: Path) -> tuple[str, Path]:
    """Write input ``number`` into a fresh folder; returns (reader, path)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    dice = random.Random(f"{seed} {number}")
    name = names[number % len(names)]
    reader = READERS[name]
    examples = _examples(name)
    file = dice.choice(sorted(examples))
    data = examples[file]
    for _ in range(dice.choice((0, 1, 1, 1, 2, 2, 3, 4))):
        data = reader.mutate(data, dice) if reader.mutate and dice.random() < 0.5 else mutate(data, dice)
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return name, path


_made: dict[str, dict[str, bytes]] = {}


def _examples(name: str) -> dict[str, bytes]:
    if name not in _made:
        _made[name] = READERS[name].examples()
    return _made[name]


def mutate(data: bytes, dice: random.Random) -> bytes:
    """One mutation of bytes: bits, bytes, blocks cut, doubled, moved or zeroed, numbers set to extremes, an early end."""
    if not data:
        return bytes(dice.randrange(256) for _ in range(dice.randrange(64)))
    place, length = dice.randrange(len(data)), min(dice.choice((1, 2, 4, 8, 64, 512, 4096)), len(data))
    if dice.random() < 0.5:  # headers decide most
        place = dice.randrange(min(len(data), 512))
    block = data[place : place + length]
    kind = dice.randrange(9)
    if kind == 0:
        return data[:place] + bytes([data[place] ^ (1 << dice.randrange(8))]) + data[place + 1 :]
    if kind == 1:
        return data[:place] + bytes(dice.randrange(256) for _ in block) + data[place + length :]
    if kind == 2:
        return data[:place]
    if kind == 3:
        return data[:place] + data[place + length :]
    if kind == 4:
        return data[:place] + block * dice.choice((2, 3, 50)) + data[place + length :]
    if kind == 5:
        return data[:place] + bytes(len(block)) + data[place + length :]
    if kind == 6:
        other = dice.randrange(len(data))
        return data[:other] + block + data[other:]
    size, order = dice.choice((("H", 2), ("I", 4), ("Q", 8))), dice.choice("<>")
    number = dice.choice((0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1))
    if kind == 7:
        packed = struct.pack(order + size[0], number % (1 << 8 * size[1]))
        return data[:place] + packed + data[place + size[1] :]
    return (
        data[:place]
        + dice.choice((b"\0", b"\xff\xd8\xff", b"PK\x05\x06", b"../", b"\xef\xbb\xbf", b"\r\n"))
        + data[place:]
    )


def mutate_text(data: bytes, dice: random.Random) -> bytes:
    """One mutation of text: lines doubled, dropped, exchanged or joined, words exchanged, odd cells, another encoding."""
    lines = data.decode("utf-8", "replace").split("\n")
    place = dice.randrange(len(lines))
    kind = dice.randrange(8)
    if kind == 0:
        lines[place:place] = [lines[place]] * dice.choice((1, 2, 100))
    elif kind == 1:
        del lines[place]
    elif kind == 2:
        other = dice.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    elif kind == 3:
        lines[place] += dice.choice(
            (",", ";", "\t", ",,,", '"', "'", ": ", " #", "&a *a", "{", "]", "\0", "x" * 300_000)
        )
    elif kind == 4:
        words = lines[place].split(" ")
        words[dice.randrange(len(words))] = dice.choice(ODD_WORDS)
        lines[place] = " ".join(words)
    elif kind == 5:
        lines[place] = " " * dice.randrange(1, 9) + lines[place]
    elif kind == 6:
        return "\n".join(lines).encode(dice.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32")), "replace")
    else:
        cells = lines[place].split(",")
        cells[dice.randrange(len(cells))] = dice.choice(ODD_WORDS)
        lines[place] = ",".join(cells)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


ODD_WORDS = (
    "", "nan", "-1", "0", "1e400", ".inf", "null", "true", "~", "[]", "{}", "!!python/object:os.system x", "2026-11-30", "0x10",
    "1_000", "../../etc/passwd", "/dev/zero", "CON", "a\0b", "é", "\u202e", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "[" * 2000, "{a: " * 500, "9" * 5000, "https://example.org/a.png", "<<", "*a", "&a", "%TAG", "---", "|", ">",
)  # fmt: skip


# ── examples ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def picture(side: int = 24, mode: str = "RGB", seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, kind, **options)
    return file.getvalue()


def images() -> dict[str, bytes]:
    deep = Image.fromarray(np.arange(576, dtype=np.uint16).reshape(24, 24) * 100)
    exif = Image.Exif()
    exif[0x0112] = 6
    gif = encoded("GIF")
    found = {
        "photo.jpg": encoded("JPEG", exif=exif),
        "progressive.jpg": encoded("JPEG", progressive=True),
        "cmyk.jpg": encoded("JPEG", picture(mode="CMYK")),
        "rgb.png": encoded("PNG"),
        "alpha.png": encoded("PNG", picture(mode="RGBA")),
        "palette.png": encoded("PNG", picture(mode="P")),
        "deep.png": encoded("PNG", deep),
        "exif.png": encoded("PNG", exif=exif),
        "short-exif.png": with_chunk(encoded("PNG"), b"eXIf", b"Exif\0\0"),
        "text-bomb.png": with_chunk(encoded("PNG"), b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))),
        "wide.png": png_header(100_000, 100_000),
        "large.png": png_header(9_000, 9_000),
        "photo.webp": encoded("WEBP"),
        "photo.bmp": encoded("BMP"),
        "photo.gif": gif,
        "comments.gif": gif[:13] + gif[13:-1] + b"\x21\xfe" + b"\xff" + bytes(255) + b"\0" + b"\x21\xfe\x01a\0" * 20_000 + b";",
        "photo.tif": encoded("TIFF"),
        "deflated.tif": encoded("TIFF", compression="tiff_deflate"),
        "float.tif": encoded("TIFF", Image.fromarray(np.linspace(0, 1, 576, dtype=np.float32).reshape(24, 24))),
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "empty.jpg": b"",
    }  # fmt: skip
    Image.init()
    for name, kind in (("photo.avif", "AVIF"), ("photo.jp2", "JPEG2000"), ("photo.ppm", "PPM")):
        if kind in Image.SAVE or (Image.init() and kind in Image.SAVE):
            found[name] = encoded(kind)
    return found


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return png[:33] + chunk + png[33:]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000))
    parts = (b"IHDR", header), (b"IDAT", body), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def members() -> dict[str, bytes]:
    """A small image set, as an archive holds it."""
    return {
        f"set/{label}/{number}.png": encoded("PNG", picture(seed=number))
        for label in ("cat", "dog")
        for number in range(3)
    }


def zips() -> dict[str, bytes]:
    found = {}
    for name, method in (
        ("stored.zip", zipfile.ZIP_STORED),
        ("deflated.zip", zipfile.ZIP_DEFLATED),
        ("lzma.zip", zipfile.ZIP_LZMA),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            for member, data in members().items():
                archive.writestr(member, data)
        found[name] = file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for member, data in members().items():
            archive.writestr(member, data)
        archive.writestr("set/cat/bomb.png", bytes(400_000_000))
    return found | {"bomb.zip": file.getvalue()}


def tars() -> dict[str, bytes]:
    found = {}
    for name, mode, layout in (
        ("plain.tar", "w", tarfile.PAX_FORMAT),
        ("packed.tar.gz", "w:gz", tarfile.GNU_FORMAT),
        ("packed.tar.xz", "w:xz", tarfile.PAX_FORMAT),
    ):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode, format=layout) as archive:
            for member, data in members().items():
                header = tarfile.TarInfo(member)
                header.size = len(data)
                header.pax_headers = {"comment": "x"} if layout == tarfile.PAX_FORMAT else {}
                archive.addfile(header, io.BytesIO(data))
        found[name] = file.getvalue()
    return found | {
        "sparse.tar": sparse_tar(b"0", b"2000000000"),
        "bad-map.tar": sparse_tar(b"abc", b"7"),
        "long.tar": long_header(),
    }


def sparse_tar(offset: bytes, size: bytes) -> bytes:
    """An old GNU sparse member of a few bytes that unpacks to ``size``."""
    header = bytearray(tarfile.TarInfo("set/cat/0.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:398] = offset.rjust(11, b"0") + b"\0"
    header[398:410] = b"00000000001\0"
    header[483:495] = format(int(size), "o").encode().rjust(11, b"0") + b"\0"
    header[124:136] = b"00000000001\0"
    header[148:156] = b" " * 8
    header[148:156] = format(sum(header), "06o").encode() + b"\0 "
    return bytes(header) + b"x".ljust(512, b"\0") + bytes(1024)


def long_header() -> bytes:
    """A pax header that claims 1e11 bytes."""
    header = bytearray(tarfile.TarInfo("set/cat/0.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"x"
    header[124:136] = b"\x80" + (10**11).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = format(sum(header), "06o").encode() + b"\0 "
    return bytes(header) + b"x".ljust(512, b"\0") + bytes(1024)


def tables() -> dict[str, bytes]:
    rows = [("path", "label", "split")] + [
        (f"img/{n}.png", "cat" if n % 2 else "dog", "train" if n < 6 else "test") for n in range(8)
    ]
    found = {}
    for name, delimiter, encoding in (
        ("comma.csv", ",", "utf-8"),
        ("semicolon.csv", ";", "utf-8-sig"),
        ("tab.tsv", "\t", "utf-16"),
        ("tab.csv", "\t", "utf-8"),
    ):
        file = io.StringIO()
        csv.writer(file, delimiter=delimiter).writerows(rows)
        found[name] = file.getvalue().encode(encoding)
    return found | {
        "wide.csv": b"path,label\na.png," + b"x" * 200_000 + b"\n",
        "nul.csv": b"path,label\na\0.png,cat\nb.png,dog\n",
    }


def recipes() -> dict[str, bytes]:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
    )
    return {
        "recipe.yaml": b"augment: {flip: random, crop: {kind: pad_crop, padding: 2}}\nfit:\n  epochs: 8\n  batch_size: 64\noptimizer: {kind: adamw, learning_rate: 0.001}\n",
        "laughs.yaml": laughs.encode(),
        "deep.yaml": b"a: " + b"[" * 3000,
        "merge.yaml": b"a: &a {fit: {epochs: 3}}\n<<: *a\n",
    }  # fmt: skip


def studies() -> dict[str, bytes]:
    from sightline.config.studies import named_studies

    return {f"{name}.yaml": text.encode() for name, text in named_studies().items()} | {
        "laughs.yaml": recipes()["laughs.yaml"]
    }


def spaces() -> dict[str, bytes]:
    return {
        "space.yaml": b"optimizer.learning_rate: {low: 0.0001, high: 0.1, log: true}\nfit.batch_size: [32, 64]\naugment.flip: [none, random]\n",
        "laughs.yaml": recipes()["laughs.yaml"],
    }


def exclusions() -> dict[str, bytes]:
    return {
        "exclude.csv": b"file,reason\ncat/0.png,blurred\ndog/1.png,\"a, b\"\n",
        "exclude.txt": "cat/0.png\nd\u00f6g/1.png\n# a comment\n".encode(),
    }  # fmt: skip


def caches() -> dict[str, bytes]:
    """The files of a cache, each by itself: the rest is put beside it when it is read."""
    with tempfile.TemporaryDirectory() as folder:
        _cached(Path(folder))
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).glob("cache/*/*"))}


def _cached(folder: Path) -> None:
    """Open a small image set, with its cache in the folder."""
    for name, data in members().items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, (1, 1))
    os.environ["SIGHTLINE_CACHE"] = str(folder / "cache")
    opened = open_images(find_source(folder / "set"), None)
    int(opened.pixels[:].sum()), list(opened.paths), opened.labels.tolist(), list(opened.hashes)


# ── readers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_image(path: Path) -> object:
    return decode(path.read_bytes())


def read_set(path: Path) -> object:
    """List a set and read every byte and image of it, as a training does."""
    source = find_source(path)
    listing = source.scan()
    source.fingerprint()
    for _, data in source.read(listing.entries):
        if isinstance(data, bytes):
            try:
                decode(data)
            except UnreadableImageError:
                continue
    return listing


def read_asked(path: Path) -> object:
    """Read what a classifier is asked about."""
    return sum(len(data) for _, data in plain_files(path).read() if isinstance(data, bytes))


def read_archive(path: Path) -> object:
    return read_set(path), read_asked(path)


def read_table(path: Path) -> object:
    for number in range(8):
        image = path.parent / "img" / f"{number}.png"
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(PNG)
    return read_set(path)


def read_cache(path: Path) -> object:
    """Open a set whose cache has one damaged file."""
    folder = next(parent for parent in path.parents if parent.name == "input" or (parent / "cache").is_dir())
    for name, data in _examples("cache").items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return _cached(folder)


PNG = encoded("PNG")
READERS = {
    "image": Reader(images, read_image),
    "zip": Reader(zips, read_archive),
    "tar": Reader(tars, read_archive),
    "table": Reader(tables, read_table, mutate_text),
    "recipe": Reader(recipes, lambda path: resolve_any(read_recipe(path)), mutate_text),
    "study": Reader(studies, read_study, mutate_text),
    "space": Reader(spaces, read_space, mutate_text),
    "exclude list": Reader(exclusions, read_excluded, mutate_text),
    "cache": Reader(caches, read_cache),
    "model.json": Reader(lambda: run_files("model.json"), read_run, mutate_json),
    "measures": Reader(lambda: run_files("evaluation.json"), read_run, mutate_json),
    "weights": Reader(lambda: run_files("model.safetensors"), read_run, mutate_weights),
}

if __name__ == "__main__":
    sys.exit(main())
