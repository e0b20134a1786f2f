"""Limits on what decoding one file, and all files at once, may cost. Nothing here loads Pillow.

What of a file would cost Pillow far more time or memory than its bytes is cut out or refused before it is opened:
metadata that comes in many parts, is listed many times over, or is unpacked again and again. A file as cameras and
programs write it passes untouched. The memory of decoding is shared by all threads.
"""

import ctypes
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["bounded", "memory_for", "most_pixels", "refuse_bloated_exif", "without_gif_comments"]

SMALL = 1 << 16  # bytes: what files of so few cost is no matter
MOST_PARTS = 16  # of the EXIF of a JPEG, and color profiles of a PNG; usually one
MOST_COMMENTS = 1000  # of a map in plain text
EXIF = b"Exif\0\0"
_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1)) | {
    16: 8
}  # bytes of a value, by the type of its tag
MEMORY = 1_000_000_000  # bytes that the images which are decoded at the same time may take together
BYTES_PER_PIXEL = {"WEBP": 16, "JPEG2000": 20, "AVIF": 16, "HEIF": 16}  # at the peak, as measured; of others:
USUAL_BYTES = 10
LARGE = 40_000_000  # bytes: of images that take less, threads do not keep much
UNCOUNTED = 1_000_000  # bytes: many images of so few at once are no matter

_freed = threading.Condition()
_taken, _kept = 0, 0  # bytes: of images that are being decoded; freed, and perhaps not yet given back


# ── one file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def bounded(kind: str, data: bytes) -> bytes:
    """Cut out or refuse what would cost far more than it is worth.

    Args:
        kind: format of the file.
        data: the file.
    Returns:
        The file, perhaps without its comments.
    Raises:
        ValueError: with what is wrong with the file.
    """
    if kind == "GIF":
        return without_gif_comments(data)
    if kind == "TIFF":
        refuse_bloated_tags(data)
    elif kind == "PPM" and data[1:2] in b"123" and data.count(b"#") > MOST_COMMENTS:
        raise ValueError(f"more than {MOST_COMMENTS:,} comments")
    elif kind == "JPEG" and len(data) > SMALL:
        _refuse_exif_in_parts(data)
    elif kind == "PNG" and len(data) > SMALL:
        _refuse_many_profiles(data)
    return data


def refuse_bloated_exif(exif: bytes) -> None:
    """Refuse EXIF, as Pillow keeps it, that names itself again and again, or lists its bytes many times over.

    Raises:
        ValueError: it does.
    """
    inside = exif.removeprefix(EXIF)
    if inside.startswith(EXIF):
        raise ValueError("its EXIF begins more than once")
    refuse_bloated_tags(inside)


def refuse_bloated_tags(data: bytes) -> None:
    """Refuse a TIFF, or EXIF, whose first directory lists more bytes than there are, each read as often as listed."""
    if len(data) < 16:
        return
    order = "<" if data.startswith(b"I") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    place = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    width, entry = (8, order + "HHQQ") if big else (2, order + "HHII")
    if place + width > len(data):
        return
    count = struct.unpack_from(order + ("Q" if big else "H"), data, place)[0]
    size = struct.calcsize(entry)
    end = min(len(data) - size, place + width + (count - 1) * size)
    listed = 0
    for start in range(place + width, end + 1, size):
        _, kind, values, offset = struct.unpack_from(entry, data, start)
        listed += max(0, min(values * _SIZES.get(kind, 0), len(data) - offset))
        if listed > 2 * len(data) + SMALL:
            raise ValueError("its tags list more bytes than it has")


