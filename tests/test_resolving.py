"""Defaults < recipe < file < flags, and what is refused on the way."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sightline.config.augmentation import CutoutConfig, PadCropConfig, RandomResizedCropConfig
from sightline.config.building import members, required
from sightline.config.checks import nearest
from sightline.config.generating import AnyRecipe
from sightline.config.heads import HeadConfig
from sightline.config.networks import NetworkConfig, ResNet18Config, ResNet34Config
from sightline.config.optimizers import AdamWConfig, MuonConfig, OptimizerConfig, SGDConfig
from sightline.config.resolving import (
    merge,
    named_recipes,
    read_recipe,
    refuse_hopeless,
    resolve,
    resolve_any,
    spell_out,
    to_mapping,
    to_yaml,
)
from sightline.config.schedules import CosineConfig, ScheduleConfig
from sightline.config.settings import Recipe
from sightline.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text, "utf-8")
    return file


def read(folder: Path, text: str) -> AnyRecipe:
    return resolve_any(read_recipe(written(folder, text)))


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_given_gives_the_defaults() -> None:
    assert resolve() == resolve({}) == Recipe()


def test_flags_win_over_the_file_which_wins_over_the_recipe_which_wins_over_the_defaults() -> None:
    recipe = {"fit": {"epochs": 20, "batch_size": 64, "seed": 1}}
    file = {"fit": {"batch_size": 32, "seed": 2}}
    flags = {"fit": {"seed": 3}}
    fit = resolve(recipe, file, flags).fit
    assert (fit.epochs, fit.batch_size, fit.seed, fit.validate_every) == (20, 32, 3, 1)


def test_the_order_of_the_settings_within_a_layer_does_not_matter() -> None:
    ordered = {
        "network": {"kind": "resnet18"},
        "optimizer": {"kind": "adamw", "learning_rate": 0.5},
        "fit": {"seed": 7, "epochs": 3},
    }
    backwards = {block: dict(reversed(list(settings.items()))) for block, settings in reversed(list(ordered.items()))}
    assert list(backwards["optimizer"]) == ["learning_rate", "kind"]
    assert resolve(ordered) == resolve(backwards)


def test_merging_two_layers_first_changes_nothing() -> None:
    recipe = {"optimizer": {"kind": "muon", "shrink": 0.1}, "augment": {"crop": {"kind": "pad_crop", "padding": 2}}}
    file = {"optimizer": {"learning_rate": 0.3}, "augment": {"crop": {"padding": 3}}}
    flags = {"augment": {"flip": "none"}}
    assert resolve(merge(merge(recipe, file), flags)) == resolve(recipe, file, flags)


def test_merging_leaves_the_layers_as_they_were() -> None:
    below, above = {"fit": {"epochs": 3}}, {"fit": {"seed": 1}}
    merge(below, above)
    assert (below, above) == ({"fit": {"epochs": 3}}, {"fit": {"seed": 1}})


def test_another_kind_drops_the_old_kinds_settings() -> None:
    assert resolve({"optimizer": {"kind": "sgd", "weight_decay": 0.3}}, {"optimizer": {"kind": "adamw"}}).optimizer == (
        AdamWConfig()
    )
    assert (
        resolve(
            {"schedule": {"kind": "cosine", "final": 0.5}}, {"schedule": {"kind": "linear", "warmup_epochs": 1}}
        ).schedule.final
        == 0
    )


def test_a_kind_and_back_again_starts_from_the_defaults() -> None:
    layers = [{"optimizer": {"kind": "sgd", "momentum": 0.5}}, {"optimizer": {"kind": "adamw"}}]
    assert resolve(*layers, {"optimizer": {"kind": "sgd"}}).optimizer == SGDConfig()


def test_the_same_kind_merges_with_what_lies_below() -> None:
    below = {"optimizer": {"kind": "muon", "learning_rate": 0.3, "shrink": 0.1}}
    same = MuonConfig(learning_rate=0.3, shrink=0.2)
    assert resolve(below, {"optimizer": {"kind": "muon", "shrink": 0.2}}).optimizer == same
    assert resolve(below, {"optimizer": {"shrink": 0.2}}).optimizer == same


def test_a_list_replaces_the_one_below_as_a_whole() -> None:
    assert resolve({"network": {"widths": [8, 16, 24]}}, {"network": {"widths": [32, 32, 32]}}).network == (
        resolve({"network": {"widths": [32, 32, 32]}}).network
    )


@pytest.mark.parametrize("off", [None, {"kind": "none"}], ids=["null", "kind none"])
@pytest.mark.parametrize("block", ["crop", "cutout"])
def test_an_optional_block_is_turned_off_by_null_and_by_the_kind_none(block: str, off: Any) -> None:
    kind = {"crop": "pad_crop", "cutout": "cutout"}[block]
    on = {"augment": {block: {"kind": kind}}}
    assert getattr(resolve(on).augment, block) is not None
    assert getattr(resolve(on, {"augment": {block: off}}).augment, block) is None
    assert getattr(resolve({"augment": {block: off}}, on).augment, block) is not None


def test_an_optional_block_of_one_kind_needs_no_kind_and_one_of_several_does() -> None:
    assert resolve({"augment": {"cutout": {"size": 5}}}).augment.cutout == CutoutConfig(size=5)
    with pytest.raises(
        ConfigError, match=r"augment.crop names no kind; add one of: kind: pad_crop, random_resized_crop"
    ):
        resolve({"augment": {"crop": {"padding": 5}}})


def test_one_optional_block_may_have_several_kinds() -> None:
    crops = [
        resolve({"augment": {"crop": {"kind": kind}}}).augment.crop for kind in ("pad_crop", "random_resized_crop")
    ]
    assert crops == [PadCropConfig(), RandomResizedCropConfig()]


# ── blocks in a word ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("word", "network"),
    [
        ("resnet34", {"kind": "resnet34"}),
        ("timm:resnet18.a1_in1k", {"kind": "timm", "name": "resnet18.a1_in1k"}),
        ("hub:OWNER/REPO:NAME", {"kind": "hub", "repo": "OWNER/REPO", "name": "NAME"}),
        ("hub:OWNER/REPO:a:b", {"kind": "hub", "repo": "OWNER/REPO", "name": "a:b"}),  # the last takes the rest
        ("run:C:/runs/a:1", {"kind": "run", "folder": "C:/runs/a:1"}),
    ],
)
def test_a_block_may_be_a_word_of_its_kind_and_what_the_kind_needs(word: str, network: dict[str, str]) -> None:
    assert spell_out({"network": word}) == {"network": network}


def test_every_block_with_kinds_may_be_a_word_in_a_file_too(tmp_path: Path) -> None:
    text = "network: resnet34\noptimizer: adamw\nschedule: cosine\naugment: {crop: pad_crop, cutout: none}\n"
    recipe = read(tmp_path, text)
    assert (recipe.network, recipe.optimizer, recipe.schedule) == (ResNet34Config(), AdamWConfig(), CosineConfig())
    assert (recipe.augment.crop, recipe.augment.cutout) == (PadCropConfig(), None)


def test_a_word_of_the_kind_below_keeps_its_settings() -> None:
    assert resolve({"optimizer": {"kind": "sgd", "momentum": 0.5}}, {"optimizer": "sgd"}).optimizer == SGDConfig(
        momentum=0.5
    )


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("timm", "network is 'timm', which lacks the name; write timm:NAME"),
        ("timm:", "network is 'timm:', which lacks the name"),
        ("hub:a/b", "network is 'hub:a/b', which lacks the name; write hub:REPO:NAME"),
        ("hub::b", "which lacks the repo;"),
        ("hub", "which lacks the repo and the name;"),
        ("resnet34:pretrained", "resnet34 takes nothing behind a colon; write resnet34"),
        ("resnet35", "unknown network.kind 'resnet35'; did you mean 'resnet34'"),
        ("none", "unknown network.kind 'none'"),
        ({"kind": "timm"}, "network of kind 'timm' lacks the name; add --network.name"),
        ({"kind": "hub", "trust_code": True}, "lacks the repo and the name; add --network.repo and --network.name"),
    ],
)
def test_what_a_word_lacks_is_named(network: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve({"network": network})


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": {"learning_rat": 1}}, "unknown setting 'optimizer.learning_rat'.*'sgd'; did you mean 'learning_rate'"),
        ({"fit": {"epoch": 1}}, "unknown setting 'fit.epoch'; did you mean 'epochs'"),
        ({"optimiser": {}}, "unknown setting 'optimiser'; did you mean 'optimizer'"),
        ({"fit": {"zzz": 1}}, "unknown setting 'fit.zzz'; known are: epochs, batch_size, "),
        ({"network": {"kind": "resnet18", "widths": [8, 8, 8]}}, "unknown setting 'network.widths' of kind 'resnet18'"),
        ({"augment": {"cutout": {"sizes": 3}}}, "unknown setting 'augment.cutout.sizes'; did you mean 'size'"),
        ({3: 4}, "unknown setting '3'"),
    ],
)  # fmt: skip
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(settings: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": {"kind": "resnet_18"}}, "unknown network.kind 'resnet_18'; did you mean 'resnet18'"),
        ({"optimizer": {"kind": "xyz"}}, "unknown optimizer.kind 'xyz'; known are: sgd, adamw, muon"),
        ({"optimizer": {"kind": None}}, "optimizer names no kind"),
        ({"optimizer": {"kind": "none"}}, "unknown optimizer.kind 'none'"),
        ({"optimizer": {"kind": ["sgd"]}}, "unknown optimizer.kind .'sgd'."),
        ({"optimizer": {"kind": {"sgd": 1}}}, "unknown optimizer.kind"),
    ],
)
def test_an_unknown_kind_is_refused_with_those_there_are(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit": {"epochs": "8"}}, "fit.epochs is '8'; wanted a whole number"),
        ({"fit": {"epochs": 8.0}}, "fit.epochs is 8.0; wanted a whole number"),
        ({"fit": {"epochs": True}}, "fit.epochs is True; wanted a whole number"),
        ({"fit": {"epochs": None}}, "fit.epochs is None; wanted a whole number"),
        ({"fit": {"label_smoothing": "0.1"}}, "fit.label_smoothing is '0.1'; wanted a number"),
        ({"fit": {"label_smoothing": "nan"}}, "fit.label_smoothing is 'nan'; wanted a number"),
        ({"fit": {"label_smoothing": False}}, "fit.label_smoothing is False; wanted a number"),
        ({"fit": {"deterministic": 1}}, "fit.deterministic is 1; wanted true or false"),
        ({"fit": {"deterministic": "true"}}, "fit.deterministic is 'true'; wanted true or false"),
        ({"fit": {"precision": "float64"}}, "fit.precision is 'float64'; wanted one of auto, float32, bfloat16, "),
        ({"fit": {"precision": ["auto"]}}, "fit.precision is .'auto'.; wanted one of"),
        ({"data": {"size": "two"}}, "data.size is 'two'; wanted a whole number or null"),
        ({"fit": None}, "fit is None; wanted a block of settings"),
        ({"fit": [1]}, r"fit is \[1\]; wanted a block of settings"),
        ({"name": 7}, "name is 7; wanted text"),
        ({"network": {"widths": [8, 8]}}, r"network.widths is \[8, 8\]; wanted a list of 3, each a whole number"),
        ({"network": {"widths": [8, 8, "8"]}}, "network.widths is '8'; wanted a whole number"),
        ({"network": {"widths": 8}}, "network.widths is 8; wanted a list of 3"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_the_type_that_is_wanted(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": {"learning_rate": float("nan")}}, "--optimizer.learning-rate is nan"),
        ({"optimizer": {"learning_rate": 10**400}}, "--optimizer.learning-rate is inf"),
        ({"fit": {"epochs": -1}}, "--fit.epochs is -1; it must be at least 1"),
        ({"fit": {"epochs": 3}, "schedule": {"warmup_epochs": 3}}, "--schedule.warmup-epochs .3. must be shorter"),
        ({"optimizer": {"momentum": 0}}, "--optimizer.nesterov has no effect"),
        ({"data": {"size": 16}, "augment": {"cutout": {"size": 17}}}, "--augment.cutout.size .17. is larger than"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_wherever_it_came_from(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(settings)


def test_checks_between_blocks_see_the_merged_settings_and_not_one_layer() -> None:
    short = {"fit": {"epochs": 3}}
    with pytest.raises(ConfigError, match=r"--schedule.peak-epoch \(5\) must be shorter"):
        resolve({"schedule": {"kind": "one_cycle"}}, short)
    assert resolve({"schedule": {"kind": "one_cycle"}}, short, {"schedule": {"peak_epoch": 1}}).fit.epochs == 3


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_number_with_an_exponent_is_a_number_although_yaml_reads_a_word(tmp_path: Path) -> None:
    assert yaml.safe_load("1e-4") == "1e-4"
    for text, value in (("1e-4", 1e-4), ("1E-4", 1e-4), ("1.0e4", 1e4), ("5", 5.0), ("+2.5e+0", 2.5)):
        found = read(tmp_path, f"optimizer: {{learning_rate: {text}}}").optimizer
        assert isinstance(found, SGDConfig)
        assert (found.learning_rate, type(found.learning_rate)) == (value, float)
    with pytest.raises(ConfigError, match=r"fit.epochs is '1e1'; wanted a whole number"):
        read(tmp_path, "fit: {epochs: 1e1}")


def test_the_setting_on_can_be_written_without_quotes_although_yaml_reads_a_switch(tmp_path: Path) -> None:
    assert yaml.safe_load("on: x") == {True: "x"}
    assert read(tmp_path, "evaluation: {on: validation}").evaluation.on == "validation"
    assert read(tmp_path, "fit: {deterministic: true}").fit.deterministic is True
    assert read(tmp_path, "fit: {deterministic: False}").fit.deterministic is False
    with pytest.raises(ConfigError, match=r"fit.deterministic is 'yes'; wanted true or false"):
        read(tmp_path, "fit: {deterministic: yes}")


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    assert read_recipe(written(tmp_path, "# nothing yet\n")) == {}


def test_a_missing_recipe_is_refused_with_those_there_are(tmp_path: Path) -> None:
    for name in ("fsat", str(tmp_path / "no.yaml"), str(tmp_path), "x" * 5000, ""):
        with pytest.raises(
            ConfigError, match=r"there is no recipe or file .*; wanted a YAML file or one of: auto, .*fast, "
        ):
            read_recipe(name)


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\ta: 1", "name: 2024-02-30", "? [a]\n: 1", "!!python/name:os.system"]
)
def test_a_file_that_is_not_yaml_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"mine.yaml is not YAML \(.*\); correct the line named") as caught:
        read_recipe(written(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"), [("- a", "list"), ("[]", "list"), ("fast", "str"), ("3", "int"), ("false", "bool")]
)
def test_a_file_that_holds_no_mapping_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"mine.yaml holds a {kind}; wanted settings as"):
        read_recipe(written(tmp_path, text))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"mine.yaml cannot be read .it is not text."):
        read_recipe(tmp_path / "mine.yaml")


# ── round trips ──────────────────────────────────────────────────────────────────────────────────────────────────────


def there_and_back(folder: Path, recipe: Recipe) -> Recipe:
    return read(folder, to_yaml(recipe))


@pytest.mark.parametrize("name", named_recipes())
def test_every_recipe_that_comes_along_resolves_and_survives_being_written_and_read(tmp_path: Path, name: str) -> None:
    recipe = resolve_any(read_recipe(name))
    assert recipe.name == name
    assert recipe.about
    assert there_and_back(tmp_path, recipe) == recipe


@pytest.mark.parametrize(
    "settings",
    [
        *({"network": {"kind": block.kind}} for block in members(NetworkConfig) if not required(block)),
        {"network": {"kind": "timm", "name": "x:y", "weights": "a.pth"}},
        {"network": {"kind": "hub", "repo": "a/b", "name": "c"}},
        {"network": {"kind": "run", "folder": "runs/a"}},
        *({"head": block().kind} for block in members(HeadConfig)),
        *({"optimizer": {"kind": block().kind}} for block in members(OptimizerConfig)),
        *({"schedule": {"kind": block().kind}} for block in members(ScheduleConfig)),
        {"augment": {"crop": {"kind": "random_resized_crop", "ratio": [0.1, 1 / 3]}, "cutout": {"size": 3}}},
        {"optimizer": {"learning_rate": 1e-22, "weight_decay": 1e17}, "fit": {"deterministic": True}},
        {"name": "on", "about": "1e-4"},
        {"name": "null", "about": "two\nlines: # and é, 花\t", "image_set": "/data/caf\udce9/花"},
        {"name": "2024-02-03", "about": "~", "image_set": "0x10"},
    ],
    ids=str,
)
def test_settings_survive_being_written_and_read(tmp_path: Path, settings: dict[str, Any]) -> None:
    recipe = resolve(settings)
    assert recipe != Recipe() or settings in (
        {"network": {"kind": "speednet"}}, {"optimizer": {"kind": "sgd"}}, {"schedule": {"kind": "linear"}},
    )  # fmt: skip
    assert there_and_back(tmp_path, recipe) == recipe


def test_a_recipe_as_a_mapping_holds_every_setting_as_a_plain_value() -> None:
    mapping = to_mapping(resolve({"network": {"kind": "resnet18"}, "schedule": {"kind": "cosine"}}))
    assert mapping["network"] == {"kind": ResNet18Config().kind, "weights": None}
    assert mapping["schedule"] == {"kind": CosineConfig().kind, "warmup_epochs": 0.0, "final": 0.0}
    assert mapping["augment"]["crop"] is None
    assert to_mapping(Recipe())["network"]["widths"] == [64, 256, 256]


def test_the_nearest_word_is_named_and_else_all_of_them() -> None:
    assert nearest("momentun", ["momentum", "rate"]) == "did you mean 'momentum'?"
    assert nearest("zzz", ["momentum", "rate"]) == "known are: momentum, rate."


def test_settings_are_refused_at_once_only_where_no_named_recipe_takes_them() -> None:
    refuse_hopeless({"fit": {"epochs": 3}})
    refuse_hopeless({"schedule": {"warmup_epochs": 9}})  # too long for the 9 epochs of fast, not for those of small
    with pytest.raises(ConfigError, match=r"--fit\.epochs is 0; it must be at least 1"):
        refuse_hopeless({"fit": {"epochs": 0}})
