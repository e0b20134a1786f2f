"""Locks: one process at a time writes to a run, to a study, or to a table of decisions."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sightline.errors import RunError, SightlineError
from sightline.runs.writing import storage_error

__all__ = ["LOCK", "alone", "locked"]

LOCK = ".lock"  # in the folder that is held; the system lets it go when the process ends, however it ends
ENDING = 5.0  # seconds that a killed process may take to end: it gives its memory back first, and its locks after that


@contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder, so that no second process writes to it meanwhile.

    Args:
        folder: to hold; it exists.
        doing: what is done in it, such as ``trained``, for the sentence of the second process.
    Raises:
        RunError: another process holds it, and still does after 5 seconds, in which one that was killed has ended.
        StorageError: the lock cannot be written.
    """
    held = RunError(f"{folder} is being {doing} by another process; wait for it, or end it, and continue.")
    with locked(folder / LOCK, ENDING, held):
        yield


@contextmanager
def locked(path: Path, patience: float, held: SightlineError) -> Iterator[None]:
    """Hold a lock file, which the system lets go when the process ends; nothing on a file system without locks.

    Args:
        path: of the lock file, in a folder that exists.
        patience: seconds to wait for another process.
        held: what is raised where another process has held it for so long.
    Raises:
        StorageError: the lock cannot be written.
    """
    lock = FileLock(path, timeout=patience)
    try:
        lock.acquire()
    except Timeout as error:
        raise held from error
    except NotImplementedError:  # older versions of filelock say so
        yield
        return
    except OSError as error:
        raise storage_error(path.parent, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()
