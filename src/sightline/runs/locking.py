"""Locks on folders: one process at a time writes to a run, or to a study."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sightline.errors import RunError
from sightline.runs.writing import storage_error

__all__ = ["LOCK", "alone"]

LOCK = ".lock"  # in the folder that is held; the system lets it go when the process ends, however it ends


@contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder, so that no second process writes to it meanwhile.

    Args:
        folder: to hold; it exists.
        doing: what is done in it, such as ``trained``, for the sentence of the second process.
    Raises:
        RunError: another process holds it.
        StorageError: the lock cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(
            f"{folder} is being {doing} by another process; wait for it, or end it, and continue."
        ) from error
    except NotImplementedError:  # a file system without locks; older versions of filelock say so
        yield
        return
    except OSError as error:
        raise storage_error(folder, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            lock.release()
