"""The verb that makes images."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from sightline.config import Sampler
from sightline.display.terminal import screen, show
from sightline.errors import ConfigError

__all__ = ["generate"]


def generate(
    run: str,
    /,
    *,
    out: Path,
    per_class: int = 100,
    classes: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    guidance: float | None = None,
    steps: int | None = None,
    sampler: Sampler | None = None,
    tell_above: float | None = None,
    seed: int = 0,
    keep_if: str | None = None,
    keep_least: float | None = None,
    keep_most: float | None = None,
    keep_copies: float | None = None,
    processes: int = 1,
    animation: Path | None = None,
) -> None:
    """Make images of classes with a trained generator.

    Parameters
    ----------
    run
        Folder of a finished run of a generator (sightline train DATA --recipe ddpm).
    out
        Folder to make, with <class>/NNNN.png and manifest.csv; the same command again continues one that was stopped, and
        with a larger --per-class adds to one that is finished.
    per_class
        Images of each class.
    classes
        Names of the classes to make; all unless named.
    guidance
        How far beyond the class, away from images of any: w in (1 + w) conditional - w unconditional; 0: not at all; 1.8
        unless named.
    steps
        Times that the network is asked for each image; 20 unless named.
    sampler
        How noise is taken away: ancestral (ddpm), or without chance (ddim), or so by steps of second order (dpm++), as
        unless named.
    tell_above
        Tell the class only while noise is stronger than this multiple of the image's share: below, it would be written into
        traces that no eye sees and a classifier falls for; 0: to the end; at most 1; 0.3 unless named.
    seed
        Seed of all images; each has one of its own, by its class and number, which manifest.csv names.
    keep_if
        Run of a classifier: keep only images that it takes for the class that was asked for, and that are no copies.
    keep_least
        Probability of that class, at least; 0.5 unless named.
    keep_most
        Probability of that class, at most; 1 unless named.
    keep_copies
        Refuse an image that is nearer to a training image than this share of them is to any other, in the classifier's
        features; 0.01 unless named; 0: as near as the nearest two of them.
    processes
        Processes that make images side by side on a processor, each with its share of the threads.
    animation
        GIF file to write, of how the first images of each class come out of noise.
    """
    from sightline.config import KeepConfig, SamplingConfig, chosen_classes, sampling_of
    from sightline.config.checks import INFINITY, within
    from sightline.runs.folder import generator_settings, read_model_of_finished

    within("processes", processes, 1, INFINITY)
    named = {"guidance": guidance, "steps": steps, "sampler": sampler, "tell_above": tell_above}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    how = SamplingConfig(**given) if given else None
    band = {"least": keep_least, "most": keep_most, "copies": keep_copies}
    wanted: dict[str, Any] = {name: value for name, value in band.items() if value is not None}
    if wanted and keep_if is None:
        raise ConfigError(f"--keep-{next(iter(wanted))} has no effect without --keep-if RUN; name a classifier's run.")
    keep = None if keep_if is None else KeepConfig(run=keep_if, **wanted)
    model = read_model_of_finished(run, generator=True)
    if keep_if is not None and not keep_if.endswith(".safetensors"):
        read_model_of_finished(keep_if)
    chosen_classes(classes, model["classes"])
    sampling_of(generator_settings(model), how)
    from sightline.display.waiting import Progress
    from sightline.generation.filter import REASONS
    from sightline.generation.generate import generate as work

    with Progress(screen(error=True), "Generating") as progress:
        found = work(
            run,
            out=out,
            per_class=per_class,
            classes=classes,
            how=how,
            seed=seed,
            keep=keep,
            processes=processes,
            animation=animation,
            progress=progress,
        )
    for reason, count in found.refused.items():
        show(f"refused: {count:,} {REASONS[reason]}")
    if found.without:
        show(f"no image was kept of: {', '.join(found.without)}")
    there = "" if found.made == found.images else f" ({found.images - found.made:,} of them were there)"
    of = "" if keep is None else f" of {found.looked_at:,}"
    show(f"{found.images:,}{of} images{there} and manifest.csv in {found.folder}")
