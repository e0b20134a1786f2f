"""The file of corrections: nothing that was decided is lost, and nothing is misread."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from sightline.data import corrections
from sightline.data.corrections import CorrectionsFile, Decision, read_corrections
from sightline.errors import ConfigError, StorageError

HEADER = "file,hash,from,to,decided_by,when,why\n"


def digest(number: object) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def decision(number: object = 0, after: str | None = "dog", **other: object) -> Decision:
    facts = {"file": f"cat/{number}.png", "digest": digest(number), "before": "cat", "why": "quality 0.013"}
    return Decision(**(facts | other), after=after)


def line(number: object = 0, after: str = "dog") -> str:
    return f"cat/{number}.png,{digest(number)},cat,{after},me,2026-12-01T00:00:00+00:00,seen\n"


# ── what is decided is there ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("after", ["dog", "cat", None])
def test_a_decision_is_read_back_as_it_was_made(tmp_path, after):
    file = CorrectionsFile(tmp_path / "check" / "corrections.csv")
    assert file.read() == {}
    made = decision(after=after)
    assert file.decide(made) is None
    assert file.read() == {made.digest: made}
    assert made.kept is (after == "cat")


def test_a_class_that_is_new_is_marked_and_files_of_before_the_mark_are_read_and_written(tmp_path):
    file = CorrectionsFile(tmp_path / "corrections.csv")
    file.path.write_text(HEADER + line(0))
    file.decide(decision(1, "moss", new_class=True))
    assert [one.new_class for one in file.read().values()] == [False, True]
    file.path.write_text(HEADER[:-1] + ",new_class\n" + line(0)[:-1] + ",No\n" + line(1)[:-1] + ",YES\n")
    assert [one.new_class for one in file.read().values()] == [False, True]
    file.path.write_text(HEADER[:-1] + ",new_class\n" + line(0)[:-1] + ",maybe\n")
    with pytest.raises(ConfigError, match="line 2: the column new_class holds 'maybe'; wanted yes, or nothing"):
        file.read()


NAMES = [
    "=1+1",
    "-a",
    "'=a",
    "''=a",
    "'quoted",
    "a, b",
    'a "b"',
    "two\nlines",
    "re\rturn",
    " blank ",
    "\tx",
    "é",
    "e\u0301",
]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"caf\xe9")])
def test_names_that_a_spreadsheet_would_run_or_a_reader_change_are_the_names_they_were(tmp_path, name):
    file = CorrectionsFile(tmp_path / "corrections.csv")
    made = decision(file=f"{name}.png", before=name, after=f"{name}2", why=name, decided_by=name)
    file.decide(made)
    assert file.read() == {made.digest: made}
    assert file.undo(made)
    assert not any(cell.startswith(("=", "-")) for cell in file.path.read_bytes().decode("latin-1").split(","))


def test_a_later_decision_on_the_same_pixels_takes_the_place_of_the_earlier_and_undo_brings_it_back(tmp_path):
    file = CorrectionsFile(tmp_path / "corrections.csv")
    first, second, other = decision(), decision(file="copy.png", after=None), decision(1)
    for made in (first, other):
        file.decide(made)
    assert file.decide(second) == first
    assert file.read() == {first.digest: second, other.digest: other}
    assert not file.undo(first), "another window has decided otherwise meanwhile"
    assert file.undo(second, first)
    assert file.read() == {first.digest: first, other.digest: other}
    assert file.undo(first)
    assert list(file.read()) == [other.digest]


def test_a_file_as_a_spreadsheet_saves_it_is_read(tmp_path):
    path = tmp_path / "corrections.csv"
    path.write_bytes((HEADER + line()).replace(",", ";").replace("\n", "\r\n").encode("utf-16"))
    assert read_corrections(path)[digest(0)].after == "dog"


def test_two_lines_for_one_image_are_taken_where_they_agree(tmp_path):
    path = tmp_path / "corrections.csv"
    path.write_text(HEADER + line(0) + line(1) + line(0))
    assert list(read_corrections(path)) == [digest(0), digest(1)]


def test_a_link_stays_one_and_both_names_are_one_file(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "corrections.csv")
    CorrectionsFile(tmp_path / "link.csv").decide(decision(0))
    CorrectionsFile(tmp_path / "real" / "corrections.csv").decide(decision(1))
    assert (tmp_path / "link.csv").is_symlink()
    assert len(CorrectionsFile(tmp_path / "link.csv").read()) == 2


# ── several windows, and a kill ──────────────────────────────────────────────────────────────────────────────────────

WRITER = """
import hashlib, sys
from sightline.data.corrections import CorrectionsFile, Decision
file, name, count = CorrectionsFile(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    digest = hashlib.md5(f"{name}{number}".encode()).hexdigest()
    file.decide(Decision(file=f"{name}{number}.png", digest=digest, before="cat", after="dog", why="x" * 1000))
    print(number, flush=True)
"""


def writer(path: Path, name: str, count: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_two_processes_and_two_threads_that_write_at_once_lose_nothing(tmp_path):
    path = tmp_path / "corrections.csv"
    processes = [writer(path, name, 25) for name in "ab"]

    def decide(name: str) -> None:
        for number in range(25):
            CorrectionsFile(path).decide(decision(f"{name}{number}"))

    threads = [threading.Thread(target=decide, args=(name,)) for name in "cd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in processes] == [0, 0]
    for process in processes:
        process.stdout.close()
    assert set(CorrectionsFile(path).read()) == {digest(f"{name}{number}") for name in "abcd" for number in range(25)}


def test_a_kill_in_the_middle_of_a_write_loses_no_decision_that_was_made_and_never_the_file(tmp_path):
    path = tmp_path / "corrections.csv"
    decided = 0
    for turn in range(4):
        process = writer(path, f"{turn}-", 10_000)
        made = [process.stdout.readline() for _ in range(5 + turn)]
        time.sleep(0.003 * turn)
        process.send_signal(signal.SIGKILL)
        made += process.stdout.readlines()
        process.wait(60)
        process.stdout.close()
        written = CorrectionsFile(path).read()
        decided += sum(text.endswith(b"\n") for text in made)
        assert decided <= len(written) <= decided + 1, "at most the decision in flight is more than was said"
        decided = len(written)
    CorrectionsFile(path).decide(decision("next"))
    assert len(CorrectionsFile(path).read()) == decided + 1


def test_a_write_that_fails_changes_nothing(tmp_path, monkeypatch):
    file = CorrectionsFile(tmp_path / "corrections.csv")
    file.decide(decision(0))
    before = file.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match=r"disk of .* is full"):
            file.decide(decision(1))
    assert file.path.read_bytes() == before
    file.decide(decision(1))


def test_a_folder_that_cannot_be_written_is_said_and_what_it_holds_can_be_read(tmp_path, monkeypatch):
    file = CorrectionsFile(tmp_path / "corrections.csv")
    file.decide(decision(0))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(StorageError, match=r"cannot be written \(Read-only file system\); choose another folder"):
        file.decide(decision(1))
    assert list(file.read()) == [digest(0)]


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="a folder that even root cannot write to")
def test_a_folder_that_the_system_does_not_let_be_written_is_said():
    with pytest.raises(StorageError, match="/sys/kernel cannot be written"):
        CorrectionsFile("/sys/kernel/corrections.csv").decide(decision())


def test_a_file_that_another_process_holds_for_long_is_said(tmp_path, monkeypatch):
    file = CorrectionsFile(tmp_path / "corrections.csv")
    monkeypatch.setattr(corrections, "PATIENCE", 0.05)
    with (
        FileLock(tmp_path / ".corrections.csv.lock"),
        pytest.raises(StorageError, match="has been held by another process"),
    ):
        file.decide(decision())


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no column 'file' (found: nothing)"),
        ("file,finding,detail\na.png,dark,x\n", "has no column 'hash' (found: file, finding, detail)"),
        (HEADER, "has no effect: it decides nothing"),
        (HEADER + line(0) + line(1)[:40] + "\n", "line 3: 2 cells, and the first line names 7 columns"),
        (HEADER + line(0) + line(1)[:-3], "has no end of line behind its last line, so it may be cut off"),
        (HEADER + line(0) + line(1)[:10], "has no end of line"),
        (HEADER + line(0) + '"a.png,\n', "line 3: no row of CSV (a quote that begins there does not end)"),
        (HEADER + "a.png,,cat,dog,,,\n", "line 2: the hash of 'a.png' is ''; wanted the 32 hexadecimal digits"),
        (HEADER + "a.png,1.2E+31,cat,dog,,,\n", "line 2: the hash of 'a.png' is '1.2e+31'"),
        (HEADER + f"a.png,{digest(0)},,dog,,,\n", "line 2: the decision on 'a.png' names no class"),
        (
            HEADER + line(0) + line(1) + line(0, "bird"),
            "decides twice on the image 'cat/0.png': class 'dog' (line 2), and class 'bird' (line 4); delete one",
        ),
        (HEADER + line(0) + line(0, ""), "class 'dog' (line 2), and leave it out (line 3)"),
        (None, "cannot be read (No such file or directory); wanted a corrections file"),
    ],
)
def test_a_file_that_is_something_else_or_cut_off_or_contradicts_itself_is_refused(tmp_path, text, sentence):
    path = tmp_path / "corrections.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_corrections(path)
    assert sentence in str(caught.value)
    if text not in (None, HEADER):
        with pytest.raises(ConfigError):
            CorrectionsFile(path).decide(decision())
        assert path.read_text() == text, "what cannot be read is not written over"


def test_columns_of_others_are_read_past_and_not_lost_in_silence(tmp_path):
    path = tmp_path / "corrections.csv"
    text = HEADER[:-1] + ",note\n" + line(0)[:-1] + ",look again\n"
    path.write_text(text)
    assert read_corrections(path)[digest(0)].after == "dog"
    with pytest.raises(ConfigError, match="has a column 'note' that is none of a corrections file"):
        CorrectionsFile(path).decide(decision(1))
    assert path.read_text() == text


def test_a_decision_that_would_not_be_read_back_is_refused():
    with pytest.raises(ConfigError, match="names no class"):
        decision(after="")
    with pytest.raises(ConfigError, match="holds a text of 20,000 letters; wanted 10,000 at most"):
        decision(why="x" * 20_000)
