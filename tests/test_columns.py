"""Columns of text come back from their files as they were written."""

import numpy as np
import pytest

from sightline.data.columns import read_texts, write_texts

COLUMNS = (
    ["a/1.png", "", "Größe 日本 🙂", "broken \udcff name"],
    [None, "train", None, ""],
    ["x" * 10_000, "y", None, "z"],
)


@pytest.fixture
def columns(tmp_path):
    write_texts(tmp_path, COLUMNS)
    return read_texts(tmp_path, 4)


def test_columns_come_back_as_they_were_written(columns):
    assert [list(column) for column in columns] == [list(column) for column in COLUMNS]
    assert all(column == written for column, written in zip(columns, COLUMNS, strict=True))
    assert columns[0] != columns[1]
    assert columns[0] != COLUMNS[0][:3]


def test_rows_are_found_by_numbers_of_every_kind(columns):
    for column, written in zip(columns, COLUMNS, strict=True):
        assert [column[row] for row in range(4)] == written
        assert [column[row] for row in np.arange(4)] == written
        assert [column[-row] for row in (1, 2, 3, 4)] == written[::-1]
        assert (column[1:3], column[::-2]) == (written[1:3], written[::-2])


@pytest.mark.parametrize("row", [4, -5])
def test_a_row_that_is_not_there_is_refused(columns, row):
    with pytest.raises(IndexError):
        columns[1][row]


def test_membership_is_known(columns):
    assert "train" in columns[1]
    assert "val" not in columns[1]
