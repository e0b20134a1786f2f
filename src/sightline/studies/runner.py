"""Train the runs of a study, each in a process of its own: whatever ends one leaves the others.

study.yaml          the whole study, with the content of its recipes
runs/NAME-SEED/     an ordinary run folder each
work/NAME-SEED.*    what its training was told (.recipe.yaml, .settings.yaml), and what it printed (.log)
.lock               held while any process trains here
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sightline.config.resolving import flatten, merge, to_mapping, to_yaml
from sightline.config.studies import Study, Variant, differences, read_study, study_to_yaml
from sightline.config.trust import foreign_code, trusting
from sightline.config.yaml_texts import yaml_text
from sightline.data.sources.find_source import find_source
from sightline.display.reporting import Listener
from sightline.display.waiting import spoken_seconds
from sightline.errors import ConfigError, DataError, Interrupted, RunError, SightlineError
from sightline.machine.devices import share_of_machine
from sightline.runs.folder import read_model
from sightline.runs.locking import LOCK, waited_for
from sightline.runs.outcomes import read_outcome
from sightline.runs.writing import storage_error, write_atomically
from sightline.training.preparation import prepare_training
from sightline_runtime.sentences import quoted

__all__ = ["STUDY", "Job", "jobs", "open_study", "refuse_code_of", "train_in_child", "train_study"]

STUDY = "study.yaml"  # in a study's folder
GRACE = 5.0  # seconds in which a training that got Ctrl-C from the terminal, as we did, ends by itself
PATIENCE = 0.1  # seconds between two looks at a training that runs
STOPPED = 130  # status of a training after Ctrl-C


@dataclass(frozen=True)
class Job:
    """One run of a study."""

    study: Study
    variant: Variant
    seed: int
    folder: Path
    """Of the study."""
    trust_code: bool = False
    """Run the code that its recipe names: the caller's word, which no file of the study holds."""

    @property
    def name(self) -> str:
        """Its recipe and its seed."""
        return f"{self.variant.name}-{self.seed}"

    @property
    def run(self) -> Path:
        """Its folder."""
        return self.folder / "runs" / self.name

    @property
    def finished(self) -> bool:
        """True where it is trained."""
        return (self.run / "DONE").exists()

    @property
    def backbone(self) -> Path | None:
        """The run that it starts from, of the same seed."""
        return None if self.variant.backbone is None else self.run.with_name(f"{self.variant.backbone}-{self.seed}")

    @property
    def data(self) -> str:
        """Its image set."""
        data = self.variant.data or self.study.data
        assert data is not None
        return data

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe below the settings."""
        return dict(to_mapping(self.study.base(self.variant)))

    @property
    def settings(self) -> dict[str, Any]:
        """Settings over the recipe."""
        backbone = None if self.backbone is None else str(self.backbone.absolute())
        settings = self.study.overrides(self.variant, self.seed, backbone)
        return merge(settings, self.trust) if self.trust_code else settings

    @property
    def trust(self) -> dict[str, Any]:
        """Settings that trust the code which the run needs; a network of a repository comes from a backbone, too."""
        trusted = trusting(to_mapping(self.study.recipe_of(self.variant)))
        if self.variant.backbone is not None:
            known = {variant.name: variant for variant in self.study.trained}
            below = Job(self.study, known[self.variant.backbone], self.seed, self.folder).trust
            trusted |= {name: block for name, block in below.items() if name == "network"}
        return trusted


def jobs(study: Study, folder: Path, trust_code: bool = False) -> list[Job]:
    """Return the runs of a study in their order: seed after seed, each run after the one it starts from."""
    return [Job(study, variant, seed, folder, trust_code) for seed in study.seeds for variant in study.trained]


def refuse_code_of(study: Study) -> None:
    """Refuse a study whose recipes run code of others, where the caller did not say that it is trusted.

    Raises:
        ConfigError: with whose code it is, and the flag.
    """
    for variant in study.trained:
        for whose, _ in foreign_code(to_mapping(study.recipe_of(variant))).values():
            raise ConfigError(
                f"study {study.name!r}, {variant.name!r}, runs the code of {whose} on this machine; read it, then add"
                " --trust-code. What a file says of trust is not taken."
            )


def open_study(folder: Path, study: Study) -> Study:
    """Make the folder of a study, or find the study in it that is to be continued.

    Args:
        study: with an image set.
    Returns:
        The study, with the place of its images.
    Raises:
        ConfigError: the folder holds another study; its sentence says what differs.
        DataError: there is no such image set.
        RunError: the folder holds something else.
    """
    assert study.data is not None
    study = replace(study, data=find_source(study.data).location)
    for backbone in study.backbones:
        if backbone.data is not None:
            find_source(backbone.data)
    try:
        if (folder / STUDY).exists():
            changed = differences(read_study(folder / STUDY), study)
            if changed:
                raise ConfigError(
                    f"{folder} holds this study with other settings: {'; '.join(changed)}; leave them as they were, or"
                    " choose another --out."
                )
        elif folder.exists() and any(not item.name.startswith(".") for item in folder.iterdir()):
            raise RunError(f"{folder} exists and holds no study; choose another --out.")
        for part in ("runs", "work"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    write_atomically(folder / STUDY, study_to_yaml(study).encode())
    return study


def train_study(
    study: Study,
    folder: Path,
    on_event: Listener,
    train: Callable[[Job], None] | None = None,
    workers: int = 1,
    trust_code: bool = False,
) -> dict[tuple[str, int], str]:
    """Train every run of a study that is not finished.

    Args:
        study: as ``open_study`` gives it.
        folder: of the study.
        on_event: where a line a run is printed.
        train: what trains one run; None: a process of its own.
        workers: runs that are trained side by side, each with its share of the threads and of the GPUs.
        trust_code: run the code that the study's recipes name.
    Returns:
        Why runs are not finished, in a sentence, by variant and seed; empty where all are.
    Raises:
        SightlineError: a run would be refused, before any is trained.
        Interrupted: Ctrl-C; the study can be continued.
    """
    everything = jobs(study, folder, trust_code)
    try:
        with _held(folder, everything, on_event):
            _refuse_early(everything, on_event)
            return _train_side_by_side(everything, on_event, train, workers)
    except KeyboardInterrupt as stopped:
        raise Interrupted(folder, f"sightline compare {quoted(str(folder))}") from stopped


def _train_side_by_side(
    everything: Sequence[Job],
    on_event: Listener,
    train: Callable[[Job], None] | None,
    workers: int,
) -> dict[tuple[str, int], str]:
    """Train what is not finished, in order as far as what each run starts from allows; see ``train_study``."""
    stopping = threading.Event()

    def work(job: Job, worker: int) -> str:
        start = time.monotonic()
        if job.backbone is not None and not (job.backbone / "DONE").exists():
            raise RunError(f"the run {job.backbone.name} that it starts from is not finished.")
        if train is None:
            train_in_child(job, share_of_machine(worker, workers), stopping)
        else:
            train(job)
        return f"{_reached(job)}, {spoken_seconds(time.monotonic() - start)}"

    waiting, free = [job for job in everything if not job.finished], list(range(workers))
    busy: dict[Future[str], tuple[Job, int]] = {}
    failures: dict[tuple[str, int], str] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            while waiting or busy:
                while free and (job := _next(waiting, [one for one, _ in busy.values()])) is not None:
                    waiting.remove(job)
                    on_event(f"[{everything.index(job) + 1}/{len(everything)}] {job.name}")
                    worker = free.pop(0)
                    busy[pool.submit(work, job, worker)] = job, worker
                for ended in wait(busy, return_when=FIRST_COMPLETED).done:
                    job, worker = busy.pop(ended)
                    free.append(worker)
                    try:
                        line = ended.result()
                    except SightlineError as error:
                        failures[job.variant.name, job.seed] = str(error)
                        line = f"failed: {error}"
                    on_event(f"  {f'{job.name}: ' if workers > 1 else ''}{line}")
        except BaseException:  # Ctrl-C, here or in a training; the others are ended before the pool is left
            stopping.set()
            raise
    return failures


def _next(waiting: Sequence[Job], busy: Sequence[Job]) -> Job | None:
    """Return the first run that does not wait for the one it starts from."""
    unfinished = {job.run for job in (*waiting, *busy)}
    return next((job for job in waiting if job.backbone not in unfinished), None)


def train_in_child(
    job: Job,
    share: Mapping[str, str] | None = None,
    stopping: threading.Event | None = None,
) -> None:
    """Train one run in a process of its own, from where an earlier one stopped; what it prints goes to its log.

    Args:
        share: of the machine, as variables of the process's environment.
        stopping: set where the process is to be ended.
    Raises:
        RunError: it ended without finishing; with its own last sentence.
        KeyboardInterrupt: Ctrl-C, here or there.
    """
    stopping = stopping or threading.Event()
    recipe, settings, log = (
        job.folder / "work" / f"{job.name}.{end}" for end in ("recipe.yaml", "settings.yaml", "log")
    )
    write_atomically(recipe, to_yaml(job.study.base(job.variant)).encode())
    write_atomically(settings, yaml_text(job.settings).encode())
    command = [sys.executable, "-m", "sightline", "train", job.data, "--recipe", recipe, "--config", settings]
    with log.open("ab") as file:
        begin = file.tell()
        child = subprocess.Popen(
            [*map(str, command), *_trust_flags(job), "--run", str(job.run), "--resume"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"} | dict(share or {}),  # of its log
        )
        try:
            while (status := child.poll()) is None:
                if stopping.wait(PATIENCE):
                    raise KeyboardInterrupt
        except BaseException:
            _stop(child)
            raise
    if status == STOPPED:
        raise KeyboardInterrupt
    if status or not job.finished:
        raise RunError(f"{_reason(log, begin, status)} ({log})")


def _trust_flags(job: Job) -> list[str]:
    """Return the flags by which the caller's trust reaches a training; in its files it would not be taken."""
    return [f"--{name.replace('_', '-')}" for name in flatten(job.trust)] if job.trust_code else []


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Let a training end by itself; it may have got the terminal's Ctrl-C, or not."""
    try:
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
            return
        if sys.platform == "win32":  # which has no such signal for one process; a run may be killed at any moment
            return
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(6 * GRACE)
    finally:  # after a second Ctrl-C, too
        child.kill()
        child.wait()


