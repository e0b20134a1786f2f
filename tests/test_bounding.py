"""A small file that would cost much time or memory is refused in a sentence; files as people have them pass untouched."""

import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from sightline_runtime.decoding.decode import UnreadableImageError, decode
from sightline_runtime.decoding.formats import format_of
from sightline_runtime.decoding.limits import bounded, refuse_bloated_exif

EXIF = b"Exif\0\0"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def directory(count: int, size: int, order: str = "<") -> bytes:
    """A TIFF that lists the same bytes as often as it has tags."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, count)
    tags = b"".join(struct.pack(order + "HHII", number + 1, 2, size, 8) for number in range(count))
    return start + tags + bytes(size)


def in_png(image_file, *chunks: bytes) -> bytes:
    png = image_file(Image.new("RGB", (16, 16)))
    return png[:33] + b"".join(chunks) + png[33:]


def in_jpeg(image_file, *segments: bytes) -> bytes:
    jpeg = image_file(Image.new("RGB", (16, 16)), "JPEG")
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


HOSTILE = {
    "EXIF in many parts": lambda make: in_jpeg(make, *[segment(0xE1, EXIF + b"a")] * 400_000),
    "EXIF in EXIF, in a JPEG": lambda make: in_jpeg(make, *[segment(0xE1, EXIF * 10_000)] * 10),
    "EXIF in EXIF, in a PNG": lambda make: in_png(make, chunk(b"eXIf", EXIF * 500_000)),
    "EXIF in EXIF, in a WebP": lambda make: make(Image.new("RGB", (16, 16)), "WEBP", exif=EXIF * 500_000),
    "tags, in a PNG": lambda make: in_png(make, chunk(b"eXIf", directory(60_000, 500_000))),
    "tags, in a WebP": lambda make: make(Image.new("RGB", (16, 16)), "WEBP", exif=directory(60_000, 500_000)),
    "tags, in a JPEG": lambda make: in_jpeg(
        make,
        *(
            segment(0xE1, EXIF + directory(20_000, 60_000)[start : start + 60_000])
            for start in range(0, 300_000, 60_000)
        ),
    ),
    "tags of a TIFF": lambda _: directory(60_000, 4_000_000),
    "tags of a TIFF in the other order": lambda _: directory(60_000, 4_000_000, ">"),
    "color profiles": lambda make: in_png(
        make, *[chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000), 9))] * 3000
    ),
    "comments of a plain map": lambda _: b"P3\n7 7 255\n" + b"#a\n1 " * 1_000_000,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_costs_more_than_its_bytes_is_refused_at_once(image_file, what):
    data = HOSTILE[what](image_file)
    began = time.process_time()
    with pytest.raises(UnreadableImageError, match=r"^broken: (its|it has|more than) "):
        decode(data)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM"])
def test_a_file_as_a_camera_writes_it_passes_untouched(image_file, noise, kind):
    exif = Image.Exif()
    exif[0x010F], exif[0x9286] = "a camera", b"ASCII\0\0\0" + b"note" * 2000
    options = {"exif": exif, "icc_profile": bytes(5000)} if kind in ("JPEG", "PNG", "WEBP") else {}
    data = image_file(noise(1, 200, 200), kind, **options)
    assert bounded(format_of(data), data) is data
    assert decode(data).shape == (200, 200, 3)


@pytest.mark.parametrize("length", [0, 3, 8, 15, 16, 20, 40])
def test_exif_that_is_cut_off_is_left_for_pillow_to_judge(length):
    refuse_bloated_exif(EXIF + directory(3, 10)[:length])
    refuse_bloated_exif(directory(3, 10, ">")[:length])


def test_a_broken_header_is_pillows_to_judge(image_file, noise):
    random = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "TIFF", "GIF", "PPM"):
        whole = image_file(noise(2, 180, 180), kind)
        for cut in random.integers(0, len(whole), 40):
            bounded(kind, whole[:cut])
