"""A thousand damaged and hostile files over every reader: each is read, or refused by an error of our own."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)  # where its workers find it, too
    return importlib.import_module("hostile")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel must tell the most memory held")
def test_a_thousand_damaged_files_raise_nothing_foreign_and_take_bounded_time_and_memory(
    hostile: ModuleType,
) -> None:
    counts, failures = hostile.measure([*hostile.READERS], 1000, seed=1)
    assert failures == []
    for name in hostile.READERS:
        assert counts[name, "accepted"] + counts[name, "refused"] >= 111


def test_the_same_number_and_seed_make_the_same_input(hostile: ModuleType, tmp_path: Path) -> None:
    for number in range(18):
        (name, path), (again, other) = (
            hostile.make_input([*hostile.READERS], number, 3, tmp_path / part) for part in "ab"
        )
        assert (name, path.name, path.read_bytes()) == (again, other.name, other.read_bytes())


def test_a_reader_that_fails_hangs_or_fills_the_memory_is_counted(hostile: ModuleType, tmp_path: Path) -> None:
    def foreign(path: Path) -> None:
        raise KeyError("x")

    def full(path: Path) -> None:
        raise MemoryError

    assert hostile._outcome(foreign, tmp_path)[0] == "foreign"
    assert hostile._outcome(full, tmp_path)[0] == "memory"
    assert hostile._outcome(hostile.read_image, Path(__file__)) == ("refused", "")
