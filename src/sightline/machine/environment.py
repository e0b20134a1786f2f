"""A description of this machine for a bug report. Nothing in here fails: what is broken is a line that says so."""

import importlib
import os
import platform
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sightline.machine.extras import extras, own_version, pip_line
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
        "sightline": own_version,
        "Python": lambda: f"{platform.python_version()} ({platform.python_implementation()})",
        "system": lambda: f"{platform.system()} {platform.release()}, {platform.machine()}",
        **{library: partial(_library, library) for library in LIBRARIES},
        "processor": lambda: _devices().describe(_torch().device("cpu")),
        "threads": lambda: f"{_torch().get_num_threads()} of {os.cpu_count()} cores",
        "memory": _memory,
        "device": lambda: f"{_devices().choose_device()} ({_devices().describe(_devices().choose_device())})",
        "fast bfloat16": lambda: "yes" if _devices().has_fast_bfloat16(_devices().choose_device()) else "no",
        "CUDA": _cuda,
        "MPS": lambda: "available" if _torch().backends.mps.is_available() else "not available",
        **{f"extra {extra}": partial(_extra, extra, libraries) for extra, libraries in extras().items()},
        "cache": _cache,
    }
    return {name: _line(line) for name, line in lines.items()}


def _line(line: Callable[[], str]) -> str:
    """Return a line, or why there is none."""
    try:
        return _without_home(line())
    except PackageNotFoundError:
        return "not installed"
    except Exception as error:  # a broken library raises whatever it likes
        return _without_home(_broken(error))


def _without_home(text: str) -> str:
    """Return text without the home folder and its owner's name; of other paths within a sentence the last part
    stays.
    """
    home = os.path.expanduser("~")
    text = text.replace(home, "~") if home not in ("~", "", "/") else text
    return re.sub(r"(?<![\w~.])/(?:[^\s/'\"):,]+/)+", ".../", text) if not text.startswith(("~", "/")) else text


def _library(name: str) -> str:
    """Return the version of a library, and what is wrong with the one that is loaded."""
    installed = version(name)
    if name == "torch":
        return str(_torch().__version__)  # with the kind of build
    if name == LOADED:
        try:
            importlib.import_module(name)
        except Exception as error:
            return f"{installed}, but {_broken(error)}"
    return installed


def _broken(error: Exception) -> str:
    return f"broken ({type(error).__name__}: {' '.join(str(error).split())[:200]})"


def _torch() -> Any:
    return importlib.import_module("torch")


def _devices() -> Any:
    return importlib.import_module("sightline.machine.devices")


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # on Windows
        return "unknown"
    return f"{total / 1e9:.1f} GB"


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


def _extra(extra: str, libraries: list[str]) -> str:
    versions = {}
    for library in libraries:
        with suppress(PackageNotFoundError):
            versions[library] = version(library)
    listed = ", ".join(f"{name} {versions[name]}" if name in versions else f"no {name}" for name in libraries)
    return listed if len(versions) == len(libraries) else f"{listed}: {pip_line(extra)}"


def _cache() -> str:
    folder = cache_folder()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    sets = sum(not (index.parent / "rows.npy").exists() for index in folder.glob("*/index.json"))  # others are features
    return f"{folder}, {sets} image set{'s' * (sets != 1)}, {size / 1e6:,.1f} MB"
