"""How images of another shape become square, what that hides, and who is told."""

import io
import json

import numpy as np
import pytest

from sightline.data.cache import open_images
from sightline.data.ranges import notes_on_reading
from sightline.data.sizing import hidden_share, training_size, warn_of_hidden
from sightline.data.sources.find_source import find_source
from sightline.display.lines import Lines
from sightline.display.reporting import ignore
from sightline_runtime.decoding.decode import resize
from sightline_runtime.decoding.preprocessing import Preprocessing


def ends(color: int, number: int, height: int = 16, width: int = 160) -> np.ndarray:
    """A strip that shows its class at both ends alone: red or blue."""
    pixels = np.random.default_rng(number).integers(60, 100, (height, width, 3), np.uint8)
    pixels[:, : width // 8, color] += 120
    pixels[:, -width // 8 :, color] += 120
    return pixels


@pytest.fixture
def strips(folder, image_file):
    """Two classes of wide images that are told apart by their ends."""
    return folder(
        {
            f"{name}/{n:02d}.png": image_file(ends(c, 100 * c + n))
            for c, name in ((0, "red"), (2, "blue"))
            for n in range(40)
        }
    )


@pytest.mark.parametrize(
    ("size", "share"), [((100, 100), 0), ((300, 400), 0.25), ((200, 300), 1 / 3), ((64, 640), 0.9), ((640, 64), 0.9)]
)
def test_the_crop_hides_what_is_beyond_the_square(size, share):
    assert hidden_share(size, (32, 32)) == pytest.approx(share)


def test_nothing_is_hidden_of_images_of_the_same_shape():
    assert hidden_share((40, 60), (20, 30)) == pytest.approx(0)


def test_over_a_third_is_warned_of_and_a_usual_photograph_is_not():
    assert warn_of_hidden((300, 400), (128, 128), "crop") == []
    assert warn_of_hidden((333, 500), (128, 128), "crop") == []
    (line,) = warn_of_hidden((90, 160), (128, 128), "crop")
    assert line == (
        "warning: the crop to the center hides 44% of the median image (160 × 90 px); --data.fit squash or pad shows all of it"
    )
    assert warn_of_hidden((64, 640), (48, 48), "squash") == warn_of_hidden((64, 640), (48, 48), "pad") == []


def test_squash_shows_the_ends_and_pad_keeps_the_shape():
    wide = np.full((10, 40, 3), 100, np.uint8)
    wide[:, :4], wide[:, -4:] = 255, 0
    squashed, padded = resize(wide, 20, 20, "squash"), resize(wide, 20, 20, "pad")
    assert (squashed[:, 0] > 230).all()
    assert (squashed[:, -1] < 25).all()
    assert (padded[:7] == 0).all()
    assert (padded[-7:] == 0).all()
    assert (padded[8:12, 0] > 230).all()
    assert (resize(wide, 20, 20)[:, 5:15] == 100).all()  # the crop sees none of them


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 999), (999, 1), (3, 64), (7, 5)])
def test_every_shape_fits_every_way(fit, shape):
    assert resize(np.full((*shape, 3), 9, np.uint8), 16, 24, fit).shape == (16, 24, 3)


def test_what_is_not_to_be_cut_is_cached_without_a_margin():
    assert training_size([(400, 800)], None) == ((128, 128), (147, 147))
    assert training_size([(400, 800)], None, fit="squash") == ((128, 128), (128, 128))
    assert training_size([(400, 800)], 64, fit="pad") == ((64, 64), (64, 64))


def test_another_fit_is_another_cache_and_the_set_knows_its_median(strips):
    source = find_source(strips)
    images = {fit: open_images(source, preprocessing=Preprocessing(fit)) for fit in ("crop", "squash", "pad")}
    assert {one.median for one in images.values()} == {(16, 160)}
    assert len({one.folder for one in images.values()}) == 3
    assert len({one.fingerprint for one in images.values()}) == 1
    assert "hides 90% of the median image (160 × 16 px)" in " ".join(notes_on_reading(images["crop"]))
    assert notes_on_reading(images["squash"]) == []


QUICK = {"fit": {"epochs": 4, "batch_size": 16}, "network": {"kind": "speednet", "widths": [8, 16, 16]}}


def test_squashed_strips_are_told_apart_and_a_run_keeps_the_fit(strips, tmp_path):
    from rich.console import Console

    import sightline
    from sightline.inference.predict import load

    said = io.StringIO()
    console = Console(file=said, width=200)
    settings = {**QUICK, "data": {"fit": "squash"}}
    run = sightline.train(strips, recipe="small", settings=settings, run=tmp_path / "run", on_event=Lines(console))
    assert "warning: the crop" not in said.getvalue()
    model = json.loads((run / "model.json").read_text())
    assert (model["fit"], model["intensity"]) == ("squash", None)
    assert model["metrics"]["accuracy"] == 1
    assert sightline.evaluate(run)["accuracy"] == 1
    assert sightline.evaluate(run, strips)["accuracy"] == 1
    answers = load(run).predict(sorted(strips.glob("*/*.png")))
    assert [answer.label for answer in answers] == ["blue"] * 40 + ["red"] * 40
    dry = io.StringIO()
    sightline.train(strips, recipe="small", settings=QUICK, dry_run=True, on_event=Lines(Console(file=dry, width=200)))
    assert "warning: the crop to the center hides 90% of the median image (160 × 16 px)" in dry.getvalue()


@pytest.mark.parametrize(("width", "fit"), [(160, "squash"), (28, "crop")])
def test_auto_squashes_only_where_over_half_would_be_hidden(folder, image_file, width, fit):

    from sightline.training.preparation import prepare_training

    contents = {f"{name}/{n}.png": image_file(ends(0, n, 70, 70 * width // 16)) for name in "ab" for n in range(20)}
    plan = prepare_training(folder(contents), "auto", {}, ignore)
    assert plan.recipe.data.fit == plan.images.preprocessing.fit == fit
    assert ("--data.fit squash: the crop to the center would hide 90% of the median image" in plan.why) == (
        fit == "squash"
    )


def test_auto_leaves_a_fit_that_was_asked_for(strips):

    from sightline.training.preparation import prepare_training

    plan = prepare_training(strips, "auto", {"data": {"fit": "crop"}}, ignore)
    assert plan.recipe.data.fit == "crop"


def test_a_check_warns_as_well(strips, tmp_path):
    from sightline.checks.check import check

    found = check(strips, out=tmp_path / "check")
    assert any("the crop to the center hides 90% of the median image" in line for line in found.notes)
    assert "hides 90% of the median image" in (tmp_path / "check" / "check.html").read_text()
