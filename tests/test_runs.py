"""Run folders: what is written whole or not at all, and what is refused on reading."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from sightline.config.resolving import named_recipes, resolve
from sightline.config.settings import Recipe
from sightline.errors import RunError, StorageError
from sightline.runs.folder import (
    MODEL_FORMAT,
    PRUNED,
    create_run,
    list_runs,
    mark_done,
    mark_pruned,
    read_model,
    read_model_of_finished,
    read_run_recipe,
    read_weights,
    refuse_existing,
    write_recipe,
    write_weights,
)
from sightline.runs.writing import write_json

MODEL: dict[str, Any] = {
    "format": MODEL_FORMAT,
    "classes": ["daisy", "花"],
    "network": {"kind": "resnet18"},
    "size": [32, 32],
    "resize": [36, 36],
    "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
    "precision": "auto",
    "views": "flip",
    "temperatures": {"one": 1.2, "flip": 1.1},
    "data": {"name": "flowers", "fingerprint": "0" * 16, "counts": {"train": 8, "validation": 1, "test": 1}},
}


def a_run(folder: Path, name: str, *, model: dict[str, Any] | None = None, done: bool = False) -> Path:
    run = folder / name
    run.mkdir()
    write_recipe(run, Recipe(name="small"))
    if model is not None:
        write_json(run / "model.json", model)
    if done:
        mark_done(run)
    return run


def names(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def test_a_run_that_was_ended_early_says_so_and_keeps_no_checkpoint(tmp_path: Path) -> None:
    for name in ("last.ckpt", "previous.ckpt", "metrics.csv"):
        (tmp_path / name).touch()
    mark_pruned(tmp_path, "ended early after epoch 2: val_acc 0.3000")
    assert names(tmp_path) == {PRUNED, "metrics.csv"}
    assert (tmp_path / "PRUNED").read_text() == "ended early after epoch 2: val_acc 0.3000\n"


def test_a_class_whose_folder_is_no_utf_8_survives_in_model_and_weights(tmp_path: Path) -> None:
    model = MODEL | {"classes": [os.fsdecode(b"caf\xe9"), 'a "b" \\ c', "花"]}
    write_json(tmp_path / "model.json", model)
    assert read_model(tmp_path) == model
    write_weights(tmp_path / "model.safetensors", {"w": torch.ones(1)}, model)
    assert read_weights(tmp_path / "model.safetensors")[1] == model


# ── making and finding ───────────────────────────────────────────────────────────────────────────────────────────────


def test_default_folders_are_numbered_from_one_and_never_used_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(create_run("digits-small")) for _ in range(3)] == [f"runs/digits-small-{n}" for n in (1, 2, 3)]
    assert str(create_run("digits-fast")) == "runs/digits-fast-1"
    Path("runs/digits-small-2").rmdir()
    Path("runs/digits-small-4").write_text("in the way")
    assert [str(create_run("digits-small")) for _ in range(2)] == [f"runs/digits-small-{n}" for n in (2, 5)]
    assert str(create_run("digits-small", below=Path("tunings"), flag="--study")) == "tunings/digits-small-1"
    with pytest.raises(RunError, match="tunings/digits-small-1 exists; choose another --study"):
        create_run("x", "tunings/digits-small-1", flag="--study")


def test_a_wanted_folder_is_made_with_its_parents_and_refused_where_it_exists(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b"
    refuse_existing(wanted)
    assert create_run("x", wanted) == wanted
    assert wanted.is_dir()
    with pytest.raises(RunError, match=f"{wanted} exists; choose another --run"):
        create_run("x", wanted)
    (wanted / ".lock").touch()  # all that a training leaves that was killed before its first file
    with pytest.raises(RunError, match=f"{wanted} exists, and .* name the image set, and add --resume --run {wanted}"):
        refuse_existing(wanted)
    (wanted / "recipe.yaml").touch()
    with pytest.raises(RunError, match=f"{wanted} exists; .* continue that run with --resume --run {wanted}"):
        refuse_existing(wanted)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written"):
        create_run("x", tmp_path / "file" / "run")


def test_runs_are_listed_with_their_state_the_newest_last(tmp_path: Path) -> None:
    measured = MODEL | {"metrics": {"accuracy": 0.75, "n": 400}}
    made = [
        a_run(tmp_path, "z-finished", model=measured, done=True),
        a_run(tmp_path, "y-unfinished", model=MODEL),
        a_run(tmp_path, "x-begun"),
        a_run(tmp_path, "w-unmeasured", model=MODEL, done=True),
    ]
    for age, run in enumerate(reversed(made)):
        os.utime(run / "recipe.yaml", (1e9 - age, 1e9 - age))
    (tmp_path / "no-run").mkdir()
    found = list_runs(tmp_path)
    assert [run.folder for run in found] == made
    assert [run.finished for run in found] == [True, False, False, True]
    assert [(run.data, run.recipe, run.accuracy, run.n) for run in found] == [
        ("flowers", "small", 0.75, 400), ("flowers", "small", None, None),
        ("?", "small", None, None), ("flowers", "small", None, None),
    ]  # fmt: skip
    assert list_runs(tmp_path / "nowhere") == []


def test_a_folder_with_a_strange_recipe_does_not_hide_the_other_runs(tmp_path: Path) -> None:
    a_run(tmp_path, "good", model=MODEL, done=True)
    for name, text in (("newer", "block: {not: known}"), ("broken", "a: [")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(text)
    assert {run.folder.name: run.recipe for run in list_runs(tmp_path)} == {
        "good": "small",
        "newer": "?",
        "broken": "?",
    }


def test_a_run_that_is_done_keeps_no_checkpoint(tmp_path: Path) -> None:
    run = a_run(tmp_path, "x", model=MODEL)
    for name in ("last.ckpt", "previous.ckpt", "metrics.csv"):
        (run / name).write_text("")
    mark_done(run)
    assert names(run) == {"recipe.yaml", "model.json", "metrics.csv", "DONE"}
    mark_done(run)


def test_a_run_that_cannot_be_marked_done_keeps_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path, "x", model=MODEL)
    (run / "last.ckpt").write_text("")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match=r"full"):
        mark_done(run)
    assert names(run) == {"recipe.yaml", "model.json", "last.ckpt"}


def test_the_recipe_of_a_run_is_its_settings(tmp_path: Path) -> None:
    recipe = resolve({"network": {"kind": "resnet18"}, "fit": {"epochs": 3}, "image_set": "/data/花"})
    write_recipe(tmp_path, recipe)
    assert read_run_recipe(tmp_path) == recipe


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_run_knows_itself(tmp_path: Path) -> None:
    assert read_model_of_finished(str(a_run(tmp_path, "x", model=MODEL, done=True))) == MODEL


def test_what_is_no_finished_run_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for name in ("file", "m.pte"):
        (tmp_path / name).write_text("")
    for path, message in (
        (tmp_path / "nowhere", "there is no run at .*nowhere'; `sightline runs` lists"),
        (tmp_path / "file", "file' is a file; wanted the folder of a finished run"),
        (tmp_path / "m.pte", "m.pte' is a file; wanted the folder of a finished run, its model.safetensors or the"),
        (a_run(tmp_path, "begun"), "begun' is no run folder: it has no model.json; `sightline runs` lists"),
        (a_run(tmp_path, "half", model=MODEL), "it has no DONE file. Continue it with .*--resume --run .*half"),
    ):
        with pytest.raises(RunError, match=message):
            read_model_of_finished(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"x"', "{}", '{"format": null}', '{"format": "new"}', '{"format": NaN}']
)
def test_a_model_file_that_describes_no_classifier_is_refused(tmp_path: Path, text: str) -> None:
    run = a_run(tmp_path, "x", model=MODEL, done=True)
    (run / "model.json").write_text(text)
    with pytest.raises(RunError, match=r"model.json is no description of a sightline classifier; copy the run again"):
        read_model_of_finished(run)


def test_a_model_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path, "x", model=MODEL, done=True)
    (run / "model.json").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"model.json cannot be read .*; copy the run again"):
        read_model_of_finished(run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"size": None}, r"size is None \(wanted array, got null\)"),
        ({"size": [32, "a"]}, r"size\[1\] is 'a' \(wanted int, got str\)"),
        ({"size": [32, 10**9]}, r"size\[1\] is 1000000000 \(wanted int <= 2048\)"),
        ({"resize": [8, 8]}, r"resize \(8, 8\) is smaller than size \(32, 32\)"),
        ({"classes": ["a", "a"]}, "two classes have the same name"),
        ({"classes": []}, r"classes is \[\] \(wanted array of length >= 1\)"),
        ({"views": "seven"}, r"views is 'seven' \(none of the words that are known\)"),
        ({"temperatures": {"one": 1.0}}, "there is none for 'flip' views"),
        ({"temperatures": {"flip": 0}}, r"temperatures is {'flip': 0} \(wanted float >= 0.001\)"),
        ({"data": {"name": "x", "fingerprint": "0"}}, "data.counts is missing"),
        ({"normalization": {"mean": [0, 0, 0], "std": [1, 1, -1]}}, r"normalization.std\[2\] is -1"),
    ],
)
def test_a_key_that_is_missing_or_wrong_is_named_with_what_was_found_and_wanted(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    run = a_run(tmp_path, "x", model=MODEL | change, done=True)
    with pytest.raises(RunError, match=rf"x/model.json: .*{told}.*; copy the run again"):
        read_model_of_finished(run)
    write_weights(tmp_path / "w.safetensors", {"w": torch.ones(1)}, MODEL | change)
    with pytest.raises(RunError, match=rf"w.safetensors: .*{told}.*; copy the run again"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("key", ["classes", "size", "resize", "normalization", "precision", "views", "data"])
def test_what_a_finished_classifier_needs_may_be_missing_in_one_that_has_begun(tmp_path: Path, key: str) -> None:
    model = {name: value for name, value in MODEL.items() if name != key}
    run = a_run(tmp_path, "x", model=model, done=True)
    assert read_model(run) == model
    with pytest.raises(RunError, match=f"{key} is missing"):
        read_model_of_finished(run)


def test_facts_of_newer_minor_versions_are_kept_and_not_refused(tmp_path: Path) -> None:
    newer = MODEL | {"mood": {"a": [1, None]}, "data": MODEL["data"] | {"weather": "fine"}}
    assert read_model_of_finished(a_run(tmp_path, "x", model=newer, done=True)) == newer


@pytest.mark.parametrize("text", ['{"format": 1, "format": 1}', '{"format": 1, "a": 1e999}', "[" * 100_000])
def test_a_key_that_stands_twice_endless_numbers_and_depths_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(RunError, match="is no description of a sightline classifier"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.tensor([1.0, float("nan")]), "have values that are not finite in 'w'"),
        (torch.tensor([float("inf")]).half(), "have values that are not finite in 'w'"),
        (torch.ones(2, dtype=torch.complex64), "have numbers of torch.complex64 in 'w'"),
        (torch.ones(2).to(torch.float8_e4m3fn), "have numbers of torch.float8_e4m3fn in 'w'"),
    ],
)
def test_weights_of_no_finite_numbers_are_refused(tmp_path: Path, tensor: torch.Tensor, told: str) -> None:
    write_weights(tmp_path / "w.safetensors", {"w": tensor}, MODEL)
    with pytest.raises(RunError, match=told):
        read_weights(tmp_path / "w.safetensors")


def test_a_newer_format_is_refused_with_how_to_upgrade(tmp_path: Path) -> None:
    newer = MODEL | {"format": MODEL_FORMAT + 1}
    run = a_run(tmp_path, "x", model=newer, done=True)
    message = f"has format {MODEL_FORMAT + 1}, and this sightline reads up to {MODEL_FORMAT}; upgrade sightline"
    with pytest.raises(RunError, match=message):
        read_model_of_finished(run)
    write_weights(tmp_path / "w.safetensors", {"w": torch.ones(1)}, newer)
    with pytest.raises(RunError, match=message):
        read_weights(tmp_path / "w.safetensors")


def test_weights_come_back_as_they_were_with_what_the_classifier_knows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "filters": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "half": torch.randn(5).bfloat16(),
        "count": torch.tensor(7),
        "learnt": torch.nn.Parameter(torch.randn(2)),
        "transposed": torch.randn(2, 3).T,
    }
    write_weights(tmp_path / "w.safetensors", tensors, MODEL)
    found, model = read_weights(str(tmp_path / "w.safetensors"))
    assert model == MODEL
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert names(tmp_path) == {"w.safetensors"}


def test_weights_that_sightline_did_not_write_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for number, metadata in enumerate((None, {"format": "pt"})):
        save_file({"w": torch.ones(2)}, tmp_path / f"{number}.safetensors", metadata=metadata)
        with pytest.raises(RunError, match=r"was not written by sightline: its metadata has no 'sightline'"):
            read_weights(tmp_path / f"{number}.safetensors")


def test_weights_that_are_missing_cut_off_or_something_else_are_refused(tmp_path: Path) -> None:
    write_weights(tmp_path / "whole.safetensors", {"w": torch.ones(100)}, MODEL)
    whole = (tmp_path / "whole.safetensors").read_bytes()
    pickled = io.BytesIO()
    torch.save({"w": torch.ones(2)}, pickled)
    for name, content in {"cut": whole[:-1], "head": whole[:20], "empty": b"", "pickle": pickled.getvalue()}.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    for name in ("cut", "head", "empty", "pickle", "folder", "nowhere"):
        with pytest.raises(RunError, match=f"{name}' cannot be read .*; copy the run again"):
            read_weights(tmp_path / name)


# ── the package ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_built_wheel_works_by_itself_with_its_recipes(tmp_path: Path) -> None:
    import subprocess
    import sys

    root = Path(__file__).parent.parent
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, root], check=True, stderr=subprocess.PIPE)
    (wheel,) = tmp_path.glob("sightline_vision-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", wheel], check=True)
    code = "import sightline; from sightline.config.resolving import named_recipes; print(sightline.__file__, *named_recipes())"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert result.stdout.split() == [str(tmp_path / "site/sightline/__init__.py"), *named_recipes()]
