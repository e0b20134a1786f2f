"""Learning rates that can be checked by hand, ten steps an epoch."""

import math
from itertools import pairwise

import pytest

from sightline.config import CosineConfig, LinearConfig, OneCycleConfig, ScheduleConfig
from sightline.config.resolving import members
from sightline.schedules import falling, schedule


def rates(config: ScheduleConfig, steps: int = 40, steps_per_epoch: int = 10) -> list[float]:
    curve = schedule(config, steps, steps_per_epoch)
    return [curve(step) for step in range(steps)]


def test_linear_falls_by_the_same_share_each_step() -> None:
    found = rates(LinearConfig())
    assert found == pytest.approx([1 - step / 40 for step in range(40)])
    assert (found[0], found[10], found[20], found[39]) == pytest.approx((1.0, 0.75, 0.5, 0.025))


def test_linear_heads_for_its_final_share() -> None:
    found = rates(LinearConfig(final=0.2))
    assert (found[0], found[20]) == pytest.approx((1.0, 0.6))
    assert schedule(LinearConfig(final=0.2), 40, 10)(40) == pytest.approx(0.2)


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
    found = rates(LinearConfig(warmup_epochs=2), steps=40)
    assert found[20:] == pytest.approx([1 - step / 20 for step in range(20)])


def test_a_warm_up_that_ends_within_a_step_never_passes_the_peak() -> None:
    found = rates(LinearConfig(warmup_epochs=0.25))  # 2.5 steps
    assert found[:3] == pytest.approx([1 / 3.5, 2 / 3.5, 3 / 3.5])
    assert found[3] == pytest.approx(1 - 0.5 / 37.5)


def test_one_cycle_starts_peaks_and_ends_where_it_says() -> None:
    found = rates(OneCycleConfig(peak_epoch=1, start=0.1, final=0.02), steps=41)
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


@pytest.mark.parametrize("kind", members(ScheduleConfig), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("steps", "steps_per_epoch"), [(80, 10), (8, 1), (6, 1), (1000, 125)])
def test_no_schedule_is_ever_negative_or_above_its_peak_even_after_its_end(
    kind: type[LinearConfig], steps: int, steps_per_epoch: int
) -> None:
    options = [kind(), kind(final=0.5), kind(final=1.0)]
    if kind is not OneCycleConfig:
        options += [kind(warmup_epochs=warmup) for warmup in (0.01, 1, 3.3)]
    for config in options:
        curve = schedule(config, steps, steps_per_epoch)
        found = [curve(step) for step in range(steps + 3)]  # Lightning asks for the rate after the last step, too
        assert all(0 <= share <= 1 for share in found)
        assert found[-1] == pytest.approx(config.final, abs=1e-12)


def test_what_learns_only_at_first_falls_to_zero_and_stays_there() -> None:
    curve = falling(2, 5)
    assert [curve(step) for step in range(12)] == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0])
    half = falling(0.5, 5)  # 2.5 steps, so three
    assert [half(step) for step in range(4)] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert falling(0, 5)(0) == 0.0
