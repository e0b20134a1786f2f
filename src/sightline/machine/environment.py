"""What a bug report needs to know about this machine. Nothing in here fails: what is broken is a line that says so."""

import importlib
import os
import platform
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sightline.machine.folders import cache_folder

__all__ = ["environment"]

LIBRARIES = ("torch", "torchvision", "lightning", "numpy", "pillow", "scikit-learn")
LOADED = "torchvision"  # the one that breaks when it does not fit PyTorch; Lightning would take another six seconds


def environment() -> dict[str, str]:
    """Describe sightline, the system, the libraries, the devices, the extras and the cache, for a bug report.

    Returns:
        What each line is about, and what was found. It holds no secrets, no user names, and no path but the cache
        folder's, where the home folder is written as ``~``.
    """
    lines: dict[str, Callable[[], str]] = {
        "sightline": _own_version,
        "Python": lambda: f"{platform.python_version()} ({platform.python_implementation()})",
        "system": lambda: f"{platform.system()} {platform.release()}, {platform.machine()}",
    }
    lines |= {library: _version_of(library) for library in LIBRARIES}
    lines |= {
        "processor": _processor,
        "threads": lambda: f"{_torch().get_num_threads()} of {os.cpu_count()} cores",
        "memory": _memory,
        "device": _device,
        "fast bfloat16": _bfloat16,
        "CUDA": _cuda,
        "MPS": lambda: _available(_torch().backends.mps.is_available()),
    }
    found = {name: _said(line) for name, line in lines.items()}
    return found | _extras() | {"cache": _said(_cache)}


def _said(line: Callable[[], str]) -> str:
    """A line, or why there is none."""
    try:
        return _without_home(line())
    except PackageNotFoundError:
        return "not installed"
    except Exception as error:  # a broken library raises whatever it likes
        return _without_home(f"broken ({type(error).__name__}: {' '.join(str(error).split())[:200]})")


def _without_home(text: str) -> str:
    """Text without the home folder and the name of its owner; of other paths within a sentence the last part stays."""
    home = os.path.expanduser("~")
    text = text.replace(home, "~") if home not in ("~", "", "/") else text
    return re.sub(r"(?<![\w~.])/(?:[^\s/'\"):,]+/)+", ".../", text) if not text.startswith(("~", "/")) else text


def _version_of(library: str) -> Callable[[], str]:
    def line() -> str:
        found = version(library)
        if library == "torch":
            found = str(_torch().__version__)  # with the kind of build
        return found + (_trouble(library) if library == LOADED else "")

    return line


def _trouble(library: str) -> str:
    """What is wrong with a library that is there but cannot be loaded; empty where nothing is."""
    try:
        importlib.import_module(library)
    except Exception as error:
        return f", but broken ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return ""


def _torch() -> Any:
    return importlib.import_module("torch")


def _processor() -> str:
    from sightline.machine.devices import describe

    return describe(_torch().device("cpu"))


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # on Windows
        return "unknown"
    return f"{total / 1e9:.1f} GB"


def _device() -> str:
    from sightline.machine.devices import choose_device, describe

    device = choose_device()
    return f"{device} ({describe(device)})"


def _bfloat16() -> str:
    from sightline.machine.devices import choose_device, has_fast_bfloat16

    return "yes" if has_fast_bfloat16(choose_device()) else "no"


def _cuda() -> str:
    torch = _torch()
    if not torch.cuda.is_available():
        return f"not available (PyTorch built with {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'none'})"
    count = torch.cuda.device_count()
    names = ", ".join(
        f"{torch.cuda.get_device_name(index)} {torch.cuda.get_device_properties(index).total_memory / 1e9:.0f} GB"
        for index in range(count)
    )
    return f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, {count} device{'s' * (count > 1)}: {names}"


def _available(yes: bool) -> str:
    return "available" if yes else "not available"


def _own_version() -> str:
    from sightline.machine.extras import own_version

    return own_version()


def _extras() -> dict[str, str]:
    from sightline.machine.extras import extras, pip_line

    def line(extra: str, libraries: list[str]) -> str:
        there, missing = [], False
        for library in libraries:
            try:
                there.append(f"{library} {version(library)}")
            except PackageNotFoundError:
                there.append(f"no {library}")
                missing = True
        return ", ".join(there) + (f": {pip_line(extra)}" if missing else "")

    return {f"extra {extra}": _said(lambda e=extra, n=names: line(e, n)) for extra, names in extras().items()}  # type: ignore[misc]


def _cache() -> str:
    folder = cache_folder()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    sets = sum(not (index.parent / "rows.npy").exists() for index in folder.glob("*/index.json"))  # others are features
    return f"{folder}, {sets} image set{'s' * (sets != 1)}, {size / 1e6:,.1f} MB"
