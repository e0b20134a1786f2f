"""Files that a kill leaves whole, and tables that no spreadsheet runs."""

import csv
import errno
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sightline.errors import StorageError
from sightline.runs.writing import (
    is_stream,
    plain_text,
    safe_cell,
    storage_error,
    write_atomically,
    write_csv,
    write_json,
)

MODEL = {"format": 1, "classes": ["daisy", "花"], "data": {"name": "flowers"}}


def names(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def test_a_file_is_written_over_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, b"old")
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_gets_the_rights_that_the_umask_leaves(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a.txt", b"")
        write_json(tmp_path / "a.json", {})
        write_csv(tmp_path / "a.csv", ["x"], [])
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("a.txt", "a.json", "a.csv")} == {mode}


def test_a_name_as_long_as_a_file_system_takes_is_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("x" * 251 + ".csv"), b"")
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize(("step", "code"), [("replace", errno.EACCES), ("fsync", errno.EIO), ("chmod", errno.EPERM)])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StorageError, match=f"cannot be written .{os.strerror(code)}.; choose another folder"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == {"a.txt"}


def test_ctrl_c_within_a_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    write_atomically(file, b"old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=f"the disk of {tmp_path} is full; free space, then run it again"):
        write_atomically(tmp_path / "a.txt", b"new")
    assert names(tmp_path) == set()


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no cannot be written .No such file or directory."):
        write_atomically(tmp_path / "no" / "a.txt", b"")
    assert "mend its permissions" in str(storage_error(tmp_path, OSError("odd")))


def test_json_is_written_as_it_reads_and_never_with_what_json_does_not_know(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", MODEL)
    assert "花" in (tmp_path / "a.json").read_text("utf-8")
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == MODEL


def test_a_number_that_is_not_finite_is_null_in_json_and_an_empty_cell_in_csv(tmp_path: Path) -> None:
    odd = {"loss": math.nan, "rates": [math.inf, 0.5, (-math.inf,)], "by": {"a": np.float64("nan")}, "n": 3, "x": "nan"}
    write_json(tmp_path / "a.json", odd)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert found == {"loss": None, "rates": [None, 0.5, [None]], "by": {"a": None}, "n": 3, "x": "nan"}
    write_csv(tmp_path / "a.csv", ["epoch", "val_loss"], [[1, math.nan], [2, -math.inf], [3, 0.5]])
    assert (tmp_path / "a.csv").read_text() == "epoch,val_loss\n1,\n2,\n3,0.5\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1+1", "''=1+1"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert safe_cell(text) == f"'{text}"
    assert plain_text(safe_cell(text)) == text


@pytest.mark.parametrize("text", ["", "daisy", "1=1", "a-b", " x", "花", "'x"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert safe_cell(text) == text
    assert plain_text(text) == text


def test_a_table_reads_back_cell_by_cell(tmp_path: Path) -> None:
    rows = [
        ["plain.png", "rose", 0.25],
        ['with "quotes", and a comma', "two\nlines", 1],
        ["a return\rwithin", "花", -1],
        ["", " ", 1e-7],
        [os.fsdecode(b"caf\xe9.png"), "x", 0],
    ]
    write_csv(tmp_path / "a.csv", ["file", "class", "chance"], rows)
    with (tmp_path / "a.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        found = list(csv.reader(file))
    assert found == [["file", "class", "chance"], *([str(cell) for cell in row] for row in rows)]


def test_a_table_holds_no_formula_but_its_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["class", "logit"], [["=HYPERLINK(1)", -1.5]])
    assert (tmp_path / "a.csv").read_text() == "class,logit\n'=HYPERLINK(1),-1.5\n"


# ── devices, pipes and links ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_file_has_the_mode_of_the_umask_and_a_replaced_one_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    before = os.umask(0o027)
    try:
        write_atomically(file, b"1")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o640
    file.chmod(0o600)
    write_atomically(file, b"2")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one_and_what_it_points_to_is_written(tmp_path: Path, there: bool) -> None:
    (tmp_path / "real").mkdir()
    if there:
        (tmp_path / "real" / "a.txt").write_bytes(b"old")
    (tmp_path / "link.txt").symlink_to("real/a.txt")
    (tmp_path / "second.txt").symlink_to(tmp_path / "link.txt")
    write_atomically(tmp_path / "second.txt", b"new")
    assert (tmp_path / "real" / "a.txt").read_bytes() == b"new"
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "second.txt").is_symlink()
    assert names(tmp_path / "real") == {"a.txt"}


def test_links_in_a_circle_and_to_nowhere_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("no/where")
    for name in ("a", "c"):
        with pytest.raises(StorageError, match="cannot be written"):
            write_atomically(tmp_path / name, b"")
        assert (tmp_path / name).is_symlink()


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        reading = os.open(tmp_path / name, os.O_RDONLY | os.O_NONBLOCK)
        assert is_stream(tmp_path / name)
        write_csv(tmp_path / name, ["file"], [["a.png"]])
        assert os.read(reading, 100) == b"file\na.png\n"
        os.close(reading)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == {"pipe", "link"}


def test_a_device_is_written_to_and_stays_a_device(tmp_path: Path) -> None:
    (tmp_path / "nothing").symlink_to(os.devnull)
    for path in (Path(os.devnull), tmp_path / "nothing"):
        assert is_stream(path)
        write_atomically(path, b"gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert (tmp_path / "nothing").is_symlink()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has it")
def test_a_device_that_is_full_is_a_sentence_and_stays(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="the disk of /dev is full"):
        write_atomically(Path("/dev/full"), b"x" * 100_000)
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.parametrize("spelling", ["/dev/fd/{}", "/proc/self/fd/{}", "{}/link", "{}/folder/{}"])
def test_what_this_process_has_open_is_written_where_it_stands(tmp_path: Path, spelling: str) -> None:
    file = tmp_path / "out.txt"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"head\n")
    (tmp_path / "link").symlink_to(f"/dev/fd/{descriptor}")
    (tmp_path / "folder").symlink_to("/proc/self/fd")
    values = {1: (descriptor,), 2: (tmp_path, descriptor)}[spelling.count("{}")]
    path = Path(spelling.format(*(values if "link" not in spelling else (tmp_path,))))
    assert is_stream(path)
    write_atomically(path, b"table\n")
    os.write(descriptor, b"tail\n")
    os.close(descriptor)
    assert file.read_bytes() == b"head\ntable\ntail\n"
    assert (tmp_path / "link").is_symlink()


def test_standard_output_gets_a_table_after_what_was_printed_before() -> None:
    program = (
        "from pathlib import Path\n"
        "from sightline.runs.writing import write_csv\n"
        "print('before')\n"
        "write_csv(Path('/dev/stdout'), ['file'], [['a.png']])\n"
        "print('after')\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.stdout, found.stderr) == ("before\nfile\na.png\nafter\n", "")


def test_a_file_and_a_folder_are_no_streams(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "link").symlink_to("a.txt")
    assert not any(is_stream(tmp_path / name) for name in ("a.txt", "link", "missing", "."))
