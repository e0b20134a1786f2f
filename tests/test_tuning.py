"""A tuning trains ordinary runs, ends the bad ones early, loses none to a kill, and never sees a test image."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import sightline
from conftest import coloured_folder
from sightline.cli.main import main
from sightline.config.resolving import read_recipe, resolve
from sightline.config.space_files import build_space
from sightline.config.tuning import Study, TuneConfig, begun_study, study_text
from sightline.errors import ConfigError, DataError, RunError, StorageError, TrainingError
from sightline.machine import extras
from sightline.studies import trials
from sightline.studies.trials import Job, Outcome, Workers, train_trial
from sightline.training import module
from sightline.training.callbacks import cost

SMALL = resolve(read_recipe("small"))
TINY = {"fit": {"epochs": 2, "batch_size": 16}, "network": {"widths": [8, 16, 16]}}
SPACE = {
    "optimizer": {"learning_rate": {"low": 0.01, "high": 0.5, "log": True}},
    "augment": {"flip": ["none", "random"]},
}


@pytest.fixture
def optuna() -> Any:
    return pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_folder(tmp_path_factory.mktemp("images") / "colours", images=20)


def tune(data: Path | None, study: Path, **more: Any) -> Path:
    given: dict[str, Any] = {} if data is None else {"space": SPACE, "recipe": "small", "settings": TINY, "trials": 3}
    return sightline.tune(data, study=study, **(given | more))


@pytest.fixture(autouse=True, scope="module")
def no_probe() -> Iterator[None]:
    """Nothing here is about the speed of the machine, whose measurement would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "convolution_flops", lambda device, dtype: 1e9)
        yield


@pytest.fixture(scope="module")
def tuned(colours: Path) -> Path:
    """A study of three trials that nothing stopped."""
    pytest.importorskip("optuna")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(colours.parent / "cache"))
        return tune(colours, colours.parent / "tuned")


def rows(study: Path, name: str = "trials.csv") -> list[dict[str, str]]:
    """The lines of a table, but for what a clock has measured."""
    with (study / name).open(newline="") as file:
        return [{key: cell for key, cell in row.items() if "second" not in key} for row in csv.DictReader(file)]


def stop_at(monkeypatch: pytest.MonkeyPatch, occasion: int, what: type[BaseException]) -> None:
    """Stop in the ``occasion``-th step of all trials together, counted from 0."""
    step, count = module.ClassifierLearner.training_step, -1

    def dying(self: Any, batch: Any, index: int) -> Any:
        nonlocal count
        count += 1
        if count == occasion:
            raise what("stopped")
        return step(self, batch, index)

    monkeypatch.setattr(module.ClassifierLearner, "training_step", dying)


# ── what a tuning leaves behind ──────────────────────────────────────────────────────────────────────────────────────


def test_every_trial_is_an_ordinary_run_that_has_seen_no_test_image(tuned: Path) -> None:
    runs = sorted((tuned / "trials").iterdir())
    assert [run.name for run in runs] == ["001", "002", "003"]
    for run, row in zip(runs, rows(tuned), strict=True):
        assert (run / "DONE").exists()
        assert not (run / "evaluation.json").exists()
        model = json.loads((run / "model.json").read_text())
        assert model["test_readings"] == 0
        assert model["seed"] == 42
        assert rows(run, "metrics.csv")[-1]["val_acc"] == row["val_acc"]
        recipe = resolve(read_recipe(run / "recipe.yaml"))
        assert (str(recipe.optimizer.learning_rate), recipe.augment.flip) == (
            row["optimizer.learning_rate"],
            row["augment.flip"],
        )


def test_the_first_trial_is_the_recipe_as_it_is_and_the_others_differ(tuned: Path) -> None:
    first, *others = rows(tuned)
    assert (first["optimizer.learning_rate"], first["augment.flip"]) == ("0.1", "random")
    rates = [float(row["optimizer.learning_rate"]) for row in others]
    assert all(0.01 <= rate <= 0.5 for rate in rates)
    assert len({0.1, *rates}) == 3


