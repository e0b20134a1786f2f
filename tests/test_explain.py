"""Explanations of a finished run: sheets, the table, arrays, and what is refused."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from conftest import Finished
from sightline.cli.main import main
from sightline.config.explaining import METHODS, AttributionConfig
from sightline.errors import ConfigError, DataError, RunError
from sightline.explanation.attribution import attribute
from sightline.explanation.explainer import Explainer, quick_method, what_spoke
from sightline.machine import extras
from sightline_runtime.decoding.decode import decode

GRASS, WATER = "grass", "ünder wasser"


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "explanations.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def photos(finished: Finished, tmp_path: Path) -> Path:
    """Three images of grass and water, two of which would have sheets of the same name."""
    folder = tmp_path / "photos"
    for name, source in (("a/one.png", GRASS), ("b/One.jpg", GRASS), ("=two.png", WATER)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(finished.data / source / "007.png").save(folder / name)
    return folder


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_method_explains_every_image_and_says_how_well(finished: Finished, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    found = sightline.explain(finished.run, [photos], out=tmp_path / "out", methods=["all"], arrays=True)
    assert list(found.left_out) == ["attention"]
    methods = [method for method in METHODS if method != "attention"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["explanations.csv"] + [f"{stem}.{end}" for stem in ("=two", "one", "One-2") for end in ("png", "npz")]
    )
    rows = read_table(tmp_path / "out")
    assert [row["method"] for row in rows] == methods * 3
    assert [row["class"] for row in rows[::7]] == [image.label for image in found.images]
    for row in rows:
        assert (row["completeness_gap"] != "") == (row["method"] in ("integrated_gradients", "deeplift"))
        assert float(row["completeness_gap"] or 0) < 0.01
        assert 0 <= float(row["deletion"]) <= 1
        assert 0 <= float(row["insertion_random"]) <= 1
    with np.load(tmp_path / "out" / "one.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == sorted([*methods, "image", "label"])
        assert all(arrays[method].shape == (32, 32) and arrays[method].dtype == np.float32 for method in methods)
        assert str(arrays["image"]).endswith("a/one.png")
    for sheet in found.sheets:
        assert Image.open(sheet).size[0] > 900


def test_the_class_and_its_probability_are_those_of_predict(finished: Finished, photos: Path, tmp_path: Path) -> None:
    found = sightline.explain(finished.run, [photos], out=tmp_path / "out")
    answers = sightline.predict(finished.run, [photos])
    assert found.files == answers.files
    for image, answer in zip(found.images, answers.predictions, strict=True):
        assert image.label == image.predicted == answer.label
        assert abs(image.probability - answer.probability) < 1e-6


def test_a_learned_image_is_said_to_be_no_evidence(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learned = sightline.predict(finished.run, finished.data).learned[0]
    command = ["explain", str(finished.run), learned, "--out", str(tmp_path / "out"), "--method", "grad_cam"]
    assert main([*command, "--no-faithfulness"]) == 0
    assert capsys.readouterr().err.count("the run has learned from this very image") == 1


def test_another_class_is_asked_about_by_its_name(finished: Finished, photos: Path, tmp_path: Path) -> None:
    found = sightline.explain(finished.run, [photos], out=tmp_path / "out", target=WATER, faithfulness=False)
    own = sightline.explain(finished.run, [photos], out=tmp_path / "own", faithfulness=False)
    assert {image.label for image in found.images} == {WATER}
    assert [image.predicted for image in found.images] == [image.label for image in own.images]
    grass = [image.predicted for image in found.images].index(GRASS)
    assert found.images[grass].probability < 0.5
    assert not np.array_equal(found.images[grass].explanations[0].map_HW, own.images[grass].explanations[0].map_HW)
    assert {row["deletion"] for row in read_table(tmp_path / "out")} == {""}
    assert {row["class"] for row in read_table(tmp_path / "out")} == {WATER}


def test_the_most_faithful_quick_method_is_taken_unless_another_is_named(
    finished: Finished, photos: Path, tmp_path: Path
) -> None:
    def used(**arguments: Any) -> set[str]:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        found = sightline.explain(finished.run, [photos], out=out, faithfulness=False, **arguments)
        return {item.method for image in found.images for item in image.explanations}

    assert used() == {"deeplift"}
    assert used(methods=["saliency"]) == {"saliency"}
    assert used(settings={"layer": "groups.2"}) == {"grad_cam"}
    with pytest.raises(ConfigError, match="has no effect on deeplift"):
        used(settings={"samples": 3})


def test_a_layer_and_the_numbers_of_a_method_reach_it(finished: Finished, tmp_path: Path) -> None:
    classifier = sightline.load(finished.run, device="cpu")
    pixels = np.stack([decode((finished.data / GRASS / "001.png").read_bytes())])
    coarse = Explainer(classifier, ["grad_cam"], AttributionConfig(layer="groups.2"))
    (image,) = coarse.explain(pixels, faithfulness=False)
    wanted = attribute(
        *("grad_cam", classifier.network, coarse.images(pixels)),
        torch.tensor([classifier.classes.index(image.label)]),
        AttributionConfig(layer="groups.2"),
    )
    assert np.array_equal(image.explanations[0].map_HW, wanted.maps_BHW[0].numpy())
    (other,) = Explainer(classifier, ["grad_cam"]).explain(pixels, faithfulness=False)
    assert not np.array_equal(other.explanations[0].map_HW, image.explanations[0].map_HW)


def test_page_and_report_show_deeplift_and_grad_cam_where_it_is_not_possible(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = sightline.load(finished.run, device="cpu")
    pixels = np.stack([decode((finished.data / GRASS / "001.png").read_bytes())])
    assert quick_method(classifier) == "deeplift"
    (image,) = Explainer(classifier, ["deeplift"]).explain(pixels, faithfulness=False)
    maps = what_spoke(classifier, pixels, [classifier.classes.index(image.label)], "deeplift")
    assert np.array_equal(maps[0], np.maximum(image.explanations[0].map_HW, 0))

    def refuse(*_: object) -> None:
        raise ConfigError("a layer has no rule.")

    monkeypatch.setattr("sightline.explanation.requirements.refuse_without_rules", refuse)
    assert quick_method(classifier) == "grad_cam"


def test_broken_files_are_named_and_archives_are_read(
    finished: Finished, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", photos)
    assert main(["explain", str(finished.run), packed, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "broken.png: no image in any known format" in printed.err
    assert "deeplift" in printed.out
    assert "random" in printed.out
    assert f"3 sheets and explanations.csv in {tmp_path / 'out'}" in printed.out


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "grad_cams"], "--method grad_cams is unknown; did you mean 'grad_cam'?"),
        (["--method", "all", "saliency"], "--method all saliency: all means every method; leave the others out."),
        (["--method", "saliency", "--layer", "groups.1"], "--layer has no effect on saliency; it is read by grad_cam."),
        (
            ["--method", "occlusion", "--steps", "9"],
            "--steps has no effect on occlusion; it is read by integrated_grad",
        ),
        (
            ["--samples", "3"],
            "--samples has no effect on deeplift; it is read by integrated_gradients_smoothgrad, grad",
        ),
        (["--method", "occlusion", "--window", "3", "--stride", "4"], "--stride (4) is longer than --window (3)"),
        (["--method", "occlusion", "--window", "0"], "--window is 0; it must be at least 1"),
        (["--method", "occlusion", "--window", "99"], "--window 99 is larger than the images (32 px)"),
        (["--method", "gradient_shap", "--noise", "0"], "--noise is 0; it must be above 0"),
        (["--method", "attention"], "this network's head has no attention; choose another method"),
        (["--layer", "group.1"], "--layer group.1: there is no such layer; did you mean 'groups.1'?"),
        (["--layer", "head"], "the layer gives no map of the image; choose another layer."),
        (["--target", "gras"], "--target gras: the classifier knows no such class; did you mean 'grass'?"),
    ],
)
def test_what_is_wrong_or_has_no_effect_is_refused_and_nothing_is_written(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if "occlusion" in arguments or "shap" in " ".join(arguments):
        pytest.importorskip("captum")
    image = str(finished.data / GRASS / "000.png")
    assert main(["explain", str(finished.run), image, "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_filled_folder_missing_images_and_unfinished_runs_are_refused(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    image = finished.data / GRASS / "000.png"
    with pytest.raises(RunError, match="exists and is not an empty folder; choose another --out"):
        sightline.explain(finished.run, [image], out=tmp_path / "full")
    with pytest.raises(DataError, match="no image, folder or archive at"):
        sightline.explain(finished.run, [tmp_path / "nowhere.png"], out=tmp_path / "out")
    with pytest.raises(RunError, match="no run"):
        sightline.explain(tmp_path / "no run", [image], out=tmp_path / "out")
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        sightline.explain(finished.run, [tmp_path / "bad.png"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_captum_only_our_own_methods_go(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = extras.importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name == "captum" else found(name))
    image = finished.data / GRASS / "000.png"
    with pytest.raises(ConfigError, match=r"--method saliency needs captum.*pip install '\.\[explain\]'"):
        sightline.explain(finished.run, [image], out=tmp_path / "out", methods=["all"])
    assert len(sightline.explain(finished.run, [image], out=tmp_path / "out", methods=["grad_cam"]).files) == 1


def test_what_can_be_refused_without_torch_loads_none(finished: Finished, tmp_path: Path) -> None:
    image = str(finished.data / GRASS / "000.png")
    tries = [
        ["explain", str(finished.run), "--out", str(tmp_path / "out")],
        ["explain", str(finished.run), image, "--out", str(tmp_path), "--method", "grad_cam"],
        ["explain", str(finished.run), image, "--out", str(tmp_path / "out"), "--method", "nothing"],
        ["explain", str(finished.run), image, "--out", str(tmp_path / "out"), "--target", "nothing"],
        ["explain", str(tmp_path / "nowhere"), image, "--out", str(tmp_path / "out")],
    ]
    (tmp_path / "filled").touch()
    program = (
        "import sys\nfrom sightline.cli.main import main\n"
        f"assert [main(arguments) for arguments in {tries!r}] == [2] * {len(tries)}\n"
        "assert not {'torch', 'captum', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
