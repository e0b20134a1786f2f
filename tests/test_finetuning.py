"""Freezing and unfreezing while a network trains: what is frozen keeps every bit, the rest learns at the rates written."""

import io
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from rich.console import Console
from torch import nn

import sightline
from conftest import Finished, coloured_folder
from sightline.config.resolving import resolve
from sightline.display.lines import Lines
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, TrainingError
from sightline.models.base import Network
from sightline.runs import folder as runs
from sightline.training import fit as fitting
from sightline.training import module as learners
from sightline.training import network as architecture
from sightline.training import preparation
from sightline.training.callbacks import cost
from sightline.training.callbacks.averaging import Averaging
from sightline.training.module import ClassifierLearner
from sightline.training.trainer import build_trainer
from test_averaging import Images
from test_train import Killed, epochs_of, interrupt, same_bits

BATCHES = 3
OPTIMIZERS = ["sgd", "adamw", "muon", "adam", "adagrad", "rmsprop"]


class Three(Network):
    """Two layers of a convolution, a batch-norm and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3), nn.Dropout(0.2)) for _ in range(2)
        )
        self.head = nn.Linear(3, 2)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.second(self.first(images))
        return maps


class Watching(L.Callback):
    """Notes the whole state at the start and the end of each epoch, and the modes, rates and graphs of each step."""

    def __init__(self) -> None:
        self.before: list[dict[str, torch.Tensor]] = []
        self.averages: list[dict[str, torch.Tensor]] = []
        self.after: list[dict[str, torch.Tensor]] = []
        self.validated: list[dict[str, torch.Tensor]] = []
        self.modes: list[dict[str, bool]] = []
        self.rates: list[dict[str, float]] = []
        self.buffers: list[list[float]] = []
        self.graphs: list[tuple[bool, bool]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        network = pl_module.network
        for layer in (network.first, network.second):
            layer.register_forward_hook(lambda module, _, output: self._graphs.append(output.requires_grad))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:  # the callbacks of the epoch's start have run
            self.before.append(state(pl_module.network))
            averages = [item.network for item in trainer.callbacks if isinstance(item, Averaging)]
            self.averages.append({} if averages in ([], [None]) else state(averages[0]))
            optimizer = trainer.optimizers[0]
            self.buffers.append(
                [float(item.abs().sum()) for kept in optimizer.state.values() for item in kept.values()]
            )
        self.modes.append({name: module.training for name, module in pl_module.network.named_modules()})
        self.rates.append({group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups})
        self._graphs: list[bool] = []

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.validated.append(state(pl_module.network))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.graphs.append((self._graphs[0], self._graphs[1]))
        if trainer.is_last_batch:
            self.after.append(state(pl_module.network))


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not one[name].equal(other[name])}


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Any, Watching]]:
    monkeypatch.setattr("sightline.training.callbacks.cost.convolution_flops", lambda *_: 1.0)

    def run(console: Console | None = None, **settings: Any) -> tuple[L.Trainer, ClassifierLearner, Watching]:
        settings["fit"] = {"epochs": 6, "precision": "float32"} | settings.get("fit", {})
        recipe = resolve({"schedule": {"kind": "constant"}, "optimizer": {"kind": "sgd"}}, settings)
        torch.manual_seed(0)
        learner, watching = ClassifierLearner(Three(), recipe, BATCHES), Watching()
        trainer = build_trainer(recipe, tmp_path, ignore if console is None else Lines(console))
        trainer.callbacks.append(watching)  # type: ignore[attr-defined]
        trainer.fit(learner, Images(BATCHES))
        return trainer, learner, watching

    return run


def phases(*written: tuple[int, list[str], float], **settings: Any) -> dict[str, Any]:
    blocks = [{"epochs": epochs, "train": train, "rate": rate} for epochs, train, rate in written]
    return {"kind": "phases", "phases": blocks} | settings


THERE_AND_BACK = phases((2, ["head"], 1.0), (2, ["all"], 0.5), (2, ["first"], 1.0))
FIRST = {"first.0.weight", "first.1.weight", "first.1.bias"}
SECOND = {"second.0.weight", "second.1.weight", "second.1.bias"}
HEAD = {"head.weight", "head.bias"}
STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


def statistics_of(layer: str) -> set[str]:
    return {f"{layer}.1.{name}" for name in STATISTICS}


# ── what is frozen ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"averaging": {"kind": "ema", "decay": 0.5}, "clip": {"kind": "norm"}, "fit": {"accumulate": {0: 2, 2: 1}}}],
    ids=["plain", "with everything"],
)
def test_what_is_frozen_keeps_every_bit_of_weights_and_statistics_and_all_else_moves(
    fit, kind: str, settings: dict[str, Any]
) -> None:
    """In the last phase head and second layer are frozen after they have gathered momentum and are subject to decay."""
    seen = fit(finetune=THERE_AND_BACK, optimizer={"kind": kind}, **settings)[2]
    moved = [changed(before, after) for before, after in zip(seen.before, seen.after, strict=True)]
    assert moved[0] == moved[1] == HEAD
    assert moved[2] == moved[3] == HEAD | FIRST | SECOND | statistics_of("first") | statistics_of("second")
    assert moved[4] == moved[5] == FIRST | statistics_of("first")


def test_a_frozen_layer_stays_in_evaluation_mode_after_each_validation(fit) -> None:
    seen = fit(finetune=THERE_AND_BACK)[2]
    for step, modes in enumerate(seen.modes):
        phase = step // (2 * BATCHES)
        for name, mode in modes.items():
            if name:
                assert mode == {"first": phase > 0, "second": phase == 1, "head": phase < 2}[name.split(".")[0]]


def test_no_gradient_is_computed_below_the_lowest_layer_that_learns(fit) -> None:
    finetune = phases((2, ["head"], 1.0), (2, ["head", "second"], 1.0), (2, ["all"], 1.0))
    seen = fit(finetune=finetune)[2]
    per_phase = [set(seen.graphs[6 * phase : 6 * phase + 6]) for phase in range(3)]
    assert per_phase == [{(False, False)}, {(False, True)}, {(True, True)}]


def test_frozen_trains_the_head_alone_and_only_the_head_is_in_the_optimizer(fit) -> None:
    trainer, _, seen = fit(finetune="frozen")
    assert changed(seen.before[0], seen.after[-1]) == HEAD
    assert {group["part"] for group in trainer.optimizers[0].param_groups} == {"head", "head_biases"}
    assert sum(len(group["params"]) for group in trainer.optimizers[0].param_groups) == 2


@pytest.mark.parametrize(
    "averaging",
    [{"kind": "ema", "decay": 0.5}, {"kind": "swa", "start": 0.5, "anneal_epochs": 0.5}],
    ids=["ema", "swa"],
)
def test_an_average_keeps_every_bit_of_what_is_frozen(fit, averaging: dict[str, Any]) -> None:
    trainer, _, seen = fit(finetune=phases((6, ["head", "second"], 1.0)), averaging=averaging)
    average = next(item for item in trainer.callbacks if isinstance(item, Averaging)).network
    assert average is not None
    moved = changed(seen.before[0], state(average))
    assert moved == HEAD | SECOND | statistics_of("second")


def test_swa_measures_the_statistics_of_what_learns_behind_what_is_frozen(fit) -> None:
    swa = {"kind": "swa", "start": 0.5, "anneal_epochs": 0.5}
    trainer, *_ = fit(finetune=phases((6, ["head", "second"], 1.0)), averaging=swa)
    network = next(item for item in trainer.callbacks if isinstance(item, Averaging)).network
    assert network is not None
    network.eval()
    with torch.no_grad():
        maps = torch.cat([network.second[0](network.first(batch.images)) for batch in Images(BATCHES).batches])
    torch.testing.assert_close(network.second[1].running_mean, maps.mean((0, 2, 3)))


# ── rates ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_phase_goes_through_the_schedule_anew_up_to_its_share_of_the_peak(fit) -> None:
    """A line from 0.1 over the six steps of a phase; the second phase at half, the third with a layer decay."""
    finetune = phases((2, ["head"], 1.0), (2, ["head", "second"], 0.5), (2, ["all"], 1.0), layer_decay=0.1)
    seen = fit(finetune=finetune, optimizer={"learning_rate": 0.1}, schedule={"kind": "linear"})[2]
    line = [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert [rates["head"] for rates in seen.rates] == pytest.approx(
        [0.1 * share for share in [*line, *(0.5 * share for share in line), *line]]
    )
    for rates in seen.rates:
        assert rates["filters-0.1"] == pytest.approx(rates["head"] / 10)  # second
        assert rates["filters-0.01"] == pytest.approx(rates["head"] / 100)  # first
        assert rates["biases-0.1"] == pytest.approx(rates["head"] / 10)


def test_discriminative_rates_move_each_layer_by_its_share(fit) -> None:
    """The first step of plain SGD is the rate times the gradient, so it is a quarter of that without decay."""
    plain = {"kind": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    one = fit(fit={"epochs": 1}, optimizer=plain)[2]
    other = fit(fit={"epochs": 1}, optimizer=plain, finetune={"kind": "discriminative", "layer_decay": 0.5})[2]
    assert {name: rates for name, rates in other.rates[0].items() if name.startswith(("filters", "head"))} == {
        "head": pytest.approx(0.1),
        "head_biases": pytest.approx(0.1),
        "filters-0.5": pytest.approx(0.05),
        "filters-0.25": pytest.approx(0.025),
    }
    assert one.rates[0] == {"filters": 0.1, "head": 0.1, "head_biases": 0.1, "biases": 0.1}


def test_a_plateau_begins_anew_with_each_phase(fit, monkeypatch) -> None:
    losses = iter([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(
        ClassifierLearner,
        "on_validation_epoch_end",
        lambda self: (self.validation_totals.take(), self.log("val_loss", next(losses)))[0],
    )
    plateau = {"kind": "plateau", "patience": 0, "factor": 0.1}
    finetune = phases((3, ["head"], 1.0), (3, ["all"], 1.0))
    seen = fit(finetune=finetune, schedule=plateau, optimizer={"learning_rate": 0.1})[2]
    rates = [seen.rates[BATCHES * epoch]["head"] for epoch in range(6)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.1, 0.1, 0.01])


# ── the best of a phase ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("averaging", [None, {"kind": "ema", "decay": 0.5}], ids=["plain", "ema"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_phase_begins_with_the_best_weights_of_the_one_before_and_no_memory(
    fit, monkeypatch, kind: str, averaging: Any
) -> None:
    losses = iter([2.0, 1.0, 3.0, 0.5, 2.0, 3.0])
    monkeypatch.setattr(
        ClassifierLearner,
        "on_validation_epoch_end",
        lambda self: (self.validation_totals.take(), self.log("val_loss", next(losses)))[0],
    )
    finetune = phases((3, ["head"], 1.0), (3, ["all"], 1.0), restore_best="val_loss")
    _, _, seen = fit(finetune=finetune, optimizer={"kind": kind}, averaging=averaging)
    assert changed(seen.before[3], seen.validated[1]) == set()  # the averaged ones, where there are such
    if averaging is not None:
        assert changed(seen.averages[3], seen.validated[1]) == set()
    assert changed(seen.before[3], seen.after[2]) == HEAD
    assert set(seen.buffers[3]) <= {0.0}  # momenta, squares and counts of steps
    assert max(seen.buffers[2], default=0.0) > 0
    assert changed(seen.before[4], seen.after[3]) == set()  # within a phase nothing is put back


def test_a_phase_none_of_whose_validations_was_finite_has_no_best_weights(fit, monkeypatch) -> None:
    monkeypatch.setattr(
        ClassifierLearner,
        "on_validation_epoch_end",
        lambda self: (self.validation_totals.take(), self.log("val_loss", float("nan")))[0],
    )
    with pytest.raises(TrainingError, match=r"no validation of the phase before epoch 4 had a finite val_loss"):
        fit(finetune=phases((3, ["head"], 1.0), (3, ["all"], 1.0), restore_best="val_loss"))


# ── trainings of an earlier run ──────────────────────────────────────────────────────────────────────────────────────

GRADUAL = {"kind": "gradual", "layer_decay": 0.5, "restore_best": "val_loss"}
VARIANTS: dict[str, dict[str, Any]] = {
    "gradual, the best of each phase, averaged": {
        "finetune": GRADUAL,
        "averaging": {"kind": "ema", "decay": 0.8},
        "optimizer": {"kind": "adam"},
        "augment": {"mix": {"kind": "mixup"}},
    },
    "written, plateau and accumulation": {
        "finetune": phases((3, ["head", "groups.2"], 1.0), (1, ["groups.1"], 0.5), (2, ["all"], 0.1)),
        "schedule": {"kind": "plateau", "patience": 0, "monitor": "train_acc", "factor": 0.5},
        "fit": {"accumulate": {0: 3, 3: 1}},
    },
    "frozen": {"finetune": "frozen"},
}
"""57 images in batches of 16: 4 batches an epoch, 6 epochs."""


def from_earlier(finished: Finished, **settings: Any) -> dict[str, Any]:
    fit = {"epochs": 6, "batch_size": 16, "checkpoint_seconds": 0.0} | settings.get("fit", {})
    return {"network": f"run:{finished.run}", "evaluation": {"views": "one"}} | settings | {"fit": fit}


def saying() -> Console:
    return Console(record=True, width=200, file=io.StringIO())


@pytest.fixture(scope="module")
def whole_runs(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, str]]:
    """The run of a variant that nothing stopped, and what it said; made once."""
    folder, said = tmp_path_factory.mktemp("whole"), {}

    def run_of(variant: str) -> tuple[Path, str]:
        if variant not in said:
            console = saying()
            settings = from_earlier(finished, **VARIANTS[variant])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("sightline.training.callbacks.cost.convolution_flops", lambda *_: 1.0)
                sightline.train(
                    finished.data, recipe="small", settings=settings, run=folder / variant, on_event=Lines(console)
                )
            said[variant] = console.export_text()
        return folder / variant, said[variant]

    return run_of


LEARNER, AVERAGED, WRITTEN, FROZEN = learners.ClassifierLearner, *VARIANTS


@pytest.mark.parametrize(
    ("variant", "place", "name", "occasion"),
    [
        pytest.param(AVERAGED, LEARNER, "training_step", 8, id="averaged, at the first step of a phase"),
        pytest.param(AVERAGED, LEARNER, "training_step", 10, id="averaged, in the first epoch of a phase"),
        pytest.param(AVERAGED, LEARNER, "validation_step", 3, id="averaged, in the last validation of a phase"),
        pytest.param(AVERAGED, fitting, "put_in_chosen", 0, id="averaged, after the last step"),
        pytest.param(WRITTEN, LEARNER, "training_step", 12, id="written, at the first step of a phase"),
        pytest.param(WRITTEN, LEARNER, "training_step", 14, id="written, in a phase of one epoch"),
        pytest.param(FROZEN, LEARNER, "training_step", 9, id="frozen"),
    ],
)
def test_a_fine_tuning_that_was_stopped_anywhere_ends_in_the_same_bits(
    variant: str,
    finished: Finished,
    whole_runs: Callable[[str], tuple[Path, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: object,
    name: str,
    occasion: int,
) -> None:
    monkeypatch.setattr("sightline.training.callbacks.cost.convolution_flops", lambda *_: 1.0)
    whole, _ = whole_runs(variant)
    settings = from_earlier(finished, **VARIANTS[variant])
    with monkeypatch.context() as patch:
        interrupt(patch, place, name, occasion, Killed)
        with pytest.raises(Killed):
            sightline.train(finished.data, recipe="small", settings=settings, run=tmp_path / "run")
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    assert resumed is not None
    assert same_bits(whole, resumed)
    assert epochs_of(whole) == epochs_of(resumed)


def test_the_log_shows_which_parameters_learn_when(whole_runs: Callable[[str], tuple[Path, str]]) -> None:
    run, said = whole_runs("gradual, the best of each phase, averaged")
    lines = [line for line in said.splitlines() if line.startswith("phase ") and "peak learning rates" in line]
    assert lines == [
        "phase 1 of 3, epochs 1 to 2: 48 of 10,888 parameters learn (head); peak learning rates: last layer 0.001",
        "phase 2 of 3, epochs 3 to 4: 8,176 of 10,888 parameters learn (head, groups.2, groups.1); peak learning rates: weights 0.00025"
        " to 0.0005, last layer 0.001, biases and norms 0.00025 to 0.0005",
        "phase 3 of 3, epochs 5 to 6: 10,496 of 10,888 parameters learn (all); peak learning rates: weights 0.000125 to 0.0005, last layer"
        " 0.001, biases and norms 0.000125 to 0.0005",
    ]
    assert said.count("best val_loss of the phase") == 2
    assert said.index("epoch 2/6") < said.index(lines[1]) < said.index("epoch 3/6")
    assert [(row["epoch"], row["phase"]) for row in epochs_of(run)] == [
        *(("1", "1"), ("2", "1"), ("3", "2"), ("4", "2"), ("5", "3"), ("6", "3"))
    ]
    rates = [float(row["learning_rate"]) for row in epochs_of(run)]  # of the last of the epoch's four steps
    assert rates == pytest.approx([5 / 8e3, 1 / 8e3, 5 / 16e3, 1 / 16e3, 5 / 16e3, 1 / 16e3])


def test_a_frozen_run_differs_from_its_backbone_in_the_head_alone(
    finished: Finished, whole_runs: Callable[[str], tuple[Path, str]]
) -> None:
    run, said = whole_runs("frozen")
    tensors = [runs.read_weights(folder / "model.safetensors")[0] for folder in (finished.run, run)]
    assert changed(*tensors) == {"head.weight"}
    assert "fine-tuning: 48 of 10,888 parameters learn (head); peak learning rates: last layer 0.0006" in said
    (warning,) = [line for line in said.splitlines() if "warning" in line]
    assert "15 images say too little to calibrate" in warning
    assert "phase" not in epochs_of(run)[0]


def test_half_of_validation_chooses_the_best_of_a_phase_and_the_other_half_calibrates(
    whole_runs: Callable[[str], tuple[Path, str]],
) -> None:
    assert runs.read_model(whole_runs("gradual, the best of each phase, averaged")[0])["calibrated_on"] == 9
    assert runs.read_model(whole_runs("frozen")[0])["calibrated_on"] == 15


def test_the_whitening_of_a_frozen_speednet_does_not_learn_and_one_is_told_that_it_has_learnt_nothing(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.training.callbacks.cost.convolution_flops", lambda *_: 1.0)
    console = saying()
    network = {"kind": "speednet", "widths": [8, 16, 16]}
    settings = from_earlier(finished, finetune="frozen", fit={"epochs": 1}) | {"network": network}
    run = sightline.train(
        finished.data, recipe="small", settings=settings, run=tmp_path / "run", on_event=Lines(console)
    )
    assert run is not None
    bias = runs.read_weights(run / "model.safetensors")[0]["whiten.bias"]
    assert bias.equal(torch.zeros_like(bias))  # as it begins, though it may learn for three epochs
    assert "warning: what is frozen has random weights; start from some that have learnt: --network run:FOLDER" in (
        console.export_text()
    )


@pytest.mark.parametrize(
    ("finetune", "until"),
    [
        ("frozen", "frozen throughout; `sightline plan` writes a schedule to edit"),
        ("gradual", "frozen at first; "),
        (phases((3, ["head", "stem"], 1.0), (3, ["all"], 1.0)), None),
        ("discriminative", None),
    ],
    ids=["frozen", "gradual", "not frozen", "discriminative"],
)
def test_a_stem_that_is_new_and_frozen_is_told(
    finished: Finished, tmp_path: Path, finetune: Any, until: str | None
) -> None:
    """Weights of ImageNet have another stem than a network for small images."""
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "a.pth")
    network = {"kind": "resnet18", "weights": str(tmp_path / "a.pth")}
    settings = from_earlier(finished, finetune=finetune) | {"network": network}
    plan = preparation.prepare_training(finished.data, "small", settings, ignore)
    told = [line for line in plan.notes() if "random weights" in line]
    if until is None:
        assert told == []
    else:
        assert told[0].startswith(f"  warning: stem begins with random weights and is {until}")
        assert len(told) == 1


def test_a_layer_that_is_not_there_is_refused_before_there_is_a_run(finished: Finished, tmp_path: Path) -> None:
    settings = from_earlier(finished, finetune=phases((2, ["head"], 1.0), (4, ["head", "groups.7"], 1.0)))
    with pytest.raises(
        ConfigError, match=r"phase 2 of finetune trains 'groups.7', and the network .*; did you mean 'groups.[0-2]'"
    ):
        sightline.train(finished.data, recipe="small", settings=settings, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_of_phases_resumes_under_its_own_settings_only(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = from_earlier(finished, finetune=phases((2, ["head"], 1.0), (4, ["all"], 1.0)))
    with monkeypatch.context() as patch:
        interrupt(patch, learners.ClassifierLearner, "training_step", 5, Killed)
        with pytest.raises(Killed):
            sightline.train(finished.data, recipe="small", settings=written, run=tmp_path / "run")
    written["finetune"]["phases"][1]["rate"] = 0.5
    with pytest.raises(ConfigError, match=r"cannot be continued with other settings: finetune.phases was .* and is "):
        sightline.train(finished.data, recipe="small", settings=written, run=tmp_path / "run", resume=True)


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────────

PROGRAM = """
import json, os, sys
import torch
import sightline
from sightline.training import network as architecture
from sightline.training import module as learners
from sightline.training.callbacks import cost
from sightline.models.base import Network

