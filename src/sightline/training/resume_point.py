"""The checkpoints of a run: which of them a training goes on from, and what happens where none can be read."""

from pathlib import Path
from typing import Any

import torch

from sightline.errors import RunError

__all__ = ["LAST", "PREVIOUS", "checkpoint_to_resume", "settle_checkpoints", "steps_done"]

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
PARTS = (
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "epoch",
    "global_step",
    "training_totals",
)
"""What every checkpoint of a training holds: the last by sightline, the others by Lightning."""


def checkpoint_to_resume(run: Path) -> Path | None:
    """Return the newest checkpoint of a run that can be read, or None."""
    paths = [run / name for name in (LAST, PREVIOUS)]
    return next((path for path in paths if path.exists() and not isinstance(_read(path), str)), None)


def settle_checkpoints(run: Path, *, restart: bool = False) -> str:
    """Refuse to begin a training again that cannot go on, unless that is what was asked for.

    Args:
        run: the folder of the run.
        restart: delete its checkpoints, so that it begins at the first epoch.
    Returns:
        What is worth saying: that an older checkpoint is taken. Empty where nothing is.
    Raises:
        RunError: there are checkpoints, and none can be read.
    """
    if restart:
        for name in (LAST, PREVIOUS):
            (run / name).unlink(missing_ok=True)
        return ""
    problems: dict[str, str] = {}
    for name in (LAST, PREVIOUS):
        if (run / name).exists():
            found = _read(run / name)
            if not isinstance(found, str):
                broken = "; ".join(f"{other} cannot be read ({why})" for other, why in problems.items())
                return f"{broken}: going on from {name}, which is older." if broken else ""
            problems[name] = found
    if problems:
        listed = " nor ".join(f"{name} ({why})" for name, why in problems.items())
        raise RunError(
            f"{run} cannot be continued: {'neither ' if len(problems) > 1 else ''}{listed} can"
            f"{'' if len(problems) > 1 else 'not'} be read; copy the run again, or add --restart to begin at its first"
            " epoch."
        )
    return ""


def steps_done(run: Path) -> int:
    """Count the steps that the newest readable checkpoint of a run comes after; 0 where there is none."""
    checkpoint = checkpoint_to_resume(run)
    found = None if checkpoint is None else _read(checkpoint)
    return int(found["global_step"]) if isinstance(found, dict) else 0


def _read(path: Path) -> dict[str, Any] | str:
    """Return the content of a checkpoint, or why it is none."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle raises whatever it likes
        return getattr(error, "strerror", None) or "it is damaged"
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}"
    missing = [name for name in PARTS if content.get(name) is None or content[name] in ([], {})]
    return f"it lacks {', '.join(missing)}" if missing else content
