"""Finders: a range test whose answer can be calculated, and batch sizes that fit."""

import copy
import hashlib
import io
import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import QUICK, coloured_folder
from sightline.config.finding import BatchSearchConfig, RangeTestConfig
from sightline.config.optimizers import MuonConfig, SGDConfig
from sightline.config.resolving import merge, resolve
from sightline.data.batches import TrainingBatches
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, TrainingError
from sightline.machine import memory
from sightline.models.build import build_network
from sightline.runs import folder
from sightline.training import image_conflicts, preparation, train
from sightline.training.callbacks import cost
from sightline.training.finders import batch, rate
from sightline.training.finders import range_test as rangetest
from sightline.training.finders.batch import search_batch
from sightline.training.finders.range_test import RangeTest, range_test, smooth, steepest
from sightline.training.finders.rate import search_rate, write_range
from sightline.training.finders.sizes import Tried, fastest, search_sizes
from sightline.training.finders.steps import TrainingStep, copied_network, grouped, optimizer_of, training_batches
from sightline.training.optimizers import build_optimizer, peaks, scale_peaks, scaled

QUIET = ignore
CPU = torch.device("cpu")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return coloured_folder(tmp_path / "colours", images=20)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """One timed step of each batch size is enough here."""
    monkeypatch.setattr(batch, "TIMED_STEPS", 1)
    monkeypatch.setattr(batch, "TIMED_SECONDS", 0)


@pytest.fixture
def plan(colours: Path):
    """39 training images of three colours, for a tiny network."""

    def make(**settings):
        return preparation.prepare_training(colours, "small", merge(QUICK, settings), QUIET)

    return make


# ── the range test ───────────────────────────────────────────────────────────────────────────────────────────────────


