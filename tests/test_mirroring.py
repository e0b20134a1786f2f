"""Mirroring: left out where mirrored images of a class look like another class, or unlike their own; kept of others."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import sightline
from sightline.checks.check import check
from sightline.data.cache import CachedImages, open_images
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.display.reporting import ignore
from sightline.training.mirroring import SWAPPED, measure_mirroring
from sightline.training.preparation import prepare_training
from sightline.training.resume import as_found, changes_since

QUIET = ignore
TURNS = {"right": 0, "down": 1, "left": 2, "up": 3}  # quarter turns, clockwise

Array = np.ndarray[Any, Any]


def arrow(name: str, side: int, random: np.random.Generator) -> Image.Image:
    """Draw an arrow of any color, at any place, a little aslant."""
    dark, bright = random.integers(0, 110, 3), random.integers(145, 256, 3)
    color, background = (dark, bright) if random.random() < 0.5 else (bright, dark)
    image = Image.new("RGB", (side * 4, side * 4), tuple(background.tolist()))
    turn = np.deg2rad(random.uniform(-10, 10) + 90 * TURNS[name])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * side * random.uniform(1, 1.4)
    middle = side * (2 + random.uniform(-0.5, 0.5, 2))
    for line in (((-1, 0), (1, 0)), ((0.3, -0.7), (1, 0), (0.3, 0.7))):
        points = [tuple((middle + rotation @ np.array(point)).tolist()) for point in line]
        ImageDraw.Draw(image).line(points, fill=tuple(color.tolist()), width=side // 3)
    return image.resize((side, side), Image.Resampling.BOX)


def arrows(folder: Path, *names: str, each: int = 20, side: int = 32) -> Path:
    random = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(each):
            arrow(name, side, random).save(folder / name / f"{index}.png")
    return folder


def opened(folder: Path | str) -> CachedImages:
    return open_images(find_source(folder), None)


@pytest.mark.parametrize("side", [16, 32, 120])
def test_arrows_to_the_left_and_right_are_a_pair_whatever_their_size(tmp_path: Path, side: int) -> None:
    images = opened(arrows(tmp_path / "arrows", "left", "right", side=side))
    measured = measure_mirroring(images, images.readable)
    assert measured.pairs == ((0, 1),)
    assert measured.swapped > max(measured.chance, SWAPPED)
    assert "left and right look like one another" in measured.reason(images.classes)


def test_one_pair_among_others_is_named_alone(tmp_path: Path) -> None:
    images = opened(arrows(tmp_path / "arrows", "left", "right", "up", "down"))
    measured = measure_mirroring(images, images.readable)
    assert [[images.classes[label] for label in pair] for pair in measured.pairs] == [["left", "right"]]
    assert measured.unlike == ()


def test_arrows_up_and_down_may_be_mirrored(tmp_path: Path) -> None:
    images = opened(arrows(tmp_path / "arrows", "up", "down"))
    measured = measure_mirroring(images, images.readable)
    assert measured.harmless
    assert measured.accuracy > 0.9
    assert measured.reason(images.classes) == ""


def test_gray_arrows_are_a_pair_too(tmp_path: Path) -> None:
    folder = arrows(tmp_path / "arrows", "left", "right")
    for path in folder.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    images = opened(folder)
    assert measure_mirroring(images, images.readable).pairs == ((0, 1),)


def test_mirrored_digits_look_unlike_their_own() -> None:
    images = opened("digits")
    measured = measure_mirroring(images, split(images).train)
    assert not measured.harmless
    assert measured.lost > 0.6
    concerned = {images.classes[label] for label in (*measured.unlike, *np.ravel(measured.pairs))}
    assert {"3", "4", "6", "7", "9"} <= concerned
    assert not {"0", "8"} & concerned  # which are nearly their own mirror images


def test_the_embedded_photographs_may_be_mirrored() -> None:
    images = opened("groceries")
    assert measure_mirroring(images, split(images).train).harmless


def test_classes_that_nothing_tells_apart_raise_no_alarm(in_memory: Callable[..., CachedImages]) -> None:
    random = np.random.default_rng(0)
    for classes in (2, 3, 5) * 4:
        count = int(random.integers(20, 100))
        labels = (np.arange(count) % classes).tolist()
        images = in_memory(labels, pixels=random.integers(0, 256, (count, 20, 20, 3)).astype(np.uint8))
        assert measure_mirroring(images, images.readable).harmless


@pytest.mark.parametrize("pixels", [np.zeros((12, 8, 8, 3)), np.full((12, 40, 20, 3), 255)])
def test_blank_images_raise_no_alarm(in_memory: Callable[..., CachedImages], pixels: Array) -> None:
    images = in_memory([0, 1] * 6, pixels=pixels.astype(np.uint8))
    assert measure_mirroring(images, images.readable).harmless


def test_classes_of_one_image_and_sets_of_one_class_raise_no_alarm(in_memory: Callable[..., CachedImages]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3)).astype(np.uint8)
    for labels in ([0] * 6, [0, 0, 0, 0, 0, 1], [0, 1, 2, 3, 4, 5]):
        images = in_memory(labels, pixels=pixels)
        assert measure_mirroring(images, images.readable).harmless


def test_what_it_says_depends_on_train_alone_and_is_the_same_every_time(tmp_path: Path) -> None:
    images = opened(arrows(tmp_path / "arrows", "left", "right"))
    train = images.readable[::2]
    first = measure_mirroring(images, train)
    assert measure_mirroring(images, train) == first
    pixels = np.array(images.pixels)
    pixels[1::2] = 0
    assert measure_mirroring(replace(images, pixels=pixels), train) == first


# ── in a training ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recipes_flips_and_views_are_left_out_and_it_says_why(tmp_path: Path) -> None:
    plan = prepare_training(arrows(tmp_path / "arrows", "left", "right"), "small", {}, QUIET)
    assert (plan.recipe.augment.flip, plan.recipe.evaluation.views) == ("none", "one")
    (line,) = [line for line in plan.notes() if "mirrored" in line]
    assert line.startswith("not mirrored: mirrored, left and right look like one another (n = ")


def test_a_finished_run_and_its_report_say_why_images_were_not_mirrored(tmp_path: Path) -> None:
    settings = {"fit": {"epochs": 1}, "evaluation": {"robustness": False}}
    run = sightline.train(
        arrows(tmp_path / "arrows", "left", "right"), recipe="small", settings=settings, run=tmp_path / "run"
    )
    assert run is not None
    line = json.loads((run / "model.json").read_text())["mirroring"]
    assert line.startswith("not mirrored: mirrored, left and right look like one another (n = ")
    assert "Not mirrored: mirrored, left and right look like one another" in (run / "report.html").read_text()


def test_what_may_be_mirrored_is(tmp_path: Path) -> None:
    plan = prepare_training(arrows(tmp_path / "arrows", "up", "down"), "small", {}, QUIET)
    assert (plan.recipe.augment.flip, plan.recipe.evaluation.views) == ("random", "flip")
    assert not any("mirrored" in line for line in plan.notes())


@pytest.mark.parametrize(
    ("recipe", "settings", "expected"),
    [
        ("small", {"augment": {"flip": "random"}}, ("random", "one")),
        ("small", {"evaluation": {"views": "flip"}}, ("none", "flip")),
        ({"name": "own", "augment": {"flip": "alternating"}}, {}, ("alternating", "one")),
    ],
)
def test_what_the_user_set_stays_with_a_warning(
    tmp_path: Path, recipe: Any, settings: Any, expected: tuple[str, str]
) -> None:
    plan = prepare_training(arrows(tmp_path / "arrows", "left", "right"), recipe, settings, QUIET)
    assert (plan.recipe.augment.flip, plan.recipe.evaluation.views) == expected
    (line,) = [line for line in plan.notes() if line.startswith("warning: ")]
    assert "as asked" in line


def test_photographs_by_auto_are_set_aside_where_the_backbone_cannot_tell_left_from_right(tmp_path: Path) -> None:
    folder = arrows(tmp_path / "arrows", "left", "right", each=70, side=72)
    plan = prepare_training(folder, "auto", {}, QUIET)
    assert plan.rival == "small"
    assert plan.splits.counts() == {"train": 90, "validation": 22, "test": 28}
    assert plan.recipe.data.validation == 22
    assert any("so recipe small is tried besides" in line for line in plan.notes())


def test_photographs_that_may_be_mirrored_are_cross_validated_as_before(tmp_path: Path) -> None:
    plan = prepare_training(arrows(tmp_path / "arrows", "up", "down", each=70, side=72), "auto", {}, QUIET)
    assert plan.splits.cross_validated
    assert plan.recipe.augment.flip == "random"


def test_a_run_that_was_mirrored_by_an_earlier_version_goes_on_so(tmp_path: Path) -> None:
    folder, run = arrows(tmp_path / "arrows", "left", "right"), tmp_path / "run"
    sightline.train(
        folder,
        recipe="small",
        settings={"augment": {"flip": "random"}, "evaluation": {"views": "flip", "on": "none"}, "fit": {"epochs": 1}},
        run=run,
    )
    plan = prepare_training(folder, "small", {"evaluation": {"on": "none"}, "fit": {"epochs": 1}}, QUIET)
    assert plan.recipe.augment.flip == "none"
    assert changes_since(run, plan) == []
    assert as_found(plan, run).recipe.augment.flip == "random"


def test_the_recipe_of_a_run_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, run = arrows(tmp_path / "arrows", "left", "right"), tmp_path / "run"
    sightline.train(folder, recipe="small", settings={"fit": {"epochs": 1}, "evaluation": {"on": "none"}}, run=run)
    monkeypatch.setattr("sightline.training.mirror_choice.measure_mirroring", None)
    plan = prepare_training(None, str(run / "recipe.yaml"), {}, QUIET)
    assert (plan.recipe.augment.flip, plan.recipe.evaluation.views) == ("none", "one")


def test_check_lists_the_classes(tmp_path: Path) -> None:
    checked = check(arrows(tmp_path / "arrows", "left", "right"), out=tmp_path / "out")
    found = [item for item in checked.findings if item.kind == "mirrored"]
    assert [(item.label, item.detail) for item in found] == [
        (0, "mirrored, it looks like right"),
        (1, "mirrored, it looks like left"),
    ]
    assert "Classes that look otherwise when mirrored" in (tmp_path / "out" / "check.html").read_text()
