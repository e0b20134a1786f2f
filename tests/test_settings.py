"""Settings are checked at birth, in the user's spelling."""

import dataclasses
import math
import re
from typing import Any

import pytest

from sightline.config import (
    AdamWConfig,
    AugmentConfig,
    CosineConfig,
    CutoutConfig,
    DataConfig,
    EvaluationConfig,
    FitConfig,
    LinearConfig,
    MuonConfig,
    NetworkConfig,
    OneCycleConfig,
    OptimizerConfig,
    PadCropConfig,
    RandomResizedCropConfig,
    Recipe,
    ResNet18Config,
    ScheduleConfig,
    SGDConfig,
    SpeednetConfig,
    TrackConfig,
)
from sightline.config.resolving import members
from sightline.errors import ConfigError

BLOCKS = (
    *(DataConfig, AugmentConfig, FitConfig, EvaluationConfig, PadCropConfig, RandomResizedCropConfig, CutoutConfig),
    TrackConfig,
    *members(NetworkConfig),
    *members(OptimizerConfig),
    *members(ScheduleConfig),
)

# block, setting, smallest and largest value allowed, one too small, one too large (None: no such limit)
RANGES: list[tuple[Any, str, Any, Any, Any, Any]] = [
    (DataConfig, "validation", 1, 10**9, 0, None),
    (DataConfig, "fraction", 1e-9, 1.0, 0.0, 1.01),
    (DataConfig, "size", 16, 1024, 15, 1025),
    (PadCropConfig, "padding", 1, 64, 0, 65),
    (CutoutConfig, "holes", 1, 64, 0, 65),
    (CutoutConfig, "size", 1, 1024, 0, 1025),
    (RandomResizedCropConfig, "scale", (1e-9, 1e-9), (1.0, 1.0), (0.0, 0.5), (0.5, 1.01)),
    (RandomResizedCropConfig, "scale", (0.5, 0.5), (0.5, 1.0), (0.5, 0.4), (1.01, 1.01)),
    (RandomResizedCropConfig, "ratio", (1e-9, 1.0), (1.0, 100.0), (0.0, 1.0), (1.0, math.inf)),
    (RandomResizedCropConfig, "ratio", (1.0, 1.0), (1.0, 2.0), (1.0, 0.9), (math.inf, math.inf)),
    (SpeednetConfig, "widths", (8, 8, 8), (8192, 8192, 8192), (8, 7, 8), (8, 8, 8193)),
    (SpeednetConfig, "whiten_bias_epochs", 0.0, 1e6, -0.1, math.inf),
    (SGDConfig, "learning_rate", 1e-9, 1e9, 0.0, math.inf),
    (SGDConfig, "momentum", 1e-9, 1.0, -0.1, 1.1),
    (SGDConfig, "weight_decay", 0.0, 1e9, -1e-9, math.inf),
    (AdamWConfig, "learning_rate", 1e-9, 1e9, 0.0, math.inf),
    (AdamWConfig, "betas", (0.0, 0.0), (0.999999, 0.999999), (-0.1, 0.9), (0.9, 1.0)),
    (AdamWConfig, "weight_decay", 0.0, 1e9, -1e-9, math.inf),
    (MuonConfig, "learning_rate", 1e-9, 1e9, 0.0, math.inf),
    (MuonConfig, "head_learning_rate", 1e-9, 1e9, 0.0, math.inf),
    (MuonConfig, "bias_learning_rate", 1e-9, 1e9, -1.0, math.inf),
    (MuonConfig, "momentum", 1e-9, 0.999999, 0.0, 1.0),
    (MuonConfig, "head_momentum", 1e-9, 0.999999, 0.0, 1.0),
    (MuonConfig, "shrink", 0.0, 1.0, -0.1, 1.1),
    (FitConfig, "epochs", 1, 10**6, 0, None),
    (FitConfig, "batch_size", 2, 10**6, 1, None),
    (FitConfig, "label_smoothing", 0.0, 0.9, -0.1, 0.91),
    (FitConfig, "validate_every", 0, 8, -1, 9),
    (FitConfig, "checkpoint_seconds", 0.0, 1e9, -1.0, math.inf),
    (FitConfig, "seed", 0, 2**63 - 1, -1, 2**63),
]
IDS = [f"{block.__name__}.{name}" for block, name, *_ in RANGES]


def with_schedule(schedule: Any) -> Recipe:
    return Recipe(schedule=schedule, fit=FitConfig(epochs=8))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_every_block_has_defaults_that_pass_its_own_checks_and_is_frozen(block: Any) -> None:
    settings = block()
    name = dataclasses.fields(settings)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, name, getattr(settings, name))


@pytest.mark.parametrize(("block", "name", "low", "high", "below", "above"), RANGES, ids=IDS)
def test_a_number_at_the_end_of_its_range_is_taken(
    block: Any, name: str, low: Any, high: Any, below: Any, above: Any
) -> None:
    assert getattr(block(**{name: low}), name) == low
    assert getattr(block(**{name: high}), name) == high


@pytest.mark.parametrize(("block", "name", "low", "high", "below", "above"), RANGES, ids=IDS)
def test_a_number_out_of_its_range_is_refused_with_the_flag_the_number_and_the_range(
    block: Any, name: str, low: Any, high: Any, below: Any, above: Any
) -> None:
    for value in (below, above):
        if value is None:
            continue
        with pytest.raises(ConfigError) as caught:
            block(**{name: value})
        assert re.match(rf"--[a-z.]+\.{name.replace('_', '-')} is \S+; it must be (at least|above) ", str(caught.value))
        wrong = value if not isinstance(value, tuple) else None
        assert wrong is None or (str(wrong) if isinstance(wrong, int) else f"{wrong:g}") in str(caught.value)


