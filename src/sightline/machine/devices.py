"""The device that computes, its number format, and its speed just now."""

import ctypes
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from sightline.errors import ConfigError

__all__ = [
    "arithmetic",
    "choose_device",
    "convolution_flops",
    "describe",
    "exact_dtype",
    "generators_kept",
    "has_fast_bfloat16",
    "keep_freed_memory",
    "refuse_without_compiler",
    "seed_generators",
    "set_determinism",
    "share_of_machine",
]

PROBE_SECONDS = 0.3
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of malloc.h


def choose_device(name: str | None = None) -> torch.device:
    """Return the named device, or the best there is: a CUDA GPU, a Mac's GPU, the processor."""
    if name is not None:
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f"unknown device {name!r}; wanted cpu, cuda, cuda:0, mps, ...") from error
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@cache
def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether the device has instructions for bfloat16, so that it is faster and not merely possible."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return bool(
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # type: ignore[no-untyped-call]
        )
    return False


def arithmetic(precision: str, device: torch.device, setting: str = "--fit.precision") -> torch.dtype:
    """Return the number format that a precision setting, named so, means on a device.

    Raises:
        ConfigError: there is no such format, or not on this device.
    """
    if precision == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    if precision == "float16" and device.type == "cpu":
        raise ConfigError(f"{setting} float16 needs a GPU; choose bfloat16 or float32 on a processor.")
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision not in formats:
        raise ConfigError(f"{setting} {precision}: wanted auto, float32, bfloat16 or float16.")
    return formats[precision]


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return the format for sums and differences on a device: float64, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def set_determinism(enabled: bool) -> None:
    """Let PyTorch refuse operations whose result may differ from run to run, or allow them again.

    It comes before the first product of matrices: cuBLAS, and PyTorch's check of it, read the variable once and keep
    it.
    """
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.deterministic = enabled
    torch.backends.cudnn.benchmark = not enabled


def refuse_without_compiler(device: torch.device) -> None:
    """Compile a trial on the device.

    Raises:
        ConfigError: it cannot be compiled here.
    """
    try:
        torch.compile(torch.sin)(torch.ones(8, device=device))
    except Exception as error:  # the libraries below have no common kind of error
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()
        needed = "a C++ compiler such as g++" if device.type == "cpu" else "Triton and a C compiler"
        raise ConfigError(
            f"--fit.compile cannot be used here: a trial was not compiled ({reason}); install {needed}, or leave the"
            " option out."
        ) from error


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed PyTorch's own generators, of the processor and of a device.

    ``torch.manual_seed`` seeds those of every kind of device, and for one that is not started it takes a trace of the
    stack: 0.33 ms under Lightning's 40 frames, in every step, where this takes 0.002 ms.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[
            torch.cuda.current_device() if device.index is None else device.index
        ].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Put PyTorch's own generators, of the processor and of a device, back to where they stood."""
    processor = torch.get_rng_state()
    own = {"cuda": torch.cuda.get_rng_state, "mps": torch.mps.get_rng_state}.get(device.type)
    state = own() if own is not None else None
    try:
        yield
    finally:
        torch.set_rng_state(processor)
        if state is not None:
            (torch.cuda if device.type == "cuda" else torch.mps).set_rng_state(state)


def keep_freed_memory() -> None:
    """Let the process keep large blocks of memory that it frees, to use them again.

    glibc gives every block above 32 MB back to the system and asks for it anew, which then hands it out page by page,
    each cleared: a third of the time of a training with large batches on a processor (n = 2 pairs of 6 steps of 2,000
    images of 32 px, speednet in bfloat16, 2 cores: 723 and 765 images/s with this, 431 and 453 without). Elsewhere
    than on glibc nothing happens.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):
        return


def convolution_flops(device: torch.device, dtype: torch.dtype, seconds: float = PROBE_SECONDS) -> float:
    """Measure the FLOP/s that a 3×3 convolution of 256 channels reaches on the device just now.

    Machines that are shared drift by a factor of two within an hour; a time multiplied by this figure does not.
    The probe draws no random numbers and changes no state.
    """
    batch, channels, side = (128, 256, 16) if device.type == "cpu" else (2048, 256, 16)
    images = torch.ones(batch, channels, side, side, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    filters = torch.ones(channels, channels, 3, 3, device=device, dtype=dtype)
    filters = filters.contiguous(memory_format=torch.channels_last)
    operations = 2 * batch * channels * channels * 9 * side * side
    rates: list[float] = []
    with torch.inference_mode():
        end = time.perf_counter() + seconds
        torch.nn.functional.conv2d(images, filters, padding=1)  # the first call prepares the kernel
        while not rates or time.perf_counter() < end:
            _wait(device)
            start = time.perf_counter()
            torch.nn.functional.conv2d(images, filters, padding=1)
            _wait(device)
            rates.append(operations / (time.perf_counter() - start))
    return statistics.median(rates)


def describe(device: torch.device) -> str:
    """Return the device in words, with the threads that compute where it is the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    threads = torch.get_num_threads()
    return f"{_processor_name()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor_name() -> str:
    import platform
    from pathlib import Path

    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def share_of_machine(worker: int, workers: int) -> dict[str, str]:
    """Return environment variables by which one of several processes takes its share of threads and GPUs.

    Args:
        worker: which of them, one of ``range(workers)``.
        workers: how many there are; one alone takes all.
    """
    if workers == 1:
        return {}
    share = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))}
    count = torch.cuda.device_count()
    if count > 1:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = seen.split(",") if seen else [str(index) for index in range(count)]
        share["CUDA_VISIBLE_DEVICES"] = names[worker % count]
    return share
