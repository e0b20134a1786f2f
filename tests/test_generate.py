"""From an image set to a generator, and from a generator to an image set; and back into both after a kill."""

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import sightline
from conftest import Finished, coloured_folder
from sightline.cli.main import main
from sightline.config.generators import KeepConfig, SamplingConfig
from sightline.config.resolving import merge
from sightline.data.batches import prepare
from sightline.data.sources.entries import class_folder, lay_out
from sightline.data.sources.find_source import find_source
from sightline.display.lines import Lines
from sightline.errors import ConfigError, RunError, StorageError
from sightline.generation import generate as generating
from sightline.generation.filter import Filter
from sightline.generation.generate import SCORES, Generated, generate
from sightline.generation.generator import Generator
from sightline.generation.sequence import COLUMNS
from sightline.runs import folder as runs
from sightline.training import datamodule as data
from sightline.training import module
from sightline.training.callbacks import samples

TINY = {
    "data": {"size": 16},
    "generator": {"widths": [16, 16], "patch": 2, "noise_steps": 50, "last_noise": 0.2},
    "fit": {"epochs": 3, "batch_size": 16},
}
"""Settings that train in a second or two."""
QUICKLY = SamplingConfig(steps=3, guidance=1.0)
CLASSES = ["=blood", "grass", "ünder wasser"]


class Killed(BaseException):
    """As a kill, nothing catches it."""