def _refuse_exif_in_parts(data: bytes) -> None:
    """Refuse a JPEG whose EXIF comes in many parts, each of which Pillow copies; markers are followed as it does."""
    place, parts = 2, []
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            place += 1
            continue
        marker = data[place + 1]
        if marker == 0xDA:  # the pixels begin
            break
        if marker == 0xFF:
            place += 1
        elif marker == 0 or 0xD0 <= marker <= 0xD9:
            place += 2
        else:
            length = max(2, int.from_bytes(data[place + 2 : place + 4]))
            if marker == 0xE1 and data.startswith(EXIF, place + 4):
                parts.append(data[place + 4 + len(EXIF) : place + 2 + length])
                if len(parts) > MOST_PARTS:
                    raise ValueError(f"its EXIF comes in more than {MOST_PARTS} parts")
            place += 2 + length
    if parts:
        refuse_bloated_exif(b"".join(parts))


def _refuse_many_profiles(data: bytes) -> None:
    """Refuse a PNG with many color profiles, each of which Pillow unpacks."""
    place, profiles = 8, 0
    while place + 8 <= len(data):
        profiles += data.startswith(b"iCCP", place + 4)
        if profiles > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS} color profiles")
        place += 12 + int.from_bytes(data[place : place + 4])


def without_gif_comments(data: bytes) -> bytes:
    """Remove the comments of a GIF, for which Pillow takes quadratic time (5 MB of them: over 10 s).

    Blocks are followed exactly as Pillow follows them, so that none can be hidden from here.
    """
    if b"\x21\xfe" not in data or len(data) < 13:
        return data
    place = 13 + _palette(data[10])
    kept, start, frames = [], 0, 0
    while place + 1 < len(data) and data[place] != 0x3B:  # the trailer
        if data[place] == 0x2C:  # an image
            place = _end_of_blocks(data, place + 11 + _palette(data[min(place + 9, len(data) - 1)]))
            frames += 1
        elif data[place] != 0x21:  # neither an image nor an extension is passed over
            place += 1
        elif data[place + 1] == 0xFE:
            kept.append(data[start:place])
            place = start = _end_of_blocks(data, place + 2)
        else:
            place = _end_of_extension(data, place + 1, frames == 0)
    return b"".join([*kept, data[start:]])


def _palette(flags: int) -> int:
    """Return the bytes of the palette that flags tell of."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _end_of_extension(data: bytes, place: int, first: bool) -> int:
    """Return where an extension ends that is no comment; Pillow reads its first sub-block whatever that is."""
    after = _after_block(data, place + 1)
    if first and data[place] == 0xFF and data[place + 2 : after].startswith(b"NETSCAPE2.0"):
        after = _after_block(data, after)
    return _end_of_blocks(data, after)


def _after_block(data: bytes, place: int) -> int:
    return min(place + 1 + (data[place] if place < len(data) else 0), len(data))


def _end_of_blocks(data: bytes, place: int) -> int:
    """Return where the sub-blocks that begin at a place end."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return min(place + 1, len(data))


# ── memory of all files at once ──────────────────────────────────────────────────────────────────────────────────────


def most_pixels(kind: str | None) -> int:
    """Return the most pixels that the memory suffices for, by Pillow's name of the format; None for no file."""
    return MEMORY // BYTES_PER_PIXEL.get(kind or "", USUAL_BYTES)


@contextmanager
def memory_for(kind: str | None, pixels: int) -> Iterator[None]:
    """Wait until there is room to decode an image beside those that are being decoded.

    Args:
        kind: Pillow's name of its format; None for no file.
        pixels: at most ``most_pixels``.
    """
    global _taken
    needed = pixels * BYTES_PER_PIXEL.get(kind or "", USUAL_BYTES)
    if needed < UNCOUNTED:
        yield
        return
    with _freed:
        _freed.wait_for(lambda: _taken + needed <= MEMORY)
        _taken += needed
    try:
        yield
    finally:
        with _freed:
            _taken -= needed
            _freed.notify_all()
        if needed >= LARGE:
            _give_back(needed)


def _give_back(freed: int) -> None:
    """Let glibc give freed memory back to the system, once for as much as may be taken.

    Each thread keeps what it freed, as much as its largest image; of many threads that is more than all of them may
    take.
    """
    global _kept
    with _freed:
        _kept += freed
        if _kept < MEMORY:
            return
        _kept = 0
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another system
        return
