"""Images of many files, decoded on several threads, some at a time. B images, height H, width W."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np

from sightline_runtime.decoding.decode import Decoded, in_parallel
from sightline_runtime.decoding.preprocessing import DEFAULT, Preprocessing
from sightline_runtime.errors import DataError
from sightline_runtime.inputs import try_read

__all__ = ["HELD", "Readable", "decoded_batches"]

HELD = 256  # images whose pixels a command holds at a time

Array = np.ndarray[Any, Any]
K = TypeVar("K", covariant=True)


class Readable(Protocol[K]):
    """Some files to decode."""

    def read(self) -> Iterator[tuple[K, bytes | Array | OSError]]:
        """Yield each with what it is known by: bytes, pixels, or why it cannot be read."""


def decoded_batches(
    sources: Iterable[Readable[K]],
    size: tuple[int, int],
    count: int,
    unreadable: list[tuple[K, str]],
    preprocessing: Preprocessing = DEFAULT,
    hashes: list[str] | None = None,
) -> Iterator[tuple[list[K], Array]]:
    """Decode the images of sources, so many at a time.

    Args:
        sources: of ``plain_files``, or others that know their files by more than a name.
        size: (height, width) that every image is brought to, in pixels.
        count: images a batch; the last has fewer.
        unreadable: is added (file, reason) of each that cannot be read.
        preprocessing: of the classifier.
        hashes: is added the hash of the pixels of each that is read, in hexadecimal; None: they are not computed.
    Yields:
        The files, and their pixels, (B, H, W, 3).
    Raises:
        DataError: after the last, where none could be read.
    """

    def work(file: tuple[K, bytes | Array | OSError]) -> tuple[K, Decoded | str]:
        return file[0], try_read(file[1], size, preprocessing, hashed=hashes is not None)

    files: list[K] = []
    pixels: list[Array] = []
    nothing = True
    for source in sources:
        for file, decoded in in_parallel(work, source.read(), tiny=max(size) <= 64):
            if isinstance(decoded, str):
                unreadable.append((file, decoded))
                continue
            files.append(file)
            pixels.append(decoded.pixels)
            if hashes is not None:
                hashes.append(decoded.hash.hex())
            if len(pixels) == count:
                yield files, np.stack(pixels)
                files, pixels, nothing = [], [], False
    if pixels:
        yield files, np.stack(pixels)
    elif nothing:
        raise DataError(
            f"none of the {len(unreadable)} images can be read (the first, {unreadable[0][0]}: {unreadable[0][1]})."
        )
