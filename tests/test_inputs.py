"""By whatever way an image comes to a classifier, it is read as its file is, to the bit. Nothing here loads torch."""

import io
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.errors import DataError
from sightline_runtime.decoding.decode import UnreadableImageError, read_image
from sightline_runtime.decoding.preprocessing import Preprocessing
from sightline_runtime.inputs import _png_of, as_list, read_input

SIZE = (24, 24)
HOWS = [Preprocessing(fit, intensity) for fit in ("crop", "pad") for intensity in ("own", "upper bits", (0.0, 4095.0))]


def picture(mode: str, seed: int = 0) -> Image.Image:
    """A wide image of a mode, of values that spread over all that it holds."""
    random = np.random.default_rng(seed)
    channels = {"RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4, "L": 1, "P": 3, "1": 1}.get(mode, 1)
    if mode in ("I;16", "I", "F"):
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray(random.integers(0, 4096, (20, 34)).astype(kind))
    values = random.integers(0, 256, (20, 34, channels), np.uint8)
    if mode == "1":
        return Image.fromarray(values[..., 0]).convert("1")
    if mode == "P":
        return Image.fromarray(values).quantize(7)
    return Image.fromarray(values[..., 0] if channels == 1 else values, mode if mode in ("CMYK",) else None)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(side: int) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = side
    return {"exif": exif}


FILES: dict[str, Callable[[], bytes]] = {
    "grey": lambda: saved(picture("L"), "PNG"),
    "RGB": lambda: saved(picture("RGB"), "PNG"),
    "JPEG": lambda: saved(picture("RGB"), "JPEG"),
    "CMYK": lambda: saved(picture("CMYK"), "JPEG"),
    "opacity": lambda: saved(picture("RGBA"), "PNG"),
    "grey with opacity": lambda: saved(picture("LA"), "PNG"),
    "palette": lambda: saved(picture("P"), "PNG"),
    "palette with one transparent": lambda: saved(picture("P"), "PNG", transparency=2),
    "color that is transparent": lambda: saved(Image.new("RGB", (30, 20), (9, 9, 9)), "PNG", transparency=(9, 9, 9)),
    "two levels": lambda: saved(picture("1"), "PNG"),
    "16 bits": lambda: saved(picture("I;16"), "PNG"),
    "16 bits, TIFF": lambda: saved(picture("I;16"), "TIFF"),
    "32 bits, TIFF": lambda: saved(picture("I"), "TIFF"),
    "fractions, TIFF": lambda: saved(picture("F"), "TIFF"),
    "16 bits a color": lambda: _png_of(np.random.default_rng(1).integers(0, 4096, (20, 34, 3)).astype(np.uint16)),
    "16 bits a color, with opacity": lambda: _png_of(
        np.random.default_rng(1).integers(0, 65536, (20, 34, 4)).astype(np.uint16)
    ),
    "animation": lambda: saved(picture("P"), "GIF", save_all=True, append_images=[picture("P", 1)]),
    "WebP": lambda: saved(picture("RGBA"), "WEBP", lossless=True),
    **{f"turned {side}": (lambda side=side: saved(picture("RGB"), "JPEG", **turned(side))) for side in range(1, 9)},
    "16 bits, turned": lambda: saved(picture("I;16"), "PNG", **turned(6)),
}


def expected_of(data: bytes, how: Preprocessing) -> Any:
    try:
        return read_image(data, SIZE, how).pixels.tobytes()
    except UnreadableImageError as error:
        return type(error)


def found_of(image: Any, how: Preprocessing) -> Any:
    try:
        pixels = read_input(image, SIZE, how)
        assert pixels.shape == (*SIZE, 3)
        assert pixels.dtype == np.uint8
        return pixels.tobytes()
    except UnreadableImageError as error:
        return type(error)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_read_the_same_by_every_way(tmp_path: Path, kind: str) -> None:
    data = FILES[kind]()
    path = tmp_path / "image"
    path.write_bytes(data)
    stream = io.BytesIO(data)
    stream.seek(len(data))  # as after writing to it
    for how in HOWS:
        expected = expected_of(data, how)
        ways: dict[str, Any] = {
            "text": str(path),
            "path": path,
            "bytes": data,
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "stream at its end": stream,
            "Pillow, of a path": Image.open(path),
            "Pillow, of a stream": Image.open(io.BytesIO(data)),
        }
        loaded = Image.open(path)
        loaded.load()
        ways["Pillow, loaded"] = loaded
        with path.open("rb") as file:
            ways["open file"] = file
            assert {name: found_of(way, how) == expected for name, way in ways.items()} == dict.fromkeys(ways, True)
        assert stream.tell() == len(data)


@pytest.mark.parametrize(
    "kind", ["grey", "RGB", "opacity", "grey with opacity", "16 bits", "32 bits, TIFF", "two levels"]
)
def test_the_array_of_a_file_is_read_as_the_file(kind: str) -> None:
    data = FILES[kind]()
    array = np.asarray(Image.open(io.BytesIO(data)))
    for how in HOWS:
        assert found_of(array, how) == expected_of(data, how)
        assert found_of(np.asfortranarray(array), how) == expected_of(data, how)
        if array.ndim == 2:
            assert found_of(array[..., None], how) == expected_of(data, how)


def test_an_array_of_fractions_is_read_as_its_tiff() -> None:
    image = picture("F")
    for how in HOWS:
        assert found_of(np.asarray(image), how) == expected_of(saved(image, "TIFF"), how)


def test_colors_of_16_bits_come_as_an_array_too() -> None:
    for channels in (1, 2, 3, 4):
        array = np.random.default_rng(1).integers(0, 4096, (20, 34, channels)).astype(np.uint16)
        for how in HOWS:
            assert found_of(array, how) == expected_of(_png_of(array), how)
            assert found_of(array.byteswap().view(array.dtype.newbyteorder()), how) == expected_of(_png_of(array), how)


def test_the_images_of_a_caller_stay_as_they_are(tmp_path: Path) -> None:
    for kind in ("turned 6", "opacity", "16 bits", "palette"):
        image = Image.open(io.BytesIO(FILES[kind]()))
        before = image.copy()
        read_input(image, SIZE, HOWS[0])
        assert (image.mode, image.size, image.tobytes()) == (before.mode, before.size, before.tobytes())
    array = np.zeros((8, 8, 3), np.uint8)
    array.flags.writeable = False
    read_input(array, SIZE, HOWS[0])


def test_what_was_changed_since_it_was_opened_is_read_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FILES["16 bits a color"]())
    image = Image.open(tmp_path / "a.png")
    image.load()
    image.paste((255, 0, 0), (0, 0, 34, 20))
    assert set(map(tuple, read_input(image, SIZE, HOWS[0]).reshape(-1, 3))) == {(255, 0, 0)}
    image = Image.open(tmp_path / "a.png")
    image.load()
    (tmp_path / "a.png").unlink()
    read_input(image, SIZE, HOWS[0])


