"""A file is what its first bytes say; its name decides nothing, and no decoder runs that is not on the list."""

import base64
import contextlib
import importlib.util
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data.cache import open_images
from sightline.data.sources.entries import is_image_name
from sightline.data.sources.find_source import find_source
from sightline.data.sources.unlabeled import plain_files
from sightline.errors import DataError
from sightline_runtime.decoding import decode as decoding
from sightline_runtime.decoding import limits
from sightline_runtime.decoding.decode import UnreadableImageError, decode, open_header
from sightline_runtime.decoding.formats import READ, format_of
from sightline_runtime.decoding.limits import without_gif_comments

HEIC = base64.b64decode(  # 48×32 pixels: red on the left, blue on the right
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERA"
    "AAEAAQAAAAABoQABAAAAAAAAAEcAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADdaXBjbwAA"
    "AHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq"
    "5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAADAAAAABAAAA"
    "IAAAAAH////wAAAAAv///+AAAAACAAAAEHBpeGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAAE9tZGF0AAAAQygBrwng48Calv/3bP//"
    "freQ9hFTG75/7Ex3fAbf/1XpDdI8YK1/iHA0SGXmrFeH3p80ac1Px3AFrkpsIQAngfRm/k4="
)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n1 0 0 setrgbcolor 0 0 8 8 rectfill showpage\n%%EOF\n"
WRITTEN = {  # Pillow's name: what writes it without loss where that can be
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "GIF": {},
    "TIFF": {},
    "PPM": {},
    "JPEG2000": {"irreversible": False},
    "AVIF": {"quality": 95},
}


@pytest.fixture
def plain(image_file):
    """One color in every format, by Pillow's name."""
    pixels = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    return lambda kind: image_file(pixels, kind, **WRITTEN[kind])


# ── what is read ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_format_on_the_list_is_known_by_its_header_and_decoded(plain, kind):
    data = plain(kind)
    assert format_of(data[:64]) == kind
    pixels = decode(data)
    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 8


def test_the_list_has_no_other_formats():
    assert set(READ) == {*WRITTEN, "HEIF"}


@pytest.mark.parametrize("variant", ["P4", "P5", "P6", "P2"])
def test_all_kinds_of_portable_maps_are_read(variant):
    body = {"P4": b"\x80", "P5": b"\xff", "P6": b"\xff\xff\xff", "P2": b"255"}[variant]
    size = b"1 1" if variant == "P4" else b"1 1 255"
    assert decode(variant.encode() + b"\n# made\n" + size + b"\n" + body).shape == (1, 1, 3)


@pytest.mark.parametrize(
    "name",
    ["a.jfif", "a.jpe", "a.JIF", "a.avif", "a.jp2", "a.J2K", "a.ppm", "a.pgm", "a.apng", "a.heic", "a.HEIF", "a.dib"],
)
def test_less_usual_suffixes_of_images_are_known(name):
    assert is_image_name(name)


def test_files_without_a_suffix_and_with_a_wrong_one_are_images_by_their_header(folder, files, plain):
    odd = {
        "cats/IMG0001": "JPEG",
        "cats/b.txt": "PNG",
        "dogs/c.dat": "WEBP",
        "dogs/d.jpg!large": "JPEG",
        "dogs/e.png": "GIF",
    }
    text = {
        "cats/notes.txt": b"P1 is the first of them",
        "cats/labels.csv": b"BMW,5",
        "dogs/README": b"",
        "dogs/x.py": b"#",
    }
    contents = {**files("cats", "dogs", side=16), **{name: plain(kind) for name, kind in odd.items()}, **text}
    listing = find_source(folder(contents)).scan()
    assert {*odd} < {entry.path for entry in listing.entries}
    assert len(listing.entries) == 4 + len(odd)
    assert listing.ignored["other files"] == len(text)
    images = open_images(find_source(folder(contents)))
    assert not images.left_out


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_so_are_files_of_archives(archive, files, plain, kind):
    contents = {**files("cats", "dogs", side=16), "cats/IMG0001": plain("JPEG"), "dogs/notes": b"text"}
    path = archive(contents, kind)
    assert len(find_source(path).scan().entries) == 5
    assert len(open_images(find_source(path)).readable) == 5
    assert len(plain_files(path).names) == 5


