"""A thousand damaged and hostile files over every reader: each is read, or refused by an error of our own."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from conftest import Finished

FOLDER = Path(__file__).parents[1] / "benchmarks"


RUNS = ["model.json", "measures", "weights"]


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, finished: Finished, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)  # where its workers find it, too
    for name, path in (("run", finished.run), ("images", finished.data), ("cache", finished.cache)):
        (tmp_path / "trained" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "trained" / name).symlink_to(path)
    monkeypatch.setenv("SIGHTLINE_HOSTILE_RUN", str(tmp_path / "trained"))
    return importlib.import_module("hostile")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel must tell the most memory held")
def test_a_thousand_damaged_files_raise_nothing_foreign_and_take_bounded_time_and_memory(
    hostile: ModuleType,
) -> None:
    names = [name for name in hostile.READERS if name not in RUNS]
    counts, failures = hostile.measure(names, 1000, seed=1)
    assert failures == []
    for name in names:
        assert counts[name, "accepted"] + counts[name, "refused"] >= 111


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel must tell the most memory held")
def test_damaged_runs_and_weights_are_used_or_refused_by_every_verb(hostile: ModuleType) -> None:
    counts, failures = hostile.measure(RUNS, 45, seed=1)
    assert failures == []
    for name in RUNS:
        assert counts[name, "accepted"] + counts[name, "refused"] == 15
        assert counts[name, "refused"] >= 3


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
