"""What finished runs are asked about: patterns, manifests, lists and single classes."""

import csv
import io
import os
import shutil
import stat
from pathlib import Path

import pytest

import sightline
from conftest import Finished
from sightline.cli.main import main
from sightline.errors import DataError

CLASSES = ["=blood", "grass", "ünder wasser"]


class Standard:
    """Standard input that holds some bytes."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def predictions(text: str) -> dict[str, str]:
    """{file: class} of a CSV of predictions."""
    return {row["file"]: row["class"] for row in csv.DictReader(io.StringIO(text))}


def test_a_pattern_a_manifest_and_a_list_are_answered_like_the_folder(finished: Finished, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(finished.data)
    assert main(["predict", str(finished.run), "grass"]) == 0
    folder = predictions(capfd.readouterr().out)
    assert len(folder) == 30
    table = tmp_path / "set.tsv"
    table.write_text("File\tnote\n" + "\n".join(f"{finished.data}/{name.removesuffix('.png')}\t?" for name in folder))
    for what, data in (("grass/*.png", b""), (str(table), b""), ("-", "\n".join(folder).encode())):
        monkeypatch.setattr("sys.stdin", Standard(data))
        assert main(["predict", str(finished.run), what]) == 0
        found = predictions(capfd.readouterr().out)
        assert {name.removeprefix(f"{finished.data}/"): label for name, label in found.items()} == folder


def test_predictions_go_to_standard_output_alone_and_no_link_is_replaced(finished: Finished, tmp_path, capfd):
    arguments = ["predict", str(finished.run), f"{finished.data}/grass/00*.png", "--out"]
    assert main([*arguments, "/dev/stdout"]) == 0
    out, err = capfd.readouterr()
    assert len(predictions(out)) == 10
    assert err.endswith("10 predictions in /dev/stdout\n")
    (tmp_path / "link.csv").symlink_to("real.csv")
    assert main([*arguments, str(tmp_path / "link.csv")]) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text("utf-8") == out
    assert main([*arguments, os.devnull]) == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["https://example.org/a.png"], "'https://example.org/a.png' is an address, and images are not fetched"),
        (["RUN", "https://example.org/a.png"], "is an address, and images are not fetched from there; download it"),
        (["RUN", "no/*.png"], "no images match 'no/*.png'; check the spelling of the pattern."),
        (["no/*.png"], "no images match 'no/*.png'"),
        (["RUN", "--vews", "one"], "Unknown option: --vews"),
        (["--vews=one", "a.png"], "Unknown option: --vews"),
    ],
)
def test_what_names_no_images_is_refused_before_a_network_is_loaded(finished: Finished, capsys, arguments, sentence):
    assert main(["predict", *(str(finished.run) if word == "RUN" else word for word in arguments)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("kept", [["grass"], ["grass", "=blood"]])
def test_a_folder_of_some_of_the_classes_is_measured(finished: Finished, tmp_path, kept: list[str]):
    for name in kept:
        shutil.copytree(finished.data / name, tmp_path / "some" / name)
    (tmp_path / "some" / "ünder wasser").mkdir()  # empty
    found = sightline.evaluate(finished.run, tmp_path / "some", out=tmp_path / "out")
    assert found["n"] == 30 * len(kept)
    assert {name: found["classes"][name]["n"] for name in CLASSES} == {name: 30 * (name in kept) for name in CLASSES}
    assert found["classes"]["ünder wasser"]["recall"] is None
    assert len((tmp_path / "out" / "predictions.csv").read_text("utf-8").splitlines()) == 1 + found["n"]


@pytest.mark.parametrize("name", ["set.csv", "metadata.csv"])
def test_a_table_of_one_class_is_measured(finished: Finished, tmp_path, name: str):
    for file in sorted((finished.data / "grass").iterdir())[:5]:
        shutil.copy(file, tmp_path)
    rows = "".join(f"{index:03d}.png,grass\n" for index in range(5))
    (tmp_path / name).write_text(f"file_name,label\n{rows}")
    found = sightline.evaluate(finished.run, tmp_path / name if name == "set.csv" else tmp_path)
    assert found["n"] == found["classes"]["grass"]["n"] == 5


def test_a_set_of_one_class_can_be_measured_and_still_not_be_trained_on(finished: Finished, tmp_path):
    shutil.copytree(finished.data / "grass", tmp_path / "some" / "grass")
    sightline.evaluate(finished.run, tmp_path / "some")
    with pytest.raises(DataError, match="only one class, 'grass'"):
        sightline.train(tmp_path / "some", recipe="small", run=tmp_path / "run")


def test_a_class_that_is_unknown_is_still_refused(finished: Finished, tmp_path):
    shutil.copytree(finished.data / "grass", tmp_path / "some" / "moss")
    with pytest.raises(DataError, match="class 'moss' of some is unknown to the classifier, which knows =blood, grass"):
        sightline.evaluate(finished.run, Path(tmp_path / "some"))
