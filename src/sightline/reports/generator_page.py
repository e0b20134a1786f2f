"""The report of a generator's run: what it was trained on, how it learnt, and what it made meanwhile. No torch.

Losses do not say how good images are, so the page shows the images, and names the commands that measure them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config import SHOWN_CLASSES, ACGANConfig, GeneratorConfig, GeneratorRecipe, SamplingConfig, glimpse_of
from sightline.config import to_yaml as yaml_of
from sightline.data.decoding.decode import UnreadableImageError, decode
from sightline.data.thumbnails import data_uri
from sightline.display.pages import Section
from sightline.errors import RunError
from sightline.evaluation.results import about_left_out, cost_section, number
from sightline.reports.sentences import (
    learning_charts,
    learning_legend,
    repeat,
    settings_section,
    trained_on,
)
from sightline.runs.folder import SAMPLES, read_any_recipe

__all__ = ["generator_page"]

BLOCKS = ("generator", "optimizer", "schedule", "clip", "averaging", "augment")
CURVES = {
    "diffusion": (("Loss", "loss", ("train_loss", "val_loss")),),
    "acgan": (
        ("Loss of the discriminator", "loss", ("train_loss", "val_loss")),
        ("Loss of the generator", "loss", ("train_generator_loss", "val_generator_loss")),
    ),
}
RATE = ("Learning rate", "rate", ("learning_rate",))
FALLING = ("Loss",)  # drawn on a logarithmic scale: most of its fall is in the first epochs
EARLIER = 8  # pictures of samples before the last, at most
LAST_SIDE, EARLIER_SIDE = 1500, 480  # pixels of the longer side, at most
LAST_LETTERS, EARLIER_LETTERS = 800_000, 100_000  # of a data URI: smaller pictures where it would have more
PIXELS = 20_000_000  # of a file; those that a training writes have a tenth

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Made:
    """A finished run of a generator."""

    run: Path
    model: Mapping[str, Any]
    recipe: GeneratorRecipe

    @property
    def generator(self) -> GeneratorConfig:
        """What makes the images."""
        return self.recipe.generator


@dataclass(frozen=True)
class Sheet:
    """A picture of what a generator made after an epoch."""

    uri: str
    epoch: int
    text: str
    """What is to be seen, for those who do not see it."""


@dataclass(frozen=True)
class Samples:
    """The pictures that the page shows."""

    about: str
    last: Sheet
    earlier: Sequence[Sheet]
    """Oldest first."""


def generator_page(run: Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """All that ``templates/generator.html`` shows of a finished run.

    Args:
        run: its folder.
        model: what it knows of itself.
    Raises:
        RunError: ``recipe.yaml`` or ``metrics.csv`` is missing, damaged, or of another run.
    """
    recipe = read_any_recipe(run)
    if not isinstance(recipe, GeneratorRecipe):
        raise RunError(
            f"{run / 'recipe.yaml'} is not the recipe of a generator; copy the run again from where it was made."
        )
    made = Made(run, model, recipe)
    samples, missing = _samples(made)
    return {
        "title": f"Report: {run.resolve().name}",
        "lead": _lead(made, shown=samples is not None),
        "warnings": about_left_out(model) + missing,
        "samples": samples,
        "learning": _about_learning(made),
        "next_steps": _NEXT,
        "next_commands": _next_commands(made),
        "sections": [
            settings_section(recipe, BLOCKS),
            cost_section(model, _megabytes(run / "model.safetensors")),
        ],
        "recipe": yaml_of(recipe),
        "repeat": repeat(model, recipe.fit.seed),
        "commands": "sightline train --config recipe.yaml --run ANOTHER",
    }


# ── the top of the page ──────────────────────────────────────────────────────────────────────────────────────────────


def _lead(made: Made, *, shown: bool) -> list[str]:
    """What was trained on what, what its losses are, and that they do not say how good the images are."""
    where = "the samples below are there to be looked at" if shown else "look at images that it makes"
    return [
        f"{_what_it_is(made)} (parameters: {made.model['parameters']:,}), {trained_on(made.model)}",
        _how_it_works(made),
        _losses(made),
        f"No loss says how good the images are, and this run has measured nothing else: {where}, and the commands under"
        " “What comes next” measure what they are worth.",
    ]


def _what_it_is(made: Made) -> str:
    return "A generator that learned against a discriminator" if _is_contest(made) else "A generator by diffusion"


def _how_it_works(made: Made) -> str:
    unseen = "Neither it nor its losses have seen the test images."
    if _is_contest(made):
        return (
            "It makes an image of a class that is asked for out of random numbers, in one pass. While it learned, the"
            " discriminator learned to tell its images from real ones, and to name their class (ACGAN); the parameters are"
            f" those of both, and the generator alone is handed on. {unseen}"
        )
    return (
        "It makes an image of a class that is asked for out of noise, by taking a little of the noise away again and again"
        f" (DDPM). {unseen}"
    )


def _losses(made: Made) -> str:
    """The losses of the last epoch, on what, and what they mean."""
    return _losses_of_contest(made) if _is_contest(made) else _loss_of_noise(made)


def _loss_of_noise(made: Made) -> str:
    losses = made.model["losses"]
    known = f"on the training images {number(losses['train_loss'], '.4f')}"
    if "val_loss" in losses:
        known = f"on the {losses['n']:,} validation images {number(losses['val_loss'], '.4f')}, {known}"
    return (
        f"Its loss in the last epoch: {known}. It is the mean squared error with which it guesses the noise that was added"
        " to an image; a guess of no noise at all would have 1."
    )


def _losses_of_contest(made: Made) -> str:
    losses = made.model["losses"]
    known = (
        f"on the training images {number(losses['train_loss'], '.4f')} of the discriminator and {number(losses['train_generator_loss'], '.4f')} of"
        " the generator"
    )
    if "val_loss" in losses:
        known = (
            f"on the {losses['n']:,} validation images {number(losses['val_loss'], '.4f')} of the discriminator and"
            f" {number(losses['val_generator_loss'], '.4f')} of the generator, {known}"
        )
    return (
        f"The losses of the last epoch: {known}. They are the two sides of a contest, in which one may get worse only"
        " because the other got better: neither says that the training is done. Each adds up how badly real and made images are told"
        f" apart (this part is {2 * log(2):.2f} and {log(2):.2f} where the discriminator cannot do it at all) and how badly the class is"
        " named."
    )


def _is_contest(made: Made) -> bool:
    return isinstance(made.generator, ACGANConfig)


def _megabytes(file: Path) -> float | None:
    return file.stat().st_size / 1e6 if file.exists() else None


# ── what it made ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _samples(made: Made) -> tuple[Samples | None, list[str]]:
    """The last picture of samples and some of the earlier ones; and sentences on what cannot be shown."""
    files = _files(made.run)
    broken: list[str] = []
    last = None
    while files and last is None:
        last = _sheet(made, files.pop(), LAST_SIDE, LAST_LETTERS, broken)
    if last is None:
        why = f" ({broken[0]})" if broken else ""
        told = f"There are no pictures of samples in {SAMPLES}/{why}, so the page shows none; “sightline generate” makes images."
        return None, [told]
    places = np.linspace(0, len(files) - 1, min(EARLIER, len(files))).round().astype(int)
    sheets = [_sheet(made, files[place], EARLIER_SIDE, EARLIER_LETTERS, broken) for place in places]
    samples = Samples(_about_samples(made), last, [sheet for sheet in sheets if sheet is not None])
    return samples, [f"A picture of samples cannot be shown: {reason}." for reason in broken]


def _files(run: Path) -> list[tuple[int, Path]]:
    """(epoch, picture) in the order of the epochs."""
    found = [(re.fullmatch(r"epoch-(\d+)\.png", path.name), path) for path in (run / SAMPLES).glob("epoch-*.png")]
    return sorted((int(match[1]), path) for match, path in found if match)


def _sheet(made: Made, file: tuple[int, Path], side: int, letters: int, broken: list[str]) -> Sheet | None:
    """The picture of an epoch; of one that cannot be read None, and the reason goes to ``broken``."""
    epoch, path = file
    try:
        pixels_HWC = decode(path.read_bytes(), PIXELS)
    except (OSError, UnreadableImageError) as error:
        broken.append(f"{SAMPLES}/{path.name}, {error}")
        return None
    names = ", ".join(made.model["classes"][:SHOWN_CLASSES])
    return Sheet(
        _bounded(pixels_HWC, side, letters), epoch, f"What it made after epoch {epoch}, a row a class: {names}"
    )


def _bounded(pixels_HWC: Array, side: int, letters: int) -> str:
    """A picture as a data URI of at most so many letters: its longer side has ``side`` pixels, or fewer."""
    side = min(side, max(pixels_HWC.shape[:2]))
    uri = data_uri(pixels_HWC, side)
    while len(uri) > letters:
        side = 3 * side // 4
        uri = data_uri(pixels_HWC, side)
    return uri


def _about_samples(made: Made) -> str:
    how, count = glimpse_of(made.generator), len(made.model["classes"])
    rows = (
        "a row a class"
        if count <= SHOWN_CLASSES
        else f"a row for each of the first {SHOWN_CLASSES} of {count:,} classes"
    )
    way = "in one pass"
    if how is not None:
        way = f"in {how.steps} steps of {how.sampler} with a guidance of {how.guidance:g}, which is quick"
        way += f" (sightline generate takes {_usual(made).steps} steps)" if _usual(made).steps > how.steps else ""
    averaged = ", by the averaged weights" if made.recipe.averaging is not None else ""
    return (
        f"After some of its epochs it made a few images, {rows}, {way}{averaged}: always out of the same random numbers, so what"
        " differs between two of these pictures was learned between them. None of them was chosen."
    )


# ── how it came about, and what comes next ───────────────────────────────────────────────────────────────────────────


def _about_learning(made: Made) -> list[Section]:
    """Losses and rate of every epoch; nothing where there are none."""
    charts = learning_charts(made.run, (*CURVES[made.generator.kind], RATE), FALLING)
    if not charts:
        return []
    about = "The loss on training images is the mean over an epoch, in which the weights changed"
    about += (
        "; that on validation is of their average, which is handed on." if made.recipe.averaging is not None else "."
    )
    if isinstance(made.generator, ACGANConfig):
        if made.generator.gradient_penalty:
            about += " The discriminator’s on training images also holds its penalty."
        about += " Curves that stay level are no sign that nothing is learned: the two may be getting better together."
    else:
        about += (
            " Validation has the same noise in every epoch. Images can still get better where it hardly falls any more."
        )
    return [Section("How it learned", about, charts=charts, legend=learning_legend())]


_NEXT = (
    "In the folder of the run; CLASSIFIER is the run of a classifier of the same classes, trained on real images (sightline train"
    " DATA). Whether made images help one is measured, on real test images, and not believed."
)


def _next_commands(made: Made) -> str:
    """Commands that make images, measure them and use them, from within the folder of the run."""
    usual = _usual(made)
    how = "" if _is_contest(made) else f"--guidance {usual.guidance:g} --steps {usual.steps} "
    lines = (
        (f"sightline generate . --per-class 500 {how}--out FOLDER", "images of each class, and manifest.csv"),
        ("sightline evaluate CLASSIFIER FOLDER --generated", "how near they are to real ones, in its features"),
        ("sightline train DATA --data.synthetic FOLDER", "a classifier that learns from them as well"),
    )
    width = max(len(command) for command, _ in lines)
    return "\n".join(f"{command:{width}}    # {comment}" for command, comment in lines)


def _usual(made: Made) -> SamplingConfig:
    """How ``sightline generate`` makes images unless told otherwise, as far as this generator can."""
    usual = SamplingConfig()
    if isinstance(made.generator, ACGANConfig):
        return usual
    guidance = usual.guidance if made.generator.drop_labels else 0
    return SamplingConfig(guidance=guidance, steps=min(usual.steps, made.generator.noise_steps))
