"""Files that a kill leaves whole, and tables that no spreadsheet runs."""

import csv
import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from sightline.errors import StorageError
from sightline.writing import plain_text, safe_cell, storage_error, write_atomically, write_csv, write_json

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


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
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
