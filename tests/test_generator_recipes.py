"""The settings of generators: which recipes are of one, what the images decide, and what is refused where."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.cli.flags import every_setting
from sightline.cli.main import main
from sightline.config.acgan import ACGANConfig
from sightline.config.generating import GeneratorRecipe
from sightline.config.generators import DiffusionConfig, EDMConfig, SamplingConfig, glimpse_of, usual_of
from sightline.config.resolving import read_recipe, resolve, resolve_any, resolve_generator, trains_generator
from sightline.config.settings import Recipe
from sightline.data.cache import CachedImages, open_images
from sightline.data.sources.find_source import find_source
from sightline.errors import ConfigError
from sightline.training.generator_plan import lost_detail, root_mean_square, scaled_to


def noise(side: int) -> np.ndarray:
    """Two images in which no pixel tells of the next, uint8, (2, side, side, 3)."""
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)


def test_a_recipe_is_a_generators_where_it_names_one() -> None:
    assert isinstance(resolve_any({"generator": "diffusion"}), GeneratorRecipe)
    assert isinstance(resolve_any({"network": "resnet18"}), Recipe)
    assert trains_generator(read_recipe("ddpm"))
    assert not trains_generator(read_recipe("small"), {"generator": None})


def test_the_survey_recipe_is_that_of_the_documents() -> None:
    recipe = resolve_generator(read_recipe("ddpm-survey"))
    made = recipe.generator
    assert (made.noise_steps, made.first_noise, made.last_noise) == (500, 1e-4, 0.028)
    assert [width / 128 for width in made.widths] == [1, 2, 2, 2]
    assert (made.blocks, made.dropout, made.drop_labels, made.side_multiple) == (2, 0.15, 0.1, 8)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay) == (2.5 * 1e-4, 1e-4)
    assert (recipe.fit.epochs, recipe.fit.batch_size) == (70, 100)
    assert recipe.schedule.warmup_epochs == 70 / 10  # type: ignore[union-attr]
    assert recipe.clip is not None
    assert recipe.clip.limit == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"network": "resnet18"}, "--network has no effect on a generator"),
        ({"early_stopping": {"kind": "patience"}}, "--early-stopping has no effect on a generator"),
        ({"evaluation": {"on": "none"}}, "--evaluation has no effect on a generator"),
        ({"fit": {"label_smoothing": 0.1}}, "--fit.label-smoothing 0.1 has no effect on a generator"),
        ({"fit": {"loss": "generalized_cross_entropy"}}, "--fit.loss generalized_cross_entropy has no effect on a"),
        ({"fit": {"keep": "val_loss", "epochs": 4}}, "--fit.keep val_loss has no effect on a generator"),
        ({"data": {"corrections": "a.csv", "correct_test": True}}, "--data.correct-test has no effect on a generator"),
        ({"fit": {"class_weights": "balanced"}}, "--fit.class-weights balanced has no effect on a generator"),
        ({"fit": {"batch_size": "auto"}}, "fit.batch_size is auto, and nothing is searched for"),
        ({"augment": {"crop": {"kind": "pad_crop"}}}, "unknown setting 'augment.crop'; known are: flip"),
        ({"averaging": "swa"}, "unknown averaging.kind 'swa'"),
        ({"schedule": "plateau"}, "unknown schedule.kind 'plateau'"),
        ({"schedule": {"kind": "cosine", "warmup_epochs": 200}}, "must be shorter than --fit.epochs"),
        ({"data": {"size": 30}}, "images of 30 px cannot be halved 2 times .* multiple of 4; choose --data.size 28,"),
        ({"generator": {"kind": "difusion"}}, "did you mean 'diffusion'?"),
        ({"generator": {"kind": "diffusion", "widths": [30]}}, "30 is no multiple of 8.*; choose 24 or 32"),
        ({"generator": {"kind": "diffusion", "widths": []}}, "--generator.widths is empty"),
        ({"generator": {"kind": "diffusion", "attention": [4]}}, "--generator.attention is 4; .* at most 3"),
        ({"generator": {"kind": "diffusion", "attention": [1, 1]}}, "level 1 twice"),
        ({"generator": {"kind": "diffusion", "first_noise": 0.1}}, "--generator.last-noise is 0.028; .* at least 0.1"),
        ({"generator": {"kind": "diffusion", "drop_labels": 1}}, "--generator.drop-labels is 1"),
        ({"generator": {"kind": "edm", "widths": [30]}}, "30 is no multiple of 8.*; choose 24 or 32"),
        ({"generator": {"kind": "edm", "noise_steps": 5}}, "unknown setting 'generator.noise_steps' of kind 'edm'"),
        ({"generator": {"kind": "edm", "image_deviation": 2}}, "--generator.image-deviation is 2; .* at most 1"),
        ({"generator": {"kind": "edm", "least_noise": 0}}, "--generator.least-noise is 0; it must be at least 0.0001"),
        ({"generator": {"kind": "edm", "most_noise": 1}}, "--generator.most-noise is 1; it must be at least 2"),
    ],
)
def test_what_has_no_effect_on_a_generator_or_cannot_be_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        resolve_generator({"generator": "diffusion"}, settings)


def test_whoever_wants_a_classifier_refuses_the_recipe_of_a_generator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="these settings train a generator, which only `sightline train` does"):
        resolve(read_recipe("ddpm"))
    space = tmp_path / "space.yaml"
    space.write_text("optimizer: {learning_rate: [0.1, 0.2]}")
    study = tmp_path / "study.yaml"
    study.write_text(
        "about: x\ndata: digits\nseeds: 1\nvariants: [{name: a, recipe: ddpm}, {name: b, recipe: small}]\n"
    )
    for line in (
        ["plan", "digits", "--recipe", "ddpm"],
        ["find", "rate", "digits", "--recipe", "ddpm"],
        ["find", "batch", "digits", "--recipe", "ddpm"],
        *([["tune", "digits", "--recipe", "ddpm", "--space", str(space)]] if find_spec("optuna") else []),
        ["compare", str(study)],
        ["train", "digits", "--generator", "diffusion"],  # whose recipe is auto
    ):
        assert main(line) == 2, line
        assert "these settings train a generator" in capsys.readouterr().err, line
    assert main(["train", "digits", "--recipe", "small", "--generator", "diffusion"]) == 2
    assert "--network has no effect on a generator" in capsys.readouterr().err


def test_only_train_has_flags_of_generators() -> None:
    every = {name for name, _, _ in every_setting()}
    classifier = {name for name, _, _ in every_setting(Recipe)}
    assert {name.split(".")[0] for name in every - classifier} == {"generator"}
    assert classifier < every
    kinds = {name: annotation for name, annotation, _ in every_setting()}
    assert "plateau" in kinds["schedule.kind"].__args__  # a classifier's kinds stay


# ── what the images decide ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("side", "count", "widths", "patch", "epochs"),
    [
        (32, 500, [32, 64], 2, 200),
        (32, 2_000, [32, 64], 2, 60),
        (28, 2_000, [32, 64], 2, 60),  # 28 = 2 · 2 · 7
        (33, 2_000, [32], 1, 60),
        (32, 40_000, [64, 128, 128], 2, 7),
        (64, 400_000, [64, 128, 128], 4, 5),
        (30, 40_000, [64, 128], 1, 7),
    ],
)
def test_few_images_get_a_small_network_and_many_epochs(
    in_memory: Callable[..., CachedImages], side: int, count: int, widths: list[int], patch: int, epochs: int
) -> None:
    found = scaled_to(in_memory([0, 1], pixels=noise(side)), count, DiffusionConfig())
    assert found["generator"] == {"kind": "diffusion", "widths": widths, "patch": patch}
    assert found["fit"]["epochs"] == epochs
    made = resolve_generator(found, read_recipe("ddpm")).generator
    assert side % made.side_multiple == 0


def test_edm_has_the_network_and_the_training_of_ddpm_and_is_scaled_by_the_images(
    in_memory: Callable[..., CachedImages],
) -> None:
    gray = np.full((2, 32, 32, 3), 192, np.uint8)
    gray[..., ::2, :] = 64  # half of the columns
    for pixels in (gray, noise(32)):
        images = in_memory([0, 1], pixels=pixels)
        ours, theirs = (scaled_to(images, 2_000, config) for config in (EDMConfig(), DiffusionConfig()))
        deviation = ours["generator"].pop("image_deviation")
        assert deviation == root_mean_square(images)
        assert ours == theirs | {"generator": theirs["generator"] | {"kind": "edm"}}
        made, of_ddpm = (resolve_generator(ours, read_recipe(name)) for name in ("edm", "ddpm"))
        assert (made.optimizer, made.schedule, made.clip, made.averaging) == (
            *(of_ddpm.optimizer, of_ddpm.schedule, of_ddpm.clip, of_ddpm.averaging),
        )
    assert root_mean_square(in_memory([0, 1], pixels=gray)) == 0.5  # 64.5 of 127.5 from the middle
    assert root_mean_square(in_memory([0, 1], pixels=noise(32))) == pytest.approx(3**-0.5, abs=0.01)
    assert root_mean_square(in_memory([0, 1], pixels=np.full((2, 8, 8, 3), 128, np.uint8))) == 0.1  # never nothing
    layer = scaled_to(in_memory([0, 1], pixels=noise(32)), 2_000, EDMConfig())
    asked = {"generator": {"image_deviation": 0.4}}
    assert resolve_generator(layer, read_recipe("edm"), asked).generator.image_deviation == 0.4


def test_images_without_detail_are_taken_in_larger_patches(in_memory: Callable[..., CachedImages]) -> None:
    coarse = np.kron(noise(8), np.ones((1, 4, 4, 1), np.uint8))  # each pixel sixteen times
    smooth = np.stack(
        [np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)) for image in noise(8)]
    )
    plain = np.full((2, 32, 32, 3), 200, np.uint8)
    for pixels, patch in ((smooth, 4), (plain, 4), (coarse, 2), (noise(32), 2)):
        layer = scaled_to(in_memory([0, 1], pixels=pixels), 1_000, DiffusionConfig())
        assert layer["generator"]["patch"] == patch
    for size, patch, lost in ((None, 2, 0.012), (32, 4, 0.015)):  # of 8 px, enlarged to 16 and to 32: 8 × 8 positions
        digits = open_images(find_source("digits"), size)
        assert lost_detail(digits, patch) == pytest.approx(lost, abs=0.002)
        assert scaled_to(digits, 1_151, DiffusionConfig())["generator"]["patch"] == patch
        found = scaled_to(digits, 1_151, ACGANConfig())["generator"]
        assert (found["patch"], found["widths"], len(found["discriminator_widths"])) == (patch, [64, 32], 4)
    assert found["grey"]
    assert resolve_generator(scaled_to(digits, 1_151, ACGANConfig()), read_recipe("acgan-plain")).generator.patch == 1
    assert lost_detail(in_memory([0, 1], pixels=plain), 4) == 0
    assert lost_detail(in_memory([0, 1], pixels=noise(32)), 4) == pytest.approx(1 - 1 / 16, abs=0.05)


@pytest.mark.parametrize(
    ("side", "count", "widths", "layers"),
    [
        (32, 2_000, [128, 64, 32], 6),
        (32, 40_000, [384, 192, 96], 6),
        (64, 2_000, [128, 128, 64, 32], 8),
        (28, 2_000, [64, 32], 4),
        (16, 2_000, [64, 32], 4),
        (30, 2_000, [32], 2),
    ],
)
def test_a_generator_of_one_pass_is_as_deep_as_its_images_can_be_halved(
    in_memory: Callable[..., CachedImages], side: int, count: int, widths: list[int], layers: int
) -> None:
    found = scaled_to(in_memory([0, 1], pixels=noise(side)), count, ACGANConfig())
    assert found["generator"]["patch"] == 1
    assert not found["generator"]["grey"]
    assert found["generator"]["widths"] == widths
    assert len(found["generator"]["discriminator_widths"]) == layers
    made = resolve_generator(found, read_recipe("acgan")).generator
    assert side % made.side_multiple == 0


def test_what_is_asked_for_goes_before_what_the_images_say(in_memory: Callable[..., CachedImages]) -> None:
    layer = scaled_to(in_memory([0, 1], pixels=noise(32)), 1_000, DiffusionConfig())
    recipe = resolve_generator(layer, read_recipe("ddpm"), {"fit": {"epochs": 3}, "generator": {"widths": [96, 96]}})
    assert (recipe.fit.epochs, recipe.fit.batch_size) == (3, 64)
    assert recipe.generator == DiffusionConfig(widths=(96, 96), patch=2)


# ── how images are made ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"guidance": -0.5}, "--guidance is -0.5; it must be at least 0"),
        ({"guidance": float("nan")}, "--guidance is nan"),
        ({"steps": 0}, "--steps is 0; it must be at least 1"),
        ({"sampler": "dmp++"}, r"sampler is 'dmp\+\+'; wanted one of ddpm, ddim, dpm\+\+, heun"),
        ({"guide_below": 0}, "--guide-below is 0; it must be above 0"),
    ],
)
def test_what_no_generator_can_do_is_refused_at_once(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SamplingConfig(**settings)


def test_what_a_generator_has_not_learnt_is_refused() -> None:
    with pytest.raises(ConfigError, match="--steps is 51, and the network of this generator can be asked at most 50"):
        SamplingConfig(steps=51).refuse_conflicts(DiffusionConfig(noise_steps=50))
    told = DiffusionConfig(drop_labels=0)
    SamplingConfig(guidance=0).refuse_conflicts(told)
    with pytest.raises(
        ConfigError, match=r"--guidance 1.8 needs a generator that also knows images without their class"
    ):
        SamplingConfig().refuse_conflicts(told)
    SamplingConfig(guidance=0, tell_above=0).refuse_conflicts(told)
    with pytest.raises(
        ConfigError, match=r"--tell-above 0.3 needs a generator that also knows images without their class"
    ):
        SamplingConfig(guidance=0, tell_above=0.3).refuse_conflicts(told)
    for kind, sampler, choice in (
        (DiffusionConfig(), "heun", r"ddpm, ddim, dpm\+\+"),
        (EDMConfig(), "ddpm", r".*heun"),
    ):
        with pytest.raises(ConfigError, match=f"--sampler {sampler} cannot be used with .*; choose one of {choice}"):
            SamplingConfig(sampler=sampler).refuse_conflicts(kind)
        for known in kind.samplers:
            SamplingConfig(sampler=known).refuse_conflicts(kind)


def test_an_interval_of_guidance_that_is_empty_or_has_no_guidance_is_refused() -> None:
    for generator in (DiffusionConfig(), EDMConfig()):
        SamplingConfig(guide_below=0.4).refuse_conflicts(generator)
        SamplingConfig(guide_below=0.2, tell_above=0).refuse_conflicts(generator)
        with pytest.raises(ConfigError, match="--guide-below 5 has no effect with --guidance 0; leave it out"):
            SamplingConfig(guidance=0, guide_below=5).refuse_conflicts(generator)
        with pytest.raises(ConfigError, match=r"--guide-below 0.2 is not above --tell-above 0.3, so nothing would be"):
            SamplingConfig(guide_below=0.2).refuse_conflicts(generator)


def test_images_are_made_as_usual_as_far_as_a_generator_can() -> None:
    for kind in (DiffusionConfig, EDMConfig):
        assert usual_of(kind()) == SamplingConfig(tell_above=0.3)
        assert glimpse_of(kind()) == SamplingConfig(tell_above=0.3, steps=10)
        assert usual_of(kind(drop_labels=0)) == SamplingConfig(guidance=0, tell_above=0)
    assert usual_of(DiffusionConfig(noise_steps=5)).steps == 5
