"""Training the runs of a study: in which order, what is kept, and what ends one without costing the others."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from conftest import Finished, coloured_folder
from sightline.config.studies import Study, Variant
from sightline.display.lines import Lines
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, DataError, Interrupted, RunError, TrainingError
from sightline.runs.folder import read_model, read_run_recipe
from sightline.runs.locking import LOCK
from sightline.studies import runner
from sightline.studies.runner import Job, jobs, open_study, train_in_child, train_study

QUIET = ignore
SMALL = {"network": {"kind": "speednet", "widths": [8, 16, 16]}, "fit": {"epochs": 2, "batch_size": 16}}


@pytest.fixture
def study(finished: Finished) -> Study:
    """Two variants and one that starts from the first, with two seeds."""
    return Study(
        name="made",
        data=str(finished.data),
        recipe={},
        settings=SMALL,
        seeds=(0, 1),
        variants=(
            Variant(name="more", backbone="plain", settings={"fit": {"epochs": 1}}),
            Variant(name="plain"),
            Variant(name="smooth", settings={"fit": {"label_smoothing": 0.2}}),
        ),
        baseline="plain",
    )


@pytest.fixture
def pretend(finished: Finished) -> Callable[[Job], None]:
    """Train a run by copying a finished one."""

    def train(job: Job) -> None:
        shutil.copytree(finished.run, job.run)

    return train


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let another program be what trains, in place of ours; it gets the same arguments."""

    def put(lines: str) -> None:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return put


def names(console: Console) -> list[str]:
    """The runs whose training was announced."""
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [line.split("] ")[1] for line in lines if line.startswith("[")]


# ── order, and what is kept ──────────────────────────────────────────────────────────────────────────────────────────


def test_runs_are_trained_seed_by_seed_each_after_the_one_it_starts_from(study: Study, pretend, tmp_path: Path) -> None:
    folder, console = tmp_path / "study", Console(file=io.StringIO(), width=200)
    assert train_study(open_study(folder, study), folder, Lines(console), pretend) == {}
    assert names(console) == ["plain-0", "more-0", "smooth-0", "plain-1", "more-1", "smooth-1"]
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "runs", "study.yaml", "work"]


def test_what_is_finished_is_not_trained_again(study: Study, pretend, tmp_path: Path) -> None:
    folder, console = tmp_path / "study", Console(file=io.StringIO(), width=200)
    study = open_study(folder, study)
    train_study(study, folder, QUIET, pretend)
    (folder / "runs" / "smooth-1" / "DONE").unlink()
    shutil.rmtree(folder / "runs" / "more-0")

    def again(job: Job) -> None:
        shutil.rmtree(job.run, ignore_errors=True)
        pretend(job)

    assert train_study(open_study(folder, study), folder, Lines(console), again) == {}
    assert names(console) == ["more-0", "smooth-1"]


def test_the_seed_and_the_backbone_of_each_run_are_those_of_its_place(study: Study, tmp_path: Path) -> None:
    by_name = {job.name: job for job in jobs(study, tmp_path)}
    assert by_name["smooth-1"].settings["fit"] == {"label_smoothing": 0.2, "seed": 1}
    assert by_name["smooth-1"].backbone is None
    assert by_name["more-1"].settings["network"] == {"kind": "run", "folder": str(tmp_path / "runs" / "plain-1")}
    assert by_name["more-1"].settings["name"] == "more"


