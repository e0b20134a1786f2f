"""Learning rates that can be checked by hand, ten steps an epoch."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch.optim import lr_scheduler

from sightline.config.building import Block, members
from sightline.config.fitting import FitConfig, SWAConfig
from sightline.config.resolving import to_mapping
from sightline.config.schedules import (
    ConstantConfig,
    CosineConfig,
    CyclicConfig,
    ExponentialConfig,
    LinearConfig,
    MultiStepConfig,
    OneCycleConfig,
    PlateauConfig,
    ScheduleConfig,
    StepConfig,
)
from sightline.training.schedules import Best, Plateau, Steps, falling, schedule

TEN = Steps(FitConfig(epochs=4), 10)


def rates(config: ScheduleConfig, steps: Steps = TEN, averaging: SWAConfig | None = None) -> list[float]:
    curve = schedule(config, steps, averaging)
    return [curve(step) for step in range(steps.total)]


def test_linear_falls_by_the_same_share_each_step() -> None:
    found = rates(LinearConfig())
    assert found == pytest.approx([1 - step / 40 for step in range(40)])
    assert (found[0], found[10], found[20], found[39]) == pytest.approx((1.0, 0.75, 0.5, 0.025))


def test_linear_heads_for_its_final_share() -> None:
    found = rates(LinearConfig(final=0.2))
    assert (found[0], found[20]) == pytest.approx((1.0, 0.6))
    assert schedule(LinearConfig(final=0.2), TEN)(40) == pytest.approx(0.2)


def test_cosine_is_at_the_middle_half_way_and_flat_at_both_ends() -> None:
    found = rates(CosineConfig())
    assert (found[0], found[20]) == pytest.approx((1.0, 0.5))
    assert found[10] == pytest.approx((1 + math.sqrt(0.5)) / 2)  # an eighth of a turn
    assert found[0] - found[1] < (found[20] - found[21]) / 10
    assert rates(CosineConfig(final=0.2))[20] == pytest.approx(0.6)


@pytest.mark.parametrize("kind", [LinearConfig, CosineConfig])
def test_a_warm_up_of_half_an_epoch_rises_in_five_equal_steps_to_the_peak(
    kind: type[LinearConfig] | type[CosineConfig],
) -> None:
    found = rates(kind(warmup_epochs=0.5))
    assert found[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0])
    assert found[6] < 1


def test_a_warm_up_shifts_what_comes_after_it() -> None:
    found = rates(LinearConfig(warmup_epochs=2))
    assert found[20:] == pytest.approx([1 - step / 20 for step in range(20)])


def test_a_warm_up_that_ends_within_a_step_never_passes_the_peak() -> None:
    found = rates(LinearConfig(warmup_epochs=0.25))  # 2.5 steps
    assert found[:3] == pytest.approx([1 / 3.5, 2 / 3.5, 3 / 3.5])
    assert found[3] == pytest.approx(1 - 0.5 / 37.5)


def test_one_cycle_starts_peaks_and_ends_where_it_says() -> None:
    found = rates(OneCycleConfig(peak_epoch=10 / 41, start=0.1, final=0.02), Steps(FitConfig(epochs=1), 41))
    assert (found[0], found[10], found[40]) == pytest.approx((0.1, 1.0, 0.02))
    assert found[5] == pytest.approx(0.55)  # half way up
    assert found[25] == pytest.approx(0.51)  # half way down
    assert max(found) == found[10]


@pytest.mark.parametrize("peak", [0.0, 0.05, 1.0, 2.5, 3.85, 3.9])
def test_the_last_step_of_one_cycle_is_at_its_final_share_unless_it_is_the_peak(peak: float) -> None:
    found = rates(OneCycleConfig(peak_epoch=peak, final=0.02))
    assert found[-1] == pytest.approx(1.0 if peak == 3.9 else 0.02)


def test_one_cycle_that_peaks_at_once_only_falls() -> None:
    found = rates(OneCycleConfig(peak_epoch=0))
    assert found[0] == 1.0
    assert all(later < earlier for earlier, later in pairwise(found))


# ── every schedule ───────────────────────────────────────────────────────────────────────────────────────────────────

EVERY = [
    LinearConfig(),
    LinearConfig(final=0.5),
    CosineConfig(final=0.2),
    OneCycleConfig(peak_epoch=3),
    ConstantConfig(),
    StepConfig(every_epochs=3, factor=0.3),
    MultiStepConfig(epochs=(3, 4, 7), factor=0.1),
    ExponentialConfig(factor=0.6),
    CyclicConfig(low=0.2, period_epochs=2.5),
    PlateauConfig(),
]
MOVES = (LinearConfig, CosineConfig, OneCycleConfig, ExponentialConfig, CyclicConfig)
TRAININGS = [
    Steps(FitConfig(epochs=8), 10),
    Steps(FitConfig(epochs=8), 1),
    Steps(FitConfig(epochs=9), 125),
    Steps(FitConfig(epochs=10, accumulate={0: 8, 4: 4, 8: 1}), 20),
]


def spoken(config: ScheduleConfig) -> str:
    return " ".join(str(value) for value in to_mapping(config).values())


def test_every_kind_of_schedule_is_tried_here() -> None:
    assert {type(config) for config in EVERY} == set(members(ScheduleConfig))


@pytest.mark.parametrize("steps", TRAININGS, ids=lambda steps: f"{steps.total}-steps")
@pytest.mark.parametrize("config", EVERY, ids=spoken)
def test_a_schedule_is_a_share_everywhere_rises_while_it_warms_up_and_moves_if_it_should(
    config: ScheduleConfig, steps: Steps
) -> None:
    options = [config]
    if not isinstance(config, OneCycleConfig):
        options += [replace(config, warmup_epochs=warmup) for warmup in (0.01, 1, 2.3)]
    for option in options:
        curve = schedule(option, steps)
        found = [curve(step) for step in range(steps.total + 3)]  # Lightning asks for the rate after the last step, too
        assert all(math.isfinite(share) and 0 <= share <= 1 for share in found)
        warmup = 3 if isinstance(option, OneCycleConfig) else option.warmup_epochs
        rising = found[: math.ceil(steps.at(warmup))]
        assert all(0 < one < other for one, other in pairwise(rising))
        if isinstance(option, MOVES) and steps.total > 20:
            moved = [one != other for one, other in pairwise(found[: steps.total])]
            turns = isinstance(option, CyclicConfig)  # the steps beside a turn may be alike
            assert all(before or (turns and after) for before, after in pairwise([*moved, True]))
        if hasattr(option, "final"):
            assert found[-1] == pytest.approx(option.final, abs=1e-12)


@pytest.mark.parametrize(
    ("config", "theirs"),
    [
        (LinearConfig(final=0.2), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, 40)),
        (CosineConfig(final=0.2), lambda o: lr_scheduler.CosineAnnealingLR(o, 40, 0.2)),
        (
            OneCycleConfig(peak_epoch=1.5, start=0.1, final=0.01),
            lambda o: lr_scheduler.OneCycleLR(
                o, 1.0, 40, pct_start=16 / 40, div_factor=10, final_div_factor=10, cycle_momentum=False
            ),
        ),
        (ConstantConfig(), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
        (ConstantConfig(warmup_epochs=1), lambda o: lr_scheduler.LinearLR(o, 1 / 11, 1.0, 10)),
        (StepConfig(every_epochs=1, factor=0.3), lambda o: lr_scheduler.StepLR(o, 10, 0.3)),
        (MultiStepConfig(epochs=(1, 3), factor=0.3), lambda o: lr_scheduler.MultiStepLR(o, [10, 30], 0.3)),
        (ExponentialConfig(factor=0.5), lambda o: lr_scheduler.ExponentialLR(o, 0.5**0.1)),
        (
            CyclicConfig(low=0.1, period_epochs=2),
            lambda o: lr_scheduler.CyclicLR(o, 0.1, 1.0, step_size_up=10, cycle_momentum=False),
        ),
    ],
    ids=lambda value: spoken(value) if isinstance(value, Block) else "",
)
def test_a_schedule_is_the_one_that_torch_has_under_its_name(config: ScheduleConfig, theirs: Any) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = theirs(optimizer)
    wanted = []
    for _ in range(40):
        wanted.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    assert rates(config) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("monitor", "mode"), [("val_loss", "min"), ("val_acc", "max"), ("train_acc", "max")])
def test_a_plateau_cuts_the_rate_when_torchs_does(monitor: Any, mode: Any) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=2, threshold=0.0)
    plateau = Plateau(PlateauConfig(monitor=monitor, factor=0.5, patience=2))
    sign = -1 if mode == "max" else 1
    found, wanted = [], []
    for value in (3, 2, 2, 2, 2, 2, 2, 2, 1, 1.5, 1, 1, 0.5, 9, 9, 9, 9):
        plateau.see(sign * value)
        scheduler.step(sign * value)
        found.append(plateau.factor)
        wanted.append(optimizer.param_groups[0]["lr"])
    assert found == wanted
    assert found[3:5] == [1.0, 0.5]  # two measurements without improvement are borne, the third is not


def test_a_measurement_that_is_not_finite_is_never_the_best() -> None:
    best = Best("val_loss")
    assert not best.see(math.nan)
    assert best.see(2.0)
    assert not best.see(-math.inf)
    assert (best.value, best.since) == (2.0, 1)


def test_a_gain_smaller_than_the_least_does_not_count() -> None:
    best = Best("val_acc", min_delta=0.125)
    assert [best.see(value) for value in (0.5, 0.625, 0.75, 0.75)] == [True, False, True, False]


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steps_are_counted_by_hand_where_gradients_accumulate() -> None:
    steps = Steps(FitConfig(epochs=10, accumulate={0: 8, 4: 4, 8: 1}), 20)
    assert steps.starts == [0, 3, 6, 9, 12, 17, 22, 27, 32, 52, 72]  # 20 batches are 3 steps of up to 8, or 5 of 4
    assert steps.total == 72
    assert [steps.of(0, batch) for batch in (0, 7, 8, 16, 19)] == [0, 0, 1, 2, 2]
    assert steps.of(9, 19) == 71
    assert (steps.at(0), steps.at(4), steps.at(4.2), steps.at(10)) == pytest.approx((0, 12, 13, 72))
    assert [steps.epochs(step) for step in (0, 12, 13, 72)] == pytest.approx([0, 4, 4.2, 10])


def test_one_number_of_batches_a_step_makes_all_epochs_alike() -> None:
    assert Steps(FitConfig(epochs=3, accumulate=4), 10).starts == [0, 3, 6, 9]


def test_swa_leads_the_rate_to_its_own_along_half_a_cosine() -> None:
    found = rates(ConstantConfig(), TEN, SWAConfig(start=0.5, rate=0.2, anneal_epochs=1))
    assert found[:21] == [1.0] * 21
    assert found[25] == pytest.approx(0.6)
    assert found[30:] == pytest.approx([0.2] * 10)
    at_once = rates(LinearConfig(), TEN, SWAConfig(start=0.5, rate=0.2, anneal_epochs=0))
    assert at_once[18:22] == pytest.approx([0.55, 0.525, 0.2, 0.2])


def test_what_learns_only_at_first_falls_to_zero_and_stays_there() -> None:
    five = Steps(FitConfig(epochs=4), 5)
    curve = falling(2, five)
    assert [curve(step) for step in range(12)] == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0])
    half = falling(0.5, five)  # 2.5 steps, so three
    assert [half(step) for step in range(4)] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert falling(0, five)(0) == 0.0


# ── phases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", members(ScheduleConfig), ids=lambda kind: kind.__name__)
def test_each_phase_goes_through_the_curve_as_a_training_of_its_epochs_would(kind: Any) -> None:
    config = kind(peak_epoch=1) if kind is OneCycleConfig else kind()
    fit = FitConfig(epochs=10, accumulate={0: 8, 4: 4, 8: 1})
    curve = schedule(config, Steps(fit, 20), None, [0, 3, 5])
    found = [curve(step) for step in range(72)]
    for first, end, accumulate in ((0, 3, 8), (3, 5, {0: 8, 1: 4}), (5, 10, {0: 4, 3: 1})):
        alone = Steps(FitConfig(epochs=end - first, accumulate=accumulate), 20)
        start = Steps(fit, 20).starts[first]
        assert found[start : start + alone.total] == rates(config, alone)


def test_one_phase_is_the_whole_training() -> None:
    curve = schedule(CosineConfig(warmup_epochs=1), TEN, None, [0])
    assert [curve(step) for step in range(40)] == rates(CosineConfig(warmup_epochs=1))


def test_swa_leads_the_rate_from_where_the_last_phase_is() -> None:
    curve = schedule(LinearConfig(), TEN, SWAConfig(start=0.75, rate=0.1, anneal_epochs=0.5), [0, 2])
    assert curve(19) == pytest.approx(0.05)
    assert [curve(20), curve(30), curve(35), curve(39)] == pytest.approx([1.0, 0.5, 0.1, 0.1])
