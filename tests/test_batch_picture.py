"""The picture of a batch: what is on it, that it is whole, and that drawing it draws no random number."""

import io
import random
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.batches import Batch, Normalization
from sightline.display import pictures
from sightline.display.pictures import Panel, draw_explanation, heat_layer
from sightline.training import batch_picture
from sightline.training.batch_picture import draw_batch

NORMALIZATION = Normalization([0.5, 0.4, 0.3], [0.2, 0.25, 0.0])


def _batch(count: int, side: int, colour: tuple[int, int, int] = (200, 100, 0), mixed: bool = False) -> Batch:
    """Images of one colour, 0 to 255, as the network is given them."""
    mean, std = NORMALIZATION.tensors(torch.device("cpu"))
    values = (torch.tensor(colour) / 255 - mean) / std
    labels = torch.arange(count) % 2
    mixing = (1 - labels, torch.full((count,), 0.75)) if mixed else (None, None)
    return Batch(values[None, :, None, None].expand(count, 3, side, side), labels, 0, 0, 1.0, *mixing)


def _read(path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


@pytest.mark.parametrize("side", [16, 22, 32, 80, 128, 400])
def test_images_of_every_size_have_their_own_colour_and_a_size_to_look_at(tmp_path, side):
    draw_batch(tmp_path / "batch.png", _batch(3, side), NORMALIZATION, ["a", "b"])
    page = _read(tmp_path / "batch.png")
    shown = (page == (200, 100, 0)).all(axis=2)
    rows, columns = shown.any(axis=1).nonzero()[0], shown.any(axis=0).nonzero()[0]
    assert 100 <= len(rows) <= 210
    assert len(columns) == 3 * len(rows)
    assert columns[-1] < page.shape[1]


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (8, 8), (9, 9), (64, 64), (1000, 64)])
def test_up_to_eight_rows_of_eight_are_shown(tmp_path, count, shown):
    draw_batch(tmp_path / "batch.png", _batch(count, 16), NORMALIZATION, ["a", "b"])
    pixels = (_read(tmp_path / "batch.png") == (200, 100, 0)).all(axis=2).sum()
    assert pixels == shown * 128 * 128


def test_black_and_white_images_stand_out_from_the_page(tmp_path):
    for colour in ((0, 0, 0), (255, 255, 255)):
        draw_batch(tmp_path / "batch.png", _batch(1, 16, colour), NORMALIZATION, ["a", "b"])
        page = _read(tmp_path / "batch.png")
        assert (page == colour).all(axis=2).sum() >= 128 * 128
        assert tuple(page[0, 0]) == (0xE0,) * 3


def test_a_mixed_image_names_both_classes_and_their_shares(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(batch_picture, "draw_labeled", lambda path, pixels, labels, heading: drawn.append(labels))
    draw_batch(tmp_path / "batch.png", _batch(2, 16, mixed=True), NORMALIZATION, ["cat", "dog"])
    draw_batch(tmp_path / "batch.png", _batch(2, 16), NORMALIZATION, ["cat", "dog"])
    assert [[pictures._title(label, 22) for label in labels] for labels in drawn] == [
        [["cat, 75%", "dog, 25%"], ["dog, 75%", "cat, 25%"]],
        [["cat"], ["dog"]],
    ]


def test_a_long_name_keeps_both_its_ends():
    assert pictures._short("n02123159 tiger cat, indoors", 15) == "n0212315…ndoors"
    assert pictures._short("tiger cat", 9) == "tiger cat"


def test_names_of_any_letters_are_drawn_without_a_warning(tmp_path):
    names = ["$\\frac{1$", "貓\n\udc80\x00" + "W" * 300]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_batch(tmp_path / "batch.png", _batch(8, 16), NORMALIZATION, names)
    page = _read(tmp_path / "batch.png")
    assert (page[:, -4:] == 0xE0).all()  # the widest name ends within its cell


def test_drawing_draws_no_random_number_and_leaves_one_whole_file(tmp_path):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    draw_batch(tmp_path / "batch.png", _batch(4, 16), NORMALIZATION, ["a", "b"])
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())
    assert [path.name for path in tmp_path.iterdir()] == ["batch.png"]


# ── explanations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _sheet(tmp_path, map_HW, signed, panels=1):
    pixels = np.full((32, 32, 3), (200, 100, 0), np.uint8)
    panel = Panel("a method", map_HW, signed, ["a note"])
    draw_explanation(tmp_path / "sheet.png", pixels, ["a.png", "class cat"], [panel] * panels)
    return _read(tmp_path / "sheet.png")


@pytest.mark.parametrize("panels", [1, 4, 5, 8])
def test_a_sheet_shows_the_image_once_each_pixel_six_times_as_wide(tmp_path, panels):
    page = _sheet(tmp_path, np.zeros((32, 32), np.float32), True, panels)
    assert (page == (200, 100, 0)).all(axis=2).sum() == 192 * 192
    overlays = (page == (100, 100, 100)).all(axis=2).sum()  # of nothing: the image in grey, and some edges of letters
    assert panels * 192 * 192 <= overlays < (panels + 0.1) * 192 * 192


def test_what_speaks_for_a_class_is_red_and_what_speaks_as_much_against_it_is_as_blue(tmp_path):
    map_HW = np.zeros((32, 32), np.float32)
    map_HW[:, :8], map_HW[:, 24:] = 2, -1  # the ends of the colours are 2 and -2
    page = _sheet(tmp_path, map_HW, True).astype(int)
    red, blue = page[..., 0] - page[..., 2], page[..., 2] - page[..., 0]
    line = 100  # pixels below the top: within the tiles
    heat = slice(220, 220 + 192)  # behind the image and the space on both its sides
    assert (page[line] == (103, 0, 31)).all(axis=1).sum() >= 8 * 6  # the darkest red of the colours
    assert (red[line, heat] > 60).sum() == 8 * 6
    assert (blue[line, heat] > 60).sum() == 8 * 6
    assert blue.max() < 160  # half as strong: never the darkest blue


def test_a_map_of_nothing_and_one_of_a_single_pixel_are_drawn(tmp_path):
    map_HW = np.zeros((32, 32), np.float32)
    assert _sheet(tmp_path, map_HW, False).any()
    map_HW[3, 3] = 1
    page = _sheet(tmp_path, map_HW, False)
    assert (page == (252, 255, 164)).all(axis=2).sum() >= 36  # the lightest of the colours: six pixels each way


def test_a_map_lies_over_its_image_clear_where_it_is_nothing_and_in_colour_where_it_is_most():
    layer = heat_layer(np.array([[0.0, 1.0], [2.0, 4.0]]), signed=False)
    assert layer.shape == (2, 2, 4)
    assert layer.dtype == np.uint8
    assert layer[0, 0, 3] == 0
    assert layer[1, 1, 3] >= 254  # a few pixels may lie beyond the end of the colours
    assert layer[0, 1, 3] < layer[1, 0, 3]
    assert heat_layer(np.zeros((2, 2)), signed=False)[..., 3].max() == 0


def test_a_map_of_either_sign_is_red_for_the_class_and_blue_against_it():
    red, blue = heat_layer(np.array([[3.0, -3.0]]), signed=True)[0].astype(int)
    assert red[0] > red[2] + 80
    assert blue[2] > blue[0] + 80
    assert red[3] == blue[3] == 255
