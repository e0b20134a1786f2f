"""Decisions go to Label Studio and FiftyOne and come back; what is something else, or not clear, is refused."""

import json
from pathlib import Path

import pytest

import sightline
from sightline.cli.main import main
from sightline.data.cache import open_images
from sightline.data.corrections import CorrectionsFile, Decision
from sightline.data.interchange import read_answers
from sightline.data.sources.find_source import find_source
from sightline.errors import ConfigError

WHEN = "2026-12-01T10:00:00+00:00"


@pytest.fixture
def reviewed(files, folder, tmp_path):
    """A set, and a corrections file of it with one of each kind of decision."""
    data = folder(files("cat", "dog", "=bird", images=4))
    images = open_images(find_source(data), None)
    file = CorrectionsFile(tmp_path / "corrections.csv")
    for path, after in (("cat/00.png", "dog"), ("dog/01.png", "dog"), ("cat/02.png", None), ("dog/03.png", "=bird")):
        row = list(images.paths).index(path)
        before = images.classes[images.labels[row]]
        facts = {"file": path, "digest": images.hashes[row], "before": before, "after": after}
        file.decide(Decision(**facts, decided_by="me", when=WHEN, why="quality 0.01"))
    return data, file


def answers(file: CorrectionsFile) -> dict[str, str | None]:
    return {decision.file: decision.after for decision in file.read().values()}


# ── there and back ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_label_studio_gives_back_every_decision_as_it_was(reviewed, tmp_path):
    data, file = reviewed
    sightline.corrections(file.path, export=tmp_path / "tasks.json", prefix="/data/local-files/?d=set/")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=set/cat/00.png"
    assert tasks[0]["annotations"][0]["result"][0] == {
        "from_name": "label",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": ["dog"]},
    }
    back = sightline.corrections(tmp_path / "back.csv", take=tmp_path / "tasks.json", data=data)
    assert (back.imported, back.notes) == (4, [])
    assert CorrectionsFile(tmp_path / "back.csv").read() == file.read()
    again = sightline.corrections(file.path, take=tmp_path / "tasks.json", data=data)
    assert (again.imported, again.notes) == (0, ["4 answers are known already, or older than what was decided"])


def test_fiftyone_gives_back_the_class_of_every_image_and_what_is_left_out(reviewed, tmp_path):
    data, file = reviewed
    sightline.corrections(file.path, export=tmp_path / "labels.json", form="fiftyone")
    assert json.loads((tmp_path / "labels.json").read_text()) == {
        "classes": ["=bird", "dog"],
        "labels": {"cat/00": 1, "dog/01": 1, "cat/02": None, "dog/03": 0},
        "left_out": ["cat/02"],
    }
    sightline.corrections(tmp_path / "back.csv", take=tmp_path / "labels.json", data=data)
    assert answers(CorrectionsFile(tmp_path / "back.csv")) == answers(file)


def test_decisions_may_be_given_in_python_by_the_paths_of_the_images(reviewed, tmp_path):
    data, _ = reviewed
    file = tmp_path / "made.csv"
    decided = sightline.corrections(file, take={"cat/00.png": "dog", "dog/01.png": None}, data=data)
    assert (decided.imported, decided.notes) == (2, [])
    assert answers(CorrectionsFile(file)) == {"cat/00.png": "dog", "dog/01.png": None}
    assert {one.why for one in decided.decisions} == {"decided in Python"}
    anew = sightline.corrections(file, take={"cat/00.png": "cat", "no/00.png": "dog"}, data=data)
    assert answers(CorrectionsFile(file))["cat/00.png"] == "cat"  # what is decided later holds
    assert anew.notes == ["1 answers are on images that set does not have (the first: no/00.png)"]
    with pytest.raises(ConfigError, match="go together"):
        sightline.corrections(file, take={"cat/00.png": "dog"})


# ── as the tools write it ────────────────────────────────────────────────────────────────────────────────────────────


