"""The sequence of images of a generation: number, class, seed and path of each, and its line in the manifest."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.config.generators import SamplingConfig
from sightline.data.sources.entries import class_folder
from sightline.errors import RunError

__all__ = ["COLUMNS", "WHERE_SET", "ImageSequence", "fingerprint", "name_of", "weights_of"]

COLUMNS = ("path", "label", "generator", "weights", "seed", "guidance", "steps", "sampler", "tell_above", "kept_if")
"""Of the manifest, which is an image set by itself: ``path`` and ``label`` are those of any manifest. ``kept_if``: the
weights of the classifier that looked at the image, and what had to hold of it."""
WHERE_SET = ("guide_below",)
"""Columns behind all others, which are there where the setting is."""


@dataclass(frozen=True)
class ImageSequence:
    """The endless sequence of images, numbered from 0, of which a generation makes the beginning."""

    generator: str
    weights: str
    classes: list[str]
    how: SamplingConfig | None
    seed: int
    kept_if: str = ""

    def path(self, number: int) -> str:
        """Return the path of an image in its set."""
        turn, place = divmod(number, len(self.classes))
        return f"{class_folder(self.classes[place])}/{turn:04d}.png"

    def number(self, path: str) -> int | None:
        """Return the number of an image by its path; None where the sequence has no such path."""
        where, _, file = path.partition("/")
        places = [class_folder(name) for name in self.classes]
        turn = file.removesuffix(".png")
        return int(turn) * len(places) + places.index(where) if where in places and turn.isdecimal() else None

    def seed_of(self, number: int) -> int:
        """Return the seed of an image."""
        turn, place = divmod(number, len(self.classes))
        from sightline.data.batches import derived_seed  # loads torch

        return derived_seed(self.seed, "generate", self.classes[place], turn)

    def row(self, number: int) -> dict[str, str]:
        """Return the line of an image, as text."""
        label = self.classes[number % len(self.classes)]
        how, guide_below = ("", "", "", ""), ""
        if self.how is not None:
            how = (f"{self.how.guidance:g}", str(self.how.steps), self.how.sampler, f"{self.how.tell_above:g}")
            guide_below = "" if self.how.guide_below is None else f"{self.how.guide_below:g}"
        cells = (self.path(number), label, self.generator, self.weights, str(self.seed_of(number)), *how, self.kept_if)
        return dict(zip((*COLUMNS, *WHERE_SET), (*cells, guide_below), strict=True))

    def refuse_others(self, begun: list[dict[str, str]] | None, folder: Path, per_class: int) -> None:
        """Refuse to go on with images that were made in another way, or of which there are more already.

        Raises:
            RunError: with the first difference.
        """
        for line in begun or []:
            path, number = line["path"], self.number(line["path"])
            if number is None:
                raise RunError(f"{folder} also holds {path}, which is not asked for; choose another --out.")
            turn = number // len(self.classes)
            if turn >= per_class:
                raise RunError(
                    f"{folder} holds {path} already, more than --per-class {per_class}; ask for {turn + 1} or"
                    " more, or choose another --out."
                )
            for column, value in self.row(number).items():
                before = line.get(column, "")
                if before != value:
                    raise RunError(
                        f"{folder} holds images that were made otherwise: the {column} of {path} was {before or 'none'}"
                        f" and is {value or 'none'}; choose another --out, or ask for the same again."
                    )


def name_of(model: dict[str, Any]) -> str:
    """Name a generator: by its recipe and its images, never by where it lies."""
    return f"{model['recipe']}-{model['data']['name']}"


def weights_of(run: str) -> Path:
    """Return the weights of a classifier's run, or of its weights file alone."""
    return Path(run) if run.endswith(".safetensors") else Path(run) / "model.safetensors"


def fingerprint(weights: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256."""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
