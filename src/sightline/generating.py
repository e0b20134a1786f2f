"""Make images of classes with a trained generator: an image set like any other, and where each image comes from.

The images are one sequence, the first of every class, then the second of every class; it is made in batches of always the
same images, whatever was there before. So a killed generation goes on to the same bytes, and asking for more images of a
class adds to those that are there.
"""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sightline.config import KeepConfig, SamplingConfig, chosen_classes, sampling_of
from sightline.errors import ConfigError, RunError
from sightline.generators import Generator, load_generator
from sightline.images.batches import derived_seed
from sightline.images.layout import class_folder
from sightline.judging import Judge, Verdict
from sightline.picturing import draw_animation
from sightline.runs import (
    create_folder,
    generator_settings,
    plain_text,
    read_model_of_finished,
    refuse_filled,
    refuse_to_overwrite,
    write_atomically,
    write_csv,
)

__all__ = ["COLUMNS", "MANIFEST", "SCORES", "Generated", "generate"]

Array = np.ndarray[Any, Any]
MANIFEST = "manifest.csv"
COLUMNS = ("path", "label", "generator", "weights", "seed", "guidance", "steps", "sampler", "kept_if")
"""Of the manifest, which is an image set by itself: ``path`` and ``label`` are those of any manifest. ``kept_if``: the weights
of the classifier that looked at the image, and what it asked for."""
SCORES = ("probability", "distance", "nearest")
"""What the classifier said: of the class, and how far the nearest training image is."""
BATCH, GPU_BATCH = 32, 256  # images; with guidance the network gets twice as many
ANIMATED_ROWS, ANIMATED_COLUMNS, FRAMES = 20, 4, 60  # classes, images of each, and pictures of an animation, at most


@dataclass(frozen=True)
class Generated:
    """What a generation has left behind."""

    folder: Path
    images: int
    """In all."""
    made: int
    """Of them, those that were not there before."""
    looked_at: int
    """How many were made to keep these; as many, where none are refused."""
    refused: dict[str, int] = field(default_factory=dict)
    """Images that were refused this time, by ``judging.REASONS``; those of a generation that is gone on with are not made again."""