def task(image: str, *choices: str, control: str = "choice", **other: object) -> dict[str, object]:
    """A task as Label Studio exports it, answered once by each of several people."""
    results = [
        [
            {
                "id": "x",
                "from_name": control,
                "to_name": "image",
                "type": "choices",
                "origin": "manual",
                "value": {"choices": [choice]},
            }
        ]
        for choice in choices
    ]
    annotations = [
        {"id": 1, "completed_by": {"id": 3, "email": "me@example.com"}, "result": result, "was_cancelled": False,
         "updated_at": "2026-12-02T11:00:00.5+01:00", "lead_time": 4.2} | other
        for result in results
    ]  # fmt: skip
    return {"id": 1, "data": {"image": image}, "annotations": annotations, "predictions": [], "project": 83}


def imported(tmp_path: Path, data: Path, content: object, **other: object) -> "sightline.checks.corrections.Decided":
    (tmp_path / "in.json").write_text(json.dumps(content))
    return sightline.corrections(tmp_path / "made.csv", take=tmp_path / "in.json", data=data, **other)


@pytest.mark.parametrize(
    "image",
    [
        "cat/00.png",
        "/data/local-files/?d=photos/set/cat/00.png",
        "https://example.com/photos/cat/00.png?size=1",
        "s3://bucket/cat/00.png",
        "/home/me/set/cat/00.png",
        "C:\\photos\\cat\\00.png",
    ],
)
def test_an_image_is_found_by_the_end_of_its_path(reviewed, tmp_path, image):
    data, _ = reviewed
    done = imported(tmp_path, data, [task(image, "dog")])
    (decision,) = done.decisions
    assert (decision.file, decision.before, decision.after) == ("cat/00.png", "cat", "dog")
    assert (decision.decided_by, decision.when) == ("me@example.com", "2026-12-02T10:00:00+00:00")
    assert decision.why == "imported from Label Studio"


def test_an_uploaded_image_is_found_by_its_name_alone_where_only_one_has_it(files, folder, tmp_path):
    contents = files("cat", "dog")
    data = folder({**contents, "cat/one é.png": contents.pop("cat/00.png")})
    (decision,) = imported(tmp_path, data, [task("/data/upload/1/0a1b2c3d-one%20é.png", "dog")]).decisions
    assert decision.file == "cat/one é.png"
    with pytest.raises(ConfigError, match=r"which may be 'cat/01.png' or 'dog/01.png'; name images by their paths"):
        imported(tmp_path, data, [task("/data/upload/1/0a1b2c3d-01.png", "dog")])
    with pytest.raises(ConfigError, match="of another image set: none of its 1 images is in set"):
        imported(tmp_path, data, [task("/photos/fox/01.png", "dog")])


def test_what_is_not_answered_or_answered_in_two_ways_is_counted_and_not_decided(reviewed, tmp_path):
    data, _ = reviewed
    tasks = [
        task("cat/00.png", "dog", "dog"),
        task("cat/01.png", "dog", "cat"),
        task("cat/02.png"),
        task("cat/03.png", "dog", was_cancelled=True),
        task("gone/99.png", "dog"),
        task("dog/00.png", "wolf"),
    ]
    done = imported(tmp_path, data, tasks)
    assert {decision.file: decision.after for decision in done.decisions} == {"cat/00.png": "dog", "dog/00.png": "wolf"}
    assert done.notes == [
        "2 tasks are not answered (the first: cat/02.png)",
        "1 tasks have answers that differ, and nothing is decided (the first: cat/01.png)",
        "1 answers are on images that set does not have (the first: gone/99.png)",
        "'wolf': no class of set, and refused as a slip unless the column new_class of its lines says yes (or a training has"
        " --data.add-classes)",
    ]


def test_labels_of_fiftyone_are_read_with_and_without_classes_and_attributes(reviewed, tmp_path):
    data, _ = reviewed
    labels = {"cat/00": "dog", "cat/01": {"label": "cat", "confidence": 0.9}, "cat/02": None}
    done = imported(tmp_path, data, {"classes": None, "labels": labels})
    assert {decision.file: decision.after for decision in done.decisions} == {"cat/00.png": "dog", "cat/01.png": "cat"}
    assert done.notes == ["1 images have no label (the first: cat/02)"], "no label is not a wish to leave an image out"