def train(images: Path, run: Path, /, **settings: Any) -> Path:
    made = sightline.train(images, recipe="ddpm", settings=merge(TINY, settings), run=run)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def finished_generator(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One training for all tests that only read a run. Copy the run before changing it."""
    root = tmp_path_factory.mktemp("generator")
    images = coloured_folder(root / "colours", images=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(root / "cache"))
        patch.setattr("sightline.training.callbacks.cost.convolution_flops", lambda *_: 1e9)
        return Finished(train(images, root / "run"), images, root / "cache")


@pytest.fixture
def generator(finished_generator: Finished, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished_generator.cache))
    monkeypatch.setattr(generating, "BATCH", 4)
    return finished_generator.run


def dying(patch: pytest.MonkeyPatch, owner: Any, name: str, calls: int, error: type[BaseException] = Killed) -> None:
    """Let a function raise at one of its calls, counted from 1."""
    work, count = getattr(owner, name), 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count == calls:
            raise error("no more")
        return work(*arguments, **named)

    patch.setattr(owner, name, counted)


def same_bits(one: Path, other: Path) -> bool:
    left, right = (runs.read_weights(run / "model.safetensors")[0] for run in (one, other))
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)


def epochs_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if "second" not in name} for row in csv.DictReader(file)]


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_run_of_a_generator_holds_what_the_manual_says_and_nothing_else(generator: Path) -> None:
    found = sorted(path.relative_to(generator).as_posix() for path in generator.rglob("*") if path.is_file())
    assert found == [
        *("DONE", "batch.png", "metrics.csv", "model.json", "model.safetensors", "recipe.yaml"),
        *("report.html", "samples/epoch-003.png", "seen.npz"),
    ]


def test_a_generator_knows_its_classes_size_losses_and_cost_and_the_test_split_was_not_read(generator: Path) -> None:
    model = runs.read_model(generator)
    assert (model["kind"], model["classes"], model["size"]) == ("diffusion", CLASSES, [16, 16])
    assert model["data"]["counts"] == {"train": 39, "validation": 9, "test": 12}
    assert model["losses"]["n"] == 9
    assert model["cost"]["training_flops"] > 0
    assert "test_readings" not in model
    assert "metrics" not in model
    rows = epochs_of(generator)
    assert list(rows[0]) == ["epoch", "train_loss", "val_loss", "learning_rate"]
    assert float(rows[-1]["val_loss"]) == model["losses"]["val_loss"] < float(rows[0]["val_loss"])
    assert runs.read_weights(generator / "model.safetensors")[1] == model


def test_a_generator_is_trained_on_train_and_validated_on_validation_and_on_nothing_else(
    generator: Path, finished_generator: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {"TrainingBatches": set(), "EvaluationBatches": set()}
    for name, rows in seen.items():
        made = getattr(data, name).__init__

        def noting(
            self: Any, images: Any, chosen: Any, *more: Any, made: Any = made, rows: Any = rows, **how: Any
        ) -> None:
            rows.update(chosen.tolist())
            made(self, images, chosen, *more, **how)

        monkeypatch.setattr(getattr(data, name), "__init__", noting)
    sightline.train(recipe=generator / "recipe.yaml", settings={"fit": {"epochs": 2}}, run=tmp_path / "run")
    recipe = runs.read_any_recipe(generator)
    _, splits, _ = prepare(find_source(finished_generator.data), recipe)
    assert seen["TrainingBatches"] == set(splits.train.tolist())
    assert seen["EvaluationBatches"] == set(splits.validation.tolist())
    assert len(splits.test)


def test_the_recipe_of_a_generators_run_trains_the_same_again_and_another_seed_does_not(
    generator: Path, tmp_path: Path
) -> None:
    again = sightline.train(recipe=generator / "recipe.yaml", run=tmp_path / "again")
    other = sightline.train(recipe=generator / "recipe.yaml", settings={"fit": {"seed": 7}}, run=tmp_path / "other")
    assert again is not None
    assert other is not None
    assert same_bits(generator, again)
    assert epochs_of(generator) == epochs_of(again)
    assert (generator / "samples/epoch-003.png").read_bytes() == (again / "samples/epoch-003.png").read_bytes()
    assert not same_bits(generator, other)


@pytest.mark.parametrize(
    ("method", "call"),
    [("training_step", 2), ("training_step", 6), ("validation_step", 3)],
    ids=["before the first checkpoint", "within an epoch", "in the last validation"],
)
def test_a_killed_training_ends_in_the_same_bits(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    settings = {"fit": {"checkpoint_seconds": 0}, "generator": {"dropout": 0.2}}
    whole = sightline.train(recipe=generator / "recipe.yaml", settings=settings, run=tmp_path / "whole")
    with monkeypatch.context() as patch:
        dying(patch, module.DiffusionLearner, method, call)
        with pytest.raises(Killed):
            sightline.train(recipe=generator / "recipe.yaml", settings=settings, run=tmp_path / "run")
    run = sightline.train(recipe=generator / "recipe.yaml", settings=settings, run=tmp_path / "run", resume=True)
    assert whole is not None
    assert run is not None
    assert same_bits(whole, run)
    assert epochs_of(whole) == epochs_of(run)
    losses = [runs.read_model(folder)["losses"] for folder in (whole, run)]
    assert losses[0] == losses[1]


def test_a_generator_is_resumed_with_the_same_settings_only(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        dying(patch, module.DiffusionLearner, "training_step", 6)
        with pytest.raises(Killed):
            sightline.train(recipe=generator / "recipe.yaml", run=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"generator.drop_labels was 0.1 and is 0.3"):
        sightline.train(
            recipe=generator / "recipe.yaml",
            settings={"generator": {"drop_labels": 0.3}},
            run=tmp_path / "run",
            resume=True,
        )
    with pytest.raises(RunError, match="is not a finished run"):
        generate(tmp_path / "run", out=tmp_path / "out")


def test_a_picture_of_samples_that_fails_costs_a_line_and_nothing_else(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying(monkeypatch, samples, "draw_samples", 1, OSError)
    console = Console(record=True, width=200)
    run = sightline.train(recipe=generator / "recipe.yaml", run=tmp_path / "run", on_event=Lines(console))
    assert "no picture of samples: no more" in console.export_text()
    assert run is not None
    assert same_bits(generator, run)


def test_sides_that_the_levels_cannot_halve_are_refused_before_the_first_step(
    generator: Path, tmp_path: Path, finished_generator: Finished
) -> None:
    with pytest.raises(
        ConfigError, match=r"images of 32 px cannot be halved 4 times in patches of 4 px.*multiple of 64"
    ):
        train(
            finished_generator.data, tmp_path / "run", data={"size": None}, generator={"widths": [48] * 5, "patch": 4}
        )
    assert not (tmp_path / "run").exists()


# ── generating ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_images_lie_in_folders_of_their_classes_with_a_manifest_and_nothing_else(
    generator: Path, tmp_path: Path
) -> None:
    found = generate(generator, out=tmp_path / "made", per_class=3, how=QUICKLY)
    assert found == Generated(tmp_path / "made", 9, 9, 9)
    files = content(tmp_path / "made")
    assert sorted(files) == sorted([*(f"{name}/{n:04d}.png" for name in CLASSES for n in range(3)), "manifest.csv"])
    with Image.open(tmp_path / "made/grass/0000.png") as image:
        assert (image.size, image.mode) == ((16, 16), "RGB")
    rows = manifest(tmp_path / "made")
    assert tuple(rows[0]) == (*COLUMNS, *SCORES)
    assert rows[1] | {"weights": "", "seed": ""} == {
        **{"path": "grass/0000.png", "label": "grass", "generator": "ddpm-colours", "weights": "", "seed": ""},
        **{"guidance": "1", "steps": "3", "sampler": "dpm++", "tell_above": "0.3"},
        **dict.fromkeys(("kept_if", *SCORES), ""),
    }
    assert len({row["seed"] for row in rows}) == 9
    assert len({files[row["path"].removeprefix("'")] for row in rows}) == 9  # no two images alike
    assert str(tmp_path) not in (tmp_path / "made/manifest.csv").read_text()


def test_what_was_generated_is_an_image_set_by_its_folder_and_by_its_manifest(generator: Path, tmp_path: Path) -> None:
    generate(generator, out=tmp_path / "made", per_class=2, how=QUICKLY)
    for name in ("made", "made/manifest.csv"):
        entries = find_source(tmp_path / name).scan().entries
        assert sorted((entry.path, entry.label) for entry in entries) == [
            (f"{label}/{number:04d}.png", label) for label in CLASSES for number in range(2)
        ]


@pytest.mark.parametrize("call", [1, 4, 6, 9])
def test_a_killed_generation_goes_on_to_the_same_bytes(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    generate(generator, out=tmp_path / "whole", per_class=3, how=QUICKLY)
    with monkeypatch.context() as patch:
        dying(patch, generating, "encode_png", call)
        with pytest.raises(Killed):
            generate(generator, out=tmp_path / "made", per_class=3, how=QUICKLY)
    (tmp_path / "made/grass").mkdir(exist_ok=True)  # the first image of all was not yet there
    (tmp_path / "made/grass/.0001.png.abc").write_bytes(b"half a file")
    found = generate(generator, out=tmp_path / "made", per_class=3, how=QUICKLY)
    assert found.made == 9 - (call - 1) // 4 * 4  # whole batches of four were kept
    assert content(tmp_path / "made") == content(tmp_path / "whole")
    assert generate(generator, out=tmp_path / "made", per_class=3, how=QUICKLY).made == 0
    (tmp_path / "made/grass/0002.png").unlink()
    assert generate(generator, out=tmp_path / "made", per_class=3, how=QUICKLY).made == 1
    assert content(tmp_path / "made") == content(tmp_path / "whole")


def test_asking_for_more_images_adds_to_those_that_are_there(generator: Path, tmp_path: Path) -> None:
    generate(generator, out=tmp_path / "made", per_class=1, how=QUICKLY)
    assert generate(generator, out=tmp_path / "made", per_class=3, how=QUICKLY).made == 6
    generate(generator, out=tmp_path / "at once", per_class=3, how=QUICKLY)
    assert content(tmp_path / "made") == content(tmp_path / "at once")


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_classes_that_are_made_apart_are_those_that_are_made_together(
    generator: Path, tmp_path: Path, sampler: Any
) -> None:
    how = SamplingConfig(steps=3, guidance=1.0, sampler=sampler)
    together = content(generate(generator, out=tmp_path / "together", per_class=2, how=how).folder)
    apart = generate(generator, out=tmp_path / "apart", per_class=2, classes=["ünder wasser", "grass"], how=how).folder
    for path, written in content(apart).items():
        if path.endswith(".png"):
            assert written == together[path]
    assert len(manifest(apart)) == 4


def test_another_seed_makes_other_images(generator: Path, tmp_path: Path) -> None:
    made = [
        content(generate(generator, out=tmp_path / str(n), per_class=1, how=QUICKLY, seed=n).folder) for n in (0, 1)
    ]
    assert not set(made[0].values()) & set(made[1].values())


def test_a_full_disk_keeps_what_was_made(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", str(generator), "--per-class", "3", "--steps", "3", "--guidance", "1", "--out"]
    with monkeypatch.context() as patch:
        dying(patch, generating, "write_atomically", 6, StorageError)
        assert main([*command, str(tmp_path / "made")]) == 2
    assert "sightline: no more" in capsys.readouterr().err
    assert len(manifest(tmp_path / "made")) == 4
    assert main([*command, str(tmp_path / "made")]) == 0
    assert "9 images (4 of them were there) and manifest.csv in" in capsys.readouterr().out
    generate(generator, out=tmp_path / "whole", per_class=3, how=QUICKLY)
    assert content(tmp_path / "made") == content(tmp_path / "whole")


def test_the_animation_has_a_picture_for_the_noise_and_for_each_step(generator: Path, tmp_path: Path) -> None:
    def work(name: str) -> None:
        generate(generator, out=tmp_path / name, per_class=1, how=QUICKLY, animation=tmp_path / "made.gif")

    work("made")
    with Image.open(tmp_path / "made.gif") as animation:
        assert animation.n_frames == 4
        first = np.asarray(animation.convert("RGB"))
        animation.seek(3)
        last = np.asarray(animation.convert("RGB"))
    assert (first != last).any()
    before = (tmp_path / "made.gif").read_bytes()
    work("made")  # goes on with the same
    assert (tmp_path / "made.gif").read_bytes() == before
    with pytest.raises(ConfigError, match=r"--animation .*made.gif exists"):
        work("other")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"how": SamplingConfig(steps=4, guidance=1.0)}, "the steps of =blood/0000.png was 3 and is 4"),
        ({"how": SamplingConfig(steps=3, guidance=2.0)}, "the guidance of =blood/0000.png was 1 and is 2"),
        ({"how": SamplingConfig(steps=3, guidance=1.0, sampler="ddim")}, "the sampler of .* was dpm.. and is ddim"),
        ({"how": SamplingConfig(steps=3, guidance=1.0, tell_above=0)}, "the tell_above of .* was 0.3 and is 0"),
        ({"how": SamplingConfig(steps=3, guidance=1.0, guide_below=5)}, "the guide_below of .* was none and is 5"),
        ({"seed": 1}, "the seed of =blood/0000.png was"),
        ({"per_class": 1}, "holds =blood/0001.png already, more than --per-class 1; ask for 2 or more"),
        ({"classes": ["grass"]}, "also holds =blood/0000.png, which is not asked for"),
    ],
)
def test_other_settings_over_the_same_folder_are_refused_and_change_nothing(
    generator: Path, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    usual: dict[str, Any] = {"out": tmp_path / "made", "per_class": 2, "how": QUICKLY}
    generate(generator, **usual)
    before = content(tmp_path / "made")
    with pytest.raises(RunError, match=sentence):
        generate(generator, **(usual | change))
    assert content(tmp_path / "made") == before


def test_an_interval_of_guidance_is_in_the_manifest_where_there_is_one_and_is_kept(
    generator: Path, tmp_path: Path
) -> None:
    within = SamplingConfig(steps=3, guidance=1.0, guide_below=5.0)
    generate(generator, out=tmp_path / "made", per_class=1, how=within)
    assert generate(generator, out=tmp_path / "made", per_class=2, how=within).made == 3
    rows = manifest(tmp_path / "made")
    assert tuple(rows[0]) == (*COLUMNS, *SCORES, "guide_below")
    assert {row["guide_below"] for row in rows} == {"5"}
    assert len(find_source(tmp_path / "made/manifest.csv").scan().entries) == 6
    with pytest.raises(RunError, match=r"the guide_below of .* was 5 and is none"):
        generate(generator, out=tmp_path / "made", per_class=2, how=QUICKLY)
    generate(generator, out=tmp_path / "throughout", per_class=2, how=QUICKLY)
    images = [content(tmp_path / name)["grass/0000.png"] for name in ("made", "throughout")]
    assert images[0] != images[1]


def test_a_folder_of_something_else_is_refused(generator: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(RunError, match="is not an empty folder"):
        generate(generator, out=tmp_path / "mine", how=QUICKLY)
    (tmp_path / "mine/manifest.csv").write_text("path,label\na.png,a\n")
    with pytest.raises(RunError, match="was not written by `sightline generate`"):
        generate(generator, out=tmp_path / "mine", how=QUICKLY)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--classes", "gras"], "--classes gras: the generator knows no such class; did you mean 'grass'?"),
        (["--steps", "51"], "--steps is 51, and the network of this generator can be asked at most 50"),
        (["--sampler", "heun"], "--sampler heun cannot be used with this generator, which is of the kind diffusion"),
        (["--guide-below", "0.1"], "--guide-below 0.1 is not above --tell-above 0.3"),
        (["--steps", "0"], "--steps is 0; it must be at least 1"),
        (["--guidance", "-1"], "--guidance is -1; it must be at least 0"),
        (["--tell-above", "-1"], "--tell-above is -1; it must be at least 0"),
        (["--tell-above", "1.5"], "--tell-above is 1.5; it must be .*at most 1"),  # else made of no class, and labelled
        (["--per-class", "0"], "--per-class is 0; it must be at least 1"),
        (["--seed", "-1"], "--seed is -1; it must be at least 0"),
        (["--sampler", "euler"], "euler"),
        (["--animation", "a.png"], "--animation a.png must end in .gif"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(
    generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["generate", str(generator), "--out", str(tmp_path / "made"), *arguments]) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert not (tmp_path / "made").exists()


def test_guidance_of_a_generator_that_was_always_told_the_class_is_refused(generator: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(generator, tmp_path / "copy")
    model = json.loads((copy / "model.json").read_text())
    model["generator"]["drop_labels"] = 0.0
    (copy / "model.json").write_text(json.dumps(model))
    with pytest.raises(
        ConfigError, match=r"--guidance 1.8 needs a generator that also knows images without their class"
    ):
        generate(copy, out=tmp_path / "made")
    assert generate(copy, out=tmp_path / "made", per_class=1, how=SamplingConfig(steps=2, guidance=0)).made == 3
    assert {row["tell_above"] for row in manifest(tmp_path / "made")} == {"0"}  # it is told to the end


# ── EDM ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_killed_training_by_edm_ends_in_the_same_bits_and_makes_images(
    finished_generator: Finished, generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"data": {"size": 16}, "generator": {"widths": [16], "patch": 2, "dropout": 0.2}}
    settings |= {"fit": {"epochs": 2, "batch_size": 16, "checkpoint_seconds": 0}}
    how: dict[str, Any] = {"recipe": "edm", "settings": settings}
    whole = sightline.train(finished_generator.data, run=tmp_path / "whole", **how)
    with monkeypatch.context() as patch:
        dying(patch, module.EDMLearner, "training_step", 5)
        with pytest.raises(Killed):
            sightline.train(finished_generator.data, run=tmp_path / "run", **how)
    run = sightline.train(finished_generator.data, run=tmp_path / "run", resume=True, **how)
    assert whole is not None
    assert run is not None
    assert same_bits(whole, run)
    assert epochs_of(whole) == epochs_of(run)
    model = runs.read_model(run)
    assert (model["kind"], model["generator"]["image_deviation"]) == ("edm", 0.37)  # of the images
    assert 0.5 < model["losses"]["val_loss"] < 1.1
    for sampler in ("heun", "dpm++"):
        out, file = tmp_path / sampler, tmp_path / f"{sampler}.gif"
        assert (
            generate(run, out=out, per_class=1, how=SamplingConfig(steps=4, sampler=sampler), animation=file).made == 3
        )
        assert {(row["sampler"], row["tell_above"]) for row in manifest(out)} == {(sampler, "0.3")}
        with Image.open(file) as animation:
            assert animation.n_frames == {"heun": 4, "dpm++": 5}[sampler]  # noise, and a picture a step
    with pytest.raises(
        ConfigError, match="--sampler ddpm cannot be used with this generator, which is of the kind edm"
    ):
        generate(run, out=tmp_path / "made", how=SamplingConfig(sampler="ddpm"))


# ── a generator is no classifier ─────────────────────────────────────────────────────────────────────────────────────


def test_whoever_asks_a_generator_for_classes_is_told_what_it_is_good_for(
    generator: Path, tmp_path: Path, finished_generator: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    run, image = str(generator), str(finished_generator.data / "grass/000.png")
    for line in (
        ["predict", run, image],
        ["predict", str(generator / "model.safetensors"), image],
        ["evaluate", run],
        ["explain", run, image, "--out", str(tmp_path / "maps")],
        ["encode", run, image, "--out", str(tmp_path / "features.npz")],
        ["compare", run, str(tmp_path)],
        ["train", str(finished_generator.data), "--network", f"run:{run}"],
    ):
        assert main(line) == 2, line
        error = capsys.readouterr().err
        assert "is a generator (diffusion), not a classifier; `sightline generate" in error, line


def test_a_classifier_generates_nothing(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(finished.run), "--out", str(tmp_path / "made")]) == 2
    assert "is a classifier, and no generator; train one with" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_the_list_of_runs_names_generators_too(
    generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", str(generator.parent)]) == 0
    assert "ddpm" in capsys.readouterr().out


# ── folders of classes ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("grass", "grass"),
        ("ünder wasser", "ünder wasser"),
        ("a/b", "a%2Fb"),
        ("50%", "50%25"),
        ("..", "%2E%2E"),
        (".hidden", "%2Ehidden"),
        ("train", "%74rain"),
        ("Test", "%54est"),
        ("__MACOSX", "%5F_MACOSX"),
        ("a.", "a%2E"),
        ("what?", "what%3F"),
    ],
)
def test_every_class_has_a_folder_that_is_read_back_as_a_class(name: str, folder: str) -> None:
    assert class_folder(name) == folder
    listing = lay_out([f"{folder}/0000.png", "other/0000.png"], [], "here")
    assert {entry.label for entry in listing.entries} == {folder, "other"}
    assert not listing.ignored
    assert all(entry.split is None for entry in listing.entries)


def test_no_two_classes_share_a_folder() -> None:
    names = ["a/b", "a%2Fb", ".", "..", "%2E", "train", "%74rain"]
    assert len({class_folder(name) for name in names}) == len(names)


# ── which images are kept ────────────────────────────────────────────────────────────────────────────────────────────


def painted(labels: Sequence[int], seeds: Sequence[int], size: int = 16) -> np.ndarray:
    """Images of the three colours, of their own noise each; one of five has the colour of another class."""
    made = []
    for label, seed in zip(labels, seeds, strict=True):
        random = np.random.default_rng(seed)
        pixels = random.integers(40, 120, (size, size, 3), np.uint8)
        pixels[..., (label + (seed % 5 == 0)) % 3] += 90
        made.append(pixels)
    return np.stack(made)


@pytest.fixture
def painting(generator: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of a generator whose images have the colours of their classes, but for one of five."""
    monkeypatch.setattr(Generator, "make", lambda self, labels, seeds, how, watch=None: painted(labels, seeds))
    return generator


def test_a_training_image_is_a_copy_and_another_one_of_its_class_is_not(painting: Path, finished: Finished) -> None:
    filter_ = Filter(KeepConfig(run=str(finished.run)), painting)
    data = Path(runs.read_model(painting)["data"]["location"])
    itself = np.asarray(Image.open(data / "grass" / "003.png"))
    verdict, other, wrong = filter_.look(np.stack([itself, *painted([1, 1], [1, 5], 32)]), [1, 1, 1])
    assert verdict.refused == "copy"
    assert verdict.distance == pytest.approx(0, abs=1e-3)
    assert other.refused == ""
    assert other.distance > filter_.reach
    assert wrong.refused == "class"
    assert wrong.probability < 0.5


@pytest.mark.parametrize(("band", "reason"), [({"most": 0.5}, "sure"), ({"least": 1.0}, "doubt")])
def test_a_probability_outside_of_the_band_is_refused(painting: Path, finished: Finished, band, reason: str) -> None:
    filter_ = Filter(KeepConfig(run=str(finished.run), **({"least": 0.0} | band)), painting)
    (verdict,) = filter_.look(painted([1], [1]), [1])
    assert verdict.refused == reason


def test_what_is_refused_is_counted_and_neither_written_nor_listed(
    painting: Path, finished: Finished, tmp_path: Path, capsys
) -> None:
    command = ["generate", str(painting), "--per-class", "10", "--out", str(tmp_path / "made")]
    assert main([*command, "--keep-if", str(finished.run), "--steps", "3"]) == 0
    said = capsys.readouterr().out
    lines = list(csv.DictReader((tmp_path / "made" / "manifest.csv").open(encoding="utf-8")))
    files = {path.relative_to(tmp_path / "made").as_posix() for path in (tmp_path / "made").rglob("*.png")}
    assert {line["path"].removeprefix("'") for line in lines} == files
    right = [line for line in lines if int(line["seed"]) % 5]
    assert lines == right
    assert all(float(line["probability"]) >= 0.5 and float(line["distance"]) > 0 for line in lines)
    refused = sum(int(count) for count in re.findall(r"^refused: (\d+) ", said, flags=re.M))
    assert refused == 30 - len(lines) > 0
    assert f"{len(lines)} of 30 images and manifest.csv" in said


def test_a_class_of_which_all_images_are_refused_gets_no_folder_and_is_named(
    generator: Path, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(
        Generator,
        "make",
        lambda self, labels, seeds, how, watch=None: painted([max(label, 1) for label in labels], seeds),
    )
    command = ["generate", str(generator), "--per-class", "6", "--out", str(tmp_path / "made"), "--steps", "3"]
    for _ in range(2):  # and so it stays
        assert main([*command, "--keep-if", str(finished.run)]) == 0
        assert f"no image was kept of: {CLASSES[0]}\n" in capsys.readouterr().out
        assert sorted(entry.name for entry in (tmp_path / "made").iterdir()) == [
            "grass",
            "manifest.csv",
            "ünder wasser",
        ]
    assert {entry.label for entry in find_source(tmp_path / "made").scan().entries} == set(CLASSES[1:])


def test_a_killed_generation_with_a_filter_goes_on_to_the_same_bytes(
    painting: Path, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = KeepConfig(run=str(finished.run))
    generate(painting, out=tmp_path / "whole", per_class=6, how=QUICKLY, keep=keep)
    with monkeypatch.context() as patch:
        dying(patch, generating, "write_atomically", 7)
        with pytest.raises(Killed):
            generate(painting, out=tmp_path / "made", per_class=6, how=QUICKLY, keep=keep)
    generate(painting, out=tmp_path / "made", per_class=6, how=QUICKLY, keep=keep)
    assert content(tmp_path / "whole") == content(tmp_path / "made")
    next((tmp_path / "made").glob("*/0001.png")).unlink()
    assert generate(painting, out=tmp_path / "made", per_class=6, how=QUICKLY, keep=keep).made == 1
    assert content(tmp_path / "whole") == content(tmp_path / "made")
    with pytest.raises(RunError, match="made otherwise: the kept_if of"):
        generate(painting, out=tmp_path / "made", per_class=6, how=QUICKLY, keep=KeepConfig(run=keep.run, least=0.6))
    with pytest.raises(RunError, match="made otherwise: the kept_if of"):
        generate(painting, out=tmp_path / "made", per_class=6, how=QUICKLY)


def test_a_filter_that_lacks_its_classifier_or_its_sense_is_refused(painting: Path, tmp_path: Path, capsys) -> None:
    command = ["generate", str(painting), "--out", str(tmp_path / "made")]
    for more, sentence in (
        (["--keep-least", "0.9"], "--keep-least has no effect without --keep-if RUN"),
        (["--keep-if", "nowhere"], "there is no run at 'nowhere'"),
        (["--keep-if", str(painting)], "is a generator (diffusion), not a classifier"),
        (["--keep-if", "x", "--keep-least", "0.9", "--keep-most", "0.8"], "so no image would pass; exchange them"),
    ):
        assert main([*command, *more]) == 2
        assert sentence in capsys.readouterr().err
