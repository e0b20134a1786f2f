"""Train a classifier, or a generator: an image set in, a finished run folder out. Its steps are in ``execution``."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sightline.data.sources.embedded import GROCERIES
from sightline.data.sources.listing import listed_once
from sightline.display.reporting import Listener, ignore, reporting
from sightline.errors import ConfigError
from sightline.runs.folder import refuse_existing
from sightline.training.request import read_request

__all__ = ["train"]


@listed_once()
@reporting
def train(
    data: str | os.PathLike[str] | None = None,
    *,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    restart: bool = False,
    dry_run: bool = False,
    on_event: Listener = ignore,
    after_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> Path | None:
    """Train a classifier on an image set, and measure it; or a generator of such images (--recipe ddpm).

    Args:
        data: A folder of class folders, an archive of one, a manifest (.csv, .tsv, .jsonl, .parquet), or a name:
            groceries, digits, cifar10, cifar100, mnist, fashion-mnist, hf:OWNER/NAME; unless named that of the recipe
            or of the run to resume, or else groceries, the embedded photographs.
        recipe: A recipe's name (see sightline recipes), a YAML file of one, or auto to choose by the images.
        settings: What to set over the recipe, nested as in its YAML.
        run: Folder to make; runs/DATA-RECIPE-N unless named.
        resume: Continue the run that is named, or the newest unfinished one of the same data and settings.
        restart: With --resume: begin the run again at its first epoch, and delete its checkpoints, such as those of
            which none can be read.
        dry_run: Describe the training and stop before the first step.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
        after_epoch: Called with each epoch, counted from 1, and its line of ``metrics.csv``, before its checkpoint is
            written; what it raises ends the training.
    Returns:
        The folder of the finished run; None after a dry run.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do.
        Interrupted: Ctrl-C; the run can be resumed.
    """
    started = time.monotonic()
    if run is not None and not resume:
        refuse_existing(run)
    if restart and not resume:
        raise ConfigError("--restart begins a run again that is resumed, and has no effect without --resume.")
    begun = Path(run) if resume and run is not None else None
    request = read_request(data, recipe, settings, begun, GROCERIES, generators=True, say=on_event)
    from sightline.training.execution import execute

    return execute(
        request,
        run,
        resume=resume,
        restart=restart,
        dry_run=dry_run,
        started=started,
        on_event=on_event,
        after_epoch=after_epoch,
    )