class Plain(Network):  # without batch-norm, which would see the part of its process only
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 3)
    def feature_map(self, images):
        return torch.relu(self.two(torch.relu(self.one(images))))

def noted(self, batch, index):
    if index == 0:
        sums = {name: tensor.double().sum().item() for name, tensor in self.network.state_dict().items()}
        with open(f"{sys.argv[2]}.{self.global_rank}.jsonl", "a") as file:
            print(json.dumps(sums), file=file)
    return step(self, batch, index)

cost.convolution_flops = lambda *_: 1.0
architecture.build_network = lambda *_: Plain()
step, learners.ClassifierLearner.training_step = learners.ClassifierLearner.training_step, noted
phases = [{"epochs": 1, "train": ["head"]}, {"epochs": 2, "train": ["two", "head"]}, {"epochs": 2, "train": ["one"]}]
settings = {"fit": {"processes": int(sys.argv[3]), "epochs": 5, "batch_size": 13, "precision": "float32"},
            "finetune": {"kind": "phases", "phases": phases, "restore_best": "val_loss"},
            "augment": {"flip": "none"}, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
sightline.train(sys.argv[1], recipe={"name": "plain"}, settings=settings, run=sys.argv[2])
"""


def test_two_processes_freeze_and_unfreeze_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, data = tmp_path / "program.py", coloured_folder(tmp_path / "colours", images=12)
    program.write_text(PROGRAM)
    with monkeypatch.context() as patch:  # what the program changes is put back
        for place, name in (
            (learners.ClassifierLearner, "training_step"),
            (architecture, "build_network"),
            (cost, "convolution_flops"),
        ):
            patch.setattr(place, name, getattr(place, name))
        patch.setattr(sys, "argv", [str(program), str(data), str(tmp_path / "by1"), "1"])
        runpy.run_path(str(program))
    command = [sys.executable, str(program), str(data), str(tmp_path / "by2"), "2"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    one, two = (runs.read_weights(tmp_path / f"by{count}" / "model.safetensors")[0] for count in (1, 2))
    assert all(one[name].allclose(two[name], atol=1e-5) for name in one)
    for rank in (0, 1):
        sums = [json.loads(line) for line in (tmp_path / f"by2.{rank}.jsonl").read_text().splitlines()]
        kept = [{name for name in now if now[name] == then[name]} for now, then in pairwise(sums)]
        head, first, second = ({f"{layer}.{part}" for part in ("weight", "bias")} for layer in ("head", "one", "two"))
        assert kept == [first | second, first, first, second | head]  # from one epoch's start to the next
