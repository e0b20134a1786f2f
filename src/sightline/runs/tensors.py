"""Safetensors files: tensors by name, and what their writer says of them. No code in them is run."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sightline.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["METADATA_KEY", "REFERENCE_PREFIX", "digest_of_weights", "pack_tensors", "read_tensors"]

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


def digest_of_weights(packed: bytes) -> str:
    """Return the SHA-256 of a network's tensors: their names, types, shapes and values, and nothing said beside them.

    Two trainings have the same weights where it is the same, whenever and wherever they were run. Loads no torch.

    Args:
        packed: content of a safetensors file: the length of its header in 8 bytes, the header as JSON, the values.
    Raises:
        ValueError: it is none.
    """
    values = 8 + int.from_bytes(packed[:8], "little")
    header = json.loads(packed[8:values])
    digest = hashlib.sha256()
    for name in sorted(header):
        if name != "__metadata__" and not name.startswith(REFERENCE_PREFIX):
            begin, end = header[name]["data_offsets"]
            digest.update(json.dumps([name, header[name]["dtype"], header[name]["shape"]]).encode())
            digest.update(memoryview(packed)[values + begin : values + end])
    return digest.hexdigest()


def pack_tensors(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> bytes:
    """Return the content of a safetensors file."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata=dict(metadata))
