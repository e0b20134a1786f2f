"""What is odd about files and the light in them, against the set that they are in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.checks.oddities import Header, Light, light_of, name_depths, odd_files, odd_light, read_headers
from sightline.data.sources.embedded import DigitsSource
from sightline.data.sources.find_source import find_source

Array = np.ndarray[Any, Any]


def headers(*odd: Header, common: int = 20, side: int = 100) -> dict[int, Header]:
    plain = [Header(side, side, "RGB", "JPEG")] * common
    return dict(enumerate([*odd, *plain]))


@pytest.mark.parametrize(
    ("header", "kind", "words"),
    [
        (Header(100, 100, "CMYK", "JPEG"), "mode", "CMYK"),
        (Header(100, 100, "P", "GIF"), "mode", "palette"),
        (Header(100, 100, "P", "GIF", animated=True), "mode", "animated: the first frame"),
        (Header(100, 100, "RGBA", "PNG", transparent=True), "mode", "transparent"),
        (Header(100, 100, "I;16B", "TIFF"), "mode", "16 bits"),
        (Header(300, 300, "RGB", "JPEG"), "size", "300 × 300 px; most have about 100 px a side"),
        (Header(40, 40, "RGB", "JPEG"), "size", "40 × 40 px"),
        (Header(400, 100, "RGB", "JPEG"), "shape", "most are square"),
        (Header(9, 9, "RGB", "JPEG"), "tiny", "9 × 9 px"),
    ],
)
def test_a_file_unlike_the_others_is_odd_and_it_is_said_why(header: Header, kind: str, words: str) -> None:
    found = odd_files(headers(header))
    assert words in found[kind][0]
    assert all(set(places) <= {0} for places in found.values())


@pytest.mark.parametrize(
    "header",
    [Header(100, 100, "L", "PNG"), Header(130, 100, "RGB", "PNG"), Header(100, 133, "RGB", "JPEG")],
)
def test_grey_files_and_usual_sizes_are_not_odd(header: Header) -> None:
    assert not any(odd_files(headers(header)).values())


def test_what_most_of_a_set_is_like_is_not_odd() -> None:
    small = {number: Header(8, 8, "RGBA", "PNG", transparent=True) for number in range(20)}
    assert not any(odd_files(small).values())
    varied = {number: Header(80 + 40 * number, 100 + 30 * number, "RGB", "JPEG") for number in range(40)}
    assert not any(odd_files(varied).values())


def test_no_files_are_not_odd() -> None:
    assert not any(odd_files({}).values())


@pytest.mark.parametrize("kind", ["folder", "tar.xz", "zip"])
def test_headers_are_read_of_what_are_images(
    kind: str, folder: Callable[..., Path], archive: Callable[..., Path], image_file: Callable[..., bytes]
) -> None:
    frames = [Image.new("RGB", (7, 5), colour) for colour in ("red", "blue")]
    contents = {
        "a/1.png": image_file(Image.new("RGBA", (30, 20))),
        "a/2.gif": image_file(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "b/3.jpg": image_file(Image.new("CMYK", (10, 40)), "JPEG"),
        "b/4.jpg": b"no image",
    }
    source = find_source(folder(contents) if kind == "folder" else archive(contents, kind))
    entries = source.scan().entries
    found = {entries[index].path: header for index, header in read_headers(source, entries).items()}
    assert found == {
        "a/1.png": Header(30, 20, "RGBA", "PNG", transparent=True),
        "a/2.gif": Header(7, 5, "P", "GIF", animated=True),
        "b/3.jpg": Header(10, 40, "CMYK", "JPEG"),
    }


def test_pixels_that_are_no_files_have_a_size_only() -> None:
    source = DigitsSource()
    found = read_headers(source, source.scan().entries)
    assert set(found.values()) == {Header(8, 8, "RGB", "")}
    assert len(found) == 1797


def test_light_is_the_mean_and_deviation_of_all_pixels() -> None:
    pixels = np.zeros((3, 2, 2, 3), np.uint8)
    pixels[1] = 255
    pixels[2, 0] = 200
    light = light_of(pixels, np.array([0, 2]))
    assert light.mean_N.tolist() == [0, 100]
    assert light.deviation_N.tolist() == [0, 100]


def test_blank_images_are_found_and_dark_and_bright_ones_among_usual_ones() -> None:
    mean = np.array([*np.linspace(90, 150, 21), 5, 250, 252])
    deviation = np.array([50.0] * 21 + [12, 12, 1])
    found = odd_light(Light(mean, deviation))
    assert {kind: list(places) for kind, places in found.items()} == {"blank": [23], "dark": [21], "bright": [22]}
    assert found["dark"][21].startswith("mean level 5 of 255")


def test_in_a_set_of_dark_images_none_is_too_dark() -> None:
    found = odd_light(Light(np.linspace(2, 19, 20), np.full(20, 30.0)))
    assert not any(found.values())
    assert not any(odd_light(Light(np.empty(0), np.empty(0))).values())


def test_values_of_deep_files_are_named_and_a_few_of_them_among_others_are_odd():
    extremes = np.array([[np.nan, np.nan]] * 8 + [[0.0, 4000.0]] * 2)
    assert name_depths({8: "16 bits a channel"}, extremes) == {
        8: "16 bits a channel, values from 0 to 4,000",
        9: "more than 8 bits a channel, values from 0 to 4,000",
    }
    assert name_depths({0: "a palette (mode P)"}, None) == {0: "a palette (mode P)"}
    assert name_depths({}, extremes[8:]) == {}  # what all are like is no oddity