def test_a_study_that_has_changed_is_refused_by_what_changed_and_keeps_its_runs(
    study: Study, pretend, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    train_study(open_study(folder, study), folder, QUIET, pretend)
    with pytest.raises(ConfigError, match=r"seeds was \[0, 1\] and is \[0, 1, 2\]; .* choose another --out"):
        open_study(folder, replace(study, seeds=(0, 1, 2)))
    assert len(list((folder / "runs").glob("*/DONE"))) == 6


def test_a_folder_that_holds_something_else_is_left_alone(study: Study, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("x")
    with pytest.raises(RunError, match="exists and holds no study"):
        open_study(tmp_path / "thesis", study)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


# ── what is refused before the first step ────────────────────────────────────────────────────────────────────────────


def test_what_the_images_do_not_suit_is_refused_before_any_run_is_trained(
    study: Study, pretend, tmp_path: Path
) -> None:
    huge = Variant(name="holes", settings={"augment": {"cutout": {"kind": "cutout", "size": 40}}})
    study = open_study(tmp_path / "study", replace(study, variants=(*study.variants, huge)))
    with pytest.raises(ConfigError, match=r"study 'made', 'holes': --augment.cutout.size \(40\) is larger than"):
        train_study(study, tmp_path / "study", QUIET, pretend)
    assert list((tmp_path / "study" / "runs").iterdir()) == []


def test_images_that_changed_since_the_first_runs_are_refused(study: Study, pretend, tmp_path: Path) -> None:
    data, folder = coloured_folder(tmp_path / "colours"), tmp_path / "study"
    study = open_study(folder, replace(study, data=str(data)))
    train_study(study, folder, QUIET, pretend)  # the same images as those of the runs that are copied
    shutil.rmtree(folder / "runs" / "smooth-1")
    (data / "grass" / "000.png").unlink()
    with pytest.raises(DataError, match="have changed since"):
        train_study(study, folder, QUIET, pretend)


def test_an_image_set_that_is_not_there_is_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image set at 'nowhere'"):
        open_study(tmp_path / "study", replace(study, data="nowhere"))
    assert not (tmp_path / "study").exists()


def test_runs_side_by_side_wait_for_those_they_start_from_and_for_no_others(
    study: Study, pretend, tmp_path: Path
) -> None:
    folder, console = tmp_path / "study", Console(file=io.StringIO(), width=200)
    together = threading.Barrier(2, timeout=60)

    def train(job: Job) -> None:
        if job.variant.name != "more":
            together.wait()  # another run is trained at the same time
        else:
            assert (folder / "runs" / f"plain-{job.seed}" / "DONE").exists()
        pretend(job)

    assert train_study(open_study(folder, study), folder, Lines(console), train, workers=2) == {}
    assert names(console)[:2] == ["plain-0", "smooth-0"]
    assert sorted(names(console)) == ["more-0", "more-1", "plain-0", "plain-1", "smooth-0", "smooth-1"]
    assert console.file.getvalue().count("  smooth-1: validation ") == 1  # type: ignore[attr-defined]


def test_side_by_side_a_run_that_fails_costs_only_those_that_start_from_it(
    study: Study, pretend, tmp_path: Path
) -> None:
    folder = tmp_path / "study"

    def train(job: Job) -> None:
        if job.name == "plain-1":
            raise TrainingError("the loss is not finite from step 3 on.")
        pretend(job)

    failures = train_study(open_study(folder, study), folder, QUIET, train, workers=2)
    assert failures == {
        ("plain", 1): "the loss is not finite from step 3 on.",
        ("more", 1): "the run plain-1 that it starts from is not finished.",
    }
    assert len(list((folder / "runs").glob("*/DONE"))) == 4


def test_each_run_side_by_side_gets_its_share_of_the_threads(
    study: Study, program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.machine.devices.torch.get_num_threads", lambda: 6)
    folder = tmp_path / "study"
    study = open_study(folder, study)
    program(f'echo "$OMP_NUM_THREADS" >> {tmp_path}/threads; exit 2')
    train_study(study, folder, QUIET, workers=2)
    assert set((tmp_path / "threads").read_text().split()) == {"3"}


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_that_fails_costs_only_those_that_start_from_it_and_is_tried_again(
    study: Study, pretend, tmp_path: Path
) -> None:
    folder, broken = tmp_path / "study", True

    def train(job: Job) -> None:
        if job.name == "plain-1" and broken:
            raise TrainingError("the loss is not finite from step 3 on.")
        pretend(job)

    study = open_study(folder, study)
    failures = train_study(study, folder, QUIET, train)
    assert failures == {
        ("plain", 1): "the loss is not finite from step 3 on.",
        ("more", 1): "the run plain-1 that it starts from is not finished.",
    }
    assert len(list((folder / "runs").glob("*/DONE"))) == 4
    broken = False
    assert train_study(study, folder, QUIET, train) == {}


def test_the_last_sentence_of_a_training_that_ends_is_its_reason(study: Study, program, tmp_path: Path) -> None:
    open_study(tmp_path / "study", study)
    job = jobs(study, tmp_path / "study")[0]
    program("echo epoch 1; echo 'sightline: the loss is not finite.' >&2; exit 2")
    with pytest.raises(RunError, match=r"^the loss is not finite. \(.*plain-0.log\)$"):
        train_in_child(job)
    program("echo 'Segmentation something'; kill -SEGV $$")
    with pytest.raises(RunError, match="it was ended by SIGSEGV"):
        train_in_child(job)
    program("exit 0")
    with pytest.raises(RunError, match="it ended with status 0"):  # without a finished run
        train_in_child(job)
    program("exit 130")
    with pytest.raises(KeyboardInterrupt):
        train_in_child(job)
    assert "epoch 1" in (tmp_path / "study" / "work" / "plain-0.log").read_text()


def test_a_training_is_told_its_images_recipe_settings_and_to_go_on(study: Study, program, tmp_path: Path) -> None:
    open_study(tmp_path / "study", study)
    program(f'echo "$@" > {tmp_path}/told; exit 2')
    job = next(job for job in jobs(study, tmp_path / "study") if job.name == "smooth-1")
    with pytest.raises(RunError):
        train_in_child(job)
    work = tmp_path / "study" / "work"
    assert (tmp_path / "told").read_text().split() == [
        *("-m", "sightline", "train", study.data),
        *("--recipe", str(work / "smooth-1.recipe.yaml"), "--config", str(work / "smooth-1.settings.yaml")),
        *("--run", str(job.run), "--resume"),
    ]


def test_a_study_waits_for_a_training_that_outlived_the_one_that_was_killed(
    study: Study, pretend, tmp_path: Path
) -> None:
    folder, console = tmp_path / "study", Console(file=io.StringIO(), width=200)
    study = open_study(folder, study)
    run = jobs(study, folder)[0].run
    run.mkdir(parents=True)
    code = f"import time; from filelock import FileLock\nwith FileLock({str(run / LOCK)!r}): print(flush=True); time.sleep(1)"
    orphan = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert orphan.stdout is not None
    orphan.stdout.readline()  # it holds the run

    def train(job: Job) -> None:
        assert orphan.wait(1) == 0  # it has ended
        shutil.rmtree(job.run, ignore_errors=True)
        pretend(job)

    assert train_study(study, folder, Lines(console), train) == {}
    assert console.file.getvalue().startswith("Waiting for a training of")  # type: ignore[attr-defined]


# ── a process of its own, stopped and continued ──────────────────────────────────────────────────────────────────────


def test_ctrl_c_ends_the_training_and_the_study_goes_on_where_it_stopped(
    finished: Finished, pretend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.1)  # this process alone gets the signal
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    folder = tmp_path / "study"
    study = open_study(
        folder,
        Study(
            name="made",
            data=str(finished.data),
            recipe={},
            settings=SMALL,
            seeds=(5,),
            variants=(
                Variant(name="plain"),
                Variant(name="more", backbone="plain", settings={"fit": {"epochs": 30}}),
            ),
            baseline="plain",
        ),
    )
    pretend(jobs(study, folder)[0])
    run = folder / "runs" / "more-5"

    def stop() -> None:
        until = time.monotonic() + 120
        while not (run / "last.ckpt").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=stop)
    watcher.start()
    with pytest.raises(Interrupted) as stopped:
        train_study(study, folder, QUIET)
    watcher.join()
    assert stopped.value.command == f"sightline compare {folder}"
    assert (run / "last.ckpt").exists()
    assert not (run / "DONE").exists()
    before = len((run / "metrics.csv").read_text().splitlines())
    assert train_study(study, folder, QUIET) == {}
    epochs = [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()]
    assert epochs == ["epoch", *map(str, range(1, 31))]
    assert "Continuing" in (folder / "work" / "more-5.log").read_text()
    assert 1 < before < 31
    recipe, model = read_run_recipe(run), read_model(run)
    assert (recipe.name, recipe.fit.seed, recipe.network.kind) == ("more", 5, "run")
    plain = json.loads((folder / "runs" / "plain-5" / "model.json").read_text())
    assert model["data"] == plain["data"]  # the same fingerprint and counts, so the same test images


def test_ctrl_c_ends_all_trainings_that_run_side_by_side(
    study: Study, program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.1)
    folder = tmp_path / "study"
    study = open_study(folder, study)
    program(
        f'trap "echo ended >> {tmp_path}/ended; exit 130" INT; echo $$ >> {tmp_path}/begun; while :; do sleep 0.05; done'
    )

    def stop() -> None:
        until = time.monotonic() + 60
        begun = tmp_path / "begun"
        while not (begun.exists() and begun.read_text().count("\n") == 2) and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=stop)
    watcher.start()
    with pytest.raises(Interrupted):
        train_study(study, folder, QUIET, workers=2)
    watcher.join()
    for number in (tmp_path / "begun").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)
    assert (tmp_path / "ended").read_text() == "ended\n" * 2
