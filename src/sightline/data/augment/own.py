"""An augmentation of the user's own: a function of a Python file, which is run only where the settings trust it.

B images, height H, width W.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from sightline.config.augmentation import OwnAugmentConfig
from sightline.config.trust import untrusted
from sightline.errors import ConfigError, TrainingError
from sightline.machine.devices import generators_kept, seed_generators

__all__ = ["OwnAugmentation", "settle_own"]

TRIED = 2  # images that a function is tried on before the training


class OwnAugmentation:
    """Changes the images of a batch by the function; PyTorch's generators are seeded for it and put back behind it."""

    def __init__(self, config: OwnAugmentConfig) -> None:
        """
        Args:
            config: names the file, which is run, and the function.
        Raises:
            ConfigError: its code is not trusted, there is no such file or function, the file fails, or it is another
                one than the settings note.
        """
        if not config.trust_code:
            raise untrusted("augment.own", config.file)
        self.config = config
        digest = _digest(config)
        if config.sha256 is not None and config.sha256 != digest:
            raise ConfigError(
                f"{config.file} is not the file that the settings note (its SHA-256 begins with {digest[:16]}, noted is"
                f" {config.sha256[:16]}); put that one back, or take augment.own.sha256 out of the recipe to train"
                " anew."
            )
        self._function = _function(config.file, config.name, digest)

    def __call__(self, levels_BHWC: Tensor, seed: int) -> Tensor:
        """Return the images, changed.

        Args:
            levels_BHWC: from 0 to 255, in float32.
            seed: of the random numbers that the function draws from PyTorch's generators.
        Raises:
            TrainingError: the function failed, or returned something else than as many images of the same shape.
        """
        images_BCHW = (levels_BHWC / 255).permute(0, 3, 1, 2)
        name = f"{self.config.name} of {self.config.file}"
        with generators_kept(images_BCHW.device):
            seed_generators(images_BCHW.device, seed)
            try:
                changed = self._function(images_BCHW)
            except Exception as error:  # it is foreign code
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise TrainingError(
                    f"{name} failed on images of shape {tuple(images_BCHW.shape)} ({reason})."
                ) from error
        if not isinstance(changed, Tensor) or changed.shape != images_BCHW.shape or not changed.is_floating_point():
            what = (
                f"{changed.dtype} of {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
            )
            raise TrainingError(
                f"{name} returned {what} for images of shape {tuple(images_BCHW.shape)}; it must return as many images,"
                " as floats from 0 to 1."
            )
        return changed.permute(0, 2, 3, 1) * 255


def settle_own(config: OwnAugmentConfig, size: tuple[int, int], device: torch.device) -> OwnAugmentConfig:
    """Try a function on gray images before anything is trained by it, and note what its file holds.

    Args:
        config: the settings.
        size: (height, width) of the images in pixels.
        device: that trains.
    Raises:
        ConfigError: it cannot be had, fails, or makes no finite images of the same shape.
    """
    own = OwnAugmentation(config)
    try:
        changed = own(torch.full((TRIED, *size, 3), 127.5, device=device), 0)
    except TrainingError as error:
        raise ConfigError(str(error)) from error
    if not bool(changed.isfinite().all()):
        raise ConfigError(f"{config.name} of {config.file} makes numbers of gray images that are not finite.")
    return replace(config, sha256=_digest(config))


def _digest(config: OwnAugmentConfig) -> str:
    try:
        return hashlib.sha256(Path(config.file).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"--augment.own needs {config.file}, which cannot be read ({error.strerror}); put it there, name another"
            " file, or train without it: --augment.own none."
        ) from error


@cache
def _function(file: str, name: str, digest: str) -> Callable[[Tensor], Any]:
    """Run a file, and return a function of it; ``digest`` tells a file from what it held before."""
    spec = importlib.util.spec_from_file_location(f"sightline_own_{digest[:16]}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--augment.own.file {file} is no Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is foreign code
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ConfigError(f"{file} fails when it is loaded ({reason}); mend it.") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise ConfigError(f"{file} has no function {name}; it has {known or 'none'}.")
    return function  # type: ignore[no-any-return]
