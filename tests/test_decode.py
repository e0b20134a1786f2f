"""From the bytes of an image file to upright RGB pixels."""

import base64
import hashlib
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from sightline_runtime.decoding.decode import UnreadableImageError, decode, in_parallel, pixel_hash, resize
from sightline_runtime.decoding.preprocessing import Preprocessing

RED, BLUE = (255, 0, 0), (0, 0, 255)
JPEG = base64.b64decode(  # 30×40 pixels, quality 40
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABQODxIPDRQSEBIXFRQYHjIhHhwcHj0sLiQySUBMS0dARkVQWnNiUFVtVkVGZIhlbXd7gYKBTmCNl4"
    "x9lnN+gXz/2wBDARUXFx4aHjshITt8U0ZTfHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHz/wAARCAAo"
    "AB4DASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhBy"
    "JxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKT"
    "lJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/8QAHwEAAwEBAQEBAQEBAQAAAA"
    "AAAAECAwQFBgcICQoL/8QAtREAAgECBAQDBAcFBAQAAQJ3AAECAxEEBSExBhJBUQdhcRMiMoEIFEKRobHBCSMzUvAVYnLRChYkNOEl8RcYGRom"
    "JygpKjU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6goOEhYaHiImKkpOUlZaXmJmaoqOkpaanqKmqsrO0tba3uLm6wsPExc"
    "bHyMnK0tPU1dbX2Nna4uPk5ebn6Onq8vP09fb3+Pn6/9oADAMBAAIRAxEAPwDlYErRgjqrbp0rUt4+lEafORWp2JoIq0IoeKhiAXAxk1ciDMOu"
    "PpWNWnSi7bs8mrTZy1snStSMbVGOpqlap0rRiXc/04rqUnGl7u7Pp61LUs20VXo8kfLwPWq8a5IUdB1q/GNowoye9cdRqKsnZLr/AJHlVaRy9q"
    "uBn0q/bLtXOKKK6L2in2TZ9JWii/Au1RjqelX4lCLjGTRRXDVfLt0t+J5dWKP/2Q=="
)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_formats_without_loss_give_the_very_pixels(noise, image_file, kind, options):
    pixels = noise(1, 9, 7)
    assert np.array_equal(decode(image_file(pixels, kind, **options)), pixels)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((40, 30), "ee6c7949915d757556674ae37c68a134"),
        ((16, 16), "02b7cdb92a7d87fdd1b1c7e41f8525c5"),
        ((64, 64), "3343ccd31e572d59b46c58050ee7f2db"),
    ],
)
def test_every_pillow_that_is_taken_gives_the_same_pixels_of_a_jpeg(size: tuple[int, int], wanted: str) -> None:
    assert pixel_hash(resize(decode(JPEG), *size)).hex() == wanted


