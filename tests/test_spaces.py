"""The space of a tuning: what may vary and how, what one drawing sets, and what is refused in one sentence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sightline.config.resolving import read_recipe, resolve
from sightline.config.settings import Recipe
from sightline.config.space_files import build_space, read_space
from sightline.config.spaces import NOTATION, Dimension, Space
from sightline.config.tuning import TuneConfig, choose_pruner, refuse_hopeless_space
from sightline.config.yaml_texts import parse_yaml
from sightline.errors import ConfigError

SMALL = resolve(read_recipe("small"))
"""20 epochs of Muon at 0.1 on a speednet, random resized crop, a linear schedule."""


def space_of(text: str, base: Recipe = SMALL, **fixed: Any) -> Space:
    return build_space(parse_yaml(text, "space.yaml"), base, fixed)


def drawn(space: Space, **values: Any) -> dict[str, Any]:
    """The settings of a drawing whose names are written with __ for their points."""
    return space.settings(lambda dimension: values[dimension.name.replace(".", "__")])


# ── what a space says ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("example", NOTATION)
def test_every_example_of_the_notation_is_read(example: str) -> None:
    block = {"flip": "augment", "momentum": "optimizer", "learning_rate": "optimizer", "widths": "network"}
    name = example.split(":")[0]
    space = space_of(f"{block[name]}: {{{example}}}" if name in block else example)
    assert space.places[0] == (f"{block[name]}.{name}" if name in block else name)


def test_choices_and_ranges_set_what_is_drawn_in_its_block() -> None:
    space = space_of("optimizer: {learning_rate: {low: 0.001, high: 1, log: true}}\naugment: {flip: [none, random]}")
    assert space.names == ["optimizer.learning_rate", "augment.flip"]
    settings = drawn(space, optimizer__learning_rate=0.03, augment__flip="none")
    assert settings == {"optimizer": {"learning_rate": 0.03}, "augment": {"flip": "none"}}
    assert resolve(read_recipe("small"), settings).optimizer.learning_rate == 0.03


def test_lists_switches_null_and_pairs_can_be_chosen() -> None:
    space = space_of(
        "network: {widths: [[8, 16, 16], [16, 16, 16]]}\ndata: {size: [null, 32]}\nfit: {accumulate: [1, {0: 8, 4: 4}]}"
    )
    assert space.size == 8
    settings = drawn(space, network__widths="[16, 16, 16]", data__size="null", fit__accumulate="{0: 8, 4: 4}")
    assert settings == {
        "network": {"widths": [16, 16, 16]},
        "data": {"size": None},
        "fit": {"accumulate": {0: 8, 4: 4}},
    }


def test_what_belongs_to_a_kind_is_drawn_only_with_it() -> None:
    space = space_of("optimizer: [sgd, {kind: adamw, betas: [0.8, 0.9], weight_decay: {low: 0, high: 0.2, step: 0.1}}]")
    assert space.names == ["optimizer", "optimizer.adamw.weight_decay"]
    assert space.size == 1 + 3
    asked: list[str] = []

    def draw(dimension: Dimension) -> Any:
        asked.append(dimension.name)
        return {"optimizer": "sgd"}[dimension.name]

    assert space.settings(draw) == {"optimizer": {"kind": "sgd"}}
    assert asked == ["optimizer"]
    settings = drawn(space, optimizer="adamw", optimizer__adamw__weight_decay=0.1)
    assert settings == {"optimizer": {"kind": "adamw", "betas": [0.8, 0.9], "weight_decay": 0.1}}


def test_several_kinds_may_share_what_all_of_them_have() -> None:
    space = space_of("optimizer: {kind: [sgd, adam], weight_decay: [0, 0.001]}")
    assert [space.settings(lambda d, one=one: one[d.name])["optimizer"] for one in space.drawings()] == [
        {"kind": kind, "weight_decay": decay} for kind in ("sgd", "adam") for decay in (0.0, 0.001)
    ]


def test_a_block_may_be_off_and_a_network_is_a_word() -> None:
    space = space_of("augment: {cutout: [null, {size: [4, 8]}]}\nnetwork: [speednet, resnet18, 'timm:vit_tiny']")
    assert space.names == ["augment.cutout", "augment.cutout.size", "network"]
    assert space.size == 3 * 3
    settings = drawn(space, augment__cutout="none", network="timm:vit_tiny")
    assert settings == {"augment": {"cutout": None}, "network": {"kind": "timm", "name": "vit_tiny"}}


def test_all_drawings_of_a_space_are_counted_and_listed_once() -> None:
    space = space_of(
        "fit: {batch_size: {low: 32, high: 128, step: 32}}\naugment: {crop: [null, {kind: pad_crop, padding: [1, 2]}]}"
    )
    drawings = list(space.drawings())
    assert space.size == len(drawings) == 4 * 3
    assert len({str(sorted(one.items())) for one in drawings}) == 12
    assert space_of("optimizer: {momentum: {low: 0.1, high: 0.9}}").size == float("inf")


def test_the_drawing_that_leaves_the_recipe_as_it_is_is_found_if_there_is_one() -> None:
    text = (
        "optimizer: [sgd, {kind: muon, learning_rate: {low: 0.1, high: 0.5, step: 0.2}}]\nfit: {batch_size: [32, 64]}"
    )
    space = space_of(text)
    found = space.drawing_of(SMALL)
    assert found == {"optimizer": "muon", "optimizer.muon.learning_rate": 0.1, "fit.batch_size": "64"}
    assert resolve(read_recipe("small"), space.settings(lambda dimension: found[dimension.name])) == SMALL
    assert space_of("optimizer: {momentum: [0, 0.3]}".replace("0,", "0.1,")).drawing_of(SMALL) is None
    assert space_of("optimizer: {momentum: {low: 0.7, high: 0.9}}").drawing_of(SMALL) is None


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("optimizer: {learning_rat: [1, 2]}", "unknown setting 'optimizer.learning_rat' of kind 'muon' in the space; did you mean 'learning_rate'?"),
        ("optimiser: {momentum: [0.1, 0.2]}", "unknown setting 'optimiser' in the space; did you mean 'optimizer'?"),
        ("name: [a, b]", "unknown setting 'name' in the space"),
        ("optimizer: {betas: [[0.9, 0.9], [0.8, 0.9]]}", "unknown setting 'optimizer.betas' of kind 'muon' in the space"),
        ("optimizer: {momentum: {low: 0.5, high: 1.5}}", "cannot be: --optimizer.momentum is 1.5; it must be above 0 and at most 0.999999"),
        ("optimizer: {momentum: {low: 0.5, high: 0.5}}", "optimizer.momentum goes from 0.5 to 0.5 in the space; its low must be less than its high"),
        ("optimizer: {momentum: {low: 0.5, hi: 0.9}}", "optimizer.momentum says 'hi' in the space; did you mean 'high'?"),
        ("optimizer: {momentum: {low: 0.5}}", "optimizer.momentum lacks its low or its high"),
        ("optimizer: {momentum: {low: 0.1, high: 0.9, step: 0.3}}", "does not come from 0.1 to 0.9 in steps of 0.3"),
        ("optimizer: {momentum: {low: 0, high: 0.9, log: true}}", "its low must be above 0, and it takes no step"),
        ("optimizer: {momentum: {low: 0.1, high: .inf}}", "goes from 0.1 to inf"),
        ("optimizer: {momentum: [0.5]}", "optimizer.momentum is [0.5] in the space, and one value does not vary"),
        ("optimizer: {momentum: 0.5}", "optimizer.momentum is 0.5 in the space, and one value does not vary"),
        ("augment: {crop: {scale: [0.5, 1.0]}}", "augment.crop.scale is [0.5, 1.0] in the space, and one value does not vary"),
        ("optimizer: {kind: adamw, weight_decay: [0, 1]}", "optimizer is 'adamw' in the space, and one value does not vary"),
        ("optimizer: {momentum: [0.5, 0.5]}", "optimizer.momentum names 0.5 twice"),
        ("augment: {flip: [none, randm]}", "augment.flip is 'randm'; wanted one of none, random, alternating"),
        ("augment: {flip: {low: 1, high: 2}}", "augment.flip has a range in the space and is no number"),
        ("fit: {epochs: {low: 1.5, high: 3}}", "fit.epochs.low is 1.5; wanted a whole number"),
        ("fit: {epochs: {low: 0, high: 3}}", "cannot be: --fit.epochs is 0; it must be at least 1"),
        ("clip: {limit: [1, 2]}", "clip is off in the recipe, so nothing in it can be drawn"),
        ("clip: [null, {limit: [1, 2]}]", "clip names no kind; add one of: kind: norm, value"),
        ("optimizer: {kind: [sgd, adamw], momentum: [0.8, 0.9]}", "optimizer.momentum is no setting of kind 'adamw'; draw a list of blocks"),
        ("optimizer: [sgd, adamv]", "unknown optimizer.kind 'adamv'; did you mean 'adam'?"),
        ("optimizer: [sgd, {kind: adamv}]", "unknown optimizer.kind 'adamv'; did you mean 'adam'?"),
        ("optimizer: [sgd, {kind: sgd, nesterov: [true, false]}]", "optimizer names sgd twice"),
        ("optimizer: [null, sgd]", "optimizer is None; wanted a block of settings"),
        ("augment: [{flip: none}, {flip: random}]", "augment is a list in the space, and has no kinds"),
        ("schedule: {warmup_epochs: [0, 40]}", "cannot be: --schedule.warmup-epochs (40) must be shorter than --fit.epochs (20)"),
        ("fit: {seed: [1, 2]}", "fit.seed cannot be tuned: it would choose luck in place of settings"),
        ("data: {split_seed: [1, 2]}", "data.split_seed cannot be tuned: trials that are validated on different images"),
        ("evaluation: {views: [one, six]}", "evaluation.views cannot be tuned: trials are validated while they train"),
        ("fit: {keep: [last, val_acc]}", "some trials of the space choose by validation while they train"),
        ("schedule: [linear, {kind: plateau, patience: [2, 4]}]", "some trials of the space choose by validation"),
        ("", "nothing varies in the space; name a setting"),
    ],
)  # fmt: skip
def test_what_a_space_cannot_say_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space_of(text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_end_is_possible_if_it_goes_with_any_drawing_of_the_rest() -> None:
    space = space_of("schedule: {warmup_epochs: [0, 30]}\nfit: {epochs: [10, 40]}")
    assert space.size == 4  # of which 30 of 10 will fail, in a trial
    with pytest.raises(ConfigError, match=r"warmup-epochs \(60\) must be shorter"):
        space_of("schedule: {warmup_epochs: [0, 60]}\nfit: {epochs: [10, 40]}")


@pytest.mark.parametrize(
    ("text", "fixed", "sentence"),
    [
        ("optimizer: {momentum: [0.5, 0.7]}", {"optimizer": {"momentum": 0.5}}, "optimizer.momentum is in the space, and --optimizer.momentum 0.5 fixes it"),
        ("optimizer: [sgd, muon]", {"optimizer": {"momentum": 0.5}}, "optimizer is in the space, and --optimizer.momentum 0.5 fixes it"),
        ("optimizer: [sgd, muon]", {"optimizer": "muon"}, "optimizer is in the space, and --optimizer.kind muon fixes it"),
    ],
)  # fmt: skip
def test_what_is_drawn_cannot_be_fixed_by_a_flag_as_well(text: str, fixed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space_of(text, **fixed)
    assert sentence in str(caught.value)
    assert space_of("fit: {batch_size: [32, 64]}", optimizer="muon").size == 2


def test_more_processes_than_one_cannot_train_a_trial() -> None:
    with pytest.raises(ConfigError, match=r"--fit.processes 2 .*--workers 2"):
        space_of("optimizer: {momentum: [0.5, 0.7]}", resolve(read_recipe("small"), {"fit": {"processes": 2}}))


def test_a_file_that_is_no_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the space '.*none.yaml' cannot be read \(No such file or directory\)"):
        read_space(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="it is not text"):
        read_space(tmp_path / "binary.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="holds a list"):
        read_space(tmp_path / "list.yaml")
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"optimizer": {"momentum": [0.5, 0.7]}}))
    assert read_space(tmp_path / "space.yaml") == {"optimizer": {"momentum": [0.5, 0.7]}}


# ── which trials end early ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_pruner_needs_trials_that_can_be_compared_before_they_end() -> None:
    momentum = space_of("optimizer: {momentum: [0.5, 0.7]}")
    assert choose_pruner(TuneConfig(), SMALL, momentum) == "median"
    assert choose_pruner(TuneConfig(pruner="halving"), SMALL, momentum) == "halving"
    fast = resolve(read_recipe("fast"))  # is validated after its last epoch only
    assert choose_pruner(TuneConfig(), fast, momentum) == "none"
    with pytest.raises(ConfigError, match=r"--pruner median has nothing to compare: --fit.validate-every 0"):
        choose_pruner(TuneConfig(pruner="median"), fast, momentum)
    lengths = space_of("fit: {epochs: [10, 20]}")
    assert choose_pruner(TuneConfig(), SMALL, lengths) == "none"
    with pytest.raises(ConfigError, match="trials of different lengths are not equally far"):
        choose_pruner(TuneConfig(pruner="hyperband"), SMALL, lengths)


def test_where_no_recipe_is_named_a_space_must_fit_one_that_may_be_chosen() -> None:
    refuse_hopeless_space({"optimizer": {"momentum": [0.5, 0.7]}}, {}, {}, TuneConfig())
    with pytest.raises(ConfigError, match=r"unknown setting 'optimizer.momentun'"):
        refuse_hopeless_space({"optimizer": {"momentun": [0.5, 0.7]}}, {}, {}, TuneConfig())


@pytest.mark.parametrize(
    ("setting", "sentence"), [({"trials": 0}, "--trials is 0; it must be at least 1"), ({"seed": -1}, "--seed is -1")]
)
def test_a_tuning_that_makes_no_sense_is_refused(setting: dict[str, int], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TuneConfig(**setting)
