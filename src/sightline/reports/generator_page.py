"""The report of a generator's run: what it was trained on, how it learned, and what it made meanwhile. No torch.

Losses do not say how good images are, so the page shows the images, and names the commands that measure them.
"""

import re
from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from sightline.config.acgan import ACGANConfig
from sightline.config.generating import GeneratorRecipe
from sightline.config.generators import SHOWN_CLASSES, EDMConfig, GeneratorConfig, glimpse_of, usual_of
from sightline.display.pages import Item, Page, Picture, Section, data_uri
from sightline.errors import RunError
from sightline.evaluation.results import about_left_out, cost_section, number
from sightline.reports import sentences
from sightline.runs.folder import SAMPLES, read_any_recipe
from sightline_runtime.decoding.decode import UnreadableImageError, decode

__all__ = ["generator_page"]

BLOCKS = ("generator", "optimizer", "schedule", "clip", "averaging", "augment")
CURVES = {
    "diffusion": [("Loss", "loss", ("train_loss", "val_loss"))],
    "edm": [("Loss", "loss", ("train_loss", "val_loss"))],
    "acgan": [
        ("Loss of the discriminator", "loss", ("train_loss", "val_loss")),
        ("Loss of the generator", "loss", ("train_generator_loss", "val_generator_loss")),
    ],
}
FALLING = ("Loss",)  # drawn on a logarithmic scale: most of its fall is in the first epochs
EARLIER = 8  # pictures of samples before the last, at most
LAST_SIDE, EARLIER_SIDE = 1500, 480  # pixels of the longer side, at most
LAST_LETTERS, EARLIER_LETTERS = 800_000, 100_000  # of a data URI: smaller pictures where it would have more
PIXELS = 20_000_000  # of a file; those that a training writes have a tenth

Array = np.ndarray[Any, Any]


def generator_page(run: Path, model: Mapping[str, Any]) -> Page:
    """Make the report of a finished run of a generator.

    Args:
        run: its folder.
        model: content of its ``model.json``.
    Raises:
        RunError: ``recipe.yaml`` or ``metrics.csv`` is missing, damaged, or of another run.
    """
    recipe = read_any_recipe(run)
    if not isinstance(recipe, GeneratorRecipe):
        raise RunError(
            f"{run / 'recipe.yaml'} is not the recipe of a generator; copy the run again from where it was made."
        )
    samples, unshown = _samples(run, model, recipe)
    weights = run / "model.safetensors"
    sections = [
        *samples,
        *_about_learning(run, recipe),
        Section("What comes next", NEXT, code=_next_commands(recipe.generator)),
        sentences.settings_section(recipe, BLOCKS),
        cost_section(model, weights.stat().st_size / 1e6 if weights.exists() else None),
        *sentences.repeat_sections(model, recipe, "sightline train DATA --config recipe.yaml --run ANOTHER"),
    ]
    lead = _lead(model, recipe, shown=bool(samples))
    return Page(f"Report: {run.resolve().name}", lead, sections, warnings=about_left_out(model) + unshown)


# ── the top of the page ──────────────────────────────────────────────────────────────────────────────────────────────


def _lead(model: Mapping[str, Any], recipe: GeneratorRecipe, *, shown: bool) -> list[str]:
    """Say what was trained on what, what its losses are, and that they do not say how good the images are."""
    unseen = "Neither it nor its losses have seen the test images."
    if isinstance(recipe.generator, ACGANConfig):
        name, losses = "A generator that learned against a discriminator", _losses_of_contest(model["losses"])
        way = (
            "It makes an image of a class that is asked for out of random numbers, in one pass. While it learned, the"
            " discriminator learned to tell its images from real ones, and to name their class (ACGAN); the parameters"
            f" are those of both, and the generator alone is saved. {unseen}"
        )
    else:
        edm = isinstance(recipe.generator, EDMConfig)
        name, losses = "A generator by diffusion", _loss_of_noise(model["losses"], edm)
        way = (
            "It makes an image of a class that is asked for out of noise, by taking a little of the noise away again"
            f" and again ({'EDM' if edm else 'DDPM'}). {unseen}"
        )
    where = "the samples below are there to be looked at" if shown else "look at images that it makes"
    return [
        f"{name} (parameters: {model['parameters']:,}), {sentences.trained_on(model)}",
        way,
        losses,
        f"No loss says how good the images are, and this run has measured nothing else: {where}, and the commands under"
        " “What comes next” measure what they are worth.",
    ]


def _loss_of_noise(losses: Mapping[str, Any], edm: bool) -> str:
    text = f"on the training images {number(losses['train_loss'], '.4f')}"
    if "val_loss" in losses:
        text = f"on the {losses['n']:,} validation images {number(losses['val_loss'], '.4f')}, {text}"
    meaning = (
        "It is the mean squared error with which it guesses the noise that was added to an image; a guess of no noise"
        " at all would have 1."
    )
    if edm:
        meaning = (
            "It is the squared error with which it guesses an image out of a noisy one, in units of that of a guess"
            " that only scales the noisy one down, as far as the strength of its noise says; that guess has about 1."
        )
    return f"Its loss in the last epoch: {text}. {meaning}"


