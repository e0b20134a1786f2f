"""Safetensors files: tensors by name, and what their writer says of them. No code in them is run."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sightline.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METADATA_KEY", "REFERENCE_PREFIX", "pack_tensors", "read_tensors"]

METADATA_KEY = "sightline"  # under which a classifier's weights carry its ``model.json``
REFERENCE_PREFIX = "sightline.ood."  # of the tensors of ``inference.ood``; no module of a network is called so


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Read the tensors of a safetensors file by name, and its metadata.

    Raises:
        RunError: no such file, or it is broken.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="pt") as file:  # type: ignore[no-untyped-call]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"weights {str(path)!r} cannot be read ({error}); copy the run again from where it was made."
        ) from error


def pack_tensors(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata=dict(metadata))