class Bowl(nn.Module):
    """One weight w in a bowl: the loss is ``floor`` + λ w² / 2, whose gradient is λ w."""

    def __init__(self, curvature: float, floor: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.curvature, self.floor = curvature, floor

    def forward(self) -> torch.Tensor:
        return self.floor + self.curvature * self.weight**2 / 2


def roll(bowl: Bowl, optimizer: torch.optim.Optimizer, _: object) -> torch.Tensor:
    optimizer.zero_grad()
    loss = bowl()
    loss.backward()
    optimizer.step()
    return loss.detach()


def rolled(bowl: Bowl, rates: list[float], step=roll) -> RangeTest:
    return range_test(bowl, torch.optim.SGD(bowl.parameters(), lr=1.0), itertools.count(), rates, step, peak=1.0)


def test_in_a_bowl_the_losses_fall_fastest_at_the_rate_that_one_can_calculate(monkeypatch: pytest.MonkeyPatch) -> None:
    # A step at rate r multiplies w by 1 - λr, which is about exp(-λr). With n steps while the rate grows e-fold, the rates
    # so far add up to n·r, so w = exp(-nλr) and the loss exp(-2nλr) λ/2, which falls fastest over log r at r = 1/(2nλ).
    rates = RangeTestConfig(start=1e-4, end=10, steps=400).rates("sgd")
    by_hand = 1 / (2 * 399 / math.log(1e5))  # λ = 1
    smoothed = rolled(Bowl(1.0), rates).suggestion
    monkeypatch.setattr(rangetest, "SMOOTHED_OVER", 1 / 4000)  # nearly the losses themselves
    assert rolled(Bowl(1.0), rates).suggestion == pytest.approx(by_hand, rel=0.05)
    assert smoothed is not None
    assert 2 < smoothed / by_hand < 5  # behind by a tenth of the steps, half a decade: 3.2


def test_a_bowl_that_is_ten_times_as_steep_wants_a_tenth_of_the_rate() -> None:
    rates = RangeTestConfig(start=1e-5, end=10, steps=300).rates("sgd")
    flat, steep = (rolled(Bowl(curvature), rates).suggestion for curvature in (0.1, 1.0))
    assert flat is not None
    assert steep is not None
    assert flat / steep == pytest.approx(10, rel=0.1)


def test_the_suggestion_lies_left_of_the_minimum_and_noise_at_the_left_end_does_not_move_it() -> None:
    rates = RangeTestConfig(start=1e-4, end=10, steps=200).rates("sgd")
    clean = np.array([2.3 - 1.5 / (1 + (0.03 / value) ** 2) for value in rates])  # steepest at 0.03
    for seed in range(5):
        losses = clean + np.random.default_rng(seed).normal(0, 0.1, 200)
        losses[:3] += (0.5, 0.0, -0.5)  # a steeper fall than any that follows
        found = steepest(rates, losses, smooth(smooth(losses, 10), 10), 10)
        assert found is not None
        assert 0.03 < found < 0.3


def test_noise_alone_suggests_nothing() -> None:
    rates = RangeTestConfig().rates("sgd")
    losses = [2.3 + value for value in np.random.default_rng(0).normal(0, 0.1, 200)]
    assert steepest(rates, losses, smooth(smooth(losses, 10), 10), 10) is None
    assert steepest(rates, [2.0, 1.0], [2.0, 1.0], 0) is None  # two losses are no slope
    assert steepest(rates, [], [], 10) is None


def test_it_stops_where_the_loss_has_grown_fourfold() -> None:
    rates = RangeTestConfig(start=0.01, end=100, steps=100).rates("sgd")
    found = rolled(Bowl(1.0, floor=1.0), rates)
    assert found.diverged_at == found.rates[-1] == rates[len(found.losses) - 1]
    assert 2 < found.diverged_at < 20  # beyond 2/λ every step goes further up the other side
    assert len(found.smoothed) == len(found.losses) < 100
    assert found.suggestion is not None
    assert found.suggestion < 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_it_stops_at_a_loss_that_is_not_finite(bad: float) -> None:
    def step(bowl, optimizer, number):
        return torch.tensor(bad) if number == 30 else roll(bowl, optimizer, number)

    found = rolled(Bowl(1.0), RangeTestConfig().rates("sgd"), step)
    assert len(found.losses) == 31
    assert len(found.smoothed) == 30
    assert found.diverged_at == found.rates[30]


def test_a_smoothed_loss_is_an_average_of_those_before_it_from_the_first_on() -> None:
    reach = 1 / math.log(2)  # a half for each step
    assert smooth([1, 0, 0], reach) == pytest.approx([1, 0.5 / 1.5, 0.25 / 1.75])
    assert smooth([3.0] * 5, 10) == pytest.approx([3.0] * 5)  # the first are not drawn to zero


# ── what is put back ─────────────────────────────────────────────────────────────────────────────────────────────────


def digest(*parts: object) -> str:
    """A hash of tensors and plain values, bit by bit."""
    file = io.BytesIO()
    torch.save(parts, file)
    return hashlib.sha256(file.getvalue()).hexdigest()


def everything(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    return [
        digest([(name, tensor.clone()) for name, tensor in network.state_dict().items()]),
        digest([module.training for module in network.modules()]),
        digest(copy.deepcopy(optimizer.state_dict())),
        digest(torch.get_rng_state()),
        str(random.getstate()),
        str(np.random.get_state()),
    ]


@pytest.mark.parametrize(
    "config",
    [SGDConfig(), MuonConfig(), resolve({"optimizer": {"kind": "adam"}}).optimizer],
    ids=lambda each: each.kind,
)
@pytest.mark.parametrize("fails", [False, True])
def test_weights_buffers_optimizer_modes_and_generators_are_put_back_to_the_bit(config, fails: bool) -> None:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8 * 36, 3)]
    network = nn.Sequential(*body).train()
    network[2].eval()
    optimizer = build_optimizer(config, network)

    steps = []

    def step(network, optimizer, images):
        optimizer.zero_grad()
        loss = (
            nn.functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 0]))
            + random.random()
            + np.random.rand()
        )
        loss.backward()
        optimizer.step()
        steps.append(loss)
        if fails and len(steps) == 5:
            raise RuntimeError("in the middle")
        return loss.detach()

    images = torch.rand(4, 3, 8, 8)
    for _ in range(2):  # momentum and statistics are there
        step(network, optimizer, images)
    before = everything(network, optimizer)
    rates = RangeTestConfig(start=0.001, end=0.1, steps=20).rates("sgd")
    if fails:
        with pytest.raises(RuntimeError, match="in the middle"):
            range_test(network, optimizer, itertools.repeat(images), rates, step, peak=0.1)
    else:
        assert len(range_test(network, optimizer, itertools.repeat(images), rates, step, peak=0.1).losses) > 2
    assert everything(network, optimizer) == before