def _losses_of_contest(losses: Mapping[str, Any]) -> str:
    def both(split: str, images: str) -> str:
        discriminator, generator = (number(losses[f"{split}_{kind}"], ".4f") for kind in ("loss", "generator_loss"))
        return f"on the {images} images {discriminator} of the discriminator and {generator} of the generator"

    text = both("train", "training")
    if "val_loss" in losses:
        of_validation = both("val", f"{losses['n']:,} validation")
        text = f"{of_validation}, {text}"
    return (
        f"The losses of the last epoch: {text}. They are the two sides of a contest, in which one may get worse only"
        " because the other got better: neither says that the training is done. Each adds up how badly real and made"
        f" images are told apart (this part is {2 * log(2):.2f} and {log(2):.2f} where the discriminator cannot do it"
        " at all) and how badly the class is named."
    )


# ── what it made ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _samples(run: Path, model: Mapping[str, Any], recipe: GeneratorRecipe) -> tuple[list[Section], list[str]]:
    """Show the last picture of samples and some of the earlier ones; and sentences on what cannot be shown."""
    names = ", ".join(model["classes"][:SHOWN_CLASSES])
    broken: list[str] = []

    def item(epoch: int, path: Path, side: int, letters: int, caption: str) -> list[Item]:
        """Show the picture of an epoch; of one that cannot be read nothing, and the reason goes to ``broken``."""
        try:
            uri = _bounded(decode(path.read_bytes(), PIXELS), side, letters)
        except (OSError, UnreadableImageError) as error:
            broken.append(f"{SAMPLES}/{path.name}, {error}")
            return []
        return [Item([Picture(uri, f"What it made after epoch {epoch}, a row a class: {names}", caption)])]

    matches = ((re.fullmatch(r"epoch-(\d+)\.png", path.name), path) for path in (run / SAMPLES).glob("epoch-*.png"))
    files = sorted((int(match[1]), path) for match, path in matches if match)
    items: list[Item] = []
    while files and not items:
        epoch, path = files.pop()
        items = item(epoch, path, LAST_SIDE, LAST_LETTERS, f"After epoch {epoch}, the last that is shown.")
    if not items:
        reason = f" ({broken[0]})" if broken else ""
        return [], [
            f"There are no pictures of samples in {SAMPLES}/{reason}, so the page shows none; “sightline generate”"
            " makes images."
        ]
    for place in np.linspace(0, len(files) - 1, min(EARLIER, len(files))).round().astype(int):
        epoch, path = files[place]
        items += item(epoch, path, EARLIER_SIDE, EARLIER_LETTERS, f"after epoch {epoch}")
    section = Section("Samples", _about_samples(recipe, len(model["classes"])), items=items, look="samples")
    return [section], [f"A picture of samples cannot be shown: {reason}." for reason in broken]


def _bounded(pixels_HWC: Array, side: int, letters: int) -> str:
    """Encode a picture as a data URI of at most so many letters: its longer side has ``side`` pixels, or fewer."""
    side = min(side, max(pixels_HWC.shape[:2]))
    uri = data_uri(pixels_HWC, side)
    while len(uri) > letters:
        side = 3 * side // 4
        uri = data_uri(pixels_HWC, side)
    return uri


def _about_samples(recipe: GeneratorRecipe, classes: int) -> str:
    sampling = glimpse_of(recipe.generator)
    rows = "a row a class"
    if classes > SHOWN_CLASSES:
        rows = f"a row for each of the first {SHOWN_CLASSES} of {classes:,} classes"
    way = "in one pass"
    if sampling is not None:
        way = (
            f"in {sampling.steps} steps of {sampling.sampler} with a guidance of {sampling.guidance:g}, which is quick"
        )
        assert not isinstance(recipe.generator, ACGANConfig)
        usual = usual_of(recipe.generator).steps
        way += f" (sightline generate takes {usual} steps)" if usual > sampling.steps else ""
    averaged = ", by the averaged weights" if recipe.averaging is not None else ""
    return (
        f"After some of its epochs it made a few images, {rows}, {way}{averaged}: always out of the same random"
        " numbers, so what differs between two of these pictures was learned between them. None of them was chosen."
    )


# ── how it came about, and what comes next ───────────────────────────────────────────────────────────────────────────


def _about_learning(run: Path, recipe: GeneratorRecipe) -> list[Section]:
    """Show losses and rate of every epoch; nothing where there are none."""
    generator = recipe.generator
    about = "The loss on training images is the mean over an epoch, in which the weights changed"
    about += "; that on validation is of their average, which is saved." if recipe.averaging is not None else "."
    if not isinstance(generator, ACGANConfig):
        about += (
            " Validation has the same noise in every epoch. Images can still get better where it hardly falls any more."
        )
    else:
        if generator.gradient_penalty:
            about += " The discriminator’s on training images also holds its penalty."
        about += " Curves that stay level are no sign that nothing is learned: the two may be getting better together."
    return sentences.learning_section(run, CURVES[generator.kind], about, FALLING)


NEXT = (
    "In the folder of the run; CLASSIFIER is the run of a classifier of the same classes, trained on real images"
    " (sightline train DATA). Whether made images help one is measured, on real test images, and not believed."
)


def _next_commands(generator: GeneratorConfig) -> str:
    """List commands that make images, measure them and use them, from within the folder of the run."""
    how = ""
    if not isinstance(generator, ACGANConfig):
        usual = usual_of(generator)
        how = f"--guidance {usual.guidance:g} --steps {usual.steps} "
    lines = (
        (f"sightline generate . --per-class 500 {how}--out FOLDER", "images of each class, and manifest.csv"),
        ("sightline evaluate CLASSIFIER FOLDER --generated", "how near they are to real ones, in its features"),
        ("sightline train DATA --data.synthetic FOLDER", "a classifier that learns from them as well"),
    )
    width = max(len(command) for command, _ in lines)
    return "\n".join(f"{command:{width}}    # {comment}" for command, comment in lines)
