"""What belongs to which image of a generation: its number, class, seed, path, and its line in the manifest."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.config import SamplingConfig
from sightline.data.sources.layout import class_folder
from sightline.errors import RunError

__all__ = ["COLUMNS", "ImageSequence", "fingerprint", "name_of", "weights_of"]

COLUMNS = ("path", "label", "generator", "weights", "seed", "guidance", "steps", "sampler", "tell_above", "kept_if")
"""Of the manifest, which is an image set by itself: ``path`` and ``label`` are those of any manifest. ``kept_if``: the weights
of the classifier that looked at the image, and what it asked for."""


@dataclass(frozen=True)
class ImageSequence:
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
        from sightline.data.batches import derived_seed  # loads torch

        return derived_seed(self.seed, "generate", self.classes[place], turn)

    def row(self, number: int) -> dict[str, str]:
        """The line of an image, as text."""
        label = self.classes[number % len(self.classes)]
        how = ("", "", "", "")
        if self.how is not None:
            how = (f"{self.how.guidance:g}", str(self.how.steps), self.how.sampler, f"{self.how.tell_above:g}")
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


def name_of(model: dict[str, Any]) -> str:
    """What a generator is called: by its recipe and its images, never by where it lies."""
    return f"{model['recipe']}-{model['data']['name']}"


def weights_of(run: str) -> Path:
    """The weights of a classifier's run, or of its weights file alone."""
    return Path(run) if run.endswith(".safetensors") else Path(run) / "model.safetensors"


def fingerprint(weights: Path) -> str:
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
