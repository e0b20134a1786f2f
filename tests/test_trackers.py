"""Trackers get every number, a resumed training goes on in them, and none of them can cost a training."""

import csv
import http.server
import importlib.util
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import sightline
from conftest import QUICK, coloured_folder
from sightline.cli.main import main
from sightline.config.fitting import TrackConfig
from sightline.config.resolving import read_recipe, resolve
from sightline.display.lines import Lines
from sightline.display.reporting import ignore
from sightline.errors import ConfigError
from sightline.machine import extras
from sightline.runs import folder
from sightline.training import module
from sightline.training import trackers as tracking

SHORT = QUICK | {"fit": {"epochs": 2, "batch_size": 16}}  # 39 images: three steps an epoch


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_folder(tmp_path_factory.mktemp("images") / "colours", images=20)


@pytest.fixture(scope="module")
def plain(colours: Path) -> Path:
    """A run without any tracker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(colours.parent / "cache"))
        return train(colours, colours.parent / "plain")


@pytest.fixture(scope="module")
def whole(colours: Path) -> Path:
    """A run with the CSV tracker that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(colours.parent / "cache"))
        return train(colours, colours.parent / "whole", "csv")


@pytest.fixture(autouse=True)
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds the key of whoever runs it, so nothing is ever uploaded."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))


def train(data: Path, run: Path, *trackers: str, resume: bool = False, console: Console | None = None) -> Path:
    settings = SHORT | ({"track": {"to": trackers, "every": 1}} if trackers else {})
    made = sightline.train(
        data,
        recipe="small",
        settings=settings,
        run=run,
        resume=resume,
        on_event=ignore if console is None else Lines(console),
    )
    assert made is not None
    return made


def rows(run: Path) -> list[dict[str, str]]:
    """The filled cells of every row of the CSV tracker."""
    with (run / "logs" / "csv" / "metrics.csv").open() as file:
        return [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def without_times(found: list[dict[str, str]]) -> list[dict[str, str]]:
    timed = ("second", "cost", "flops")
    return [{name: cell for name, cell in row.items() if not any(word in name for word in timed)} for row in found]


def same_bits(one: Path, other: Path) -> bool:
    left, right = (folder.read_weights(run / "model.safetensors")[0] for run in (one, other))
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)


def stop_at(monkeypatch: pytest.MonkeyPatch, occasion: int) -> None:
    """Stop a training in the ``occasion``-th step, counted from 0."""
    step, count = module.ClassifierLearner.training_step, -1

    def dying(self: Any, batch: Any, index: int) -> Any:
        nonlocal count
        count += 1
        if count == occasion:
            raise SystemError("killed")
        return step(self, batch, index)

    monkeypatch.setattr(module.ClassifierLearner, "training_step", dying)