def test_one_image_is_told_from_many(tmp_path: Path) -> None:
    one = np.zeros((4, 5, 3), np.uint8)
    path, image, data = tmp_path / "a.png", Image.new("RGB", (3, 3)), b"x"
    for single in ("a.png", path, data, bytearray(data), memoryview(data), io.BytesIO(data), image, one, one[..., 0]):
        assert as_list(single) == ([single], True) if not isinstance(single, np.ndarray) else as_list(single)[1]
    for many in ([], ["a.png", path], (image,), iter([one, data]), {"a.png": 1}.keys(), {path}):
        assert as_list(many)[1] is False
    assert [image.shape for image in as_list(np.zeros((6, 4, 5, 3), np.uint8))[0]] == [(4, 5, 3)] * 6
    assert as_list(np.array(["a.png", "b.png"])) == (["a.png", "b.png"], False)
    assert as_list(np.array([path, path], object)) == ([path, path], False)
    for wrong in (None, 3, 2.5, print):
        with pytest.raises(
            DataError, match=r"is no image; wanted a path, bytes, an open file, a Pillow image or an array"
        ):
            as_list(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 3), np.float32), "an array of float32; wanted uint8"),
        (np.zeros((4, 4), np.int64), "an array of int64; wanted uint8"),
        (np.zeros((4, 4, 5), np.uint8), r"an array of shape \(4, 4, 5\); wanted \(height, width\)"),
        (np.zeros((0, 4, 3), np.uint8), r"an array of shape \(0, 4, 3\)"),
        (np.zeros((9, 64, 64), np.uint8), r"an array of shape \(9, 64, 64\)"),
        (np.zeros((1, 2, 3, 4, 5), np.uint8), "an array of shape"),
        (np.zeros((4, 4, 3), np.complex64), "an array of complex64"),
        (np.array("x"), "str; wanted"),
        (3, "int; wanted"),
        (b"", "the file is empty"),
        (b"no image", "no image in any known format"),
        (io.BytesIO(b""), "the file is empty"),
        (io.StringIO("x"), "its read.. gives str; open the file in binary"),
        ("https://example.org/a.png", "it is an address, and nothing is downloaded"),
        ("a\0b", "embedded null"),
        ("/dev/zero", "it is a device; wanted a file"),
        (".", "it is a folder"),
    ],
)
def test_what_is_no_image_has_a_reason(image: Any, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        read_input(image, SIZE, HOWS[0])


def test_a_pillow_image_that_cannot_be_loaded_has_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(FILES["RGB"]()[:-60])
    with pytest.raises(UnreadableImageError):
        read_input(Image.open(path), SIZE, HOWS[0])
    path.write_bytes(FILES["RGB"]())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as closed:
            pass
    with pytest.raises(UnreadableImageError):
        read_input(closed, SIZE, HOWS[0])


def test_a_pillow_image_whose_format_starts_another_program_is_not_loaded(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    with Image.open(tmp_path / "a.eps") as image, pytest.raises(UnreadableImageError, match="of the format EPS"):
        read_input(image, SIZE, HOWS[0])


def test_all_files_above_differ_or_are_refused() -> None:
    """Else equal pixels would say nothing of how they were read."""
    seen = {kind: expected_of(make(), HOWS[0]) for kind, make in FILES.items()}
    same = {(a, b) for a, b in itertools.combinations(seen, 2) if seen[a] == seen[b]}
    assert len(set(seen.values())) > 18, same