def test_a_newer_decision_stays(reviewed, tmp_path):
    data, file = reviewed
    older = task("cat/00.png", "cat") | {"id": 7}
    older["annotations"][0]["updated_at"] = "2026-11-30T10:00:00Z"
    (tmp_path / "in.json").write_text(json.dumps([older]))
    assert sightline.corrections(file.path, take=tmp_path / "in.json", data=data).imported == 0
    assert answers(file)["cat/00.png"] == "dog"


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"images": []}, "is neither tasks nor labels; wanted Label Studio's JSON"),
        ([{"image": "a.png", "choice": "dog", "id": 1}], "is neither of the two (Object missing required field `data`"),
        ([task("a.png", "dog") | {"annotations": 3}], "is neither of the two (Expected `array`, got `int`"),
        ({"labels": {"a": 2}, "classes": ["x"]}, "the label of 'a' is 2, and there are 1 classes"),
        ({"labels": {"a": 0}}, "the label of 'a' is 0, and there are no classes"),
        ({"labels": {"a": ["x", "y"]}}, "the label of 'a' is ['x', 'y']; wanted one class"),
        (
            [task("a.png", "dog"), task("b.png", "sharp", control="quality")],
            "has choices of choice, quality, and only one",
        ),
        ([task("a.png", "") | {}], "task 1: its choices are ['']; wanted one class"),
        ([{"data": {"url": "a.png", "text": "b"}, "annotations": []}], "task 1: it has no data named 'image'"),
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path, content, sentence):
    (tmp_path / "in.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        read_answers(tmp_path / "in.json")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"), [('[{"data": ', "is no JSON"), ("a,b\n", "is no JSON"), (None, "cannot be read")]
)
def test_a_file_that_is_cut_off_or_missing_is_refused(tmp_path, capsys, text, sentence):
    if text is not None:
        (tmp_path / "in.json").write_text(text)
    assert (
        main(["corrections", str(tmp_path / "a.csv"), "--import", str(tmp_path / "in.json"), "--data", "digits"]) == 2
    )
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_pixels_that_are_there_twice_with_two_answers_are_refused(files, folder, tmp_path):
    contents = files("cat", "dog")
    data = folder({**contents, "dog/copy.png": contents["cat/00.png"]})
    with pytest.raises(ConfigError, match=r"says of the same pixels 'cat' .'cat/00.png'. and 'dog'"):
        imported(tmp_path, data, [task("cat/00.png", "cat"), task("dog/copy.png", "dog")])


def test_images_that_differ_by_their_suffix_are_not_exported_for_fiftyone(tmp_path):
    file = CorrectionsFile(tmp_path / "corrections.csv")
    for number, name in enumerate(("a/1.png", "a/1.jpg")):
        file.decide(Decision(file=name, digest=f"{number:032x}", before="a", after="b"))
    with pytest.raises(ConfigError, match=r"'a/1\.jpg' and 'a/1.png' differ by their suffix alone"):
        sightline.corrections(file.path, export=tmp_path / "out.json", form="fiftyone")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--export", "a.json", "--import", "b.json", "--data", "digits"], "do not go together"),
        (["--import", "b.json"], "--import and --data go together"),
        (["--data", "digits"], "--import and --data go together"),
        (["--as", "fiftyone"], "--as fiftyone has no effect without --export"),
        (["--prefix", "x/"], "--prefix has no effect but on tasks of Label Studio"),
        (["--export", "a.json", "--as", "fiftyone", "--prefix", "x/"], "--prefix has no effect"),
        ([], "there is no missing.csv; name a corrections file"),
    ],
)
def test_flags_that_have_no_effect_are_refused(tmp_path, monkeypatch, capsys, flags, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["corrections", "missing.csv", *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_the_command_line_shows_what_is_decided(reviewed, capsys):
    _, file = reviewed
    assert main(["corrections", str(file.path)]) == 0
    shown = capsys.readouterr().out
    assert "4 decided: 2 corrected, 1 right, 1 left out" in "".join(shown.split("\n"))
    assert "left out" in shown