# ── CSV, which needs nothing ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_csv_tracker_gets_the_rate_of_every_step_each_epoch_the_final_numbers_and_all_settings(
    whole: Path,
) -> None:
    run = whole
    found = rows(run)
    steps = [row for row in found if "rate/filters" in row]
    assert [int(row["step"]) for row in steps] == [0, 1, 2, 3, 4, 5]
    rates = [float(row["rate/filters"]) for row in steps]
    assert rates == pytest.approx([0.1 * (1 - step / 6) for step in range(6)])  # a straight line to zero
    epochs = [row for row in found if "epoch" in row]
    with (run / "metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    assert [row["step"] for row in epochs] == ["2", "5"]  # the last step of each
    for tracked, line in zip(epochs, logged, strict=True):
        assert {name: float(cell) for name, cell in line.items()} == pytest.approx(
            {name: float(tracked[name]) for name in line}
        )
    final = {name: float(cell) for name, cell in found[-1].items()}
    model = json.loads((run / "model.json").read_text())
    assert final["step"] == 6
    assert final["final/accuracy"] == model["metrics"]["accuracy"]
    assert [final["final/accuracy_low"], final["final/accuracy_high"]] == model["metrics"]["accuracy_interval"]
    assert final["final/calibration_error"] == model["metrics"]["calibration_error"]
    assert final["final/cost"] == model["cost"]["cost"]
    import yaml

    settings = yaml.safe_load((run / "logs" / "csv" / "hparams.yaml").read_text())
    assert (settings["fit.epochs"], settings["optimizer.kind"], settings["track.to"]) == (2, "muon", ["csv"])


def test_a_run_with_a_tracker_has_the_same_weights_and_one_folder_more(plain: Path, whole: Path) -> None:
    assert same_bits(plain, whole)
    names = [{path.name for path in run.iterdir()} for run in (plain, whole)]
    assert names[1] - names[0] == {"logs"}


@pytest.mark.parametrize("occasion", [2, 4], ids=["within the first epoch", "after a checkpoint"])
def test_a_resumed_training_goes_on_in_the_same_table_and_repeats_no_row(
    colours: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, occasion: int
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, occasion)
        with pytest.raises(SystemError):
            train(colours, tmp_path / "run", "csv")
    assert len(rows(tmp_path / "run")) == occasion + 1 + occasion // 3  # its rates, and its epochs
    resumed = train(colours, tmp_path / "run", "csv", resume=True)
    assert without_times(rows(resumed)) == without_times(rows(whole))
    assert not (resumed / "logs" / "csv" / "before.csv").exists()


def test_a_table_that_was_put_aside_when_the_process_was_killed_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "logs" / "csv").mkdir(parents=True)
    (tmp_path / "logs" / "csv" / "before.csv").write_text("rate,step\n-0.5,0\n0.25,1\n0.125,2\n0.0")  # half a line
    tracker = tracking.Tracker("csv", tracking.Place(tmp_path, 2, TrackConfig(to=("csv",)), pytest.fail, pytest.fail))
    tracker.log_metrics({"rate": 0.1}, 2)
    tracker.close(0)
    text = (tmp_path / "logs" / "csv" / "metrics.csv").read_text()
    assert text.split() == ["rate,step", "-0.5,0", "0.25,1", "0.1,2"]


