"""An image that a visitor dropped on the page, within the limits of the server, as the classifier reads it.

The page sends the bytes of the file within its question, so that no file is ever written.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from sightline.config.serving import ServeConfig
from sightline.errors import DataError
from sightline_runtime.decoding.decode import TooManyPixelsError, UnreadableImageError, read_image
from sightline_runtime.decoding.preprocessing import DEFAULT, Preprocessing

__all__ = ["most_bytes", "read_upload"]

NAME = 80  # letters of a file's name that are repeated to its owner

Array = np.ndarray[Any, Any]


def most_bytes(limits: ServeConfig) -> int:
    """Return the bytes that a file may have."""
    return int(limits.max_megabytes * 1e6)


def read_upload(
    upload: Mapping[str, Any], limits: ServeConfig, size: tuple[int, int], preprocessing: Preprocessing = DEFAULT
) -> tuple[str, Array]:
    """Read what the page sent of a file.

    Args:
        upload: ``name`` and ``bytes`` of the file, and ``data``, its content in base64; empty where too large.
        limits: on bytes and pixels.
        size: (height, width) that the classifier reads.
        preprocessing: of the classifier.
    Returns:
        The name, and uint8 pixels, (height, width, 3), as ``predict`` makes them of the same file.
    Raises:
        DataError: with one sentence for the visitor.
    """
    name = str(upload.get("name") or "the image")[:NAME]
    try:
        length = int(upload.get("bytes") or 0)
        content = base64.b64decode(str(upload.get("data") or ""), validate=True)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{name} did not arrive whole; send it again.") from error
    length = max(length, len(content))
    if length > most_bytes(limits):
        raise DataError(
            f"{name} has {length / 1e6:,.1f} MB; at most {limits.max_megabytes:g} MB are read: send a smaller one."
        )
    try:
        most = int(limits.max_megapixels * 1e6)
        pixels = read_image(content, size, preprocessing, maximum=most).pixels
    except TooManyPixelsError as error:
        raise DataError(f"{name} has {error}; send a smaller one.") from error
    except UnreadableImageError as error:
        raise DataError(f"{name} cannot be read: {error}.") from error
    return name, pixels
