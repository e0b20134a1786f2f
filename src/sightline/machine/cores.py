"""The processor's cores, shared among the programs of ours that compute at once in bfloat16.

Threads of oneDNN's bfloat16 kernels wait for each other in a loop that never sleeps: two trainings of two threads each
on two cores took 10.9 times as long as one, and 1.1 times with one thread each. So each program holds a lock while it
computes, counts how many are held, and takes that share of its threads.
"""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from filelock import FileLock, Timeout

from sightline.machine.folders import cache_folder

__all__ = ["CoreShare", "adjust_threads", "current_share", "sharing_cores"]

EVERY = 0.25  # seconds between two counts
_shares: list["CoreShare"] = []
"""The share of this program, while it has one."""


@contextmanager
def sharing_cores(device: torch.device, dtype: torch.dtype, enabled: bool = True) -> Iterator["CoreShare"]:
    """Share the cores until the end of a piece of work, within which ``adjust_threads`` is called now and then.

    Args:
        device, dtype, enabled: as ``CoreShare`` has them; those of the outermost piece of work count.
    """
    if _shares:
        yield _shares[0]
        return
    with CoreShare(device, dtype, enabled) as share:
        _shares.append(share)
        try:
            yield share
        finally:
            _shares.clear()


def adjust_threads() -> bool:
    """Take as many threads as the programs that compute now leave; returns whether their number has changed."""
    return bool(_shares) and _shares[0].adjust()


def current_share() -> "CoreShare | None":
    """Return the share of this program, if it has one."""
    return _shares[0] if _shares else None


class CoreShare:
    """A share of the threads, taken between ``with`` and its end.

    Nothing is shared on a GPU, in another number format, with a single thread, or where the user has set
    ``OMP_NUM_THREADS``: what is computed then has the same bits whoever else computes.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, enabled: bool = True) -> None:
        """
        Args:
            device: what computes.
            dtype: number format of its products.
            enabled: False shares nothing.
        """
        self.threads = torch.get_num_threads()
        spins = device.type == "cpu" and dtype == torch.bfloat16 and self.threads > 1
        self.shares = enabled and spins and "OMP_NUM_THREADS" not in os.environ
        self.programs = 1
        """That compute now, this one included."""
        self._held: FileLock | None = None
        self._counted = -EVERY

    def __enter__(self) -> "CoreShare":
        if self.shares:
            self._locks = self._places()
            self._held = next((lock for lock in self._locks if _acquired(lock)), None)
            self.adjust()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Share nothing any more."""
        if self._held is not None:
            self._held.release()
            self._held = None
            torch.set_num_threads(self.threads)

    def adjust(self) -> bool:
        """Count the programs, unless that was done just now; returns whether the threads have changed."""
        if self._held is None or time.monotonic() - self._counted < EVERY:
            return False
        self.programs = 1 + sum(_held_by_another(lock) for lock in self._locks if lock is not self._held)
        self._counted = time.monotonic()
        share = max(1, self.threads // self.programs)
        if share == torch.get_num_threads():
            return False
        torch.set_num_threads(share)
        return True

    def _places(self) -> list[FileLock]:
        """Return as many locks as threads, for this machine only: several may share a cache folder."""
        folder = cache_folder() / "computing"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return []
        name = platform.node().replace(os.sep, "-") or "machine"
        return [FileLock(folder / f"{name}-{place}.lock", timeout=0) for place in range(self.threads)]


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire()
    except (Timeout, OSError, NotImplementedError):  # held; or the file system knows no locks
        return False
    return True


def _held_by_another(lock: FileLock) -> bool:
    if _acquired(lock):
        lock.release()
        return False
    return True