def test_so_are_the_files_that_a_classifier_is_asked_about(folder, plain):
    root = folder({"IMG0001": plain("JPEG"), "b.bin": plain("PNG"), "notes.txt": b"text"})
    assert sorted(Path(name).name for name in plain_files(root).names) == ["IMG0001", "b.bin"]


def test_a_cameras_raw_file_is_no_image_although_its_header_is_that_of_a_tiff_file(folder, files, plain):
    contents = {**files("cats", "dogs", side=16), "cats/shot.nef": plain("TIFF"), "cats/shot.DNG": plain("TIFF")}
    assert len(find_source(folder(contents)).scan().entries) == 4


def test_files_with_usual_suffixes_are_not_opened_to_list_them(folder, files, monkeypatch):
    source = find_source(folder(files("cats", "dogs", images=5)))
    monkeypatch.setattr(type(source), "begin", lambda *_: pytest.fail("a file was read to list it"), raising=False)
    assert len(source.scan().entries) == 10


# ── what is not ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_eps_named_png_starts_no_program(folder, files, monkeypatch):
    def start(*_, **__):
        pytest.fail("a program was started")

    for name in ("run", "check_call", "Popen", "check_output", "call"):
        monkeypatch.setattr(subprocess, name, start)
    with pytest.raises(UnreadableImageError, match="no image in any known format, but PostScript"):
        decode(EPS)
    images = open_images(find_source(folder({**files("a", "b"), "a/x.png": EPS})))
    assert images.left_out == [("a/x.png", "no image in any known format, but PostScript")]


