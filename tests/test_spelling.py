"""Names of classes and files have one spelling, and are listed as people expect."""

import io
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sightline.data.cache import open_images
from sightline.data.excluding import read_excluded
from sightline.data.sources.entries import Entry, composed
from sightline.data.sources.find_source import find_source
from sightline.data.sources.unlabeled import plain_files
from sightline.display.events import Measured
from sightline.display.lines import Lines
from sightline.errors import ConfigError, DataError

NFC, NFD = "café", unicodedata.normalize("NFD", "café")
HANGUL = unicodedata.normalize("NFD", "한국")


def spelled(form: str) -> Callable[[str], str]:
    return lambda text: unicodedata.normalize(form, text)


def test_a_name_is_composed_and_its_path_still_opens_the_file() -> None:
    entry = Entry(f"{NFD}/{NFD}.png", NFD, None, NFD)
    assert (entry.label, entry.group, entry.name) == (NFC, NFC, f"{NFC}/{NFC}.png")
    assert entry.path == f"{NFD}/{NFD}.png"
    assert composed("plain") == "plain"
    assert composed("x\udce9") == "x\udce9"
    assert composed("ﬁ ² Å") == "ﬁ ² Å"  # only the spelling of letters; what is another letter stays one


@pytest.mark.parametrize("kind", ["folder", "zip", "manifest"])
def test_a_set_has_the_same_classes_paths_and_fingerprint_in_both_spellings(
    tmp_path: Path, files: Callable[..., dict[str, bytes]], kind: str
) -> None:
    opened = {}
    for form in ("NFC", "NFD"):
        spell, root = spelled(form), tmp_path / form / "set"
        contents = {spell(name): data for name, data in files("한국", "café", "plain").items()}
        root.mkdir(parents=True)
        if kind == "zip":
            root = root / "set.zip"
            with zipfile.ZipFile(root, "w") as packed:
                for name, data in contents.items():
                    packed.writestr(name, data)
        else:
            for name, data in contents.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)
            if kind == "manifest":
                lines = ["path,label", *(f"{name},{name.split('/')[0]}" for name in contents)]
                root = root / "set.csv"
                root.write_text("\n".join(lines), "utf-8")
        opened[form] = open_images(find_source(root))
    one, other = opened["NFC"], opened["NFD"]
    assert one.classes == other.classes == ["café", "plain", "한국"]
    assert list(one.paths) == list(other.paths)
    assert not one.left_out
    assert not other.left_out
    assert one.fingerprint == other.fingerprint
    assert (one.pixels == other.pixels).all()


def test_one_class_in_two_spellings_is_one_class(
    folder: Callable[..., Path], files: Callable[..., dict[str, bytes]]
) -> None:
    contents = files(NFC, "tea") | {f"{NFD}/x{number}.png": data for number, data in enumerate(files("more").values())}
    root = folder(contents)
    if len(list(root.iterdir())) < 3:
        pytest.skip("this file system has one spelling itself")
    images = open_images(find_source(root))
    assert images.classes == [NFC, "tea"]
    assert (images.labels == 0).sum() == 4
    alone = folder(
        {f"{NFC}/a.png": next(iter(contents.values())), f"{NFD}/b.png": next(iter(contents.values()))}, "alone"
    )
    with pytest.raises(DataError, match=f"only one class, '{NFC}'"):
        find_source(alone).scan()


def test_an_empty_class_folder_is_seen_in_either_spelling(folder: Callable[..., Path], files) -> None:
    root = folder(files(NFD, HANGUL))
    open_images(find_source(root))
    (root / unicodedata.normalize("NFD", "leér")).mkdir()
    with pytest.raises(DataError, match=r"'leér' in .* holds no images"):
        find_source(root).scan()


def test_a_list_of_images_names_them_in_either_spelling(
    tmp_path: Path, folder: Callable[..., Path], files: Callable[..., dict[str, bytes]]
) -> None:
    from sightline.data.excluding import _rows

    images = open_images(find_source(folder(files(NFD, "tea"))))
    for form in ("NFC", "NFD"):
        (tmp_path / "list.txt").write_text(spelled(form)("café/00.png"), "utf-8")
        (row,) = _rows(images, read_excluded(tmp_path / "list.txt"), "list.txt")
        assert images.paths[row] == "café/00.png"


def test_classes_are_listed_as_people_expect_and_indexed_by_code_points(
    folder: Callable[..., Path], files: Callable[..., dict[str, bytes]]
) -> None:
    from rich.console import Console

    images = open_images(find_source(folder(files("10", "2", "1", "b", "A"))))
    assert images.classes == ["1", "10", "2", "A", "b"]  # as in torchvision, and in the runs of before
    row = {"n": 1, "precision": 1.0, "recall": None, "f1": None}
    measured = {
        "n": 5, "accuracy": 1.0, "accuracy_interval": [0, 1], "views": "one", "loss": 0.1, "calibration_error": 0.1,
        "calibration_error_unscaled": 0.1, "classes": dict.fromkeys(images.classes, row),
    }  # fmt: skip
    text = io.StringIO()
    Lines(Console(file=text, width=100))(Measured(measured))
    lines = text.getvalue().split("by class")[1].splitlines()
    assert [line.split()[0] for line in lines if line.rstrip().endswith("–")] == ["1", "2", "10", "A", "b"]


def test_files_of_a_folder_are_asked_about_in_the_order_that_people_expect(
    tmp_path: Path, folder: Callable[..., Path], image_file: Callable[..., bytes], noise: Callable[..., Any]
) -> None:
    data = image_file(noise(0))
    root = folder({f"img{number}.png": data for number in (10, 9, 100, 1)} | {"B.png": data, "a.png": data})
    found = plain_files(root)
    assert [Path(name).name for name in found.names] == [
        "a.png",
        "B.png",
        "img1.png",
        "img9.png",
        "img10.png",
        "img100.png",
    ]
    assert [name for name, _ in found.read()] == found.names


def test_a_class_is_asked_for_in_either_spelling() -> None:
    from sightline.config.explaining import index_of_class, refuse_unknown_class
    from sightline.config.generators import chosen_classes

    for known in ([NFC, "tea"], [NFD, "tea"]):  # of a run of before they are as they were found
        for typed in (NFC, NFD):
            assert index_of_class(typed, known) == 0
            assert chosen_classes([typed], known) == known[:1]
            refuse_unknown_class(typed, known)
    with pytest.raises(ConfigError, match=r"--target cafe: the classifier knows no such class; did you mean"):
        refuse_unknown_class("cafe", [NFC])
    with pytest.raises(ConfigError, match=r"--classes cafe: the generator knows no such class; did you mean"):
        chosen_classes(["cafe"], [NFC])
