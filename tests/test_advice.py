"""What a check advises: plain decisions over what was measured, the command that does it, and the page that has both."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sightline.checks.advice import Advice, advise, by_itself, train_command
from sightline.checks.check_page import Findings, write_check
from sightline.checks.oddities import Header
from sightline.checks.problems import Finding, rare_classes
from sightline.data.cache import CachedImages


def looked_at(
    images: CachedImages,
    findings: Sequence[Finding] = (),
    *,
    parts: Sequence[str] = (),
    excluded: dict[int, Finding] | None = None,
    **other: Any,
) -> Findings:
    parts = parts or ["train"] * len(images.paths)
    facts = {"headers": {}, "statistics": ([0.0] * 3, [1.0] * 3)} | other
    return Findings(images, parts, [], findings=findings, excluded=excluded or {}, **facts)


def suspect(row: int) -> Finding:
    return Finding("suspected label", "given a, suggested b", row, label=0, score=0.01)


# ── what to do ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_a_sound_set_nothing_is_to_be_done(in_memory, tmp_path: Path) -> None:
    checked = looked_at(in_memory([0, 1] * 20))
    assert advise(checked, tmp_path) == []
    assert by_itself(checked) == []
    assert train_command("a set", []) == "sightline train 'a set'"


def test_a_leak_comes_before_what_is_merely_there_twice_and_one_file_is_named_once(in_memory, tmp_path: Path) -> None:
    images = in_memory([0] * 30)
    parts = ["train"] * 20 + ["test"] * 10
    leak = Finding("shared", "train and test: the same pixels", 0, 25, 0, 1.0, True)
    twice = Finding("duplicate", "the same pixels", 3, 2, 0, 1.0, True)
    checked = looked_at(images, [leak, twice], parts=parts, excluded={0: leak, 3: twice})
    steps = advise(checked, tmp_path)
    assert [step.title for step in steps] == ["Stop the leak between the splits: leave out 1 copy", "Leave out 1 image"]
    assert steps[0].why.startswith("1 test image (10.0%) is also in train or validation")
    assert train_command("set", steps) == f"sightline train set --data.exclude {tmp_path}/exclude.csv"


def test_suspected_labels_are_to_be_reviewed_unless_there_are_too_many(in_memory, tmp_path: Path) -> None:
    images = in_memory([0, 1] * 20)
    (step,) = advise(looked_at(images, [suspect(row) for row in range(3)]), tmp_path)
    assert step.title == "Review 3 labels"
    assert step.how.startswith("sightline review ")
    (step,) = advise(looked_at(images, [suspect(row) for row in range(9)]), tmp_path)
    assert step.title == "Name a run that knows such images"
    assert "9 labels would be suspected" in step.why


def test_rare_classes_ask_for_images_and_uneven_ones_may_be_weighed(in_memory, tmp_path: Path) -> None:
    images = in_memory([0] * 300 + [1] * 5 + [2] * 12)
    checked = looked_at(images, rare_classes(images, ["train"] * 317))
    more, weighed = advise(checked, tmp_path)
    assert more.title == "Add images to 2 classes"
    assert "class 1 (5) and class 2 (12)" in more.why
    assert (weighed.flag, weighed.value, weighed.accepted) == ("--fit.class-weights", "balanced", False)
    assert "class-weights" not in train_command("set", [more, weighed])
    images = in_memory([0] * 15 + [1] * 15)
    assert len(advise(looked_at(images, rare_classes(images, ["train"] * 30)), tmp_path)) == 1  # all are as small


@pytest.mark.parametrize(
    ("wide", "count", "advised"),
    [(100, 40, False), (150, 40, False), (180, 5, False), (180, 40, True), (300, 40, False)],
)
def test_where_the_crop_hides_much_of_many_images_all_of_them_may_be_shown(
    in_memory, tmp_path: Path, wide: int, count: int, advised: bool
) -> None:
    import dataclasses

    images = dataclasses.replace(in_memory([0, 1] * 20, size=(100, 100)), median=(100, wide if count > 20 else 100))
    headers = {row: Header(wide if row < count else 100, 100, "RGB", "JPEG") for row in range(40)}
    checked = looked_at(images, headers=headers)
    steps = advise(checked, tmp_path)
    assert [(step.flag, step.value) for step in steps] == ([("--data.fit", "squash")] if advised else [])
    assert any("squash" in sentence for sentence in by_itself(checked)) == (wide == 300)  # auto does that by itself


def test_what_is_odd_is_to_be_looked_at_and_what_train_does_by_itself_is_said(in_memory, tmp_path: Path) -> None:
    images = in_memory([0, 1] * 20)
    odd = [Finding("dark", "", 3, label=1), Finding("tiny", "", 3, label=1), Finding("size", "", 4, label=0)]
    mirrored = [Finding("mirrored", "", label=0), Finding("mirrored", "", label=1), Finding("unreadable", "cut off", 7)]
    checked = looked_at(images, [*odd, *mirrored], in_test=2)
    mend, look = advise(checked, tmp_path)
    assert mend.title == "Mend 2 test images in the set itself"
    assert look.title == "Look at 2 odd images"
    assert by_itself(checked) == [
        "A training leaves out by itself what cannot be read (1 file).",
        "A training does not mirror images here (--augment.flip none): class 0 and class 1 would look like something else.",
    ]


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_holds_what_is_accepted_quoted_for_a_shell() -> None:
    steps = [
        Advice("", "", flag="--data.merge", value="a b+c"),
        Advice("", "", flag="--data.exclude", value="/x/it's.csv"),
        Advice("", "", flag="--data.merge", value="d+e"),
        Advice("", "", flag="--data.fit", value="squash", accepted=False),
        Advice("", ""),
    ]
    command = train_command("/my photos", steps)
    words = ["sightline", "train", "/my photos", "--data.merge", "a b+c", "d+e", "--data.exclude", "/x/it's.csv"]
    assert shlex.split(command) == words


def test_the_page_ticks_what_the_command_holds(in_memory, tmp_path: Path) -> None:
    import re

    steps = [
        Advice("Merge <them>", "why", flag="--data.merge", value="a+b", accepted=False),
        Advice("Leave out", "why", flag="--data.exclude", value="x y.csv"),
        Advice("Look", "why", sections=("dark",)),
    ]
    images = in_memory([0, 1], pixels=None)
    write_check(tmp_path / "check.html", looked_at(images, [Finding("dark", "dim", 0, label=0)]), steps)
    page = (tmp_path / "check.html").read_text()
    ticks = re.findall(r'<input type="checkbox" data-flag="(.*?)" data-value="(.*?)"( checked)?>', page)
    assert ticks == [("--data.merge", "a+b", ""), ("--data.exclude", "&#39;x y.csv&#39;", " checked")]
    assert (
        'data-plain="sightline train nowhere">sightline train nowhere --data.exclude &#39;x y.csv&#39;</code>' in page
    )
    assert "Merge &lt;them&gt;" in page
    assert '<a href="#dark">Very dark images</a>' in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