def _reason(log: Path, begin: int, status: int) -> str:
    """Return why a training ended, by what it printed last."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}."
    own = [line.removeprefix("sightline: ") for line in lines if line.startswith("sightline: ")]
    return (own or lines or [f"it ended with status {status}."])[-1]


def _reached(job: Job) -> str:
    outcome = read_outcome(job.run)
    measured = {"validation": outcome.validation, "test": outcome.test}
    return ", ".join(f"{split} {one.accuracy:.4f}" for split, one in measured.items() if one) or "finished"


def _refuse_early(everything: list[Job], on_event: Listener) -> None:
    """Refuse before the first step what would be refused after hours: conflicts of settings, or other images.

    What starts from a run that is not there yet is seen when its turn comes, still with the first seed.
    """
    first = {job.variant.name: job for job in reversed(everything) if not job.finished and job.backbone is None}
    for job in sorted(first.values(), key=everything.index):
        try:
            plan = prepare_training(job.data, job.recipe, job.settings, on_event)
        except SightlineError as error:
            raise type(error)(f"study {job.study.name!r}, {job.variant.name!r}: {error}") from error
        for other in everything:
            if other.data != job.data or not (other.run / "model.json").exists():
                continue
            if read_model(other.run)["data"]["fingerprint"] != plan.images.fingerprint:
                raise DataError(
                    f"the images in {job.data} have changed since {other.run} was trained, so its accuracy is of other"
                    " images; choose another --out."
                )


@contextmanager
def _held(folder: Path, everything: Sequence[Job], on_event: Listener) -> Iterator[None]:
    """Hold the lock of a study's folder, and wait until nobody trains a run of it.

    A training whose study was killed goes on to its end; the study waits for it.
    """
    busy = f"Waiting for a training of {folder} that still runs."
    with waited_for(folder / LOCK, lambda: on_event(busy)):
        for job in everything:
            if job.run.is_dir() and not job.finished:
                with waited_for(job.run / LOCK, lambda: on_event(busy)):
                    pass
        yield
