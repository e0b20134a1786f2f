"""Make images of classes with a trained generator: an image set like any other, and where each image comes from.

The images are one sequence, the first of every class, then the second of every class; it is made in batches of always
the same images, whatever was there before. So a killed generation goes on to the same bytes, and asking for more images
of a class adds to those that are there. Several processes make batches side by side, and one writes them, in their
order.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sightline.config.checks import INFINITY, within
from sightline.config.generators import KeepConfig, SamplingConfig, chosen_classes, sampling_of
from sightline.data.sources.entries import class_folder
from sightline.display.notebook import show_in_cell
from sightline.display.pictures import encode_png
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError, RunError
from sightline.generation.sequence import COLUMNS, WHERE_SET, ImageSequence, fingerprint, name_of, weights_of
from sightline.runs.folder import generator_settings, read_model_of_finished, refuse_filled
from sightline.runs.writing import create_folder, plain_text, write_atomically, write_csv

if TYPE_CHECKING:
    from sightline.generation.filter import Verdict

__all__ = ["COLUMNS", "MANIFEST", "SCORES", "Generated", "generate"]

Array = np.ndarray[Any, Any]
MANIFEST = "manifest.csv"
SCORES = ("probability", "distance", "nearest")
"""Of the filter: the probability of the class, and how far the nearest training image is."""
BATCH, GPU_BATCH = 32, 256  # images; with guidance the network gets twice as many


@dataclass(frozen=True)
class Generated:
    """Result of a generation: what is in its folder."""

    folder: Path
    images: int
    """In all."""
    made: int
    """Of them, those that were not there before."""
    looked_at: int
    """How many were made to keep these; as many, where none are refused."""
    refused: dict[str, int] = field(default_factory=dict)
    """Images that were refused this time, by ``filter.REASONS``; those of an earlier time are not made again."""
    without: list[str] = field(default_factory=list)
    """Classes that were asked for and of which there is no image, since all were refused."""

    def sentences(self, *, filtered: bool | None = None) -> Iterator[str]:
        """Yield why images were refused, and how many there are.

        Args:
            filtered: whether a classifier chose; None: where it refused any.
        """
        from sightline.generation.filter import REASONS  # loads torch

        for reason, count in self.refused.items():
            yield f"refused: {count:,} {REASONS[reason]}"
        if self.without:
            yield f"no image was kept of: {', '.join(self.without)}"
        there = self.images - self.made
        of = f" of {self.looked_at:,}" if (bool(self.refused) if filtered is None else filtered) else ""
        were_there = f" ({there:,} of them were there)" if there else ""
        yield f"{self.images:,}{of} images{were_there} and manifest.csv in {self.folder}"

    def _ipython_display_(self) -> None:
        show_in_cell(*self.sentences())


@reporting
def generate(
    run: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    per_class: int = 100,
    classes: Sequence[str] | None = None,
    how: SamplingConfig | None = None,
    seed: int = 0,
    keep: KeepConfig | None = None,
    processes: int = 1,
    animation: str | os.PathLike[str] | None = None,
    on_event: Listener = ignore,
) -> Generated:
    """Make images of classes with a trained generator.

    The images are ``out/<class>/NNNN.png``, with a line for each in ``out/manifest.csv``. Several processes make the
    bytes of one, and may go on with what one has begun, as long as the network computes the same by fewer threads, of
    which each process has its share: PyTorch does not promise that, and float32 on a processor with AVX2 kept it
    (n = 200 images of digits, 1 and 2 threads). A program of one's own that asks for several starts below
    ``if __name__ == "__main__":``, as Python wants it of whatever starts processes.

    Ten parameters because they are the arguments and options of ``sightline generate``.

    Args:
        run: Folder of a finished run of a generator (sightline train DATA --recipe ddpm).
        out: Folder to make, with <class>/NNNN.png and manifest.csv; the same command again continues one that was
            stopped, and with more images per class adds to one that is finished.
        per_class: Images of each class; so many are made, and fewer kept where a classifier chooses.
        classes: Names of the classes to make; all unless named.
        how: Guidance, steps and sampler of a generator by ddpm or edm; the usual unless named.
        seed: Seed of all images; each has one of its own, by its class and number, which manifest.csv names.
        keep: Which images are kept; all unless named.
        processes: Processes that make images side by side on a processor, each with its share of the threads; no more
            than there are batches are started.
        animation: GIF file to write, of how the first images of each class come out of noise.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Raises:
        ConfigError: a class is not there, or the generator, or the device, cannot do what is asked for.
        RunError: no finished run of a generator, ``out`` holds something else, or a process was ended; what was made is
            kept.
        StorageError: the disk is full; what was made is kept.
    """
    folder = Path(out)
    within("per-class", per_class, 1, INFINITY)
    within("seed", seed, 0, INFINITY)
    within("processes", processes, 1, INFINITY)
    model = read_model_of_finished(run, generator=True)
    chosen = chosen_classes(classes, model["classes"])
    how = sampling_of(generator_settings(model), how)
    if keep is not None and not keep.run.endswith(".safetensors"):
        read_model_of_finished(keep.run)
    images = ImageSequence(
        *(name_of(model), fingerprint(Path(run) / "model.safetensors"), chosen, how, seed),
        "" if keep is None else f"{fingerprint(weights_of(keep.run))}: {keep.criteria}",
    )
    begun = _rows_of(folder)
    images.refuse_others(begun, folder, per_class)
    with stage(on_event, "Generating", brief=True) as progress:
        from sightline.generation.animation import animate, refuse_animation
        from sightline.generation.filter import Filter
        from sightline.generation.generator import load_generator
        from sightline.generation.workers import Task, make_side_by_side

        if animation is not None:
            refuse_animation(animation, how, begun is not None)
        # in this process alone: it holds features of all training images, and computes by the same threads throughout
        filter_ = None if keep is None else Filter(keep, run)
        generator, _ = load_generator(run)
        if processes > 1 and generator.device.type != "cpu":
            raise ConfigError(
                f"--processes {processes}: the images are made on one GPU, which one process fills; leave the option"
                " out."
            )
        labels = [model["classes"].index(name) for name in chosen]
        if animation is not None:
            animate(Path(animation), generator, images, labels)
        there = _Folder(folder, images, per_class * len(chosen), begun)
        before = len(there.rows)
        size = BATCH if generator.device.type == "cpu" else GPU_BATCH
        processes = min(
            processes, -(-there.total // size)
        )  # and not by what is missing: threads are the same after a kill
        batches = there.missing(size, filtered=filter_ is not None)
        tasks = [
            Task([labels[n % len(labels)] for n in batch], [images.seed_of(n) for n in batch]) for batch in batches
        ]
        here = (generator.make(task.labels, task.seeds, how) for task in tasks)
        with closing(here if processes == 1 else make_side_by_side(run, how, tasks, processes)) as pixels_of_batches:
            for batch, task, pixels in zip(batches, tasks, pixels_of_batches, strict=True):
                there.add(batch, pixels, filter_.look(pixels, task.labels) if filter_ else [None] * len(batch))
                progress(min(batch.stop, there.total), there.total)
        kept = {row["label"] for row in there.rows.values()}
        without = [name for name in chosen if name not in kept]
        return Generated(folder, len(there.rows), len(there.rows) - before, there.total, dict(there.refused), without)


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Folder:
    """The images of a generation that are there, and their manifest; nothing else writes either."""

    def __init__(self, folder: Path, images: ImageSequence, total: int, begun: list[dict[str, str]] | None) -> None:
        """Make the folder, or go on with what is there.

        Args:
            folder: to make, or to go on with.
            images: all that there could be.
            total: images that are asked for.
            begun: lines of the manifest that is there; None where there is none.
        """
        self.folder, self.images, self.total = folder, images, total
        self.refused: Counter[str] = Counter()
        if begun is None:
            create_folder(folder)
            write_csv(folder / MANIFEST, [*COLUMNS, *SCORES], [])
        self._remove_halves()
        self.rows = {row["path"]: row for row in begun or [] if (folder / row["path"]).is_file()}
        self._lost = {row["path"] for row in begun or []} - self.rows.keys()

    def missing(self, size: int, *, filtered: bool) -> list[range]:
        """List the batches that are to be made: their numbers, the last ones beyond ``total``.

        The last batch is as large as the others, for no image may depend on how many follow it.

        Args:
            size: images of a batch.
            filtered: whether a filter refuses images: one that is not there was then perhaps looked at, as was all
                before the last one that was kept.
        """
        last = max((self.images.number(path) or 0 for path in self.rows), default=-1)
        batches = []
        for start in range(0, self.total, size):
            end = min(start + size, self.total)
            paths = [self.images.path(number) for number in range(start, end)]
            looked_at = filtered and end - 1 < last and self._lost.isdisjoint(paths)
            if not looked_at and (filtered or not all(path in self.rows for path in paths)):
                batches.append(range(start, start + size))
        return batches

    def add(self, batch: range, pixels_BHWC: Array, verdicts: "Sequence[Verdict | None]") -> None:
        """Write the images of a batch that are asked for and not refused, and then the manifest.

        Raises:
            StorageError: the disk is full.
        """
        for number, image, verdict in zip(batch, pixels_BHWC, verdicts, strict=True):
            if number >= self.total:
                break
            if verdict is not None and verdict.refused:
                self.refused[verdict.refused] += 1
                continue
            path = self.images.path(number)
            create_folder((self.folder / path).parent)  # none without an image: no command would read the set
            write_atomically(self.folder / path, encode_png(image), sync=False)
            self.rows[path] = self.images.row(number)
            if verdict is not None:
                scores = (f"{verdict.probability:.6f}", f"{verdict.distance:.6g}", verdict.nearest)
                self.rows[path] |= dict(zip(SCORES, scores, strict=True))
        there = (self.images.path(number) for number in range(self.total))
        lines = [self.rows[path] for path in there if path in self.rows]
        columns = [*COLUMNS, *SCORES, *(name for name in WHERE_SET if any(line.get(name) for line in lines))]
        write_csv(self.folder / MANIFEST, columns, ([line.get(name, "") for name in columns] for line in lines))

    def _remove_halves(self) -> None:
        """Remove what a kill has left of files that were being written."""
        for place in (self.folder, *(self.folder / class_folder(name) for name in self.images.classes)):
            for leftover in (*place.glob(".*.partial"), *place.glob(".*.png.*"), *place.glob(f".{MANIFEST}.*")):
                leftover.unlink(missing_ok=True)


def _rows_of(folder: Path) -> list[dict[str, str]] | None:
    """Read the lines of the manifest of a folder; None where there is nothing.

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
