"""Settings are checked at birth, in the user's spelling."""

import math
import re
from typing import Any

import msgspec
import pytest
import yaml

from sightline.config.augmentation import (
    AugmentConfig,
    ColorJitterConfig,
    CutmixConfig,
    CutoutConfig,
    MixupConfig,
    PadCropConfig,
    RandomResizedCropConfig,
    RotationConfig,
    TrivialAugmentConfig,
)
from sightline.config.building import fields_of, members, required
from sightline.config.finetuning import DiscriminativeConfig, FrozenConfig, GradualConfig
from sightline.config.fitting import (
    AveragingConfig,
    ClipConfig,
    DataConfig,
    EarlyStoppingConfig,
    EMAConfig,
    EvaluationConfig,
    FitConfig,
    NormClipConfig,
    SWAConfig,
    TrackConfig,
    ValueClipConfig,
)
from sightline.config.heads import (
    AttentionPoolHeadConfig,
    GraphAttentionHeadConfig,
    HeadConfig,
    SelfAttentionHeadConfig,
)
from sightline.config.networks import CustomResNetConfig, NetworkConfig, SpeednetConfig
from sightline.config.optimizers import (
    AdagradConfig,
    AdamConfig,
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
)
from sightline.config.resolving import resolve, to_yaml
from sightline.config.schedules import (
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
from sightline.config.settings import Recipe
from sightline.errors import ConfigError

BLOCKS = (
    *(DataConfig, AugmentConfig, FitConfig, EvaluationConfig, PadCropConfig, RandomResizedCropConfig, CutoutConfig),
    *(RotationConfig, ColorJitterConfig, TrivialAugmentConfig, MixupConfig, CutmixConfig),
    *(kind for kind in members(NetworkConfig) if not required(kind)),
    TrackConfig,
    *members(HeadConfig),
    *members(OptimizerConfig),
    *members(ScheduleConfig),
    *members(ClipConfig),
    *members(AveragingConfig),
    EarlyStoppingConfig,
    *(FrozenConfig, GradualConfig, DiscriminativeConfig),  # phases have no default
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
    (RotationConfig, "degrees", 1e-9, 180.0, 0.0, 180.1),
    (ColorJitterConfig, "brightness", 0.0, 1e9, -0.1, math.inf),
    (ColorJitterConfig, "contrast", 0.0, 1e9, -0.1, math.inf),
    (ColorJitterConfig, "saturation", 0.0, 1e9, -0.1, math.inf),
    (MixupConfig, "alpha", 1e-9, 1e9, 0.0, math.inf),
    (CutmixConfig, "alpha", 1e-9, 1e9, 0.0, math.inf),
    (SpeednetConfig, "widths", (8, 8, 8), (8192, 8192, 8192), (8, 7, 8), (8, 8, 8193)),
    (SpeednetConfig, "whiten_bias_epochs", 0.0, 1e6, -0.1, math.inf),
    *(
        (kind, *limits)
        for kind in (GraphAttentionHeadConfig, SelfAttentionHeadConfig, AttentionPoolHeadConfig)
        for limits in (("heads", 1, 64, 0, 65), ("width", 8, 8192, 7, 8193), ("dropout", 0.0, 0.9, -0.1, 0.91))
    ),
    *((kind, "patch", 1, 64, 0, 65) for kind in (GraphAttentionHeadConfig, SelfAttentionHeadConfig)),
    *((kind, "depth", 1, 24, 0, 25) for kind in (GraphAttentionHeadConfig, SelfAttentionHeadConfig)),
    (AttentionPoolHeadConfig, "queries", 1, 64, 0, 65),
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
    (AdamConfig, "learning_rate", 1e-9, 1e9, 0.0, math.inf),
    (AdamConfig, "betas", (0.0, 0.0), (0.999999, 0.999999), (-0.1, 0.9), (0.9, 1.0)),
    (AdamConfig, "weight_decay", 0.0, 1e9, -1e-9, math.inf),
    (AdagradConfig, "learning_rate", 1e-9, 1e9, 0.0, math.inf),
    (AdagradConfig, "weight_decay", 0.0, 1e9, -1e-9, math.inf),
    (RMSpropConfig, "learning_rate", 1e-9, 1e9, 0.0, math.inf),
    (RMSpropConfig, "alpha", 0.0, 0.999999, -0.1, 1.0),
    (RMSpropConfig, "momentum", 0.0, 1.0, -0.1, 1.1),
    (RMSpropConfig, "weight_decay", 0.0, 1e9, -1e-9, math.inf),
    *((kind, "factor", 1e-9, 0.999999, 0.0, 1.0) for kind in (StepConfig, MultiStepConfig, ExponentialConfig)),
    (StepConfig, "every_epochs", 1, 10**6, 0, None),
    (MultiStepConfig, "epochs", (1, 2), (10**6, 10**7), (0, 1), None),
    (CyclicConfig, "low", 1e-9, 0.999999, 0.0, 1.0),
    (CyclicConfig, "period_epochs", 1e-9, 1e9, 0.0, math.inf),
    (PlateauConfig, "factor", 1e-9, 0.999999, 0.0, 1.0),
    (PlateauConfig, "patience", 0, 10**6, -1, None),
    (NormClipConfig, "limit", 1e-9, 1e9, 0.0, math.inf),
    (ValueClipConfig, "limit", 1e-9, 1e9, 0.0, math.inf),
    (EMAConfig, "start", 0.0, 0.999999, -0.1, 1.0),
    (EMAConfig, "decay", 1e-9, 0.999999, 0.0, 1.0),
    (SWAConfig, "start", 0.0, 0.999999, -0.1, 1.0),
    (SWAConfig, "rate", 1e-9, 1.0, 0.0, 1.1),
    (SWAConfig, "anneal_epochs", 0.0, 1e9, -0.1, math.inf),
    (EarlyStoppingConfig, "patience", 1, 10**6, 0, None),
    (EarlyStoppingConfig, "min_delta", 0.0, 1e9, -0.1, math.inf),
    (GradualConfig, "phases", 2, 10**6, 1, None),
    (GradualConfig, "growth", 1.0, 10.0, 0.9, 10.1),
    (GradualConfig, "layer_decay", 1e-9, 0.999999, 0.0, 1.1),
    (DiscriminativeConfig, "layer_decay", 1e-9, 0.999999, 0.0, 1.1),
    (FitConfig, "accumulate", 1, 10**6, 0, None),
    (FitConfig, "epochs", 1, 10**6, 0, None),
    (FitConfig, "batch_size", 2, 10**6, 1, None),
    (FitConfig, "label_smoothing", 0.0, 0.9, -0.1, 0.91),
    (FitConfig, "validate_every", 0, 8, -1, 9),
    (FitConfig, "checkpoint_seconds", 0.0, 1e9, -1.0, math.inf),
    (FitConfig, "seed", 0, 2**63 - 1, -1, 2**63),
    (FitConfig, "processes", 1, 64, 0, None),  # the batch of 128 holds two images for each of 64
]
IDS = [f"{block.__name__}.{name}" for block, name, *_ in RANGES]


def with_schedule(schedule: Any) -> Recipe:
    return Recipe(schedule=schedule, fit=FitConfig(epochs=8))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_every_block_has_defaults_that_pass_its_own_checks_and_is_frozen(block: Any) -> None:
    settings = block()
    for name in settings.__struct_fields__:
        with pytest.raises(AttributeError, match="immutable"):
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
        assert re.match(
            rf"--[a-z.-]+\.{name.replace('_', '-')} is \S+; it must be (at least|above) ", str(caught.value)
        )
        wrong = value if not isinstance(value, tuple) else None
        assert wrong is None or (str(wrong) if isinstance(wrong, int) else f"{wrong:g}") in str(caught.value)


def test_what_is_not_a_number_is_out_of_every_range() -> None:
    for block, name, low, *_ in RANGES:
        with pytest.raises(ConfigError, match=r"is nan; (it must be|wanted a whole number)"):
            block(**{name: (math.nan,) * len(low) if isinstance(low, tuple) else math.nan})


def test_every_number_of_every_block_is_range_checked_but_the_split_seed() -> None:
    """-1e9 is a sensible value of nothing but a split seed."""
    unchecked = set()
    for block in BLOCKS:
        for item in msgspec.structs.fields(block):
            default = getattr(block(), item.name)
            annotation = str(item.type)
            if isinstance(default, str | bool) or not ("int" in annotation or "float" in annotation):
                continue
            number = -1e9 if "float" in annotation else -(10**9)
            value = (number,) * max(1, len(default)) if isinstance(default, tuple) else number
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


WARM_UPS = [kind for kind in members(ScheduleConfig) if kind not in (OneCycleConfig, MultiStepConfig)]


@pytest.mark.parametrize("kind", WARM_UPS, ids=lambda kind: kind.__name__)
def test_a_warm_up_as_long_as_the_training_is_refused(kind: Any) -> None:
    if kind not in (StepConfig, CyclicConfig):  # of which a cut or a cycle must fit in behind it
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
    for kind in (LinearConfig, CosineConfig, OneCycleConfig):
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


def test_the_custom_resnet_has_no_knobs_beyond_its_kind() -> None:
    assert list(fields_of(CustomResNetConfig)) == ["kind"]


def test_the_networks_of_others_are_named_by_what_has_no_default() -> None:
    assert {kind.kind: required(kind) for kind in members(NetworkConfig) if required(kind)} == {
        "timm": ["name"],
        "torchvision": ["name"],
        "hub": ["repo", "name"],
        "run": ["folder"],
    }


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


def test_a_batch_holds_two_images_for_each_process() -> None:
    assert FitConfig(batch_size=8, processes=4).processes == 4
    with pytest.raises(
        ConfigError, match=r"--fit\.batch-size \(7\) leaves less than two images to each .* choose 8 or"
    ):
        FitConfig(batch_size=7, processes=4)


def test_colours_that_are_not_varied_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"--augment.color has no effect: brightness, contrast and saturation are all 0"
    ):
        ColorJitterConfig(brightness=0, contrast=0, saturation=0)