# ── what fails ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tracker_that_fails_is_left_out_and_said_once_and_the_training_goes_on(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.loggers import CSVLogger

    calls = 0

    def full(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise OSError("No space left on device")

    monkeypatch.setattr(CSVLogger, "log_metrics", full)
    with pytest.warns(
        UserWarning, match=r"tracker csv failed and is left out from here on \(OSError: No space"
    ) as said:
        run = train(colours, tmp_path / "run", "csv")
    assert (run / "DONE").exists()
    assert (calls, sum("tracker" in str(warning.message) for warning in said)) == (1, 1)


def test_a_tracker_that_cannot_even_begin_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    said: list[str] = []
    tracker = tracking.Tracker("csv", tracking.Place(tmp_path, 0, TrackConfig(to=("csv",)), pytest.fail, said.append))
    tracker.log_metrics({"rate": 0.1}, 0)
    tracker.close(0)
    assert len(said) == 1
    assert "the tracker csv failed and is left out" in said[0]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_tracker_whose_library_is_missing_is_refused_before_anything_is_read(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, name: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda wanted: None if wanted == name else find(wanted))
    extra = "mlflow" if name == "mlflow" else "track"
    sentence = f"--track.to {name} needs {name}, which is not installed; run: pip install '.[{extra}]'"
    with pytest.raises(ConfigError) as caught:
        sightline.train(colours, settings={"track": {"to": [name]}}, run=tmp_path / "run")
    assert str(caught.value) == sentence
    assert main(["train", str(colours), "--track.to", name, "--run", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"sightline: {sentence}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"every": 10}, r"--track.every has no effect without a tracker"),
        ({"to": ("csv",), "every": 0}, r"--track.every is 0; it must be at least 1"),
        ({"to": ("csv",), "project": "flowers"}, r"--track.project has no effect without --track.to wandb or mlflow"),
        ({"to": ("mlflow",), "offline": True}, r"--track.offline has no effect without --track.to wandb"),
        ({"to": ("tensorboard",), "offline": True}, r"--track.offline has no effect without --track.to wandb"),
        ({"to": ("csv", "csv")}, r"--track.to names csv twice; once is enough"),
        ({"to": ("wandb",), "project": "a/b"}, r"--track.project is 'a/b'; it must be a name without any of"),
        ({"to": ("wandb",), "project": " "}, r"--track.project is ' '; it must be a name"),
    ],
)
def test_a_setting_of_a_tracker_that_would_have_no_effect_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TrackConfig(**settings)


def test_every_tracker_that_can_be_named_is_there() -> None:
    assert set(tracking.TRACKERS) == {"tensorboard", "wandb", "mlflow", "csv"}
    recipe = resolve(read_recipe("small"), {"track": {"to": list(tracking.TRACKERS), "project": "flowers"}})
    assert recipe.track.to == tuple(tracking.TRACKERS)


# ── the others, where they are installed ───────────────────────────────────────────────────────


def test_tensorboard_reads_back_every_number_of_a_training_that_was_resumed(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(SystemError):
            train(colours, tmp_path / "run", "tensorboard", "csv")
    run = train(colours, tmp_path / "run", "tensorboard", "csv", resume=True)
    read = EventAccumulator(str(run / "logs" / "tensorboard"))
    read.Reload()
    rates = [(event.step, event.value) for event in read.Scalars("rate/filters")]
    assert rates == [(step, pytest.approx(0.1 * (1 - step / 6))) for step in range(6)]
    assert [event.step for event in read.Scalars("val_loss")] == [2, 5]
    model = json.loads((run / "model.json").read_text())
    (accuracy,) = read.Scalars("final/accuracy")
    assert (accuracy.step, accuracy.value) == (6, pytest.approx(model["metrics"]["accuracy"]))
    packed = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    table = plugin_data_pb2.HParamsPluginData.FromString(packed).session_start_info.hparams
    assert table["optimizer.kind"].string_value == "muon"
    assert table["fit.epochs"].number_value == 2


def offline_runs(run: Path) -> list[Path]:
    return sorted((run / "logs" / "wandb").glob("offline-run-*/*.wandb"))


def comes_to_hold(file: Path, *words: bytes) -> bool:
    """Whether a file holds some words within ten seconds: W&B's own process writes it, and outlives `finish`."""
    end = time.monotonic() + 10
    while not (found := all(word in file.read_bytes() for word in words)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_weights_and_biases_without_a_key_keeps_the_run_in_its_folder_and_resumes_the_same_one(
    colours: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    import wandb

    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    console = Console(record=True, width=300, file=(tmp_path / "screen").open("w"))
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(SystemError):
            train(colours, tmp_path / "run", "wandb", console=console)
    with pytest.warns(UserWarning, match="there is no key"):  # where nothing is printed
        run = train(colours, tmp_path / "run", "wandb", resume=True)
    assert (
        "warning: wandb: there is no key (`wandb login` asks for one), so the run stays in its folder"
        in console.export_text()
    )
    identity = (run / "logs" / "wandb" / "id").read_text()
    files = offline_runs(run)
    assert [file.name for file in files] == [f"run-{identity}.wandb"] * 2
    assert wandb.run is None
    words = (b"final/accuracy", b"rate/filters", b"optimizer.kind", b"muon", b"sightline", str(run).encode())
    assert comes_to_hold(files[-1], *words)  # a log of protocol buffers; the words in it are plain
    assert same_bits(plain, run)


def test_weights_and_biases_that_does_not_answer_keeps_the_run_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    import wandb

    start = wandb.init

    def unreachable(**named: Any) -> Any:
        if named["mode"] == "online":
            raise wandb.errors.CommError("Run initialization has timed out")
        return start(**named)

    monkeypatch.setattr(wandb, "init", unreachable)
    monkeypatch.setattr(tracking, "reachable", lambda url, seconds: url.startswith("https://"))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    said: list[str] = []
    place = tracking.Place(tmp_path / "run", 0, TrackConfig(to=("wandb",), project="flowers"), pytest.fail, said.append)
    tracker = tracking.Tracker("wandb", place)
    tracker.log_metrics({"rate": 0.5}, 0)
    tracker.close(0)
    assert len(said) == 1
    assert "there was no connection (Run initialization has timed out)" in said[0]
    assert comes_to_hold(offline_runs(tmp_path / "run")[0], b"flowers", b"rate")


def test_a_key_without_a_network_costs_a_moment_and_keeps_the_run_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    import wandb

    def online(**named: Any) -> Any:
        assert named["mode"] == "offline", "it tried to reach a host that takes no connection"
        return start(**named)

    start = wandb.init
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setattr(wandb, "init", online)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(wandb, "setup", lambda: SimpleNamespace(settings=wandb.Settings(base_url=address)))
        said: list[str] = []
        place = tracking.Place(tmp_path / "run", 0, TrackConfig(to=("wandb",)), pytest.fail, said.append)
        tracking.Tracker("wandb", place).close(0)
    later = f"upload it with `wandb sync {tmp_path / 'run'}/logs/wandb/offline-run-*`."
    assert said == [f"wandb: 127.0.0.1 cannot be reached, so the run stays in its folder; {later}"]
    assert offline_runs(tmp_path / "run")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store of MLflow; to make one takes it some seconds."""
    for library in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(library)
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def mlflow_place(run: Path, warn: Any = pytest.fail, step: int = 0, project: str | None = None) -> tracking.Place:
    return tracking.Place(run, step, TrackConfig(to=("mlflow",), project=project), ignore, warn)


def test_mlflow_gets_every_number_and_setting_and_a_resumed_training_goes_on_in_the_same_run(
    colours: Path, plain: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(SystemError):
            train(colours, tmp_path / "run", "mlflow")
    identity = (tmp_path / "run" / "logs" / "mlflow" / "id").read_text()
    assert client.get_run(identity).info.status == "FAILED"
    run = train(colours, tmp_path / "run", "mlflow", resume=True)

    experiment = client.get_experiment_by_name("sightline")
    assert experiment is not None
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert (tracked.info.run_id, tracked.info.run_name, tracked.info.status) == (identity, "run", "FINISHED")
    assert tracked.data.tags["sightline.run"] == str(run)
    assert (tracked.data.params["fit.epochs"], tracked.data.params["optimizer.kind"]) == ("2", "muon")
    model = json.loads((run / "model.json").read_text())
    assert tracked.data.metrics["final/accuracy"] == model["metrics"]["accuracy"]
    rates = {metric.step: metric.value for metric in client.get_metric_history(identity, "rate/filters")}
    assert rates == pytest.approx({step: 0.1 * (1 - step / 6) for step in range(6)})
    assert [metric.step for metric in client.get_metric_history(identity, "val_loss")] == [2, 5]
    assert same_bits(plain, run)


def test_a_run_that_mlflow_no_longer_has_is_begun_again_and_said(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    tracking.Tracker("mlflow", mlflow_place(tmp_path, project="flowers")).close(0)
    identity = (tmp_path / "logs" / "mlflow" / "id").read_text()
    MlflowClient(store).delete_run(identity)
    said: list[str] = []
    tracker = tracking.Tracker("mlflow", mlflow_place(tmp_path, said.append, project="flowers"))
    tracker.log_metrics({"rate": 0.5}, 3)
    tracker.close(0)
    assert said == [f"mlflow: {store} has no run {identity}, which was begun; a new one goes on."]
    begun = (tmp_path / "logs" / "mlflow" / "id").read_text()
    assert begun != identity
    assert MlflowClient(store).get_run(begun).data.metrics == {"rate": 0.5}


def test_mlflow_leaves_the_process_as_it_was_and_reports_nothing_of_it(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: store)  # as where nothing is set: a file of this folder
    before = {name for name in os.environ if name.startswith("MLFLOW")} | {"MLFLOW_DISABLE_TELEMETRY"}
    tracking.Tracker("mlflow", mlflow_place(tmp_path)).close(0)
    assert {name for name in os.environ if name.startswith("MLFLOW")} == before
    assert not mlflow.is_tracking_uri_set()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert not caplog.records


def test_a_store_of_mlflow_that_takes_no_connection_costs_a_moment(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://eve:secret@127.0.0.1:{free.getsockname()[1]}")
        said: list[str] = []
        start = time.monotonic()
        tracker = tracking.Tracker("mlflow", mlflow_place(tmp_path, said.append))
        tracker.log_metrics({"rate": 0.5}, 0)
        tracker.close(0)
    assert time.monotonic() - start < 10
    assert said == [
        "the tracker mlflow failed and is left out from here on (ConnectionError: 127.0.0.1 cannot be reached);"
        " the training goes on, and metrics.csv gets its numbers."
    ]


def test_a_store_of_mlflow_that_fails_is_given_up_within_seconds_and_no_password_is_said(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://eve:secret@127.0.0.1:{server.server_port}")
        said: list[str] = []
        start = time.monotonic()
        tracking.Tracker("mlflow", mlflow_place(tmp_path, said.append)).close(0)
        server.shutdown()
    assert time.monotonic() - start < 20
    (sentence,) = said
    assert "the tracker mlflow failed and is left out from here on" in sentence
    assert "503" in sentence
    assert "secret" not in sentence
    assert len(sentence) < 500
