"""Studies: what their files hold, what of it becomes each run's recipe, and what is refused before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sightline.config.resolving import flatten, to_mapping
from sightline.config.settings import Recipe
from sightline.config.studies import Study, differences, named_studies, read_study, study_to_yaml
from sightline.errors import ConfigError

NEEDED = {  # settings that a shipped study needs besides those of a recipe so far
    "attention": {"head", "finetune"},
    "attention-middle": {"head", "finetune"},
    "transfer": {"finetune"},
}
HERE = set(Recipe.__struct_fields__)


def content(**changed: Any) -> dict[str, Any]:
    """What the YAML of a small study holds."""
    return {
        "name": "small-nets",
        "data": "digits",
        "recipe": "small",
        "settings": {"network": {"widths": [8, 16, 16]}, "fit": {"epochs": 3}},
        "variants": [{"name": "plain"}, {"name": "smooth", "settings": {"fit": {"label_smoothing": 0.3}}}],
        **changed,
    }


@pytest.fixture
def written(tmp_path: Path):
    """Write a study, and read it."""

    def write(**changed: Any) -> Study:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(content(**changed)))
        return read_study(path)

    return write


def with_variants(*variants: dict[str, Any]) -> dict[str, Any]:
    return {"variants": list(variants)}


# ── what a file holds ────────────────────────────────────────────────────────────────────────────────────────────────


def test_settings_lie_over_each_other_recipe_study_variant_and_the_seed_over_all(written) -> None:
    study = written()
    plain, smooth = (study.recipe_of(variant, seed=7) for variant in study.variants)
    assert (plain.name, plain.fit.epochs, plain.fit.seed, plain.fit.label_smoothing) == ("plain", 3, 7, 0.1)
    assert plain.optimizer.kind == "muon"  # of the recipe
    assert (smooth.fit.label_smoothing, smooth.fit.epochs) == (0.3, 3)


def test_seeds_are_a_number_or_named_and_the_first_variant_is_the_baseline_unless_one_is_named(written) -> None:
    assert written().seeds == (0, 1, 2)
    assert written(seeds=2).seeds == (0, 1)
    assert written(seeds=[42, 7]).seeds == (42, 7)
    assert written().baseline == "plain"
    assert written(baseline="smooth").baseline == "smooth"


def test_arguments_take_the_place_of_what_the_file_says(written, tmp_path: Path) -> None:
    written()
    study = read_study(tmp_path / "mine.yaml", data="cifar10", seeds=1, fraction=0.1)
    assert (study.data, study.seeds) == ("cifar10", (0,))
    assert study.recipe_of(study.variants[0]).data.fraction == 0.1


def test_a_variant_may_start_from_another_recipe_and_blocks_may_be_words(written) -> None:
    study = written(
        settings={},
        **with_variants(
            {"name": "a", "settings": {"schedule": "cosine"}},
            {"name": "b", "recipe": "resnet18", "settings": {"augment": {"policy": "trivial_augment"}}},
        ),
    )
    a, b = map(study.recipe_of, study.variants)
    assert (a.schedule.kind, a.network.kind) == ("cosine", "speednet")
    assert b.network.kind == "resnet18"
    assert b.augment.policy is not None


def test_a_variant_starts_from_the_run_of_its_backbone_with_the_same_seed_and_is_trained_after_it(written) -> None:
    study = written(**with_variants({"name": "longer", "backbone": "plain"}, {"name": "plain"}), baseline="plain")
    assert [variant.name for variant in study.trained] == ["plain", "longer"]
    recipe = study.recipe_of(study.variants[0], seed=3, backbone="/x/runs/plain-3")
    assert to_mapping(recipe.network) == {"kind": "run", "folder": "/x/runs/plain-3", "trust_code": False}


def test_a_backbone_of_its_own_may_have_other_images_of_which_the_fraction_leaves_all(written) -> None:
    backbone = {"name": "base", "data": "cifar10", "recipe": "fast", "settings": {"data": {"validation": 500}}}
    start = {"name": "start", "backbone": "base"}
    study = written(backbones=[backbone], fraction=0.5, **with_variants({"name": "plain"}, start))
    assert [variant.name for variant in study.trained] == ["base", "plain", "start"]
    fractions = [study.recipe_of(variant).data.fraction for variant in study.trained]
    assert fractions == [1.0, 0.5, 0.5]


def test_a_study_survives_being_written_and_read_with_the_content_of_its_recipes(written, tmp_path: Path) -> None:
    study = written(fraction=0.5)
    (tmp_path / "again.yaml").write_text(study_to_yaml(study))
    again = read_study(tmp_path / "again.yaml")
    assert again == study
    assert differences(study, again) == []
    assert again.recipe["optimizer"]["learning_rate"] == 0.1  # that of the recipe small, written out


def test_what_changed_is_named(written) -> None:
    before = written()
    assert differences(before, written(about="said otherwise")) == []
    assert differences(before, written(seeds=2)) == ["seeds was [0, 1, 2] and is [0, 1]"]
    smoother = [{"name": "plain"}, {"name": "smooth", "settings": {"fit": {"label_smoothing": 0.2}}}]
    told = "variants.smooth.settings.fit.label_smoothing was 0.3 and is 0.2"
    assert differences(before, written(variants=smoother)) == [told]
    assert differences(before, written(recipe="fast"))[0].startswith("recipe.")


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (with_variants({"name": "a"}, {"name": "a", "settings": {"fit": {"epochs": 4}}}), "two recipes are called 'a'"),
        (with_variants({"name": "a"}), "there are 1 variants; wanted two or more"),
        (with_variants({"name": "a"}, {"settings": {}}), "variants.2 lacks the name; add name: ..."),
        (with_variants({"name": "a/b"}, {"name": "b"}), "'a/b' is no name for a folder"),
        ({"baseline": "smoth"}, "there is no variant 'smoth' to be the baseline; did you mean 'smooth'?"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"seeds": [1, 1]}, "wanted one or more, each once"),
        ({"seeds": "many"}, "seeds is 'many'; wanted a whole number"),
        ({"fraction": 0}, "--fraction is 0; it must be above 0"),
        ({"variant": []}, "unknown setting 'variant'; did you mean 'variants'?"),
        ({"settings": {"fit": {"epoks": 3}}}, "unknown setting 'fit.epoks'; did you mean 'epochs'?"),
        ({"settings": {"fit": {"seed": 3}}}, "the study sets fit.seed, which the study gives every run"),
        (
            with_variants({"name": "a"}, {"name": "b", "settings": {"augment": {"flipp": "none"}}}),
            "'b': unknown setting 'augment.flipp'; did you mean 'flip'?",
        ),
        (
            with_variants({"name": "a"}, {"name": "b", "settings": {"fit": {"label_smoothing": 0.1}}}),
            "'a' and 'b' have the same settings",
        ),
        (
            with_variants({"name": "a"}, {"name": "b", "settings": {"data": {"split_seed": 1}}}),
            "data.split_seed is 1 in 'b' and 0 in others",
        ),
        (
            with_variants({"name": "a"}, {"name": "b", "recipe": "fast"}),
            "data.validation is 1000 in 'b' and None in others",
        ),
        (with_variants({"name": "a"}, {"name": "b", "backbone": "c"}), "'b' starts from 'c', which is not there"),
        (with_variants({"name": "a"}, {"name": "b", "backbone": "b"}), "'b' from 'b' is a circle"),
        (
            with_variants({"name": "a", "backbone": "b"}, {"name": "b", "backbone": "a"}),
            "'a' from 'b' from 'a' is a circle",
        ),
        (
            with_variants({"name": "a"}, {"name": "b", "backbone": "a", "settings": {"network": "resnet18"}}),
            "'b': the network comes from 'a'; leave network out",
        ),
        (with_variants({"name": "a"}, {"name": "b", "data": "mnist"}), "'b' has images of its own"),
        ({"backbones": [{"name": "idle"}]}, "no variant starts from the backbone 'idle'"),
        ({"recipe": "smal"}, "there is no recipe or file 'smal'"),
        ({"variants": {"a": {}}}, "wanted a list of"),
        (
            with_variants({"name": "a"}, {"name": "b", "settings": ["fit"]}),
            "variants.2.settings is ['fit']; wanted settings as",
        ),
    ],
)
def test_a_study_is_refused_in_a_sentence(changed: dict[str, Any], sentence: str, written) -> None:
    with pytest.raises(ConfigError) as refused:
        written(**changed)
    assert sentence in str(refused.value)


def test_a_study_that_is_not_there_is_refused_with_the_names_of_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"there is no study or file 'trics'; wanted a YAML file or one of: .*tricks"):
        read_study("trics")


# ── those that come along ────────────────────────────────────────────────────────────────────────────────────────────


def test_seven_studies_come_along_and_say_what_they_ask() -> None:
    assert set(named_studies()) == {
        "attention",
        "attention-middle",
        "augmentation",
        "optimizers",
        "schedules",
        "transfer",
        "tricks",
    }
    for name, text in named_studies().items():
        assert yaml.safe_load(text)["name"] == name
        assert len(yaml.safe_load(text)["about"]) > 60


@pytest.mark.parametrize("name", named_studies())
def test_a_study_that_comes_along_can_be_trained_by_its_settings(name: str) -> None:
    missing = NEEDED.get(name, set()) - HERE
    if missing:
        pytest.skip(f"needs {' and '.join(sorted(missing))}, which recipes do not have yet")
    study = read_study(name, data="digits")
    recipes = [study.recipe_of(variant) for variant in study.trained]
    assert len(recipes) >= 3
    settings = [flatten(to_mapping(recipe)) for recipe in recipes]
    assert all(recipe["evaluation.on"] == "test" for recipe in settings)