def test_the_best_recipe_is_complete_and_trains_what_its_trial_was(tuned: Path, tmp_path: Path) -> None:
    best = max(rows(tuned), key=lambda row: float(row["val_acc"]))
    recipe = resolve(read_recipe(tuned / "best.yaml"))
    assert recipe.name == "small-tuned"
    assert (
        f"tuned in 3 trials on {recipe.image_set}: val_acc {float(best['val_acc']):.4f} on 9 validation" in recipe.about
    )
    assert recipe.evaluation.on == "test"
    assert main(["train", "--config", str(tuned / "best.yaml"), "--run", str(tmp_path / "run")]) == 0
    trial = tuned / "trials" / f"{int(best['trial']):03d}"
    assert rows(tmp_path / "run", "metrics.csv") == rows(trial, "metrics.csv")
    assert json.loads((tmp_path / "run" / "model.json").read_text())["test_readings"] == 1


def test_a_bad_trial_ends_early_its_run_says_so_and_the_screen_shows_what_was_found(
    colours: Path, tmp_path: Path, optuna: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("optimizer: {learning_rate: [1e-9, 0.1]}\n")
    study = tmp_path / "study"
    flags = ["--recipe", "small", "--fit.epochs", "3", "--fit.batch-size", "16", "--network.widths", "8", "16", "16"]
    asked = ["--space", str(space), "--study", str(study), "--pruner", "halving"]
    assert main(["tune", str(colours), *flags, *asked]) == 0
    text = capsys.readouterr().out
    good, bad = rows(study)
    assert (good["state"], good["epochs"], good["optimizer.learning_rate"]) == ("finished", "3", "0.1")
    assert (bad["state"], bad["epochs"], bad["optimizer.learning_rate"]) == ("pruned", "1", "1e-09")
    run = study / "trials" / "002"
    left = ["PRUNED", "batch.png", "metrics.csv", "model.json", "recipe.yaml", "seen.npz"]
    assert sorted(path.name for path in run.iterdir()) == left
    assert (run / "PRUNED").read_text() == f"ended early after epoch 1: val_acc {float(bad['val_acc']):.4f}\n"
    for wanted in (
        "colours: 3 classes; train 39, validation 9 images; no trial reads the test split",
        "tuning small: optimizer.learning_rate",
        "2 trials by val_acc on 9 validation images, two of three end early, by halving; in ",
        f"trial 1/2  val_acc {float(good['val_acc']):.4f}  3 epochs",
        "  ended early after epoch 1  ",
        "2 trials: 1 finished, 1 ended early, 0 failed",
        "best: trial 1, val_acc ",
        "chosen by it: expect less on others",
        "on 9 validation images (95 % interval ",
        "the recipe as it was: trial 1",
        f"sightline train --config {study}/best.yaml",
    ):
        assert wanted in text
    assert text.splitlines()[-1] == str(study)
    assert main(["runs", str(study / "trials")]) == 0
    text = capsys.readouterr().out
    assert [word in text for word in ("finished", "ended early", "unfinished")] == [True, True, False]


def test_a_trial_that_fails_is_counted_and_the_study_goes_on_and_one_where_all_fail_says_why(
    colours: Path, tmp_path: Path, optuna: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**TINY, "optimizer": "sgd"}
    study = tune(
        colours, tmp_path / "one", space={"optimizer": {"learning_rate": [0.1, 1e30]}}, settings=settings, trials=None
    )
    good, bad = rows(study)
    assert (good["state"], good["reason"], bad["state"], bad["val_acc"]) == ("finished", "", "failed", "")
    assert bad["reason"].startswith("the loss is not finite from step ")
    with pytest.raises(
        TrainingError, match=r"none of the 2 trials in .*all was finished; of the last: the loss is not"
    ):
        tune(
            colours, tmp_path / "all", space={"optimizer": {"learning_rate": [1e29, 1e30]}}, settings=settings, trials=2
        )
    assert not (tmp_path / "all" / "best.yaml").exists()
    assert main(["tune", "--resume", "--study", str(tmp_path / "all")]) == 2  # nothing is left to train
    assert "none of the 2 trials" in capsys.readouterr().err


# ── what stops a tuning ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tuning_that_is_interrupted_within_a_trial_goes_on_with_it_and_draws_what_it_would_have_drawn(
    tuned: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**TINY, "fit": {**TINY["fit"], "checkpoint_seconds": 0}}  # type: ignore[dict-item]
    with monkeypatch.context() as patch:
        stop_at(patch, 6 + 4, SystemError)  # a trial has six steps
        with pytest.raises(SystemError):
            tune(colours, tmp_path / "study", settings=settings)
    assert [row["trial"] for row in rows(tmp_path / "study")] == ["1"]
    steps: list[int] = []
    step = module.ClassifierLearner.training_step

    def counted(self: Any, batch: Any, index: int) -> Any:
        steps.append(index)
        return step(self, batch, index)

    monkeypatch.setattr(module.ClassifierLearner, "training_step", counted)
    tune(None, tmp_path / "study", resume=True)
    assert len(steps) == 2 + 6  # of the second trial, and the third
    assert rows(tmp_path / "study") == rows(tuned)