def test_what_is_not_a_number_is_out_of_every_range() -> None:
    for block, name, low, *_ in RANGES:
        with pytest.raises(ConfigError, match=r"is nan; it must be"):
            block(**{name: (math.nan,) * len(low) if isinstance(low, tuple) else math.nan})


def test_every_number_of_every_block_is_range_checked_but_the_split_seed() -> None:
    """-1e9 is a sensible value of nothing but a split seed."""
    unchecked = set()
    for block in BLOCKS:
        for item in dataclasses.fields(block):
            default = getattr(block(), item.name)
            annotation = str(item.type)
            if isinstance(default, str | bool) or not ("int" in annotation or "float" in annotation):
                continue
            value = (-1e9,) * max(1, len(default)) if isinstance(default, tuple) else -1e9
            try:
                with_schedule(block(**{item.name: value})) if block in members(ScheduleConfig) else block(
                    **{item.name: value}
                )
            except ConfigError:
                continue
            unchecked.add(f"{block.__name__}.{item.name}")
    assert unchecked == {"DataConfig.split_seed"}


def test_a_whole_number_in_a_message_keeps_all_its_digits() -> None:
    with pytest.raises(ConfigError, match=r"--data.size is 1234567; it must be at least 16 and at most 1024"):
        DataConfig(size=1234567)
    with pytest.raises(ConfigError, match=r"--fit.seed is 9223372036854775808; .* at most 9223372036854775807"):
        FitConfig(seed=2**63)


def test_an_infinite_rate_is_refused_as_not_finite() -> None:
    with pytest.raises(ConfigError, match=r"--optimizer.learning-rate is inf; it must be above 0 and finite"):
        SGDConfig(learning_rate=math.inf)


def test_nesterov_without_momentum_is_refused_because_it_would_have_no_effect() -> None:
    with pytest.raises(ConfigError, match=r"--optimizer.nesterov has no effect with --optimizer.momentum 0"):
        SGDConfig(momentum=0.0)
    assert SGDConfig(momentum=0.0, nesterov=False).momentum == 0


@pytest.mark.parametrize("kind", [LinearConfig, CosineConfig], ids=["linear", "cosine"])
def test_a_warm_up_as_long_as_the_training_is_refused(kind: Any) -> None:
    with_schedule(kind(warmup_epochs=7.9))
    for epochs in (8.0, 9.5):
        with pytest.raises(
            ConfigError, match=rf"--schedule.warmup-epochs \({epochs:g}\) must be shorter than --fit.epochs"
        ):
            with_schedule(kind(warmup_epochs=epochs))
    for epochs in (-0.5, math.nan):
        with pytest.raises(ConfigError, match=r"--schedule.warmup-epochs is"):
            with_schedule(kind(warmup_epochs=epochs))


def test_a_peak_at_the_end_of_the_training_is_refused() -> None:
    with_schedule(OneCycleConfig(peak_epoch=7.9))
    with pytest.raises(ConfigError, match=r"--schedule.peak-epoch \(8\) must be shorter than --fit.epochs \(8\)"):
        with_schedule(OneCycleConfig(peak_epoch=8.0))
    for epoch in (-0.5, math.nan):
        with pytest.raises(ConfigError, match=r"--schedule.peak-epoch is"):
            with_schedule(OneCycleConfig(peak_epoch=epoch))


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_rate_that_starts_or_ends_beyond_its_peak_is_refused(share: float) -> None:
    for kind in members(ScheduleConfig):
        with pytest.raises(ConfigError, match=r"--schedule.final is .*; it must be at least 0 and at most 1"):
            with_schedule(kind(final=share))
    with pytest.raises(ConfigError, match=r"--schedule.start is .*; it must be at least 0 and at most 1"):
        with_schedule(OneCycleConfig(start=share))


def test_a_hole_larger_than_the_image_is_refused() -> None:
    def hole(size: int, image: int | None) -> Recipe:
        return Recipe(data=DataConfig(size=image), augment=AugmentConfig(cutout=CutoutConfig(size=size)))

    with pytest.raises(ConfigError, match=r"--augment.cutout.size \(33\) is larger than the images \(--data.size 32\)"):
        hole(33, 32)
    hole(32, 32)
    hole(33, None)  # the size is known only once the images are


@pytest.mark.parametrize("name", ["", "a/b", "../b", "a\\b"])
def test_a_recipe_whose_name_is_no_word_for_a_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"the recipe's name is .* without slashes"):
        Recipe(name=name)


def test_the_resnet_has_no_knobs_beyond_its_kind() -> None:
    assert [item.name for item in dataclasses.fields(ResNet18Config)] == ["kind"]


@pytest.mark.parametrize(
    ("scales", "epochs", "shown"),
    [
        ((), 3, [1, 1, 1]),
        ((0.5, 1), 4, [0.5, 0.5, 1, 1]),
        ((0.5, 1), 5, [0.5, 0.5, 1, 1, 1]),  # a change within the third epoch comes at its start
        ((0.5, 0.75, 1), 2, [0.75, 1]),
        ((0.5, 0.75, 1), 1, [1]),
    ],
)
def test_sizes_grow_over_the_training_and_the_last_epoch_is_full(scales, epochs, shown) -> None:
    config = AugmentConfig(scales=scales)
    assert [config.scale(epoch, epochs) for epoch in range(epochs)] == shown


def test_sizes_that_change_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--augment.scales 1 has no effect"):
        AugmentConfig(scales=(1.0, 1.0))
