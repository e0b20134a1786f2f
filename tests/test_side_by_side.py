"""Images made by several processes: the bytes of one, whatever ends them, and nobody left behind."""

import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import sightline
from conftest import Finished, coloured_folder, wait_for_group_to_end
from sightline.cli.main import main
from sightline.config.generators import KeepConfig, SamplingConfig
from sightline.display.events import Event, Progress
from sightline.errors import ConfigError, RunError
from sightline.generation import generate as generating
from sightline.generation.generate import generate
from sightline.generation.generator import load_generator
from sightline.generation.workers import Task, make_side_by_side

TINY = {
    "data": {"size": 16},
    "generator": {"widths": [16, 16], "patch": 2, "noise_steps": 50, "last_noise": 0.2},
    "fit": {"epochs": 3, "batch_size": 16},
}
QUICKLY = SamplingConfig(steps=3, guidance=1.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run of a tiny generator, and the cache of its images."""
    root = tmp_path_factory.mktemp("generator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(root / "cache"))
        run = sightline.train(
            coloured_folder(root / "colours", images=20), recipe="ddpm", settings=TINY, run=root / "run"
        )
    assert run is not None
    return run, root / "cache"


@pytest.fixture
def generator(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    run, cache = trained
    monkeypatch.setenv("SIGHTLINE_CACHE", str(cache))
    monkeypatch.setattr(generating, "BATCH", 4)
    return run


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def lines(folder: Path) -> int:
    try:
        with (folder / "manifest.csv").open(newline="") as file:
            return len(list(csv.DictReader(file)))
    except FileNotFoundError:
        return 0


# ── the bytes of one ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_processes_make_the_images_and_the_manifest_of_one_with_chosen_classes_and_a_filter(
    generator: Path, finished: Finished, tmp_path: Path
) -> None:
    seen: list[int] = []

    def hear(event: Event) -> None:
        if isinstance(event, Progress) and event.total is not None:
            seen.append(event.done)

    asked = {
        **{"per_class": 9, "classes": ["ünder wasser", "=blood"], "how": QUICKLY},
        "keep": KeepConfig(run=str(finished.run), least=0.0),
    }
    one = generate(generator, out=tmp_path / "one", **asked)
    two = generate(generator, out=tmp_path / "two", **asked, processes=2, on_event=hear)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert 0 < two.images == one.images < 18
    assert two.refused == one.refused
    assert seen == [4, 8, 12, 16, 18]  # in the order of the sequence
    assert multiprocessing.active_children() == []


def test_more_processes_than_batches_are_cut_and_none_is_started_for_one_batch(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.generation.workers.make_side_by_side", None)
    assert generate(generator, out=tmp_path / "made", per_class=1, how=QUICKLY, processes=99).made == 3


# ── what ends them ───────────────────────────────────────────────────────────────────────────────────────────────────

PROGRAM = """
import sys
from sightline.generation import generate as generating
from sightline.cli.main import main
generating.BATCH = 4
if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
"""


def stopped(run: Path, out: Path, how: signal.Signals, *, group: bool) -> tuple[int, str]:
    """A generation by two processes that a signal meets when its first images are there: its status and last words."""
    program = out.parent / "program.py"
    program.write_text(PROGRAM)
    asked = [str(run), "--out", str(out), "--per-class", "60", "--steps", "3", "--guidance", "1", "--processes", "2"]
    process = subprocess.Popen(
        [sys.executable, str(program), *asked], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not lines(out) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    (os.killpg if group else os.kill)(process.pid, how)
    errors = process.communicate(timeout=60)[1]
    wait_for_group_to_end(process.pid)
    return process.returncode, errors


def test_whatever_ends_two_processes_one_goes_on_to_the_same_bytes_and_no_worker_outlives_them(
    generator: Path, tmp_path: Path
) -> None:
    whole = content(generate(generator, out=tmp_path / "whole", per_class=60, how=QUICKLY).folder)
    for name, how, group in (
        ("killed", signal.SIGKILL, True),
        ("orphaned", signal.SIGKILL, False),
        ("stopped", signal.SIGINT, True),
    ):
        status, errors = stopped(generator, tmp_path / name, how, group=group)
        assert status == (130 if how == signal.SIGINT else -9), errors
        if how == signal.SIGINT:
            assert errors.strip().splitlines()[-1] == "sightline: stopped; the same command starts it again."
        there = lines(tmp_path / name)
        assert 0 < there < 180
        found = generate(generator, out=tmp_path / name, per_class=60, how=QUICKLY)
        assert found.made == 180 - there
        assert content(tmp_path / name) == whole


def test_a_worker_that_is_killed_ends_the_generation_in_a_sentence_and_two_go_on_with_what_is_there(
    generator: Path, tmp_path: Path
) -> None:
    def kill(event: Event) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    asked = {"per_class": 8, "how": QUICKLY}
    with pytest.raises(RunError, match=r"was ended by signal 9, as where memory runs out; what was made is kept: run"):
        generate(generator, out=tmp_path / "made", **asked, processes=2, on_event=kill)
    assert multiprocessing.active_children() == []
    there = lines(tmp_path / "made")
    assert 4 <= there < 24
    assert generate(generator, out=tmp_path / "made", **asked, processes=2).made == 24 - there
    generate(generator, out=tmp_path / "whole", **asked)
    assert content(tmp_path / "made") == content(tmp_path / "whole")


def test_what_a_worker_refuses_is_said_as_it_says_it_and_leaves_none_behind(tmp_path: Path) -> None:
    tasks = [Task([0], [seed]) for seed in range(3)]
    with (
        closing(make_side_by_side(tmp_path / "nowhere", QUICKLY, tasks, 2)) as made,
        pytest.raises(RunError, match=r"there is no run at .*nowhere"),
    ):
        next(made)
    assert multiprocessing.active_children() == []


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", ["0", "-1"])
def test_no_processes_are_refused_before_anything_is_made(
    generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: str
) -> None:
    assert main(["generate", str(generator), "--out", str(tmp_path / "made"), "--processes", count]) == 2
    assert f"--processes is {count}; it must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_several_processes_on_one_gpu_are_refused_and_make_no_folder(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, model = load_generator(generator)
    made.device = type("Device", (), {"type": "cuda"})()
    monkeypatch.setattr("sightline.generation.generator.load_generator", lambda run: (made, model))
    with pytest.raises(ConfigError, match="--processes 2: the images are made on one GPU"):
        generate(generator, out=tmp_path / "made", processes=2)
    assert not (tmp_path / "made").exists()