def test_a_search_leaves_the_network_of_the_plan_and_the_generators_alone(plan) -> None:
    made = plan()
    optimizer = build_optimizer(made.recipe.optimizer, made.network)
    before = everything(made.network, optimizer)
    search_rate(made, RangeTestConfig(steps=20), QUIET)
    search_batch(made, BatchSearchConfig(), QUIET)
    assert everything(made.network, optimizer) == before


# ── steps and rates ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "clip": {"kind": "norm", "limit": 0.1},
            "augment": {"mix": {"kind": "mixup"}},
            "optimizer": {"kind": "adam", "weight_decay": 0.1},
        },
        {
            "fit": {"accumulate": 2, "class_weights": "balanced", "label_smoothing": 0.3, "precision": "bfloat16"},
            "clip": {"kind": "value", "limit": 0.01},
            "data": {"size": 16},
            "optimizer": {"kind": "sgd"},
        },
    ],
    ids=["muon", "clipped, mixed", "accumulated, weighted, bfloat16"],
)
def test_steps_outside_of_the_trainer_are_those_of_the_training_to_the_bit(
    settings, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "convolution_flops", lambda *_: 1e9)  # in bfloat16 it takes long
    for number in range(5):  # so that a class is rarer
        (colours / "grass" / f"{number:03d}.png").unlink()
    plain = {
        "schedule": {"kind": "constant"},
        "network": {"whiten_bias_epochs": 0},  # its own rate falls from step to step
        "fit": {"epochs": 2},
        "evaluation": {"on": "none"},
    }
    quick = merge(merge(QUICK, plain), settings)
    made = preparation.prepare_training(colours, "small", quick, QUIET)
    fit = made.recipe.fit
    network, step = copied_network(made, CPU).train(), TrainingStep(made, CPU)
    optimizer = build_optimizer(made.recipe.optimizer, network)
    batches = TrainingBatches(
        made.images,
        made.splits.train,
        made.normalization,
        made.recipe.augment,
        batch_size=fit.batch_size,
        epochs=fit.epochs,
        seed=fit.seed,
        device=CPU,
        dtype=step.dtype,
    )
    count = fit.epochs * -(-len(batches) // fit.batches_a_step(0))
    for _, examples in zip(range(count), grouped(batches, made.recipe), strict=False):
        step(network, optimizer, examples)
    run = train.train(colours, recipe="small", settings=quick, run=tmp_path / "run")
    assert run is not None
    trained = folder.read_weights(run / "model.safetensors")[0]
    assert all(tensor.equal(trained[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("kind", ["sgd", "adam", "muon"])
def test_scaled_groups_are_those_that_the_scaled_settings_build(kind: str) -> None:
    config = resolve({"optimizer": {"kind": kind}}).optimizer
    network = build_network(resolve({"network": {"widths": [8, 8, 8]}}).network, 3, (16, 16))
    optimizer = build_optimizer(config, network)
    scale_peaks(optimizer, peaks(optimizer), 0.5)
    for group, wanted in zip(
        optimizer.param_groups, build_optimizer(scaled(config, 0.5), network).param_groups, strict=True
    ):
        assert group["lr"] == pytest.approx(wanted["lr"], rel=0.005)  # three digits
        assert group["weight_decay"] == pytest.approx(wanted["weight_decay"], rel=0.005)


def test_all_rates_of_muon_are_scaled_by_one_factor_and_its_shrink_stays() -> None:
    found = scaled(MuonConfig(learning_rate=0.24, head_learning_rate=0.02, bias_learning_rate=106, shrink=0.004), 0.25)
    assert found == MuonConfig(learning_rate=0.06, head_learning_rate=0.005, bias_learning_rate=26.5, shrink=0.004)


def test_a_short_training_rises_for_a_fifth_and_falls_to_nearly_zero() -> None:
    shares = [rate.rise_and_fall(step, 10) for step in range(10)]
    assert shares == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert rate.rise_and_fall(0, 1) > 0


@pytest.mark.parametrize(
    ("valley", "highest", "asked", "taken"),
    [
        (0, 9, [0, -2, 1], 0),
        (2, 9, [0, -2, 1, 2, 3], 2),
        (2, 1, [0, -2, 1], 1),  # none where the range test diverged
        (-1, 9, [0, -2, -1], -1),
        (-2, 9, [0, -2, -1, -3], -2),
        (-4, 9, [0, -2, -1, -3, -4, -5], -4),
        (-4, -9, [0, -2, -1, -3, -4, -5], -4),
        (99, 99, [0, -2, 1, 2, 3, 4, 5, 6], 6),  # no more than eight
    ],
)
def test_rates_are_tried_as_long_as_the_loss_falls(valley: int, highest: int, asked: list[int], taken: int) -> None:
    seen = []

    def loss(power: int) -> float:
        seen.append(power)
        return abs(power - valley + 0.1)

    assert rate.climb(loss, highest) == taken
    assert seen == asked


def test_where_no_loss_is_finite_ever_smaller_rates_are_tried() -> None:
    assert rate.climb(lambda power: math.inf if power > -5 else -power, 0) == -5
    assert rate.climb(lambda _: math.inf, 0) == -7


@pytest.mark.parametrize(("suggestion", "taken"), [(5.0, [0.05, 0.158, 0.5]), (0.01, [0.0316, 0.1, 0.316])])
def test_of_the_rates_that_are_tried_the_one_that_trains_best_is_taken(
    plan, monkeypatch: pytest.MonkeyPatch, suggestion: float, taken: list[float]
) -> None:
    made = plan(optimizer={"kind": "sgd", "learning_rate": 0.05})
    monkeypatch.setattr(rate, "range_test", lambda *_, **__: RangeTest([0.1], [1.0], [1.0], None, suggestion))
    found = search_rate(made, RangeTestConfig(), QUIET)
    assert list(found.tried)[:2] == [suggestion, pytest.approx(suggestion / 10)]
    assert found.suggestion == suggestion
    assert found.rate in taken
    assert found.tried[found.rate] == min(found.tried.values())
    assert found.held_out == 8  # a fifth of 39
    assert found.steps == 12  # four epochs of three batches: no longer than the training
    assert [line.endswith("(taken)") for line in found.lines()[1:-1]] == [one == found.rate for one in found.tried]
    assert [tried["learning_rate"] for tried in found.to_json()["tried"]] == list(found.tried)


def test_where_nothing_falls_and_where_nothing_is_finite_it_says_so(plan, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(optimizer={"kind": "sgd"})
    with pytest.raises(TrainingError, match=r"no rate from 1e-12 to 1e-10 lowers the loss by more than its noise"):
        search_rate(made, RangeTestConfig(start=1e-12, end=1e-10, steps=20), QUIET)
    monkeypatch.setattr(rate, "range_test", lambda *_, **__: RangeTest([0.1], [1.0], [1.0], None, 1e30))
    with pytest.raises(TrainingError, match=r"by 1e\+30, a tenth of it and less have no finite loss"):
        search_rate(made, RangeTestConfig(), QUIET)


def test_the_held_out_images_are_a_fifth_of_train_that_no_step_sees(plan) -> None:
    made = plan()
    rows, held_out = rate._dealt(made)
    assert sorted([*rows, *held_out]) == sorted(made.splits.train)
    assert (len(rows), len(held_out)) == (31, 8)
    assert not set(held_out) & set(made.splits.validation)


def test_a_range_test_is_a_table_and_a_picture(tmp_path: Path) -> None:
    import csv

    from PIL import Image

    rates = RangeTestConfig(start=0.01, end=100, steps=50).rates("sgd")
    losses = [2.0 - 0.03 * step for step in range(49)] + [math.nan]
    test = RangeTest(rates, losses, losses[:-1], rates[-1], rates[20])
    config = SGDConfig(learning_rate=rates[10])
    found = rate.FoundRate(test, config, config, {rates[20]: 2.0, rates[10]: 1.0}, 8, 12)
    write_range(tmp_path, found)
    with (tmp_path / "range.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50
    assert float(rows[0]["learning_rate"]) == 0.01
    assert (float(rows[48]["loss"]), rows[49]["loss"], rows[49]["smoothed_loss"]) == (losses[48], "", "")
    assert Image.open(tmp_path / "range.png").size == (800, 450)


# ── batch sizes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def sized(needed, speed=lambda size: 100.0, images_of=int):
    """A step whose memory and speed are functions of the batch size."""
    return lambda size: Tried(size, images_of(size), needed(size), speed(size))


def line(size: int) -> float:
    return 100 + 10 * size


def test_doubling_ends_at_the_last_power_that_fits_and_a_straight_line_spares_the_next_try() -> None:
    found = search_sizes(sized(line), int, 4, 10_000, 500)
    assert [(size.batch_size, size.measured) for size in found.tried] == [
        *((4, True), (8, True), (16, True), (32, True)),
        (64, False),
    ]
    assert found.tried[-1].memory == line(64)
    assert (found.largest.batch_size, found.bound) == (32, "memory")


def test_halving_comes_within_a_thirtieth_of_the_largest_that_fits() -> None:
    found = search_sizes(sized(lambda size: 100 + size), int, 4, 100_000, 1_734, "binary")  # 1,634 images
    assert 1_634 * 29 / 30 <= found.largest.batch_size <= 1_634
    assert search_sizes(sized(line), int, 4, 10_000, 500, "binary").largest.batch_size == 40  # exactly


@pytest.mark.parametrize(("how", "largest"), [("power", 32), ("binary", 49)])
def test_a_device_that_runs_out_of_memory_is_asked_again_with_less(how, largest: int) -> None:
    found = search_sizes(
        sized(lambda size: line(size) if size < 50 else math.inf), int, 4, 10_000, 1e12, how, careful=False
    )
    assert (64, math.inf) in [(size.batch_size, size.memory) for size in found.tried]
    assert found.largest.batch_size == largest


def test_the_number_of_training_images_ends_the_search_and_no_batch_is_tried_twice() -> None:
    def images_of(size: int) -> int:  # of 1,000, cut evenly
        return -(-1000 // -(-1000 // size))

    found = search_sizes(sized(line, images_of=images_of), images_of, 4, 1000, 1e12, "binary")
    assert found.bound == "images"
    assert len({images_of(size.batch_size) for size in found.tried}) == len(found.tried)
    assert images_of(found.largest.batch_size) == 1000


def test_less_memory_than_the_smallest_batch_takes_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"a batch of 4 images, the smallest, takes 0\.00 GB, and the limit is 0\.00 GB"
    ):
        search_sizes(sized(line), int, 4, 1000, 100)


def test_of_sizes_that_are_about_as_fast_the_smallest_is_taken() -> None:
    speeds = {4: 10.0, 8: 50.0, 16: 96.0, 32: 100.0, 64: 90.0, 128: 80.0}
    found = search_sizes(sized(line, speeds.__getitem__), int, 4, 200, 1e12)
    assert fastest(found.fitting).batch_size == 16
    early = search_sizes(sized(line, speeds.__getitem__), int, 4, 200, 1e12, for_speed=True)
    assert [size.batch_size for size in early.tried] == [4, 8, 16, 32, 64]  # 32 and 64 are no faster than 16, by 5 %
    assert (early.bound, fastest(early.fitting).batch_size) == ("speed", 16)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_step_that_runs_out_of_memory_is_a_size_that_does_not_fit(
    plan, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    taken = TrainingStep.__call__

    def step(self, network, optimizer, batches):
        if len(batches[0].labels) > 10:
            raise error
        return taken(self, network, optimizer, batches)

    monkeypatch.setattr(TrainingStep, "__call__", step)
    found = search_batch(plan(), BatchSearchConfig(memory_limit=1000), QUIET)
    assert [(size.batch_size, math.isfinite(size.memory)) for size in found.search.tried] == [
        *((4, True), (8, True)),
        (16, False),  # 13 images
    ]
    assert found.search.largest.batch_size == 8
    assert found.to_json()["tried"][-1]["memory"] is None
    monkeypatch.setattr(batch, "ran_out", lambda error: False)
    with pytest.raises(type(error)):
        search_batch(plan(), BatchSearchConfig(memory_limit=1000), QUIET)


def test_accumulation_and_processes_bound_the_batches_that_are_tried(plan, monkeypatch: pytest.MonkeyPatch) -> None:
    found = search_batch(
        plan(fit={"accumulate": 3, "epochs": 4, "batch_size": 8}), BatchSearchConfig(how="binary"), QUIET
    )
    assert found.search.largest.images == 13  # 39 in three batches
    assert found.search.bound == "images"
    monkeypatch.setattr(image_conflicts, "refuse_processes", lambda *_: None)
    shared = search_batch(plan(fit={"processes": 2}), BatchSearchConfig(memory_limit=8), QUIET)
    assert shared.search.tried[0].batch_size == 8
    assert shared.search.limit == 4e9  # each of two processes has half
    assert "a process" in shared.lines()[0]


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_peak_of_memory_is_what_was_held_at_once_and_begins_anew() -> None:
    held = memory.held_memory(CPU)
    with memory.measured_peak(CPU) as high:
        torch.ones(60_000_000)  # 240 MB, freed at once
    assert 200e6 < high.bytes - held < 300e6
    with memory.measured_peak(CPU) as low:
        torch.ones(5_000_000)
    assert low.bytes - held < 100e6


def test_free_memory_is_that_of_the_container_where_it_has_less(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = memory.free_memory(CPU)
    assert 0 < free < 1e15
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    assert memory.free_memory(CPU) == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory(CPU) > 1_000_000


def test_where_the_system_tells_no_peak_a_search_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory.refuse_without_measure(CPU)
    monkeypatch.setattr(memory, "PROCESS", tmp_path)
    for device, where in ((CPU, "this system"), (torch.device("mps"), "an Apple GPU")):
        with pytest.raises(ConfigError, match=rf"cannot be measured on {where}; name --fit.batch-size"):
            memory.refuse_without_measure(device)


def test_a_search_for_a_frozen_training_takes_steps_of_the_head_alone_and_measures_no_frozen_norm(plan) -> None:
    made = plan(finetune={"kind": "frozen"})
    network = copied_network(made, CPU)
    optimizer = optimizer_of(made, made.recipe.optimizer, network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    batches = grouped(training_batches(made, made.splits.train, 16, CPU, torch.float32), made.recipe)
    TrainingStep(made, CPU)(network, optimizer, next(batches))
    changed = {name for name, tensor in network.state_dict().items() if not tensor.equal(before[name])}
    assert changed == {"head.weight"}


def test_no_one_rate_is_searched_for_phases_that_train_different_layers(plan) -> None:
    with pytest.raises(ConfigError, match=r"each phase of --finetune trains other layers.*; name the rate"):
        plan(finetune={"kind": "gradual", "phases": 2}, optimizer={"learning_rate": "auto"})
