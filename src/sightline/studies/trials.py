"""Trials of a tuning: ordinary trainings that may be ended early, in this process or in worker processes.

A worker reads jobs from its standard input and answers on its standard output, a line of JSON each:

    → a job, as YAML in a string (JSON has no {0: 8, 4: 4})
    ← {"epoch": 1, "value": 0.5}      → true, to go on, or false
    ← {"state": "finished", ...}

It ends, wherever it is, when its standard input does: so no worker outlives whoever started it, however that one ended.
"""

import csv
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from sightline.display.reporting import ignore
from sightline.errors import SightlineError, StorageError
from sightline.machine.devices import share_of_machine
from sightline.runs.folder import PRUNED, mark_pruned, read_model
from sightline.training.train import train

__all__ = ["Job", "Outcome", "Workers", "train_trial", "work"]

WORK = "import sys; sys.path.append(sys.argv[1]); from sightline.studies.trials import work; work()"


@dataclass(frozen=True)
class Job:
    """A training, as a trial."""

    run: str
    recipe: Mapping[str, Any]
    settings: Mapping[str, Any]
    """What was drawn, over the recipe."""
    judge: str
    """The column of ``metrics.csv`` that it is judged by."""


@dataclass(frozen=True)
class Outcome:
    """The end of a trial."""

    state: Literal["finished", "pruned", "failed"]
    value: float | None = None
    """By the weights that it hands on, where it is finished; else by those of the last epoch that was judged."""
    epochs: int = 0
    seconds: float = 0.0
    """Of its epochs, whenever they were trained."""
    reason: str = ""
    """Why it failed."""


class _PrunedError(Exception):
    """The trial is not worth another epoch."""


def train_trial(job: Job, go_on: Callable[[int, float], bool]) -> Outcome:
    """Train one trial, from where it stands.

    Args:
        job: what to train.
        go_on: told each epoch, from 1, and what it is judged by; says whether to train another.
    Raises:
        StorageError: the disk is full.
        Interrupted: Ctrl-C.
    """
    run = Path(job.run)

    def after_epoch(epoch: int, numbers: dict[str, float]) -> None:
        if job.judge in numbers and not go_on(epoch, numbers[job.judge]):
            raise _PrunedError(f"ended early after epoch {epoch}: {job.judge} {numbers[job.judge]:.4f}")

    if (run / PRUNED).exists():  # killed before the tuning had heard of it
        return Outcome("pruned", *_judged(run, job.judge))
    settings = {**job.settings, "evaluation": {"on": "none", "robustness": False}}  # no trial ever sees a test image
    try:
        train(recipe=job.recipe, settings=settings, run=run, resume=True, on_event=ignore, after_epoch=after_epoch)
    except _PrunedError as pruned:
        mark_pruned(run, str(pruned))
        return Outcome("pruned", *_judged(run, job.judge))
    except StorageError:
        raise
    except (SightlineError, torch.OutOfMemoryError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Outcome("failed", None, *_judged(run, job.judge)[1:], reason=reason)
    return Outcome("finished", *_judged(run, job.judge))


def _judged(run: Path, judge: str) -> tuple[float | None, int, float]:
    """Return the measure that a run is judged by, its epochs, and their seconds."""
    try:
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return None, 0, 0.0
    chosen = (read_model(run).get("kept") or {}).get("epoch")  # that of the weights that are handed on
    judged = [row for row in rows if row[judge] and chosen in (None, int(row["epoch"]))]
    return float(judged[-1][judge]) if judged else None, len(rows), sum(float(row["seconds"]) for row in rows)


# ── worker processes ─────────────────────────────────────────────────────────────────────────────────────────────────


class Workers(AbstractContextManager["Workers"]):
    """Processes that train trials side by side, each with its share of the threads and of the GPUs.

    Whoever uses them is the only one who draws and judges; so no two of them train the same by chance.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._inbox: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._processes: dict[int, subprocess.Popen[str]] = {}

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()  # a run may be killed at any moment
        for process in self._processes.values():
            process.wait()

    def start(self, worker: int, job: Job) -> None:
        """Give a worker, one of ``range(count)``, a trial to train."""
        if worker not in self._processes:
            self._processes[worker] = self._begin(worker)
        self.tell(worker, yaml.safe_dump(dataclasses.asdict(job)))

    def tell(self, worker: int, message: Any) -> None:
        """Send a worker its next line; one that has ended is not waited for."""
        pipe = self._processes[worker].stdin
        assert pipe is not None
        with suppress(BrokenPipeError):  # then its end is in the inbox, or will be
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

    def hear(self) -> tuple[int, tuple[int, float] | Outcome]:
        """Wait for the next epoch, or outcome, of any worker.

        Raises:
            StorageError: a worker's disk is full.
        """
        worker, message = self._inbox.get()
        if message is None:  # killed, or ended by a fault of ours that it has printed
            status = self._processes.pop(worker).wait()
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            return worker, Outcome(
                "failed", reason=f"its process {how}" + ", as where memory runs out" * (status == -9)
            )
        if "epoch" in message:
            return worker, (message["epoch"], message["value"])
        if "stopped" in message:
            raise StorageError(message["stopped"])
        return worker, Outcome(**message)

    def _begin(self, worker: int) -> subprocess.Popen[str]:
        root = str(Path(__file__).parents[2])
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORK, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | share_of_machine(worker, self.count),
            # Ctrl-C is for whoever started it to see
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        threading.Thread(target=self._listen, args=(worker, process), daemon=True).start()
        return process

    def _listen(self, worker: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(ValueError):  # whatever is printed while Python starts is no answer
                self._inbox.put((worker, json.loads(line)))
        self._inbox.put((worker, None))


def work() -> None:
    """Train one trial after another, until standard input ends; the program of a worker process."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    lines: queue.Queue[Any] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(json.loads(line))
        os._exit(0)  # in the middle of a step: a run may be killed at any moment

    threading.Thread(target=listen, daemon=True).start()

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    def go_on(epoch: int, value: float) -> bool:
        answer({"epoch": epoch, "value": value})
        return bool(lines.get())

    while True:
        job = Job(**yaml.safe_load(lines.get()))
        try:
            answer(dataclasses.asdict(train_trial(job, go_on)))
        except StorageError as error:
            answer({"stopped": str(error)})
