"""Optional libraries: the extra that brings each, and the sentence where one is missing. None is imported here."""

import hashlib
import importlib.util
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from sightline.config.backbones import LITE_PACKAGES
from sightline.config.explaining import OWN_ARITHMETIC, Method
from sightline.errors import ConfigError

__all__ = [
    "DISTRIBUTION",
    "extras",
    "own_version",
    "packaged_weights",
    "pip_line",
    "refuse_missing_captum",
    "refuse_missing_trackers",
    "require",
]

DISTRIBUTION = "sightline-vision"
"""What pip calls the package; ``sightline`` on the public index is another project."""

_OPTIONAL = re.compile(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]")
_NOT_A_FEATURE = ("all", "dev")


def own_version() -> str:
    """Return the version of the installed sightline."""
    return version(DISTRIBUTION)


def extras() -> dict[str, list[str]]:
    """Return the extras of the installed sightline, and the libraries that each brings."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a copy of the source
        lines = []
    libraries: dict[str, list[str]] = {}
    for match in filter(None, map(_OPTIONAL.match, lines)):
        library, extra = match.groups()
        if extra not in _NOT_A_FEATURE:
            libraries.setdefault(extra, []).append(library)
    return libraries


def pip_line(extra: str) -> str:
    """Return the command that installs an extra in a checkout.

    By name it would install whatever stands under that name on a public index, which is not ours until it is
    registered.
    """
    return f"pip install '.[{extra}]'"


def require(library: str, extra: str, feature: str) -> None:
    """Refuse what needs a library that is not installed, without loading it.

    Args:
        library: its name in an import.
        extra: the extra that brings it.
        feature: what needs it, such as ``--track.to wandb``.
    Raises:
        ConfigError: the library is missing.
    """
    if importlib.util.find_spec(library) is None:
        raise ConfigError(f"{feature} needs {library}, which is not installed; run: {pip_line(extra)}")


def packaged_weights(network: str) -> Path:
    """Return the file of weights that an installed package holds; the package is not imported.

    Args:
        network: timm's name, one of ``LITE_PACKAGES``.
    Raises:
        ConfigError: the package is not installed, or its file is another one.
    """
    package = LITE_PACKAGES[network]
    spec = importlib.util.find_spec(package.module)
    if spec is None:
        raise ConfigError(
            f"the weights of {network} are in the package {package.distribution}, which is not installed; run: pip"
            f" install {package.distribution} (without a connection: --backbone box)."
        )
    folders = spec.submodule_search_locations or []
    file = next((path for folder in folders if (path := Path(folder) / package.file).is_file()), None)
    if file is None or hashlib.sha256(file.read_bytes()).hexdigest() != package.sha256:
        raise ConfigError(
            f"the package {package.distribution} does not hold the {package.file} that is known here (its SHA-256"
            f" begins with {package.sha256[:16]}); run: pip install --force-reinstall {package.distribution}==0.1.0"
        )
    return file


def refuse_missing_trackers(trackers: Iterable[str]) -> None:
    """Refuse trackers whose library is missing; long before anything is decoded.

    Raises:
        ConfigError: with what to install.
    """
    for name in trackers:
        if name != "csv":
            require(name, "mlflow" if name == "mlflow" else "track", f"--track.to {name}")


def refuse_missing_captum(methods: Iterable[Method]) -> None:
    """Refuse methods of explanation that captum computes, where it is not installed.

    Raises:
        ConfigError: with what to install.
    """
    for method in methods:
        if method not in OWN_ARITHMETIC:
            require("captum", "explain", f"--method {method}")
