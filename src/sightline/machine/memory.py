"""Memory that is free, and that a piece of work takes: of the process on a CPU, of the device on a GPU."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sightline.errors import ConfigError

__all__ = ["Peak", "free_memory", "held_memory", "measured_peak", "ran_out", "refuse_without_measure"]

PROCESS, MEMORY, CONTAINER = Path("/proc/self"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # what PyTorch's allocators say


class Peak:
    """The most memory that a piece of work held at once, in bytes; set when it has ended."""

    bytes: int = 0


def refuse_without_measure(device: torch.device) -> None:
    """Refuse to measure memory where the system does not tell it.

    Raises:
        ConfigError: it does not.
    """
    if device.type == "cuda" or (device.type == "cpu" and (PROCESS / "clear_refs").exists()):
        return
    where = "an Apple GPU" if device.type == "mps" else "this system"
    raise ConfigError(
        f"the memory of a training step cannot be measured on {where}; name --fit.batch-size, which sightline train"
        " --dry-run estimates the memory of."
    )


def free_memory(device: torch.device) -> int:
    """Return the bytes that the process may still take; within a container's limit where there is one."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _available()
    for most, held in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit, usage = ((CONTAINER / name).read_text("utf-8").strip() for name in (most, held))
            free = free if limit == "max" else min(free, int(limit) - int(usage))
        except (OSError, ValueError):  # no such group
            continue
    return max(free, 0)


def _available() -> int:
    """Return the bytes of the system's memory that are free, or can be freed at once."""
    if MEMORY.exists():
        return _kilobytes(MEMORY, "MemAvailable")
    import psutil  # installed where there is no such file: on macOS and Windows

    return int(psutil.virtual_memory().available)


def held_memory(device: torch.device) -> int:
    """Return the bytes that the process holds now; on a CPU without the file pages that can be reclaimed."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return _kilobytes(PROCESS / "status", "RssAnon")


@contextmanager
def measured_peak(device: torch.device) -> Iterator[Peak]:
    """Measure the most memory that what happens meanwhile holds; what was freed before is given back first.

    On a processor it is the high-water mark of resident memory less the file pages: ``ru_maxrss`` cannot be set back
    and begins at a parent's. The mark is set back for the whole process, so nothing else may measure meanwhile.
    """
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what is freed (see devices.keep_freed_memory)
        (PROCESS / "clear_refs").write_text("5")  # VmHWM becomes VmRSS
    try:
        yield peak
    finally:
        if device.type == "cuda":
            peak.bytes = int(torch.cuda.max_memory_reserved(device))
        else:
            status = PROCESS / "status"
            peak.bytes = _kilobytes(status, "VmHWM") - _kilobytes(status, "RssFile") - _kilobytes(status, "RssShmem")


def ran_out(error: RuntimeError) -> bool:
    """Tell whether an error says that there was no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def _kilobytes(path: Path, name: str) -> int:
    """Read a number of a file of the system such as ``VmHWM:  13596 kB``, in bytes."""
    line = next(line for line in path.read_text("utf-8").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
