"""Locks: one process at a time writes to a run, to a study, or to a table of decisions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sightline.errors import RunError, SightlineError
from sightline.runs.writing import storage_error

__all__ = ["LOCK", "alone", "locked", "waited_for"]

LOCK = ".lock"  # in the folder that is held; the system lets it go when the process ends, however it ends
FOREVER = -1.0  # to filelock
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
        patience: seconds to wait for another process; ``FOREVER``: until it ends.
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


@contextmanager
def waited_for(path: Path, say: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file as ``locked`` does, however long another process holds it.

    Args:
        path: of the lock file, in a folder that exists.
        say: called once, where it has to be waited for.
    Raises:
        StorageError: the lock cannot be written.
    """
    try:
        with locked(path, 0.0, held := RunError(f"{path} is held")):
            yield
            return
    except RunError as error:
        if error is not held:
            raise
    say()
    with locked(path, FOREVER, held):
        yield