@pytest.mark.parametrize("kind", ["DDS", "SPIDER", "PCX", "TGA", "SGI", "ICO", "ICNS", "MSP", "IM", "XBM", "PDF"])
def test_formats_that_are_not_on_the_list_are_not_decoded(image_file, kind):
    modes = {"SPIDER": "F", "MSP": "1", "XBM": "1"}
    data = image_file(Image.new(modes.get(kind, "RGB"), (16, 16)), kind)
    with pytest.raises(UnreadableImageError, match="no image in any known format"):
        decode(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"  <html>", "HTML"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns=", "SVG"),
        (b"8BPS\0\1", "Photoshop"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_a_file_of_another_kind_is_named(data, name):
    with pytest.raises(UnreadableImageError, match=f"no image in any known format, but {name}"):
        decode(data)


def test_a_heic_file_is_read_with_the_extra(folder, files):
    pytest.importorskip("pi_heif")
    pixels = decode(HEIC)
    assert pixels.shape == (32, 48, 3)
    assert np.abs(pixels[16, 4].astype(int) - (255, 0, 0)).max() < 10
    assert np.abs(pixels[16, 40].astype(int) - (0, 0, 255)).max() < 10
    assert len(open_images(find_source(folder({**files("a", "b", side=32), "a/IMG_1.HEIC": HEIC}))).readable) == 5


def test_without_the_extra_a_heic_file_says_so_and_names_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    decoding._heif_is_registered.cache_clear()
    try:
        with pytest.raises(
            UnreadableImageError, match=r"a HEIC file, which needs the extra heic; run: pip install '\.\[heic\]'"
        ):
            decode(HEIC)
    finally:
        decoding._heif_is_registered.cache_clear()


def test_a_set_is_decoded_again_once_the_extra_is_there(folder, files, monkeypatch):
    pytest.importorskip("pi_heif")
    source = find_source(folder({**files("a", "b", side=32), "a/IMG_1.HEIC": HEIC}))
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "_heif_is_registered", lambda: False)
        assert [path for path, _ in open_images(source).left_out] == ["a/IMG_1.HEIC"]
        assert [path for path, _ in open_images(source).left_out] == ["a/IMG_1.HEIC"]
    assert open_images(source).left_out == []


def test_a_film_is_no_heic_file():
    assert format_of(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41") == ""
    assert format_of(b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert format_of(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") == "HEIF"
    assert format_of(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom") == ""  # a camera's raw file


def test_a_set_of_nothing_but_unreadable_files_names_what_is_read(folder):
    root = folder({"a/x.png": b"text", "b/x.png": EPS})
    with pytest.raises(DataError, match=r"none of the 2 images .* wanted JPEG, PNG, .* AVIF or HEIC files"):
        open_images(find_source(root))


# ── one error, and no noise ──────────────────────────────────────────────────────────────────────────────────────────


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    return png[:33] + chunk(kind, data) + png[33:]


@pytest.mark.parametrize(
    ("kind", "data"), [(b"eXIf", b"II*\0\x08\0"), (b"eXIf", b"MM\0*\0\0"), (b"pHYs", b"\0"), (b"cHRM", b"\0\1")]
)
def test_a_png_with_a_damaged_chunk_is_unreadable_alone(folder, files, image_file, noise, kind, data):
    bad = with_chunk(image_file(noise(1)), kind, data)
    with pytest.raises(UnreadableImageError, match=r"^broken: ."):
        decode(bad)
    images = open_images(find_source(folder({**files("a", "b"), "a/bad.png": bad})))
    assert [path for path, _ in images.left_out] == ["a/bad.png"]


@pytest.mark.parametrize(
    "error",
    [struct.error, AttributeError, KeyError, RecursionError, ZeroDivisionError, MemoryError, NotImplementedError],
)
def test_whatever_a_decoder_raises_is_said_of_the_file(image_file, noise, monkeypatch, error):
    def fail(*_, **__):
        raise error("of the decoder")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableImageError, match="broken"):
        decode(image_file(noise(1)))


def test_ctrl_c_is_not_said_of_the_file(image_file, noise, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image, "open", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(image_file(noise(1)))


def test_pillows_warnings_are_silent_and_those_of_others_are_not(image_file, recwarn):
    palette = image_file(Image.new("P", (4, 4)), transparency=b"\0\1")
    damaged = image_file(np.zeros((4, 4, 3), np.uint8), "TIFF")
    damaged = damaged[:8] + damaged[8:].replace(struct.pack("<HHI", 0x0128, 3, 1), struct.pack("<HHI", 0x0128, 3, 99))
    for data in (palette, damaged, with_chunk(image_file(Image.new("L", (9, 9))), b"tEXt", b"x" * 40)):
        for _ in range(2):
            with contextlib.suppress(UnreadableImageError):
                decode(data)
    big = with_size(10_000, 9_500)
    with pytest.raises(UnreadableImageError):
        decode(big)  # a size that Pillow warns of
    assert [str(item.message) for item in recwarn] == []
    warnings.warn("another's", stacklevel=1)
    assert len(recwarn) == 1


def test_what_the_libraries_below_pillow_write_to_the_standard_error_is_silent(image_file, noise, capfd):
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg"):
        whole = bytearray(image_file(noise(2, 40, 40), "TIFF", compression=compression))
        random = np.random.default_rng(0)
        for _ in range(60):
            damaged = whole.copy()
            damaged[random.integers(8, len(whole))] ^= 0x55
            with contextlib.suppress(UnreadableImageError):
                decode(bytes(damaged))
    assert capfd.readouterr() == ("", "")


def with_size(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


# ── GIF comments ─────────────────────────────────────────────────────────────────────────────────────────────────────


def comment(size: int) -> bytes:
    return b"\x21\xfe" + (b"\xff" + b"c" * 255) * (size // 256) + b"\0"


def split_gif(gif: bytes) -> tuple[bytes, bytes]:
    """What is before the first block, and the rest."""
    start = 13 + (3 << (gif[10] & 7) + 1 if gif[10] & 0x80 else 0)
    return gif[:start], gif[start:]


@pytest.fixture
def gif(image_file) -> bytes:
    frames = [Image.new("RGB", (6, 4), color) for color in ((255, 0, 0), (0, 0, 255))]
    return image_file(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"short", loop=0)


@pytest.mark.parametrize("place", ["before the first image", "between two", "many small ones"])
def test_a_long_comment_of_a_gif_takes_no_time(gif, place):
    head, rest = split_gif(gif)
    long = comment(8_000_000) if place != "many small ones" else b"\x21\xfe\1c\0" * 400_000
    data = gif[:-1] + long + gif[-1:] if place == "between two" else head + long + rest
    began = time.process_time()
    assert np.array_equal(decode(data), decode(gif))
    with open_header(data) as image:
        assert image.is_animated
    assert time.process_time() - began < 2  # Pillow alone: over 20


def test_a_gif_without_comments_is_left_alone_and_with_them_shows_the_same(gif, noise, image_file):
    bare = without_gif_comments(gif)
    assert b"short" in gif
    assert b"short" not in bare
    assert without_gif_comments(bare) == bare
    assert np.array_equal(decode(bare), decode(gif))


def test_comments_cannot_hide_behind_blocks_that_pillow_reads_otherwise(gif):
    head, rest = split_gif(gif)
    for before in (b"\x21\xf9\0", b"\x21\xff\0", b"\x21\xff\x0bNETSCAPE2.0\0", b"\0\0", b"\x21\1\0"):
        data = head + before + b"\0" + comment(6_000_000) + rest
        began = time.process_time()
        with contextlib.suppress(UnreadableImageError):
            decode(data)
        assert time.process_time() - began < 2, before


@pytest.mark.parametrize("cut", range(14, 60, 5))
def test_a_gif_that_ends_in_a_comment_is_broken_and_nothing_else(gif, cut):
    head, rest = split_gif(gif)
    with pytest.raises(UnreadableImageError):
        decode(head + (comment(512) + rest)[: cut - 14])


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────

PEAK = """
import io, resource, sys
import numpy as np
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from sightline_runtime.decoding import limits
from sightline_runtime.decoding.decode import read_image
file = io.BytesIO()
limits.MEMORY = 200_000_000  # two of these at a time
Image.new(sys.argv[1], (3000, 3000)).save(file, sys.argv[2])
data = file.getvalue()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(8) as pool:
    assert all(found.pixels.shape == (16, 16, 3) for found in pool.map(lambda _: read_image(data, (16, 16), hashed=True), range(8)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
@pytest.mark.parametrize(("mode", "most"), [("RGB", 250), ("I;16", 250), ("RGBA", 450)])
def test_eight_threads_together_stay_within_the_memory(mode, most):
    found = subprocess.run(
        [sys.executable, "-c", PEAK, mode, "PNG"], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(found.stdout) < most  # MiB; all eight at once take 320, 410 and 640


def test_a_format_that_takes_much_memory_may_have_fewer_pixels(plain, monkeypatch):
    monkeypatch.setattr(limits, "MEMORY", 16 * 24 * 10)  # as if this were a large image
    with pytest.raises(
        decoding.TooManyPixelsError, match=r"more than .* megapixels \(24×16\), the most of a WEBP file"
    ):
        decode(plain("WEBP"))
    assert decode(plain("PNG")).shape == (16, 24, 3)


def test_the_strips_of_a_large_image_give_the_same_hash_and_the_same_colors(noise, image_file, monkeypatch):
    pixels = noise(3, 40, 30)
    alpha = np.dstack([pixels, noise(4, 40, 30)[..., 0]])
    whole = [decoding.read_image(image_file(array), None, hashed=True) for array in (pixels, alpha)]
    monkeypatch.setattr(decoding, "STRIP_PIXELS", 70)
    for array, one in zip((pixels, alpha), whole, strict=True):
        strips = decoding.read_image(image_file(array), None, hashed=True)
        assert np.array_equal(strips.pixels, one.pixels)
        assert strips.hash == one.hash == decoding.pixel_hash(one.pixels)