def test_ctrl_c_ends_with_status_130_and_the_command_that_continues(
    colours: Path, tmp_path: Path, optuna: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    (tmp_path / "space.yaml").write_text("augment: {flip: [none, random]}\n")
    arguments = ["tune", str(colours), "--space", str(tmp_path / "space.yaml"), "--study", str(tmp_path / "a study")]
    stop_at(monkeypatch, 1, KeyboardInterrupt)
    assert main([*arguments, "--fit.epochs", "2", "--network.widths", "8", "16", "16"]) == 130
    signal.signal(signal.SIGINT, before)  # Lightning turns it off
    assert capsys.readouterr().err == (
        f"sightline: stopped; continue with: sightline tune --resume --study '{tmp_path / 'a study'}'\n"
    )


def worker_processes(cache: Path) -> list[int]:
    """The workers of this test, which its cache folder tells from all others."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        if b"sightline.studies.trials" in command and f"SIGHTLINE_CACHE={cache}".encode() in environment:
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes as Linux shows them")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores")
def test_two_workers_lose_no_trial_to_a_kill_and_do_not_outlive_it(
    tuned: Path, colours: Path, tmp_path: Path, cache_root: Path
) -> None:
    study = tmp_path / "study"
    (tmp_path / "space.yaml").write_text(json.dumps(SPACE))
    flags = ["--recipe", "small", "--fit.epochs", "2", "--fit.batch-size", "16", "--network.widths", "8", "16", "16"]
    asked = ["--space", tmp_path / "space.yaml", "--study", study, "--trials", "3", "--workers", "2"]
    command = [sys.executable, "-m", "sightline", "tune", colours, *asked, *flags]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: len(list(study.glob("trials/*/metrics.csv"))) == 2)
    process.kill()
    process.wait()
    wait_until(lambda: not worker_processes(cache_root))
    assert len(rows(study)) < 3
    tune(None, study, resume=True)
    assert [json.loads(path.read_text())["test_readings"] for path in study.glob("trials/*/model.json")] == [0, 0, 0]
    assert rows(study) == rows(tuned)  # the first ten trials are drawn whatever the others are worth


def wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not done():
        assert time.monotonic() < until
        time.sleep(0.02)


# ── a study that goes on ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_finished_study_trains_nothing_again_and_more_trials_are_counted_in_all(tuned: Path, tmp_path: Path) -> None:
    study = shutil.copytree(tuned, tmp_path / "study")
    before = {path: path.stat().st_mtime_ns for path in study.glob("trials/*/*")}
    tune(None, study, resume=True)
    assert {path: path.stat().st_mtime_ns for path in study.glob("trials/*/*")} == before
    tune(None, study, resume=True, trials=4)
    assert rows(study)[:3] == rows(tuned)
    assert [row["trial"] for row in rows(study)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"seed": 7}, "cannot be continued with other settings: seed was 42 and is 7"),
        ({"judge": "val_loss"}, "judge was val_acc and is val_loss"),
        ({"settings": {**TINY, "optimizer": "sgd"}}, "optimizer.kind was muon and is sgd"),
        ({"space": {"augment": {"flip": ["none", "random"]}}}, "the space was another"),
    ],
)
def test_a_study_goes_on_with_the_settings_it_was_begun_with(
    tuned: Path, colours: Path, more: dict[str, Any], sentence: str
) -> None:
    before = (tuned / "study.yaml").read_bytes()
    with pytest.raises(ConfigError, match=sentence):
        tune(colours, tuned, resume=True, **more)
    assert (tuned / "study.yaml").read_bytes() == before


def test_a_study_of_images_that_have_changed_and_one_that_is_tuned_elsewhere_are_refused(
    tuned: Path, colours: Path, tmp_path: Path
) -> None:
    with FileLock(tuned / ".lock"), pytest.raises(RunError, match="is being tuned by another process"):
        tune(None, tuned, resume=True)
    study = shutil.copytree(tuned, tmp_path / "study")
    fewer = shutil.copytree(colours, tmp_path / "colours")
    next(fewer.glob("*/*.png")).unlink()
    text = (study / "study.yaml").read_text()
    (study / "study.yaml").write_text(text.replace(str(colours), str(fewer)))
    with pytest.raises(DataError, match="its images have changed since it began"):
        tune(None, study, resume=True)


def test_a_study_remembers_all_it_was_begun_with(tmp_path: Path) -> None:
    study = Study(SMALL, SPACE, TuneConfig(trials=7, pruner="none"), "abc")
    (tmp_path / "study.yaml").write_text(study_text(study))
    assert begun_study(tmp_path, resume=True) == study
    (tmp_path / "study.yaml").write_text(study_text(study).replace("format: 1", "format: 2"))
    with pytest.raises(RunError, match="written by a newer sightline"):
        begun_study(tmp_path, resume=True)
    (tmp_path / "study.yaml").write_text("format: 1\n")
    with pytest.raises(RunError, match=r"study.yaml cannot be read \('trials'\)"):
        begun_study(tmp_path, resume=True)


# ── what is refused before anything is loaded ────────────────────────────────────────────────────────────────────────


def test_without_optuna_the_line_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"sightline tune needs optuna, which is not installed; run: pip install '\.\[tune\]'"
    ):
        sightline.tune("digits", space=SPACE)
    assert main(["tune", "digits", "--space", "space.yaml"]) == 2
    assert "sightline tune needs optuna, which is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digits"], "no space was named"),
        (["--space", "space.yaml"], "no image set was named"),
        (["digit", "--space", "space.yaml"], "did you mean 'digits'?"),
        (["digits", "--space", "nowhere.yaml"], "the space 'nowhere.yaml' cannot be read"),
        (["digits", "--space", "space.yaml", "--trials", "0"], "--trials is 0"),
        (["digits", "--space", "space.yaml", "--augment.flip", "none"], "--augment.flip none fixes it"),
        (["digits", "--space", "space.yaml", "--recipe", "fast", "--pruner", "median"], "has nothing to compare"),
        (["digits", "--space", "bad.yaml"], "did you mean 'flip'?"),
        (
            ["digits", "--space", "space.yaml", "--study", "taken"],
            "taken exists; choose another --study, or continue it",
        ),
        (["--resume", "--study", "taken"], "taken is no study that could be continued: it has no study.yaml"),
        (["--resume"], "--resume continues a study; name its folder with --study"),
        (["digits", "--space", "space.yaml", "--fit.processes", "2"], "with --workers 2"),
    ],
)
def test_a_tuning_that_cannot_be_is_refused_in_a_line_before_torch_is_loaded(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    find = extras.importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: True if name == "optuna" else find(name))
    monkeypatch.setitem(sys.modules, "sightline.studies.tuning", None)  # whose import loads torch
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text("augment: {flip: [none, random]}\n")
    Path("bad.yaml").write_text("augment: {flop: [none, random]}\n")
    Path("taken").mkdir()
    Path("taken", "something").touch()
    assert main(["tune", *arguments]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [
        "bad.yaml",
        "space.yaml",
        "taken",
    ]


def test_more_trials_than_drawings_are_refused(tuned: Path, colours: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--trials 3 is more than the 2 drawings of the space"):
        tune(colours, tmp_path / "study", space={"augment": {"flip": ["none", "random"]}})
    assert not (tmp_path / "study").exists()


def test_more_workers_than_cores_are_refused(tuned: Path, colours: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--workers is 999; it must be at least 1 and at most"):
        tune(colours, tmp_path / "study", workers=999)


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def searched(
    path: Path, values: Callable[[dict[str, Any]], float], space: dict[str, Any], trials: int, **more: Any
) -> list[Any]:
    """The trials of a search whose values are computed, not trained; of one epoch each."""
    from sightline.studies.search import Search

    config = TuneConfig(trials=trials, **more)
    search = Search(path, build_space(space, SMALL, {}), config, config.pruner or "none", SMALL)
    while (trial := search.next()) is not None:
        if trial.outcome is None:
            search.end(trial, Outcome("finished", values(trial.settings), 1, 0.0))
    return search.trials()


def rate(settings: dict[str, Any]) -> float:
    return -abs(settings["optimizer"]["learning_rate"] - 0.3)


RATES = {"optimizer": {"learning_rate": {"low": 0.01, "high": 1}}}


@pytest.fixture
def learning(optuna: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first three trials are drawn at random."""
    from sightline.studies import search as searching

    monkeypatch.setattr(searching, "RANDOM", 3)


def test_the_seed_says_what_is_drawn_also_where_the_search_has_learnt_and_was_continued(
    tmp_path: Path, learning: None
) -> None:
    whole = searched(tmp_path / "whole.db", rate, RATES, 6)
    searched(tmp_path / "parts.db", rate, RATES, 4)
    assert searched(tmp_path / "parts.db", rate, RATES, 6) == whole
    other = searched(tmp_path / "other.db", rate, RATES, 2, seed=7)
    drawn = {trial.drawn["optimizer.learning_rate"] for trial in [*whole, *other]}
    assert len(drawn) == 6 + 1  # both begin with the recipe's own
    worse = searched(tmp_path / "worse.db", lambda settings: -rate(settings), RATES, 6)
    same = [one.settings == two.settings for one, two in zip(whole, worse, strict=True)]
    assert all(same[:3])  # the first three are drawn at random
    assert not all(same)  # the next by what they were worth


def test_a_search_that_was_killed_between_two_numbers_of_a_trial_draws_the_same(tmp_path: Path, learning: None) -> None:
    from sightline.studies import search as searching

    space = {**RATES, "fit": {"batch_size": {"low": 16, "high": 128}}}
    whole = searched(tmp_path / "whole.db", rate, space, 5)
    for last in (2, 5):  # drawn at random, and by what was found
        draw = searching._draw

        def killed(trial: Any, dimension: Any, number: int = last - 1, draw: Any = draw) -> Any:
            if trial.number == number and dimension.name == "fit.batch_size":
                raise SystemError("killed")
            return draw(trial, dimension)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(searching, "_draw", killed)
            with pytest.raises(SystemError):
                searched(tmp_path / "killed.db", rate, space, last)
        assert searched(tmp_path / "killed.db", rate, space, last) == whole[:last]


def test_a_space_as_small_as_the_trials_is_tried_in_full_the_recipe_first(tmp_path: Path, optuna: Any) -> None:
    space = {"optimizer": {"learning_rate": [0.1, 0.2, 0.3]}, "fit": {"batch_size": [32, 64]}}
    found = searched(tmp_path / "all.db", rate, space, 20)
    assert len(found) == 6
    assert found[0].settings == {"optimizer": {"learning_rate": 0.1}, "fit": {"batch_size": 64}}
    assert len({str(trial.settings) for trial in found}) == 6


def test_settings_that_are_drawn_twice_are_trained_once(tmp_path: Path, optuna: Any) -> None:
    asked: list[dict[str, Any]] = []

    def counted(settings: dict[str, Any]) -> float:
        asked.append(settings)
        return rate(settings)

    space = {"optimizer": {"learning_rate": [0.1, 0.2, 0.3, 0.4]}}
    found = searched(tmp_path / "twice.db", counted, space, 3, seed=3)
    again = [trial for trial in found if trial.same_as is not None]
    assert len(found) == 3
    assert len(asked) == len({str(settings) for settings in asked}) == 3 - len(again)
    assert again, "seed 3 draws one of four twice in three trials"
    for trial in again:
        assert trial.outcome == found[trial.same_as - 1].outcome


@pytest.mark.parametrize(("epochs", "ends_early"), [(3, False), (4, True)])
def test_a_trial_is_ended_by_the_better_ones_but_not_after_its_last_epoch(
    tmp_path: Path, optuna: Any, epochs: int, ends_early: bool
) -> None:
    from sightline.studies.search import Search

    recipe = resolve(read_recipe("small"), {"fit": {"epochs": epochs}})
    space = build_space({"augment": {"flip": ["none", "random"]}}, recipe, {})
    search = Search(tmp_path / "t.db", space, TuneConfig(), "halving", recipe)
    for values in ([0.1, 0.2, 0.9], [0.2, 0.2, 0.3]):  # halving compares after 1, 3, 9, ... epochs
        trial = search.next()
        assert trial is not None
        went_on = [search.go_on(trial, epoch, value) for epoch, value in enumerate(values, start=1)]
        search.end(trial, Outcome("finished", values[-1], 3, 1.0))
    assert went_on == [True, True, not ends_early]


def test_a_value_that_is_not_finite_has_failed_and_the_lowest_loss_is_best(tmp_path: Path, optuna: Any) -> None:
    from sightline.studies.search import Search

    space = build_space({"augment": {"flip": ["none", "random", "alternating"]}}, SMALL, {})
    search = Search(tmp_path / "t.db", space, TuneConfig(judge="val_loss"), "none", SMALL)
    for value in (0.5, float("nan"), 0.25):
        trial = search.next()
        assert trial is not None
        search.end(trial, Outcome("finished", value, 1, 1.0))
    assert search.next() is None
    assert [trial.outcome.state for trial in search.trials()] == ["finished", "failed", "finished"]
    assert search.trials()[1].outcome.reason == "its val_loss is not finite"
    assert [trial.number for trial in search.ranked()] == [3, 1]


def test_a_file_that_another_program_holds_is_waited_for_and_then_an_error(
    tmp_path: Path, optuna: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.studies import search as searching

    searched(tmp_path / "tuning.db", rate, RATES, 1)
    monkeypatch.setattr(searching, "WAIT_SECONDS", 0.1)
    with sqlite3.connect(tmp_path / "tuning.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"cannot be read or written \(.*database is locked"):
            searched(tmp_path / "tuning.db", rate, RATES, 2)
        other.rollback()
    assert len(searched(tmp_path / "tuning.db", rate, RATES, 2)) == 2


def test_a_file_that_is_no_database_is_an_error_that_says_so(tmp_path: Path, optuna: Any) -> None:
    (tmp_path / "tuning.db").write_bytes(b"no database" * 100)
    with pytest.raises(StorageError, match=r"tuning.db cannot be read or written \(.*file is not a database"):
        searched(tmp_path / "tuning.db", rate, RATES, 3)


# ── a trial by itself, and in a worker ───────────────────────────────────────────────────────────────────────────────


def test_a_trial_is_judged_by_the_weights_that_it_hands_on(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,val_loss,val_acc,seconds\n1,0.9,0.5,1.5\n2,0.7,0.75,1\n3,0.8,0.625,1\n4,,,1\n"
    )
    (tmp_path / "model.json").write_text('{"format": 1}')
    assert trials._judged(tmp_path, "val_acc") == (0.625, 4, 4.5)  # of the last validation
    (tmp_path / "model.json").write_text('{"format": 1, "kept": {"epoch": 2, "monitor": "val_loss", "value": 0.7}}')
    assert trials._judged(tmp_path, "val_loss") == (0.7, 4, 4.5)


def test_a_trial_that_was_ended_early_is_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,val_loss,val_acc,seconds\n1,0.9,0.5,1.5\n")
    (tmp_path / "model.json").write_text('{"format": 1}')
    (tmp_path / "PRUNED").touch()
    assert train_trial(Job(str(tmp_path), {}, {}, "val_acc"), pytest.fail) == Outcome("pruned", 0.5, 1, 1.5)


JOB = Job("run", {"fit": {"accumulate": {0: 8, 4: 4}}}, {}, "val_acc")
WORKER = """
import json, os, sys, yaml
job = yaml.safe_load(json.loads(sys.stdin.readline()))
assert job["recipe"] == {"fit": {"accumulate": {0: 8, 4: 4}}}
print(json.dumps({"epoch": 1, "value": 0.5}), flush=True)
"""


def test_a_worker_asks_after_each_epoch_and_one_that_dies_costs_its_trial_only(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = 'print(json.dumps({"state": "pruned", "value": float(json.loads(sys.stdin.readline()))}), flush=True)'
    monkeypatch.setattr(trials, "WORK", f"{WORKER}{answers}\nos.kill(os.getpid(), 9)")
    with Workers(2) as crew:
        crew.start(1, JOB)
        assert crew.hear() == (1, (1, 0.5))
        crew.tell(1, False)
        assert crew.hear() == (1, Outcome("pruned", 0.0))
        assert crew.hear() == (
            1,
            Outcome("failed", reason="its process was ended by signal 9, as where memory runs out"),
        )
        crew.start(1, JOB)  # in a new process
        assert crew.hear() == (1, (1, 0.5))


def test_a_full_disk_in_a_worker_stops_the_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "WORK", """print('{"stopped": "the disk of x is full"}', flush=True)""")
    with Workers(2) as crew:
        crew.start(0, JOB)
        with pytest.raises(StorageError, match="the disk of x is full"):
            crew.hear()
