"""One training by several processes: the same arithmetic, every image once, and one run folder."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from conftest import coloured_folder, wait_for_group_to_end
from sightline.errors import ConfigError
from sightline.runs import folder
from sightline.training.callbacks.cost import CostMeter

PROGRAM = """
import json, os, sys
import torch
import sightline
from sightline.training import network as architecture
from sightline.training import module as learners
from sightline.models.base import Network

class Plain(Network):  # without batch-norm, which would see the part of its process only
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 3)
    def feature_map(self, images):
        return torch.relu(self.convolution(images))

architecture.build_network = lambda *_: Plain()
step, rank = learners.ClassifierLearner.training_step, int(os.environ.get("LOCAL_RANK", "0"))

def noted(self, batch, index):
    loss = step(self, batch, index)
    mean, std = self.trainer.datamodule.normalization.tensors(loss.device)
    values = batch.images[:, 0, 0, 0] * std[0] + mean[0]
    with open(f"{sys.argv[2]}.{rank}.jsonl", "a") as file:
        print(json.dumps([batch.epoch, loss.item(), (values * 255).round().int().tolist()]), file=file)
    return loss

learners.ClassifierLearner.training_step = noted
settings = {"fit": {"processes": int(sys.argv[3]), "epochs": 7, "batch_size": 13, "precision": "float32"},
            "augment": {"flip": "none"}, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
sightline.train(sys.argv[1], recipe={"name": "plain"}, settings=settings, run=sys.argv[2])
"""


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Sixty plain images whose red is their number."""
    for number in range(60):
        path = tmp_path / "numbered" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((16, 16, 3), number, np.uint8)
        pixels[..., 1 + number % 2] = 40 * (number % 3)
        Image.fromarray(pixels).save(path)
    return tmp_path / "numbered"


def command(*arguments: object) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def notes(run: Path, rank: int) -> list[list]:
    return [json.loads(line) for line in Path(f"{run}.{rank}.jsonl").read_text().splitlines()]


def test_two_processes_take_the_steps_of_one_and_see_every_image_once(numbered: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    for processes in (1, 2):
        ended = subprocess.run(
            command(program, numbered, tmp_path / f"by{processes}", processes), capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
    alone, first, second = notes(tmp_path / "by1", 0), notes(tmp_path / "by2", 0), notes(tmp_path / "by2", 1)
    assert len(alone) == len(first) == len(second) == 21
    for (_, loss, images), (_, left, some), (_, right, others) in zip(alone, first, second, strict=True):
        assert (left + right) / 2 == pytest.approx(loss, abs=1e-5)
        assert some + others == images
        assert min(len(some), len(others)) >= 6
    for epoch in range(7):
        seen = [image for name in (first, second) for at, _, images in name if at == epoch for image in images]
        assert len(seen) == len(set(seen)) == 39
    one, two = (folder.read_weights(tmp_path / f"by{count}" / "model.safetensors")[0] for count in (1, 2))
    assert all(one[name].allclose(two[name], atol=1e-5) for name in one)
    measured = [json.loads((tmp_path / f"by{count}" / "evaluation.json").read_text()) for count in (1, 2)]
    assert measured[0]["accuracy"] == measured[1]["accuracy"]


SETTINGS = (
    *("--recipe", "small", "--network.widths", "8", "16", "16"),
    *("--fit.epochs", "4", "--fit.batch-size", "16", "--fit.processes", "2"),
)


def train(*arguments: object) -> list[str]:
    return command("-m", "sightline", "train", *arguments, *SETTINGS, "--fit.checkpoint-seconds", "0")


def begun(run: Path, arguments: list[str], file: str) -> subprocess.Popen[str]:
    """A training in processes of their own group, as a terminal starts it, as soon as its run has a file."""
    process = subprocess.Popen(arguments, start_new_session=True, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (run / file).exists() and time.monotonic() < until:
        time.sleep(0.01)
    return process


def test_ctrl_c_and_a_kill_end_all_processes_and_the_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    colours = coloured_folder(tmp_path / "colours")
    whole = subprocess.run(train(colours, "--run", tmp_path / "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("epoch 4/4") == 1  # told by one process only
    assert whole.stdout.splitlines()[-1] == str(tmp_path / "whole")

    run = tmp_path / "stopped"
    process = begun(run, train(colours, "--run", run), "last.ckpt")
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors.count("sightline: stopped; continue with: sightline train --resume --run") == 1
    wait_for_group_to_end(process.pid)

    (run / "previous.ckpt").unlink(missing_ok=True)
    process = begun(run, train(colours, "--run", run, "--resume"), "previous.ckpt")  # a step further
    os.kill(process.pid, signal.SIGKILL)
    assert "Traceback" not in process.communicate(timeout=60)[1]  # its helper ends without a word
    wait_for_group_to_end(process.pid)
    assert not (run / "DONE").exists()

    resumed = subprocess.run(train(colours, "--run", run, "--resume"), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    one, two = (folder.read_weights(tmp_path / name / "model.safetensors")[0] for name in ("whole", "stopped"))
    assert all(one[name].equal(two[name]) for name in one)
    tables = [(tmp_path / name / "predictions.csv").read_bytes() for name in ("whole", "stopped")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("first", [True, False])
def test_the_clock_of_the_first_process_decides_whether_all_of_them_time_the_machine(first: bool) -> None:
    strategy = SimpleNamespace(broadcast=lambda due: first, reduce=lambda own, reduce_op: own)
    meter = CostMeter(torch.float32)
    meter._epoch_seconds = 14.999 if first else 15.001  # by the clock of another one
    trainer, learner = SimpleNamespace(world_size=2, strategy=strategy), SimpleNamespace(device=torch.device("cpu"))
    meter.on_train_epoch_start(trainer, learner)  # type: ignore[arg-type]
    assert len(meter.probes) == first


def test_more_processes_than_cores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--fit\.processes is 500, and this machine has \d+ cores; choose at most"):
        sightline.train(
            coloured_folder(tmp_path / "colours"),
            recipe="small",
            settings={"fit": {"processes": 500, "batch_size": 1000}},
            run=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_a_program_without_a_file_cannot_start_others(tmp_path: Path) -> None:
    coloured_folder(tmp_path / "colours")
    program = "import sightline; sightline.train('colours', recipe='small', settings={'fit': {'processes': 2}})"
    ended = subprocess.run(command("-c", program), capture_output=True, text=True, cwd=tmp_path)
    assert "it has no file" in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_what_the_environment_said_to_helpers_is_taken_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "mine")
    with folder.helped(tmp_path / "run"):
        os.environ["LOCAL_RANK"] = "1"
        assert folder.run_to_help() == tmp_path / "run"
        os.environ["LOCAL_RANK"] = "0"
        assert folder.run_to_help() is None
    assert "LOCAL_RANK" not in os.environ
    assert os.environ["WORLD_SIZE"] == "mine"
