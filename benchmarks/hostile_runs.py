"""Damaged runs for ``hostile.py``: ``model.json``, ``evaluation.json`` and ``model.safetensors``, in front of the verbs.

One small classifier is trained before the first worker starts; every input is a copy of its run with one damaged file,
which is loaded, asked about an image, reported, evaluated and compared.
"""

import json
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RUN = "SIGHTLINE_HOSTILE_RUN"  # variable of the environment: where the run and its images lie
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 10**6, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e-300, 1e300, 3.0,
    float("nan"), float("inf"), "", "nan", "six", "one", "timm", "hub", "acgan", "classifier", "\0", "\x1b[2J\r\n", "\udc80",
    "\u202eabc", "x" * 100_000, "../../etc/passwd", "<script>", [], [[]], [0], [1, 2, 3], [None], ["a", "a"], [1e300] * 3,
    list(range(2000)), {}, {"": {}}, {"kind": "run", "folder": "."}, {"n": 0}, {"n": 1, "accuracy": 2}, {"six": 0.0},
)  # fmt: skip
DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I8", "U8", "BOOL", "C64", "x")


@contextmanager
def made_run(names: list[str]) -> Iterator[None]:
    """Train the classifier where a reader needs it and none is there, and say to the workers where it lies."""
    if RUN in os.environ or not {"model.json", "measures", "weights"}.intersection(names):
        yield
        return
    import sightline

    with tempfile.TemporaryDirectory() as root:
        folder, noise = Path(root), np.random.default_rng(0)
        for label, color in (("blue", (0, 0, 255)), ("green", (0, 255, 0))):
            for number in range(20):
                pixels = np.clip(np.array(color) + noise.normal(0, 60, (16, 16, 3)), 0, 255).astype(np.uint8)
                path = folder / "images" / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
        os.environ |= {RUN: root, "SIGHTLINE_CACHE": str(folder / "cache")}
        settings = {"fit": {"epochs": 1, "batch_size": 16}, "network": {"kind": "speednet", "widths": [8, 8, 8]}}
        sightline.train(folder / "images", recipe="small", settings=settings, run=folder / "run")
        try:
            yield
        finally:
            del os.environ[RUN]


def run_files(*names: str) -> dict[str, bytes]:
    """Return some files of the run, after importing what is slow to import: that takes no input's time."""
    import sightline.evaluation.evaluate
    import sightline.inference.predict
    import sightline.reports.report
    import sightline.studies.compare  # noqa: F401

    return {f"run/{name}": (Path(os.environ[RUN]) / "run" / name).read_bytes() for name in names}


def read_run(path: Path) -> object:
    """Use a run with one damaged file in every way; a verb's refusal does not keep the next verb from its turn."""
    import sightline
    from sightline.errors import SightlineError

    root, run = Path(os.environ[RUN]), path.parent
    os.environ["SIGHTLINE_CACHE"] = str(root / "cache")
    for file in (root / "run").iterdir():
        if file.is_file() and not (run / file.name).exists():
            shutil.copy(file, run / file.name)
    image = min(root.glob("images/*/*"))
    weights = run / "model.safetensors"
    refused: SightlineError | None = None
    ways: tuple[Callable[[], object], ...] = (
        lambda: sightline.predict(run, [image], sets=0.9),
        lambda: sightline.load(weights).predict(image),
        lambda: sightline.evaluate(run),
        lambda: sightline.report(run),
        lambda: sightline.compare(run, root / "run", out=run / "compared"),
    )
    for way in ways:
        try:
            way()
        except SightlineError as error:
            refused = error
            if len(str(error)) > 3000 or any(ord(letter) < 32 for letter in str(error)):
                raise AssertionError(
                    f"a sentence with control characters, or too long: {str(error)[:200]!r}"
                ) from error
    if refused is not None:
        raise refused
    return None


# ── mutations ────────────────────────────────────────────────────────────────────────────────────────────────────────


def mutate_json(data: bytes, dice: random.Random) -> bytes:
    """One mutation of the values of a JSON file: dropped, renamed, of another type, extreme, nested or doubled."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):  # damaged before
        return data
    if dice.random() < 0.05:
        return b"[" * 200_000 + data if dice.random() < 0.5 else json.dumps(dice.choice(VALUES)).encode()
    places = list(_places(content))
    if not places:
        return data
    holder, key = dice.choice(places)
    kind = dice.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{key}\u0000"] = holder.pop(key)
    elif kind == 2:
        holder[key] = {"nested": holder[key]} if dice.random() < 0.5 else [holder[key]]
    elif kind == 3:
        other, name = dice.choice(places)
        with suppress(LookupError, TypeError):
            holder[key] = json.loads(json.dumps(other[name]))
    elif kind == 4 and isinstance(holder, dict):
        text = json.dumps(content)
        return text.replace(f'"{key}":', f'"{key}": {json.dumps(dice.choice(VALUES))}, "{key}":', 1).encode()
    else:
        holder[key] = dice.choice(VALUES)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value; those of long tables are few enough not to outnumber the others."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, item in items[:8]:
        yield value, key
        yield from _places(item)
    for key, _ in items[8:]:
        yield value, key


def mutate_weights(data: bytes, dice: random.Random) -> bytes:
    """One mutation of a safetensors file: of its facts, its table of tensors, or their numbers."""
    kind = dice.randrange(6)
    with suppress(ValueError, KeyError, RecursionError, struct.error, MemoryError, UnicodeError):
        if kind < 3:
            return _mutate_facts(data, dice)
        if kind < 5:
            return _mutate_table(data, dice)
        (length,) = struct.unpack("<Q", data[:8])
        place = 8 + length + 4 * dice.randrange(max(1, (len(data) - 8 - length) // 4))
        number = dice.choice((float("nan"), float("inf"), -float("inf"), 3e38, 1e-45))
        return data[:place] + struct.pack("<f", number) + data[place + 4 :]
    return data


@contextmanager
def _header(data: bytes, out: list[bytes]) -> Iterator[dict[str, Any]]:
    """Change the header of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    yield header
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    out.append(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _mutate_facts(data: bytes, dice: random.Random) -> bytes:
    out: list[bytes] = []
    with _header(data, out) as header:
        facts = header["__metadata__"]["sightline"].encode("utf-8", "surrogatepass")
        header["__metadata__"]["sightline"] = mutate_json(facts, dice).decode("utf-8", "surrogatepass")
    return out[0]


def _mutate_table(data: bytes, dice: random.Random) -> bytes:
    """Another dtype or shape of the same bytes, another name, or one tensor fewer (the file then has a gap)."""
    out: list[bytes] = []
    with _header(data, out) as header:
        name = dice.choice([name for name in header if name != "__metadata__"])
        entry, kind = header[name], dice.randrange(5)
        count = entry["data_offsets"][1] - entry["data_offsets"][0]
        if kind == 0:
            entry["dtype"], entry["shape"] = dice.choice((("I32", entry["shape"]), ("U8", [count]), ("I8", [count])))
        elif kind == 1:
            entry["dtype"] = dice.choice(DTYPES)
        elif kind == 2:
            entry["shape"] = dice.choice(([], [1], entry["shape"][::-1], [0], [1, *entry["shape"]], [2**40], [-1]))
        elif kind == 3:
            header[dice.choice(("", "head.weight", "\0", "a.b", f"{name}.x"))] = header.pop(name)
        else:
            entry["data_offsets"] = dice.choice(([0, 0], [0, 2**60], [-1, 4], entry["data_offsets"][::-1]))
    return out[0]