def test_every_pillow_that_is_taken_resizes_alike() -> None:
    """Pillow 11.0 to 12.3 do; 13.0.0 does otherwise where the height shrinks to between a half and all of itself."""
    random, pixels = np.random.default_rng(0), hashlib.sha256()
    for size in ((40, 50), (60, 45), (33, 64), (128, 90)):
        pixels.update(resize(random.integers(0, 256, (*size, 3), dtype=np.uint8), 32, 32).tobytes())
    assert pixels.hexdigest().startswith("2701a6f970600aa1")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_formats_with_loss_give_nearly_the_pixels(image_file, kind):
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    assert np.abs(decode(image_file(pixels, kind, quality=95)).astype(int) - pixels).max() <= 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(image_file, kind):
    frames = [Image.new("RGB", (4, 3), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(image_file(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert pixels.shape == (3, 4, 3)
    assert (pixels == RED).all()


def test_grey_becomes_three_equal_channels(image_file):
    grey = np.array([[0, 7], [128, 255]], np.uint8)
    assert np.array_equal(decode(image_file(grey)), np.stack([grey] * 3, axis=2))


def test_black_and_white_becomes_0_and_255(image_file):
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert decode(image_file(image)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_a_palette_is_looked_up(image_file):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert decode(image_file(image)).tolist() == [[list(RED), list(BLUE)]]


def test_transparent_pixels_become_white_and_half_transparent_ones_are_mixed_with_white(image_file):
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (*RED, 0))
    image.putpixel((2, 0), (*RED, 51))  # a fifth red, four fifths white
    assert decode(image_file(image)).tolist() == [[list(RED), [255, 255, 255], [255, 204, 204]]]


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_colour_that_is_declared_transparent_becomes_white(image_file, mode):
    image = Image.fromarray(np.array([[0, 9]], np.uint8)).convert(mode)
    seen = 0 if mode != "RGB" else (0, 0, 0)
    pixels = decode(image_file(image, transparency=seen))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1].tolist() == [9, 9, 9]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(image_file, kind):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow ink are red
    assert np.abs(decode(image_file(image, kind)).astype(int) - RED).max() <= 4


UPPER = Preprocessing(intensity="upper bits")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_older_runs_keep_the_upper_eight_of_16_bits(image_file, kind):
    wide = np.array([[0x0000, 0x00FF, 0x0100], [0xABCD, 0xFF00, 0xFFFF]], np.uint16)
    pixels = decode(image_file(wide, kind), preprocessing=UPPER)
    assert pixels[..., 0].tolist() == [[0x00, 0x00, 0x01], [0xAB, 0xFF, 0xFF]]
    assert (pixels == pixels[..., :1]).all()


def test_floating_point_pixels_were_refused_by_older_runs_and_still_are(image_file):
    with pytest.raises(UnreadableImageError, match="floating-point"):
        decode(image_file(np.ones((2, 2), np.float32), "TIFF"), preprocessing=UPPER)


UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),  # the camera was held with its right side down
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_an_image_is_turned_as_its_camera_was_held(noise, image_file, orientation):
    stored = noise(3, 4, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(image_file(stored, exif=exif)), UPRIGHT[orientation](stored))


# ── what cannot be read ──────────────────────────────────────────────────────────────────────────────────────────────


def _png_of(width: int, height: int) -> bytes:
    """The head of a black and white PNG of any size, in 70 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(12_000, 10_000), (40_000, 30_000), (100_000_001, 1)])
def test_more_than_100_megapixels_are_refused_before_they_are_decoded(width, height):
    with pytest.raises(UnreadableImageError, match="more than 100 megapixels"):
        decode(_png_of(width, height))


def test_100_megapixels_are_not_too_many():
    with pytest.raises(UnreadableImageError) as raised:  # there are no pixels in this file, but the size is allowed
        decode(_png_of(10_000, 10_000))
    assert "megapixels" not in str(raised.value)


def test_an_empty_file_is_named_so():
    with pytest.raises(UnreadableImageError, match="0 bytes"):
        decode(b"")


def test_text_is_no_image():
    with pytest.raises(UnreadableImageError, match="no image in any known format"):
        decode(b"<html>404 not found</html>")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
def test_a_truncated_file_is_broken_and_never_half_an_image(noise, image_file, kind):
    whole = image_file(noise(4, 40, 40), kind)
    for kept in (0.3, 0.6, 0.9):
        with pytest.raises(UnreadableImageError):
            decode(whole[: int(len(whole) * kept)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_damaged_bytes_give_an_image_or_the_one_error(noise, image_file, kind):
    whole = image_file(noise(5, 12, 12), kind)
    random, reasons = np.random.default_rng(0), set()
    for _ in range(200):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            damaged[place] = random.integers(256)
        try:
            assert decode(bytes(damaged)).dtype == np.uint8
        except UnreadableImageError as error:
            reasons.add(str(error))
    assert reasons
    assert all(reason and "\n" not in reason for reason in reasons)  # one line each in the list of files left out


# ── hash, size, threads ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hash_is_of_the_pixels_and_not_of_the_file(noise, image_file):
    pixels = noise(6)
    assert pixel_hash(decode(image_file(pixels, "PNG"))) == pixel_hash(decode(image_file(pixels, "BMP")))
    assert pixel_hash(pixels) != pixel_hash(noise(7))


def test_images_of_the_same_bytes_and_another_shape_have_another_hash(noise):
    pixels = noise(6, 4, 9)
    assert pixel_hash(pixels) != pixel_hash(pixels.reshape(6, 6, 3))


def test_an_image_of_the_right_size_is_left_alone(noise):
    pixels = noise(8, 5, 6)
    assert resize(pixels, 5, 6) is pixels


def test_a_wide_image_loses_its_sides_and_a_high_one_its_ends():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert (resize(wide, 5, 5)[:, 1:4] == 255).all()
    assert np.array_equal(resize(wide.transpose(1, 0, 2), 5, 5), resize(wide, 5, 5).transpose(1, 0, 2))


def test_one_pixel_is_enlarged_to_one_colour():
    assert (resize(np.full((1, 1, 3), 77, np.uint8), 32, 32) == 77).all()


def test_every_size_can_be_made_of_every_size():
    for side in (*range(1, 150), 499, 1001):  # 49 × 56 to 32 × 32 once missed the image by 1e-15 of a pixel
        for wanted in (32, 37, 147):
            assert resize(np.zeros((side, side + 7, 3), np.uint8), wanted, wanted).shape == (wanted, wanted, 3)
            assert resize(np.zeros((side + 7, side, 3), np.uint8), wanted, wanted).shape == (wanted, wanted, 3)


def test_results_come_in_the_order_of_the_items_whichever_thread_is_first():
    later_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert later_is_done.wait(timeout=30)
        if item == 5:  # in the second chunk of four
            later_is_done.set()
        return item

    assert list(in_parallel(work, range(20), tiny=False, workers=2)) == list(range(20))


def test_only_a_bounded_number_of_items_is_read_ahead():
    read = []
    items = (read.append(index) or index for index in range(10_000))
    results = in_parallel(lambda item: item, items, tiny=False, workers=2)
    next(results)
    assert len(read) <= 4 * (4 * 2 + 1)
    results.close()


def test_an_error_of_a_thread_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda item: 1 // item, range(9), tiny=True))
