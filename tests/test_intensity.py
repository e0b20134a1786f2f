"""More than 8 bits a channel: the range is measured on train, said, kept, and applied to every image afterwards."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sightline.data.cache import open_images
from sightline.data.ranges import notes_on_reading, with_range_of
from sightline.data.sources.find_source import find_source
from sightline.display.lines import Lines
from sightline_runtime.decoding.decode import UnreadableImageError, decode, decode_image, read_image
from sightline_runtime.decoding.intensity import describe_range, joint_range, whole_bits
from sightline_runtime.decoding.preprocessing import Preprocessing, preprocessing_of


def deep(number: int, high: int, side: int = 24, low: int = 0) -> np.ndarray:
    """Noise of 16 bits between two values."""
    return np.random.default_rng(number).integers(low, high + 1, (side, side)).astype(np.uint16)


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG of grey, grey with opacity, colors, or colors with opacity, (H, W) or (H, W, C), which Pillow cannot write."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_of_16_bits(values: np.ndarray, order: str) -> bytes:
    """A TIFF of colors without compression, in one of the two orders of bytes."""
    height, width, channels = values.shape
    data = values.astype(order + "u2").tobytes()
    entries = 9
    bits_at = 8 + 2 + 12 * entries + 4
    short = {258: bits_at, 259: 1, 262: 2, 277: channels}
    long = {256: width, 257: height, 273: bits_at + 2 * channels, 278: height, 279: len(data)}
    file = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, entries)
    for tag in sorted({**short, **long}):
        if tag == 258:
            file += struct.pack(order + "HHII", tag, 3, channels, bits_at)
        elif tag in short:
            file += struct.pack(order + "HHIHH", tag, 3, 1, short[tag], 0)
        else:
            file += struct.pack(order + "HHII", tag, 4, 1, long[tag])
    return file + struct.pack(order + "I", 0) + struct.pack(order + f"{channels}H", *[16] * channels) + data


# ── one file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_12_bits_in_16_use_all_levels(image_file, kind):
    values = deep(1, 4095)
    pixels = decode(image_file(values, kind))
    assert pixels.min() <= 2
    assert pixels.max() >= 253
    assert len(np.unique(pixels)) > 200


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
def test_8_bits_in_16_keep_their_very_values(image_file, options):
    values = deep(2, 255)
    assert np.array_equal(decode(image_file(values, "TIFF", **options))[..., 0], values)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_a_color_keeps_the_lower_ones(channels):
    values = np.random.default_rng(3).integers(0, 4096, (24, 20, channels)).astype(np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535
    pixels = decode(png_of_16_bits(values[..., 0] if channels == 1 else values))
    colors = values[..., :3] if channels > 2 else values[..., :1]
    assert np.abs(pixels[..., : colors.shape[2]] - colors / 4095 * 255).max() <= 0.5


def test_transparent_pixels_of_16_bits_become_white():
    values = np.full((4, 4, 4), 2000, np.uint16)
    values[:2, :, 3] = 0
    values[2:, :, 3] = 65535
    pixels = decode(png_of_16_bits(values), preprocessing=Preprocessing(intensity=(0, 4000)))
    assert (pixels[:2] == 255).all()
    assert (pixels[2:] == 128).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_16_bits_a_color_keeps_the_lower_ones(order):
    values = np.random.default_rng(4).integers(0, 4096, (24, 20, 3)).astype(np.uint16)
    assert np.abs(decode(tiff_of_16_bits(values, order)) - values / 4095 * 255).max() <= 0.5


def test_all_of_16_bits_is_what_its_upper_eight_are_but_for_rounding(image_file):
    values = deep(5, 65535)
    assert np.abs(decode(image_file(values))[..., 0].astype(int) - (values >> 8)).max() <= 1


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (np.linspace(0, 1, 256, dtype=np.float32), [0, 64, 128, 191]),
        (np.linspace(0, 255, 256, dtype=np.float32), [0, 64, 128, 192]),
        (np.linspace(-1, 1, 256, dtype=np.float32), [0, 64, 128, 191]),
        (np.linspace(0, 100_000, 256).astype(np.int32), [0, 49, 98, 146]),  # of 17 bits: 131,071
    ],
)
def test_fractions_and_32_bits_are_shown_by_their_range(image_file, values, levels):
    pixels = decode(image_file(np.tile(values, (4, 1)), "TIFF"))
    assert np.abs(pixels[0, ::64, 0].astype(int) - levels).max() <= 1


def test_what_is_no_number_is_black_and_no_warning(image_file, recwarn):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0] = [np.nan, np.inf, -np.inf, 0, 1, 0.5, np.nan, 0]
    assert decode(image_file(values, "TIFF"))[0, :6, 0].tolist() == [0, 255, 0, 0, 255, 128]
    assert (decode(image_file(np.full((4, 4), np.nan, np.float32), "TIFF")) == 0).all()
    assert [str(item.message) for item in recwarn if issubclass(item.category, RuntimeWarning)] == []


def test_a_given_range_is_applied_and_what_lies_beyond_it_cut_off(image_file):
    values = np.array([[0, 1000, 1500, 2000, 65535]], np.uint16)
    pixels = decode(image_file(values), preprocessing=Preprocessing(intensity=(1000.0, 2000.0)))
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_an_image_in_memory_is_shown_as_its_file_is(image_file):
    for values in (deep(6, 4095), np.float32(deep(6, 4095) / 4095), deep(6, 4095).astype(np.int32)):
        image = Image.fromarray(values)
        for how in (Preprocessing(), Preprocessing(intensity=(100.0, 3000.0)), Preprocessing("pad")):
            filed = read_image(image_file(image, "TIFF"), (8, 12), how).pixels
            assert np.array_equal(decode_image(image, (8, 12), how), filed)


def test_the_hash_of_deep_images_is_of_all_their_bits(image_file):
    one, other = deep(7, 255), deep(8, 255)  # both black in their upper eight
    hashes = {read_image(image_file(values), None, hashed=True).hash for values in (one, other, one)}
    assert len(hashes) == 2
    assert read_image(image_file(one, "TIFF"), None, hashed=True).hash in hashes


def test_8_bit_images_do_not_depend_on_the_range(noise, image_file):
    for kind in ("PNG", "TIFF", "BMP"):
        data = image_file(noise(9), kind)
        assert np.array_equal(decode(data), decode(data, preprocessing=Preprocessing(intensity=(0.0, 4095.0))))


# ── the range ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (3, 250, (0, 255)),
        (0, 1000, (0, 1023)),
        (10, 4090, (0, 4095)),
        (0, 4096, (0, 8191)),
        (0, 65535, (0, 65535)),
        (30_000, 34_000, (30_000, 34_000)),
        (0.01, 0.98, (0, 1)),
        (-1, 1, (-1, 1)),
        (700, 700, (0, 1023)),
    ],
)
def test_a_range_that_begins_near_zero_is_widened_to_whole_bits(low, high, wanted):
    assert whole_bits(low, high) == wanted


def test_one_odd_image_of_many_does_not_decide_the_range():
    extremes = np.array([[0.0, 4000.0]] * 150 + [[0.0, 65535.0]])
    assert joint_range(extremes) == (0, 4095)
    assert joint_range(extremes[-2:]) == (0, 65535)  # of two it does


def test_dead_and_hot_pixels_do_not_decide_the_range_of_an_image(image_file):
    values = deep(10, 4000, side=64)
    values[0, :3] = 65535
    assert read_image(image_file(values), None).extremes[1] <= 4000


def test_a_range_is_written_as_one_reads_it():
    assert describe_range((0.0, 4095.0)) == "0 to 4,095"
    assert describe_range((-0.5, 0.5)) == "-0.5 to 0.5"


# ── a set, and what a run keeps ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scans(folder, image_file):
    """A set of 12 bits in 16, whose test images are brighter than those of train."""
    contents = {}
    for number in range(24):
        part, high = ("test", 65535) if number % 4 == 0 else ("train", 3900)
        contents[f"{part}/{'ab'[number // 12]}/{number:02d}.png"] = image_file(deep(number, high))
    return folder(contents)


def test_the_range_is_that_of_the_training_images_alone(scans):
    source = find_source(scans)
    first = open_images(source)
    train = np.array([row for row, part in enumerate(first.splits) if part == "train"])
    images = with_range_of(source, first, train)
    assert images.preprocessing == Preprocessing(intensity=(0.0, 4095.0))
    assert list(images.hashes) == list(first.hashes)
    row = images.paths.index("test/a/00.png")
    data = (scans / "test/a/00.png").read_bytes()
    assert np.array_equal(images.pixels[row], decode(data, preprocessing=images.preprocessing))
    assert (images.pixels[row] == 255).mean() > 0.9
    assert notes_on_reading(images) == [
        "24 images have more than 8 bits a channel, shown as black to white from 0 to 4,095, the range of values of train"
    ]


def test_a_set_of_8_bits_is_opened_once_whatever_the_range(folder, files, cache_root):
    source = find_source(folder(files("a", "b", side=24)))
    images = open_images(source)
    assert images.extremes is None
    assert with_range_of(source, images, images.readable) is images
    open_images(source, preprocessing=Preprocessing(intensity=(0.0, 4095.0)))
    open_images(source, preprocessing=Preprocessing(intensity="upper bits"))
    assert len(list(cache_root.glob("*/index.json"))) == 1


def test_what_a_run_keeps_is_read_back_and_an_older_run_has_none():
    for how in (Preprocessing(), Preprocessing("squash", (0.0, 4095.0)), Preprocessing("pad")):
        assert preprocessing_of(json.loads(json.dumps(how.kept()))) == how
    assert preprocessing_of({"classes": []}) == Preprocessing(intensity="upper bits")


def test_an_older_run_reads_16_bits_as_it_always_did(image_file):
    older = preprocessing_of({})
    values = deep(11, 65535)
    found = read_image(image_file(values), None, older, hashed=True)
    assert np.array_equal(found.pixels[..., 0], values >> 8)
    colors = np.random.default_rng(12).integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    assert np.array_equal(decode(png_of_16_bits(colors), preprocessing=older), colors >> 8)
    with pytest.raises(UnreadableImageError, match="32-bit pixels"):
        decode(image_file(np.full((2, 2), 1 << 20, np.int32), "TIFF"), preprocessing=older)


def test_a_training_says_keeps_and_applies_the_range(scans, tmp_path, image_file):
    from rich.console import Console

    import sightline
    from sightline.inference.predict import load

    said = io.StringIO()
    settings = {
        "fit": {"epochs": 1, "batch_size": 8},
        "network": {"kind": "speednet", "widths": [8, 8, 8]},
        "data": {"validation": 4},
    }
    console = Console(file=said, width=200)
    run = sightline.train(scans, recipe="small", settings=settings, run=tmp_path / "run", on_event=Lines(console))
    assert "shown as black to white from 0 to 4,095" in said.getvalue()
    model = json.loads((run / "model.json").read_text())
    assert (model["fit"], model["intensity"]) == ("crop", [0.0, 4095.0])
    assert sightline.evaluate(run)["accuracy"] == model["metrics"]["accuracy"]
    classifier = load(run)
    dark = tmp_path / "dark.png"
    dark.write_bytes(image_file(deep(13, 300)))  # dark beside train: its own range would show it bright
    shown = read_image(dark.read_bytes(), (24, 24), classifier.preprocessing).pixels
    assert shown.max() < 25
    (by_file,) = classifier.predict([dark])
    (by_pixels,) = classifier.answers(shown[None])
    assert by_file == by_pixels
