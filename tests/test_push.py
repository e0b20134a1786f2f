"""Classifiers on the hub: published in one commit or not at all, fetched, and the same afterwards. Needs the extra hf.

The hub is a server on this machine that speaks the routes of huggingface_hub.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sightline
from conftest import Finished
from hub_server import LocalHub, Repository
from sightline.cli.main import main
from sightline.errors import ConfigError, DataError, RunError, StorageError
from sightline.reports.push import without_paths
from sightline.runs.hub import fetched, pinned, repository_name
from sightline.runs.tensors import read_tensors

pytest.importorskip("huggingface_hub")
TOKEN = "hf_secretsecretsecret"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub without repositories, and somebody who may write there."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    hub = LocalHub(TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(
        constants, "HF_HUB_DISABLE_XET", True
    )  # another protocol, which the hub of the test does not speak
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between the client's five attempts
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.close()


@pytest.fixture
def images(finished: Finished) -> list[Path]:
    return sorted(finished.data.rglob("*.png"))[::7]


def without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")


# ── there and back ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_pushed_is_loaded_with_the_same_bits(hub: LocalHub, finished: Finished, images: list[Path]) -> None:
    published = sightline.push(finished.run, "me/colours")
    assert published.url == f"{hub.url}/me/colours"
    assert set(hub.files("me/colours")) == {
        ".gitattributes", "README.md", "model.json", "model.safetensors", "recipe.yaml", "seen.npz", "DONE",
    }  # fmt: skip
    assert len(hub.repositories["me/colours"].commits) == 2  # the hub's own, and one of ours
    own, fetched_one = sightline.load(finished.run, device="cpu"), sightline.load("hf:me/colours", device="cpu")
    assert own.predict(images, coverage=0.9) == fetched_one.predict(images, coverage=0.9)
    tensors, others = (
        read_tensors(path)[0]
        for path in (finished.run / "model.safetensors", fetched("hf:me/colours") / "model.safetensors")
    )
    assert tensors.keys() == others.keys()
    assert all(tensors[name].numpy().tobytes() == others[name].numpy().tobytes() for name in tensors)


def test_the_command_line_pushes_and_predicts_by_the_environment_alone(
    hub: LocalHub, finished: Finished, images: list[Path], tmp_path: Path
) -> None:
    settings = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
    }

    def call(*words: Any) -> subprocess.CompletedProcess[str]:
        found = subprocess.run(
            [sys.executable, "-m", "sightline", *map(str, words)],
            env=settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert TOKEN not in found.stdout + found.stderr
        return found

    pushed = call("push", finished.run, "me/colours", "--license", "mit")
    assert (pushed.returncode, pushed.stdout) == (0, f"{hub.url}/me/colours\n"), pushed.stderr
    commit = hub.repositories["me/colours"].commits[-1][0]
    assert f"hf:me/colours@{commit}" in pushed.stderr
    answers = [call("predict", run, *images).stdout for run in ("hf:me/colours", finished.run)]
    assert answers[0] == answers[1] != ""


def test_a_revision_stays_what_it_was(hub: LocalHub, finished: Finished, tmp_path: Path) -> None:
    first = sightline.push(finished.run, "me/colours").commit
    hub.repositories["me/colours"].tags["v1"] = first
    other = shutil.copytree(finished.run, tmp_path / "other")
    model = json.loads((other / "model.json").read_text("utf-8"))
    model["temperatures"] = dict.fromkeys(model["temperatures"], 7.5)
    (other / "model.json").write_text(json.dumps(model), "utf-8")
    second = sightline.push(other, "me/colours").commit
    assert second != first
    temperatures = {
        text: sightline.load(text, device="cpu").model["temperatures"]
        for text in ("hf:me/colours", "hf:me/colours@v1", f"hf:me/colours@{first}")
    }
    assert set(temperatures["hf:me/colours"].values()) == {7.5}
    assert temperatures["hf:me/colours@v1"] == temperatures[f"hf:me/colours@{first}"]
    assert 7.5 not in temperatures["hf:me/colours@v1"].values()
    assert pinned("hf:me/colours@v1") == f"hf:me/colours@{first}"


def test_a_commit_that_is_here_is_loaded_without_asking(hub: LocalHub, finished: Finished) -> None:
    commit = sightline.push(finished.run, "me/colours").commit
    fetched(f"hf:me/colours@{commit}")
    hub.asked.clear()
    assert fetched(f"hf:me/colours@{commit}").name == commit
    assert hub.asked == []


def test_where_the_hub_does_not_answer_the_copy_answers_and_says_so(hub: LocalHub, finished: Finished) -> None:
    commit = sightline.push(finished.run, "me/colours").commit
    fetched("hf:me/colours")
    hub.broken["GET", "/api/models"] = 0
    heard: list[str] = []
    assert fetched("hf:me/colours", heard.append).name == commit
    assert len(heard) == 1
    assert f"so the copy of hf:me/colours on this machine answers (commit {commit[:12]})" in heard[0]
    assert heard[0].startswith("warning: the hub did not answer (")
    with pytest.warns(UserWarning, match="the copy of hf:me/colours on this machine answers"):
        sightline.load("hf:me/colours", device="cpu")
    with pytest.raises(RunError, match=r"hf:me/others could not be fetched: the hub did not answer \(.*\); try again"):
        fetched("hf:me/others")


def test_only_files_without_code_are_fetched(hub: LocalHub, finished: Finished) -> None:
    sightline.push(finished.run, "me/colours")
    files = hub.files("me/colours") | {
        "pytorch_model.bin": b"pickled",
        "modeling.py": b"raise SystemExit",
        "last.ckpt": b"pickled",
    }
    hub.repositories["me/colours"].commit(files)
    folder = fetched("hf:me/colours")
    assert {path.name for path in folder.iterdir()} == {
        "DONE",
        "model.json",
        "model.safetensors",
        "recipe.yaml",
        "seen.npz",
    }
    assert not [path for _, path, _ in hub.asked if path.endswith((".bin", ".py", ".ckpt"))]


# ── in the other verbs ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_is_evaluated_on_an_image_set_and_never_written_to(hub: LocalHub, finished: Finished) -> None:
    sightline.push(finished.run, "me/colours")
    measured, expected = (sightline.evaluate(run, finished.data) for run in ("hf:me/colours", finished.run))
    assert measured["accuracy"] == expected["accuracy"]
    assert measured["confusion_matrix"] == expected["confusion_matrix"]
    for arguments in ({"data": None}, {"data": finished.data, "unknown": True}):
        with pytest.raises(ConfigError, match="published without the images that it was trained on"):
            sightline.evaluate("hf:me/colours", **arguments)
    with pytest.raises(RunError, match="is a classifier of the hub, which predict"):
        sightline.report("hf:me/colours")


def test_a_training_starts_from_it_by_its_commit_and_refuses_images_that_it_has_seen(
    hub: LocalHub, finished: Finished
) -> None:
    from sightline.display.reporting import ignore
    from sightline.training.preparation import prepare_training

    commit = sightline.push(finished.run, "me/colours").commit
    settings = {"network": "hf:me/colours", "data": {"keep_split": "hf:me/colours"}, "augment": {"flip": "none"}}
    plan = prepare_training(finished.data, "small", settings, ignore)
    assert plan.recipe.network.folder == f"hf:me/colours@{commit}"
    tensors, _ = read_tensors(finished.run / "model.safetensors")
    weights = plan.network.state_dict()
    assert all(np.array_equal(weights[name].numpy(), tensors[name].numpy()) for name in weights)
    with pytest.raises(
        DataError,
        match=r"were trained or selected on by the backbone hf:me/colours@[0-9a-f]{40} .*\(--data.keep-split hf:me/colours@",
    ):
        prepare_training(finished.data, "small", {"network": "hf:me/colours", "data": {"split_seed": 3}}, ignore)


def test_predict_takes_it_for_a_run_among_images(hub: LocalHub, finished: Finished, images: list[Path], capsys) -> None:
    sightline.push(finished.run, "me/colours")
    assert main(["predict", "hf:me/colours", str(images[0])]) == 0
    assert capsys.readouterr().out.startswith(f"{images[0]}: ")
    assert main(["predict", str(images[0]), "hf:me/colours"]) != 0
    assert "hf:me/colours is a classifier of the hub and no image; name it first" in capsys.readouterr().err


# ── the card ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_card_is_what_the_hub_reads_and_has_the_tables(hub: LocalHub, finished: Finished) -> None:
    from huggingface_hub import ModelCard

    sightline.push(finished.run, "me/colours", license="apache-2.0")
    text = hub.files("me/colours")["README.md"].decode()
    card = ModelCard(text)
    assert (card.data.library_name, card.data.pipeline_tag, card.data.license) == (
        "sightline",
        "image-classification",
        "apache-2.0",
    )
    (accuracy, calibration) = card.data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value, accuracy.dataset_name, accuracy.dataset_split) == (
        "accuracy",
        1.0,
        "colours",
        "test",
    )
    assert accuracy.metric_name == "accuracy (n = 18, 95 % interval 0.8241 to 1.0000)"
    assert calibration.metric_type == "calibration_error"
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "What it is for", "How to use it", "What it is not for", "Class by class", "What it takes for what", "How sure it is", "Prediction sets",
        "Images of no class", "On worse images", "What it took", "How to repeat it", "Files and license",
    ]  # fmt: skip
    assert (
        "| class | images | precision | recall | F1 |\n| --- | --: | --: | --: | --: |\n| =blood | 6 | 1.0000 | 1.0000 | 1.0000 |"
        in text
    )
    assert "Accuracy 1.0000 on 18 test images that it had not seen (95 % interval 0.8241 to 1.0000, Wilson’s)" in text
    assert "sightline predict hf:me/colours photo.jpg" in text
    assert "must have the fingerprint" in text
    assert "The license is apache-2.0." in text


def test_without_a_license_and_without_measures_the_card_says_so(
    hub: LocalHub, finished: Finished, tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard

    other = shutil.copytree(finished.run, tmp_path / "other")
    model = json.loads((other / "model.json").read_text("utf-8"))
    (other / "model.json").write_text(json.dumps(model | {"metrics": None, "test_readings": 0}), "utf-8")
    sightline.push(other, "me/colours")
    text = hub.files("me/colours")["README.md"].decode()
    assert ModelCard(text).data.license is None
    assert ModelCard(text).data.eval_results is None
    assert "No license was named: ask its owner" in text
    assert "It was measured on nothing, as asked." in text


def test_nothing_that_is_published_names_a_place_of_the_machine(hub: LocalHub, finished: Finished) -> None:
    sightline.push(finished.run, "me/colours")
    places = {str(path) for path in (finished.run, finished.data, finished.cache, Path.home())} | {
        str(finished.data.parent)
    }
    for name, content in hub.files("me/colours").items():
        assert not [place for place in places if place.encode() in content], name
    with zipfile.ZipFile(io.BytesIO(hub.files("me/colours")["seen.npz"])) as packed:
        assert {Path(name).suffix for name in packed.namelist()} == {".npy"}
    for array in np.load(io.BytesIO(hub.files("me/colours")["seen.npz"]), allow_pickle=False).values():
        assert array.dtype == np.uint64


def test_paths_lose_their_folders_and_class_names_stay() -> None:
    model = {
        "classes": ["/cats/", "~dogs/x"],
        "data": {
            "merge": {"/a/b": "/c/d"},
            "location": "/home/me/my photos",
            "split_notes": ["1/2 a/b", "kept of /home/me/runs/x"],
        },
        "weights": {"source": "the run /home/me/runs/first", "file": r"C:\me\w.pth", "up": "../me/w.pth", "loaded": 3},
    }
    assert without_paths(model) == {
        "classes": ["/cats/", "~dogs/x"],
        "data": {"merge": {"/a/b": "/c/d"}, "location": "my photos", "split_notes": ["1/2 a/b", "kept of x"]},
        "weights": {"source": "the run first", "file": "w.pth", "up": "w.pth", "loaded": 3},
    }


# ── interrupted, and once more ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [0, 503], ids=["the connection is cut", "the hub is out of order"])
@pytest.mark.parametrize(
    "part", [("PUT", "/lfs/"), ("POST", "/commit/")], ids=["while weights are sent", "at the commit"]
)
def test_an_upload_that_is_interrupted_publishes_nothing_and_a_second_one_all(
    hub: LocalHub, finished: Finished, part: tuple[str, str], status: int
) -> None:
    hub.broken[part] = status
    with pytest.raises(
        StorageError, match=r"me/colours could not be pushed \(.*\); nothing of it was published: run"
    ) as refused:
        sightline.push(finished.run, "me/colours")
    assert TOKEN not in str(refused.value)
    assert set(hub.files("me/colours")) == {".gitattributes"}
    with pytest.raises(RunError, match=r"has no model\.json, so it is no classifier of sightline"):
        sightline.load("hf:me/colours")
    hub.broken.clear()
    sightline.push(finished.run, "me/colours")
    assert sightline.load("hf:me/colours", device="cpu").classes == ["=blood", "grass", "ünder wasser"]


def test_a_second_push_takes_back_what_the_first_had_and_it_has_not(
    hub: LocalHub, finished: Finished, tmp_path: Path
) -> None:
    exported = tmp_path / "of this run.onnx"
    exported.write_bytes(b"a graph")
    sightline.push(finished.run, "me/colours", onnx=exported)
    assert hub.files("me/colours")["model.onnx"] == b"a graph"
    sightline.push(finished.run, "me/colours")
    assert "model.onnx" not in hub.files("me/colours")


def test_a_change_by_somebody_else_meanwhile_is_not_written_over(
    hub: LocalHub, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    sightline.push(finished.run, "me/colours")
    answer = hub.commit

    def first_another(repository: Repository, lines: list[dict[str, Any]]) -> tuple[int, dict[str, str], bytes]:
        repository.commit(repository.commits[-1][1] | {"notes.txt": b"mine"})
        return answer(repository, lines)

    monkeypatch.setattr(hub, "commit", first_another)
    with pytest.raises(StorageError, match="me/colours was changed meanwhile, so nothing was published"):
        sightline.push(finished.run, "me/colours", license="mit")
    assert "notes.txt" in hub.files("me/colours")


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_private_repository_is_private_and_not_shown_without_a_token(
    hub: LocalHub, finished: Finished, images: list[Path], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    sightline.push(finished.run, "me/secret", private=True)
    assert hub.repositories["me/secret"].private
    assert sightline.load("hf:me/secret", device="cpu").classes[1] == "grass"
    without_token(monkeypatch)
    assert main(["predict", "hf:me/secret", str(images[0])]) == 2
    said = capsys.readouterr().err
    assert said == (
        "sightline: the hub shows no model me/secret without logging in: there is none, or it is private; check the spelling, or run `hf auth login`.\n"
    )


def test_an_unknown_repository_and_an_unknown_revision_are_refused(hub: LocalHub, finished: Finished) -> None:
    with pytest.raises(
        RunError,
        match="the hub shows no model me/nothing with the token of this machine: there is none, or it is private",
    ):
        sightline.load("hf:me/nothing")
    sightline.push(finished.run, "me/colours")
    with pytest.raises(RunError, match="hf:me/colours@v9: the repository has no such branch, tag or commit"):
        sightline.load("hf:me/colours@v9")


def test_a_repository_of_other_weights_is_refused_before_they_are_fetched(hub: LocalHub) -> None:
    hub.repositories["them/llama"] = Repository()
    hub.repositories["them/llama"].commit({"model.safetensors": b"gigabytes", "config.json": b"{}"})
    with pytest.raises(RunError, match=r"hf:them/llama has no model\.json, so it is no classifier of sightline"):
        sightline.load("hf:them/llama")
    assert not [path for _, path, _ in hub.asked if "/resolve/" in path]


def test_a_repository_that_holds_something_else_is_not_written_to(hub: LocalHub, finished: Finished) -> None:
    hub.repositories["me/llama"] = Repository()
    hub.repositories["me/llama"].commit({"config.json": b"{}"})
    with pytest.raises(
        ConfigError, match=r"me/llama holds 'config\.json' and no model\.json, .* name another repository"
    ):
        sightline.push(finished.run, "me/llama")
    hub.repositories["me/open"] = Repository()
    with pytest.raises(ConfigError, match="me/open is public, and --private makes only new repositories private"):
        sightline.push(finished.run, "me/open", private=True)
    assert len(hub.repositories["me/open"].commits) == 1


def test_nobody_who_is_logged_in_and_a_token_that_may_not_write(
    hub: LocalHub, finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    without_token(monkeypatch)
    assert main(["push", str(finished.run), "me/colours"]) == 2
    assert (
        "nobody is logged in to the hub, so nothing can be pushed; run `hf auth login`, or set HF_TOKEN"
        in capsys.readouterr().err
    )
    assert hub.asked == []
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert main(["push", str(finished.run), "me/colours"]) == 2
    said = capsys.readouterr()
    assert "the token of this machine may not write to me/colours; run `hf auth login` with one that may" in said.err
    assert "hf_another" not in said.out + said.err
    assert {token for _, _, token in hub.asked} == {"hf_another"}


def test_the_token_of_hf_auth_login_is_taken(
    hub: LocalHub, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_token(monkeypatch)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
    sightline.push(finished.run, "me/colours")
    assert {token for method, path, token in hub.asked if not path.startswith("/lfs/")} == {TOKEN}


@pytest.mark.parametrize(
    "name", ["me", "me/", "/x", "me/a/b", "me/..", "m e/x", "me/a--b", "me/x.git", "me/" + 100 * "x", "mé/x"]
)
def test_a_name_that_the_hub_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="names no repository of the hub; wanted OWNER/NAME"):
        repository_name(name)


@pytest.mark.parametrize("text", ["hf:me", "hf:me/x@", "hf:me/x@../../y", "hf:me/x@a b", "hf:../x"])
def test_a_name_of_a_classifier_that_the_hub_cannot_have_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="names no re"):
        sightline.load(text)


def test_what_cannot_be_published_is_refused_before_the_hub_is_asked(
    hub: LocalHub, finished: Finished, tmp_path: Path
) -> None:
    for arguments, sentence in (
        ({"license": "My own!"}, "is no word of the hub for a license"),
        ({"onnx": tmp_path / "none.onnx"}, r"none\.onnx is no \.onnx file"),
        ({"onnx": finished.run / "model.json"}, r"model\.json is no \.onnx file"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            sightline.push(finished.run, "me/colours", **arguments)
    unfinished = shutil.copytree(finished.run, tmp_path / "unfinished")
    (unfinished / "DONE").unlink()
    with pytest.raises(RunError, match="is not a finished run"):
        sightline.push(unfinished, "me/colours")
    local = shutil.copytree(finished.run, tmp_path / "local")
    model = json.loads((local / "model.json").read_text("utf-8"))
    (local / "model.json").write_text(
        json.dumps(model | {"network": {"kind": "hub", "repo": str(tmp_path), "name": "tiny"}}), "utf-8"
    )
    with pytest.raises(RunError, match=r"is built by the code in .* on this machine, so nobody else could load it"):
        sightline.push(local, "me/colours")
    assert hub.asked == []