def generate(
    run: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    per_class: int = 100,
    classes: Sequence[str] | None = None,
    how: SamplingConfig | None = None,
    seed: int = 0,
    keep: KeepConfig | None = None,
    animation: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """Make images of classes: ``out/<class>/NNNN.png``, and ``out/manifest.csv`` with a line for each.

    Args:
        run: a finished run of a generator.
        out: folder to make; one that this very generation has begun is gone on with.
        per_class: images of each class; with ``keep`` so many are made, and fewer kept.
        classes: names; None for all.
        how: guidance, steps and sampler; None for the usual.
        seed: of all images together; each has one of its own, by its class and number.
        keep: which images are kept; None for all.
        animation: GIF file to write, of how the first images of each class come out of noise.
        progress: called with (images there, images in all).
    Raises:
        ConfigError: a class is not there, or the generator cannot do what is asked for.
        RunError: no finished run of a generator, or ``out`` holds something else.
        StorageError: the disk is full; what was made is kept.
    """
    folder = Path(out)
    if per_class < 1:
        raise ConfigError(f"--per-class is {per_class}; it must be at least 1.")
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it must be at least 0.")
    model = read_model_of_finished(run, generator=True)
    chosen = chosen_classes(classes, model["classes"])
    how = sampling_of(generator_settings(model), how)
    work = _Work(
        *(_name_of(model), _fingerprint(Path(run) / "model.safetensors"), chosen, how, seed),
        "" if keep is None else f"{_fingerprint(_weights_of(keep.run))}: {keep.criteria}",
    )
    begun = _rows_of(folder)
    work.refuse_others(begun, folder, per_class)
    if animation is not None:
        _refuse_animation(animation, how, begun is not None)
    judge = None if keep is None else Judge(keep, run)
    generator, _ = load_generator(run)
    labels = [model["classes"].index(name) for name in chosen]
    if animation is not None:
        _animate(Path(animation), generator, work, labels)
    if begun is None:
        create_folder(folder)
        write_csv(folder / MANIFEST, [*COLUMNS, *SCORES], [])
    for name in chosen:
        create_folder(folder / class_folder(name))
    _remove_halves(folder, chosen)
    total = per_class * len(chosen)
    rows = {row["path"]: row for row in begun or [] if (folder / row["path"]).is_file()}
    before = len(rows)
    refused: Counter[str] = Counter()
    lost = {row["path"] for row in begun or []} - rows.keys()
    last = max((work.number(path) for path in rows), default=-1)  # all before it were looked at
    for batch in work.batches(BATCH if generator.device.type == "cpu" else GPU_BATCH, total):
        wanted = [number for number in batch if number < total]
        if judge is None and all(work.path(number) in rows for number in wanted):
            continue
        if judge is not None and wanted[-1] < last and not lost.intersection(map(work.path, wanted)):
            continue
        seeds, places = [work.seed_of(number) for number in batch], [number % len(chosen) for number in batch]
        pixels = generator.make([labels[place] for place in places], seeds, how)
        said = judge.look(pixels, [labels[place] for place in places]) if judge else [None] * len(batch)
        for number, image, verdict in zip(wanted, pixels, said, strict=False):
            if verdict is not None and verdict.refused:
                refused[verdict.refused] += 1
                continue
            write_atomically(folder / work.path(number), _png(image), sync=False)
            rows[work.path(number)] = work.row(number) | _scores(verdict)
        _write_manifest(folder, work, rows, total)
        if progress:
            progress(wanted[-1] + 1, total)
    return Generated(folder, len(rows), len(rows) - before, total, dict(refused))


def _scores(verdict: Verdict | None) -> dict[str, str]:
    """The last columns of an image's line, as text."""
    if verdict is None:
        return dict.fromkeys(SCORES, "")
    told = (f"{verdict.probability:.6f}", f"{verdict.distance:.6g}", verdict.nearest)
    return dict(zip(SCORES, told, strict=True))


# ── what belongs to which image ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Work:
    """The endless sequence of images, numbered from 0, of which a generation makes the beginning."""

    generator: str
    weights: str
    classes: list[str]
    how: SamplingConfig | None
    seed: int
    kept_if: str = ""

    def batches(self, size: int, total: int) -> Iterator[range]:
        """The numbers of each batch. The last is as large as the others, for no image may depend on how many follow it."""
        for start in range(0, total, size):
            yield range(start, start + size)

    def path(self, number: int) -> str:
        turn, place = divmod(number, len(self.classes))
        return f"{class_folder(self.classes[place])}/{turn:04d}.png"

    def number(self, path: str) -> int:
        """The number of an image by its path, of one that is asked for."""
        where, _, file = path.partition("/")
        places = [class_folder(name) for name in self.classes]
        return int(file.removesuffix(".png")) * len(self.classes) + places.index(where)

    def seed_of(self, number: int) -> int:
        turn, place = divmod(number, len(self.classes))
        return derived_seed(self.seed, "generate", self.classes[place], turn)

    def row(self, number: int) -> dict[str, str]:
        """The line of an image, as text."""
        label = self.classes[number % len(self.classes)]
        how = ("", "", "")
        if self.how is not None:
            how = (f"{self.how.guidance:g}", str(self.how.steps), self.how.sampler)
        cells = (self.path(number), label, self.generator, self.weights, str(self.seed_of(number)), *how, self.kept_if)
        return dict(zip(COLUMNS, cells, strict=True))

    def refuse_others(self, begun: list[dict[str, str]] | None, folder: Path, per_class: int) -> None:
        """Refuse to go on with images that were made in another way, or of which there are more already.

        Raises:
            RunError: with the first difference.
        """
        places = {class_folder(name): place for place, name in enumerate(self.classes)}
        for found in begun or []:
            where, _, file = found["path"].partition("/")
            turn = file.removesuffix(".png")
            if where not in places or not turn.isdecimal():
                raise RunError(f"{folder} also holds {found['path']}, which is not asked for; choose another --out.")
            if int(turn) >= per_class:
                raise RunError(
                    f"{folder} holds {found['path']} already, more than --per-class {per_class}; ask for {int(turn) + 1} or"
                    " more, or choose another --out."
                )
            wanted = self.row(int(turn) * len(self.classes) + places[where])
            for column in COLUMNS:
                if found.get(column) != wanted[column]:
                    raise RunError(
                        f"{folder} holds images that were made otherwise: the {column} of {found['path']} was"
                        f" {found.get(column)} and is {wanted[column]}; choose another --out, or ask for the same again."
                    )


def _name_of(model: dict[str, Any]) -> str:
    """What a generator is called: by its recipe and its images, never by where it lies."""
    return f"{model['recipe']}-{model['data']['name']}"


def _weights_of(run: str) -> Path:
    """The weights of a classifier's run, or of its weights file alone."""
    return Path(run) if run.endswith(".safetensors") else Path(run) / "model.safetensors"


def _fingerprint(weights: Path) -> str:
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _rows_of(folder: Path) -> list[dict[str, str]] | None:
    """The lines of the manifest of a folder; None where there is nothing.

    Raises:
        RunError: there is something else.
    """
    manifest = folder / MANIFEST
    if not manifest.exists():
        refuse_filled(folder)
        return None
    try:
        with manifest.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = [{name: plain_text(cell or "") for name, cell in row.items() if name} for row in reader]
            columns = tuple(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{manifest} cannot be read ({error}); choose another --out.") from error
    if columns[: len(COLUMNS)] != COLUMNS:
        raise RunError(f"{manifest} was not written by `sightline generate`; choose another --out.")
    return rows


def _write_manifest(folder: Path, work: _Work, rows: dict[str, dict[str, str]], total: int) -> None:
    """Write the lines of the images that are there, in the order of the sequence."""
    there = (work.path(number) for number in range(total))
    write_csv(
        folder / MANIFEST,
        [*COLUMNS, *SCORES],
        ([rows[path].get(name, "") for name in (*COLUMNS, *SCORES)] for path in there if path in rows),
    )


def _remove_halves(folder: Path, classes: Iterable[str]) -> None:
    """Remove what a kill has left of files that were being written."""
    for place in (folder, *(folder / class_folder(name) for name in classes)):
        for leftover in (*place.glob(".*.png.*"), *place.glob(f".{MANIFEST}.*")):
            leftover.unlink(missing_ok=True)


def _png(pixels_HWC: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "PNG")
    return file.getvalue()


# ── the animation ────────────────────────────────────────────────────────────────────────────────────────────────────


def _refuse_animation(animation: str | os.PathLike[str], how: SamplingConfig | None, begun: bool) -> None:
    """Refuse a file that is no GIF, or that is there already and not of this generation, and a way of no steps."""
    if how is None:
        raise ConfigError(
            "--animation: this generator makes an image in one pass, so there is no way to show; leave it out."
        )
    if Path(animation).suffix.lower() != ".gif":
        raise ConfigError(f"--animation {animation} must end in .gif, the format of the animation.")
    if not begun:
        refuse_to_overwrite(animation, flag="--animation")


def _animate(path: Path, generator: Generator, work: _Work, labels: list[int]) -> None:
    """Draw how the first images of each class come out of noise."""
    labels = labels[:ANIMATED_ROWS]
    names, count = work.classes[: len(labels)], len(work.classes)
    numbers = [turn * count + place for place in range(len(labels)) for turn in range(ANIMATED_COLUMNS)]
    assert work.how is not None
    every = -(-(work.how.steps + 1) // FRAMES)
    frames: list[Array] = []
    steps = work.how.steps

    def watch(step: int, pixels: Array) -> None:
        if step % every == 0 or step == steps:
            frames.append(pixels.reshape(len(labels), ANIMATED_COLUMNS, *pixels.shape[1:]))

    each = [label for label in labels for _ in range(ANIMATED_COLUMNS)]
    generator.make(each, [work.seed_of(number) for number in numbers], work.how, watch)
    heading = f"{work.generator}: {work.how.steps} steps of {work.how.sampler}, guidance {work.how.guidance:g}"
    draw_animation(path, np.stack(frames), names, heading)