def test_a_crop_and_a_rotation_that_fill_differently_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"--augment.rotation.fill is zero and --augment.crop.fill is reflect; .* same"
    ):
        AugmentConfig(crop=PadCropConfig(), rotation=RotationConfig(fill="zero"))
    AugmentConfig(crop=PadCropConfig(fill="zero"), rotation=RotationConfig(fill="zero"))
    AugmentConfig(crop=RandomResizedCropConfig(), rotation=RotationConfig(fill="zero"))


# ── what cannot be, or would have no effect, among the settings of a fit ─────────────────────────────────────────────

SWA = {"averaging": {"kind": "swa"}}
EARLY = {"early_stopping": {"kind": "patience"}}
GRADUAL: dict[str, Any] = {"kind": "gradual"}  # 8 epochs are phases of 2, 3 and 3


def phases(*written: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"finetune": {"kind": "phases", "phases": list(written)} | settings}


HEAD_ALL = ({"epochs": 4, "train": ["head"]}, {"epochs": 4, "train": ["all"]})
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"finetune": {"kind": "frozen", "features": "keep"}, "augment": {"flip": "none", "cutout": {"kind": "cutout"}}},
        r"--finetune.features keep has no effect with --augment.cutout, which shows an image in ever new ways",
    ),
    (
        {"finetune": {"kind": "frozen", "features": "recompute"}, "augment": {"scales": [0.5, 1]}},
        r"--finetune.features recompute has no effect with --augment.scales",
    ),
    (
        {"finetune": {"kind": "frozen", "features": "keep"}, "fit": {"compile": True}},
        "--fit.compile has no effect on frozen layers that compute once (--finetune.features keep)",
    ),
    (
        {"schedule": {"kind": "step", "every_epochs": 8}},
        "--schedule.every-epochs 8 has no effect: it must be less than",
    ),
    (
        {"schedule": {"kind": "step", "warmup_epochs": 2}},
        "--schedule.every-epochs 2 cuts the rate before the warm-up ends",
    ),
    ({"schedule": {"kind": "multi_step", "epochs": []}}, "--schedule.epochs is empty; name one epoch or more"),
    (
        {"schedule": {"kind": "multi_step", "epochs": [4, 4]}},
        "--schedule.epochs is 4 4; name one epoch or more, each later",
    ),
    ({"schedule": {"kind": "multi_step", "epochs": [4, 8]}}, "--schedule.epochs 8 has no effect: it must be less than"),
    (
        {"schedule": {"kind": "multi_step", "warmup_epochs": 4}},
        "--schedule.epochs 4 cuts the rate before the warm-up ends",
    ),
    (
        {"schedule": {"kind": "cyclic", "period_epochs": 8.5}},
        "--schedule.period-epochs (8.5) is more than the 8 epochs",
    ),
    (
        {"schedule": {"kind": "cyclic", "warmup_epochs": 4.5}},
        "--schedule.period-epochs (4) is more than the 3.5 epochs",
    ),
    ({"schedule": {"kind": "plateau", "patience": 6}}, "--schedule.patience 6 cannot run out within --fit.epochs 8"),
    (
        {"schedule": {"kind": "plateau", "patience": 2}, "fit": {"validate_every": 2}},
        "--schedule.patience 2 cannot run out within --fit.epochs 8 with a measurement every 2 epochs",
    ),
    (
        {"schedule": {"kind": "plateau"}, "fit": {"validate_every": 0}},
        "--schedule waits for val_loss, but --fit.validate-every 0 measures it only after the last epoch",
    ),
    ({**EARLY, "fit": {"validate_every": 0}}, "--early-stopping waits for val_acc, but --fit.validate-every 0"),
    ({"early_stopping": {"kind": "patience", "patience": 7}}, "--early-stopping.patience 7 cannot run out within"),
    ({**EARLY, "fit": {"keep": "val_acc"}}, "--fit.keep val_acc has no effect with --early-stopping"),
    ({"fit": {"keep": "val_acc", "validate_every": 0}}, "--fit.keep val_acc has nothing to choose from"),
    ({"fit": {"keep": "val_loss", "validate_every": 5}}, "--fit.keep val_loss has nothing to choose from"),
    (
        {"fit": {"class_weights": "balanced"}, "data": {"sampling": "balanced"}},
        "--fit.class-weights balanced and --data.sampling balanced both make up for rare classes",
    ),
    (
        {"fit": {"loss": "generalized_cross_entropy", "label_smoothing": 0.1}},
        "--fit.loss generalized_cross_entropy is defined for a label, not for one that is spread",
    ),
    ({"fit": {"accumulate": {}}}, "--fit.accumulate is empty; its epochs must begin with 0 and rise"),
    ({"fit": {"accumulate": {1: 4}}}, "--fit.accumulate is 1:4; its epochs must begin with 0 and rise"),
    (
        {"fit": {"accumulate": {0: 4, 5: 2, 3: 1}}},
        "--fit.accumulate is 0:4 5:2 3:1; its epochs must begin with 0 and rise",
    ),
    (
        {"fit": {"accumulate": {0: 4, 8: 1}}},
        "--fit.accumulate 8:1 has no effect: the epochs of --fit.epochs 8 are 0 to 7",
    ),
    ({"fit": {"accumulate": {0: 4, 3: 4}}}, "--fit.accumulate 3:4 has no effect: it is so already"),
    ({"fit": {"accumulate": {0: 1}}}, "--fit.accumulate 0:1 has no effect: it is so already"),
    ({"fit": {"accumulate": {0: 0}}}, "--fit.accumulate is 0; it must be at least 1"),
    (
        {"fit": {"accumulate": {0: 1.5}}},
        "fit.accumulate is 1.5; wanted a whole number.",
    ),
    ({"fit": {"accumulate": "8"}}, "fit.accumulate is '8'; wanted a whole number or pairs such as {0: 8, 4: 4}."),
    ({"averaging": {"kind": "ema", "start": 0.9}}, "--averaging.start 0.9 of --fit.epochs 8 leaves less than an epoch"),
    (
        {"averaging": {"kind": "swa", "start": 0.8}},
        "--averaging.start 0.8 of --fit.epochs 8 leaves 1.6 epochs to average",
    ),
    (
        {"averaging": {"kind": "swa", "anneal_epochs": 2}},
        "--averaging.anneal-epochs (2) must be less than the 2 epochs",
    ),
    ({**SWA, "schedule": {"kind": "plateau"}}, "--averaging.kind swa and --schedule.kind plateau both set the rate"),
    ({**SWA, **EARLY}, "--averaging.kind swa averages the last epochs, which --early-stopping would cut off"),
    ({**SWA, "schedule": {"kind": "one_cycle", "peak_epoch": 7}}, "--averaging.start 0.75 is epoch 6, before the peak"),
    ({**SWA, "schedule": {"kind": "cosine", "warmup_epochs": 7}}, "--averaging.start 0.75 is epoch 6, before the peak"),
    (
        {"head": {"kind": "graph_attention", "width": 100}},
        "--head.width (100) must divide by --head.heads (8), for each head has an equal part; choose 96.",
    ),
    (
        {"head": {"kind": "attention_pool", "width": 8, "heads": 5}},
        "--head.width (8) must divide by --head.heads (5), for each head has an equal part; choose 10.",
    ),
    (
        {"head": {"kind": "linear", "layer": "group.1"}},
        "--head.layer group.1 is no layer of the network speednet; did you mean 'groups.1'?",
    ),
    (
        {"head": {"kind": "linear", "layer": "x"}, "network": "custom_resnet"},
        "--head.layer x is no layer of the network custom_resnet; known are: prep, layer1, residual1, layer2, layer3, res",
    ),
    (
        {"head": {"kind": "self_attention", "layer": "layer4"}, "network": "timm:resnet18"},
        "--head.layer layer4 cannot be read: only the last map of the network timm:resnet18 is known; leave the option out",
    ),
    *(
        (
            {"head": kind, "augment": {"scales": [0.5, 1]}},
            f"--augment.scales shows smaller images first, and --head {kind} reads one size only: ",
        )
        for kind in ("graph_attention", "self_attention")
    ),
    (
        {"head": {"kind": "linear", "patch": 2}},
        "unknown setting 'head.patch' of kind 'linear'; known are: kind, layer.",
    ),
    (
        {"finetune": GRADUAL | {"phases": 9}},
        "--finetune.phases 9 is more than --fit.epochs 8; a phase takes an epoch at least",
    ),
    (
        {"finetune": GRADUAL | {"layer_decay": 1}},
        "--finetune.layer-decay 1 has no effect: all layers learn at the same rate",
    ),
    ({"finetune": {"kind": "discriminative", "layer_decay": 1.0}}, "--finetune.layer-decay 1 has no effect"),
    (
        {"finetune": GRADUAL, **EARLY},
        "--early-stopping would end the training before all phases of --finetune.kind gradual",
    ),
    (
        {"finetune": GRADUAL, "schedule": {"kind": "one_cycle", "peak_epoch": 2}},
        "--schedule.peak-epoch (2) must be shorter than the shortest phase of --finetune (2)",
    ),
    (
        {"finetune": GRADUAL, "schedule": {"kind": "cosine", "warmup_epochs": 2.5}},
        "--schedule.warmup-epochs (2.5) must be shorter than the shortest phase of --finetune (2)",
    ),
    (
        {"finetune": GRADUAL, "schedule": {"kind": "multi_step", "epochs": [1, 3]}},
        "--schedule.epochs 3 has no effect: it must be less than the longest phase of --finetune (3)",
    ),
    (
        {"finetune": GRADUAL, "schedule": {"kind": "cyclic", "period_epochs": 3}},
        "--schedule.period-epochs (3) is more than the 2 epochs that the shortest phase of --finetune and the warm-up leave",
    ),
    (
        {"finetune": GRADUAL, "schedule": {"kind": "plateau", "patience": 1}},
        "--schedule.patience 1 cannot run out within the longest phase of --finetune (3 epochs) with a measurement every epoch",
    ),
    (
        {"finetune": GRADUAL, "averaging": {"kind": "swa", "start": 0.5}},
        "--averaging.start 0.5 is epoch 4, before the peak of the schedule in the last phase of --finetune (epoch 5)",
    ),
    (
        {"finetune": GRADUAL | {"restore_best": "val_acc"}, "fit": {"validate_every": 2}},
        "--finetune.restore-best val_acc needs a validation in each phase before the last, and two or more in one of them; with"
        " --fit.validate-every 2 they have [1, 1]: validate more often",
    ),
    (
        {"finetune": GRADUAL | {"restore_best": "val_acc"}, "fit": {"validate_every": 0}},
        "--finetune.restore-best val_acc needs a validation in each phase before the last",
    ),
    (
        {"finetune": "phases"},
        "--finetune.kind phases needs its phases, which are written in YAML: `sightline plan DATA",
    ),
    ({"finetune": {"kind": "phases", "phases": 3}}, "finetune.phases is 3; wanted a list of blocks, as YAML has it"),
    ({"finetune": GRADUAL | {"phases": [{"epochs": 8}]}}, "finetune.phases is [{'epochs': 8}]; wanted a whole number"),
    (
        phases({"epochs": 8, "train": "head"}),
        "finetune.phases.1.train is 'head'; wanted a list of any number, each text",
    ),
    (phases({"epochs": 8}), "finetune.phases.1 lacks the train; add train: ..."),
    (
        phases(*HEAD_ALL, {"rate": 1.0}),
        "finetune.phases.3 lacks the epochs and the train; add epochs: ... and train: ...",
    ),
    (phases(*HEAD_ALL, {"trian": []}), "unknown setting 'finetune.phases.3.trian'; did you mean 'train'?"),
    (phases(3), "finetune.phases.1 is 3; wanted a block of settings"),
    (
        phases(*HEAD_ALL, {"epochs": 2, "train": ["head"]}),
        "the phases of finetune take 4 + 4 + 2 = 10 epochs, and --fit.ep",
    ),
    (phases({"epochs": 8, "train": []}), "finetune.phases.1.train is empty, so the phase trains nothing"),
    (phases({"epochs": 8, "train": ["head", "all"]}), "finetune.phases.1.train names head, which all holds already"),
    (
        phases({"epochs": 8, "train": ["layer4", "layer4.1.conv1"]}),
        "finetune.phases.1.train names layer4.1.conv1, which la",
    ),
    (phases({"epochs": 8, "train": ["head", "head"]}), "finetune.phases.1.train names head, which head holds already"),
    (phases({"epochs": 8, "train": ["head"], "rate": 0}), "finetune.phases.1.rate is 0; it must be above 0."),
    (phases({"epochs": 0, "train": ["head"]}), "finetune.phases.1.epochs is 0; it must be at least 1"),
    (
        phases({"epochs": 8, "train": ["all"]}),
        "finetune has no effect: its one phase trains everything at the usual rate",
    ),
    (
        phases(HEAD_ALL[0], {"epochs": 4, "train": ["head"]}),
        "phase 2 of finetune trains the same as phase 1, at the same",
    ),
    (
        phases(*HEAD_ALL[::-1][1:], HEAD_ALL[0] | {"rate": 0.5}, layer_decay=0.5),
        "--finetune.layer-decay has no effect where only the head learns",
    ),
    (
        phases({"epochs": 8, "train": ["head"]}, restore_best="val_acc"),
        "finetune.restore_best has no effect with one phase",
    ),
]
TAKEN: list[dict[str, Any]] = [
    {"schedule": {"kind": "step", "every_epochs": 7}},
    {"schedule": {"kind": "multi_step", "epochs": [1, 7], "warmup_epochs": 0.9}},
    {"schedule": {"kind": "cyclic", "period_epochs": 8}},
    {"schedule": {"kind": "plateau", "patience": 5}},
    {"schedule": {"kind": "plateau", "monitor": "train_acc"}, "fit": {"validate_every": 0}},
    {"early_stopping": {"kind": "patience", "patience": 6}},
    {"fit": {"keep": "val_loss", "validate_every": 4}},
    {"fit": {"accumulate": {0: 8, 4: 4, 7: 1}}},
    {"averaging": {"kind": "ema", "start": 0.875}, **EARLY},
    {"averaging": {"kind": "swa", "anneal_epochs": 1.9}, "schedule": {"kind": "one_cycle", "peak_epoch": 6}},
    {"averaging": {"kind": "swa"}, "fit": {"keep": "val_acc"}},
    {"head": "linear", "network": "timm:resnet18", "augment": {"scales": [0.5, 1]}},
    {"head": {"kind": "graph_attention", "layer": "groups.2", "width": 96, "heads": 12}},
    {"head": {"kind": "attention_pool", "layer": "any"}, "network": "run:a", "augment": {"scales": [0.5, 1]}},
    {"finetune": "frozen", **EARLY},
    {"finetune": {"kind": "discriminative", "layer_decay": 0.5}, **EARLY, "schedule": {"kind": "one_cycle"}},
    {"finetune": GRADUAL, "schedule": {"kind": "one_cycle", "peak_epoch": 1.9}, "fit": {"keep": "val_acc"}},
    {"finetune": GRADUAL | {"restore_best": "val_loss", "growth": 2.0}},
    {"finetune": GRADUAL, "averaging": {"kind": "swa", "start": 0.75}},
    {"finetune": GRADUAL, "averaging": {"kind": "ema"}, "schedule": {"kind": "plateau", "patience": 0}},
    phases(*HEAD_ALL, layer_decay=0.5, restore_best="val_acc"),
    phases({"epochs": 8, "train": ["head", "layer4", "layer3.1"]}) | EARLY,
    phases({"epochs": 8, "train": ["layer1", "layer10"]}),
    phases({"epochs": 4, "train": ["all"]}, {"epochs": 4, "train": ["all"], "rate": 0.1}),
]


