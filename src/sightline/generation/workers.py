"""Batches of images, made by several processes side by side; they come back in the order of their tasks.

Each worker has a pipe of its own, of which it alone holds the other end: so whichever side dies, however, the other one
is told, in the middle of a message too. Queues that workers share would break there (``ProcessPoolExecutor`` waits
forever for the rest of an answer whose sender was killed).
"""

import os
import queue
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import numpy as np
import torch

from sightline.config.generators import SamplingConfig
from sightline.errors import RunError, SightlineError
from sightline.generation.generator import load_generator

__all__ = ["Task", "make_side_by_side"]

Array = np.ndarray[Any, Any]
AHEAD = 2  # batches beyond one for each worker that may be in work, or wait for an earlier one
SPAWN = get_context("spawn")  # a fork of a process that has computed with PyTorch's threads hangs


@dataclass(frozen=True)
class Task:
    """A batch to make, of B images."""

    labels: list[int]
    """Class indices, (B)."""
    seeds: list[int]
    """One for each image, (B)."""


def make_side_by_side(
    run: str | os.PathLike[str], how: SamplingConfig | None, tasks: list[Task], processes: int
) -> Generator[Array, None, None]:
    """Make batches by several processes, each with its share of this one's threads.

    Close the iterator (``contextlib.closing``) where it is left before its end: that ends the workers.

    Args:
        run: a finished run of a generator, which every worker loads.
        how: guidance, steps and sampler.
        tasks: the batches.
        processes: at most; as many as there are tasks are started.
    Yields:
        The pixels of each task, in their order: uint8, (B, H, W, 3).
    Raises:
        RunError: a worker has ended, or found no generator.
    """
    threads = max(1, torch.get_num_threads() // processes)
    workers: dict[Connection, SpawnProcess] = {}
    busy: dict[Connection, int] = {}
    results: dict[int, Array] = {}
    begun = 0
    try:
        with _interrupts_held():
            for _ in range(min(processes, len(tasks))):
                pipe, process = _start(run, how, threads)
                workers[pipe] = process
        for index in range(len(tasks)):
            while True:
                for pipe in workers:
                    if pipe not in busy and begun < min(len(tasks), index + processes + AHEAD):
                        with suppress(OSError):  # of one that has ended; its pipe tells so below
                            pipe.send(tasks[begun])
                        busy[pipe] = begun
                        begun += 1
                if index in results:  # asked only now: all are at work while the caller writes
                    break
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    results[busy.pop(ready)] = _answer(ready, workers[ready])
            yield results.pop(index)
    finally:
        for process in workers.values():
            process.kill()  # a worker writes nothing, so it may be killed at any moment
        for pipe, process in workers.items():
            process.join()
            pipe.close()


def _start(run: str | os.PathLike[str], how: SamplingConfig | None, threads: int) -> tuple[Connection, SpawnProcess]:
    """Start a worker; returns this side's end of its pipe, and the process."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_work, args=(theirs, os.fspath(run), how, threads), daemon=True)
    with theirs:  # only the worker holds that end
        process.start()
    return ours, process


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; a process that is started in it never hears any."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # Python starts it beside the first process, and then lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(pipe: Connection, process: SpawnProcess) -> Array:
    """Receive the pixels that a worker has sent.

    Raises:
        RunError: it has ended, or met an error of ours.
    """
    try:
        answer: Array | SightlineError = pipe.recv()
    except (EOFError, OSError) as error:
        process.join()
        status = process.exitcode or 0
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise RunError(
            f"a process that made images {how}{', as where memory runs out' * (status == -9)}; what was made is"
            " kept: run the same again, with fewer --processes if memory is short."
        ) from error
    if isinstance(answer, SightlineError):
        raise answer
    return answer


def _work(pipe: Connection, run: str, how: SamplingConfig | None, threads: int) -> None:
    """Make one batch after another, until whoever started this worker closes the pipe, or is gone."""
    torch.set_num_threads(threads)
    tasks: queue.Queue[Task] = queue.Queue()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                tasks.put(pipe.recv())
        os._exit(0)  # in the middle of a batch: nobody waits for it

    threading.Thread(target=listen, daemon=True).start()
    try:
        generator, _ = load_generator(run, device="cpu")
        while True:
            task = tasks.get()
            _send(pipe, generator.make(task.labels, task.seeds, how))
    except SightlineError as error:
        _send(pipe, error)


def _send(pipe: Connection, answer: Array | SightlineError) -> None:
    with suppress(OSError):  # nobody reads it any more: ``listen`` ends this process
        pipe.send(answer)