@pytest.mark.parametrize(("settings", "sentence"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_is_refused_when_the_settings_are_made(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(settings)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("settings", TAKEN, ids=str)
def test_what_just_can_be_is_taken_and_comes_back_from_yaml(settings: dict[str, Any]) -> None:
    recipe = resolve(settings)
    assert resolve(yaml.safe_load(to_yaml(recipe))) == recipe


def test_a_schedule_of_accumulation_replaces_another_whole() -> None:
    assert resolve({"fit": {"accumulate": {0: 2, 3: 1}}}, {"fit": {"accumulate": {0: 4}}}).fit.accumulate == {0: 4}
    assert resolve({"fit": {"accumulate": {0: 2, 3: 1}}}, {"fit": {"accumulate": 4}}).fit.accumulate == 4


def test_batches_a_step_are_those_of_the_newest_epoch_named() -> None:
    fit = FitConfig(epochs=10, accumulate={0: 8, 4: 4, 8: 1})
    assert [fit.batches_a_step(epoch) for epoch in range(10)] == [8, 8, 8, 8, 4, 4, 4, 4, 1, 1]
    assert FitConfig(accumulate=3).batches_a_step(7) == 3


@pytest.mark.parametrize(
    ("settings", "selects"),
    [
        ({}, False),
        ({"schedule": {"kind": "plateau"}}, True),
        ({"schedule": {"kind": "plateau", "monitor": "train_acc"}}, False),
        ({"fit": {"keep": "val_acc"}}, True),
        (EARLY, True),
        (SWA, False),
        ({"finetune": GRADUAL}, False),
        ({"finetune": GRADUAL | {"restore_best": "val_acc"}}, True),
        ({"finetune": "frozen"}, False),
    ],
    ids=str,
)
def test_half_of_validation_is_kept_to_calibrate_exactly_where_the_other_half_chooses(
    settings: dict[str, Any], selects: bool
) -> None:
    assert resolve(settings).selects == selects
