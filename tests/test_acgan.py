"""A generator and a discriminator with a class head: what each lowers, and what keeps them stable."""

import csv
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sightline
from conftest import coloured_folder
from sightline.config.acgan import ACGANConfig
from sightline.config.generators import SamplingConfig
from sightline.config.resolving import resolve_any
from sightline.errors import ConfigError
from sightline.generation.generator import load_generator
from sightline.models.acgan import (
    ACGAN,
    Discriminator,
    Generator,
    discriminator_loss,
    disguise,
    generator_loss,
    gradient_penalty,
    settle,
)
from sightline.runs.folder import read_model, read_weights
from sightline.training import module as learners

LABELS = torch.tensor([0, 1, 2, 2])
SMALL = ACGANConfig(noise_width=10, widths=(16, 8))
SPECTRAL = ACGANConfig(discriminator_widths=(8, 16), dropout=0, spectral=True)


class Told(nn.Module):
    """Says of each batch of images in turn what it was told to, whatever they show."""

    def __init__(self, *real: float, label: Tensor) -> None:
        super().__init__()
        self.real, self.label = list(real), label

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full((len(images),), self.real.pop(0)), self.label


def images(count: int = 4, side: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ── networks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_a_generator_gives_images_of_the_size_that_is_asked_for(size: tuple[int, int]) -> None:
    made = Generator(SMALL, 3, size)(torch.randn(4, 10), LABELS)
    assert made.shape == (4, 3, *size)
    assert made.abs().max() <= 1


def test_the_class_changes_the_image() -> None:
    generator = Generator(SMALL, 3, (16, 16)).eval()
    noise = torch.randn(1, 10).expand(2, -1)
    first, second = generator(noise, torch.tensor([0, 1]))
    assert not torch.equal(first, second)


def test_a_generator_of_grey_images_draws_no_colour() -> None:
    made = Generator(ACGANConfig(noise_width=10, widths=(16, 8), grey=True), 3, (16, 16))(torch.randn(4, 10), LABELS)
    assert made.shape == (4, 3, 16, 16)
    assert made.eq(made[:, :1]).all()


def test_in_patches_nothing_finer_is_drawn_and_nothing_finer_is_seen() -> None:
    net = ACGAN(ACGANConfig(patch=4, widths=(16, 8), discriminator_widths=(8, 8)), 3, (32, 16)).eval()
    assert net.generator.coarsest == (16, 2, 1)
    made = net.generator(torch.randn(4, 100) * 50, LABELS)
    assert made.shape == (4, 3, 32, 16)
    assert made.abs().max() <= 1
    small = torch.nn.functional.avg_pool2d(made, 4)
    again = torch.nn.functional.interpolate(small, scale_factor=4, mode="bicubic")
    varies = (made - made.mean((2, 3), keepdim=True)).square().sum()
    assert (made - again).square().sum() < 0.15 * varies
    fine = torch.tensor([1.0, -1.0]).repeat(8) * 0.5  # of no sum in a patch
    for seen, unseen in zip(net.discriminator(made), net.discriminator(made + fine), strict=True):
        torch.testing.assert_close(seen, unseen)


def test_a_discriminator_that_sees_patches_finds_images_without_detail_as_far_apart() -> None:
    """Else one whose layers may not stretch would be weak."""
    plain, patched = (
        Discriminator(ACGANConfig(discriminator_widths=(8,), dropout=0, patch=n), 3, (16, 16)) for n in (1, 4)
    )
    plain.layers = patched.layers = nn.Sequential()
    for discriminator in (plain, patched):
        discriminator.real = discriminator.label = nn.Identity()  # type: ignore[assignment]
    one, other = images(side=4).repeat_interleave(4, 2).repeat_interleave(4, 3).split(2)
    apart = [(seen(one)[1] - seen(other)[1]).norm(dim=1) for seen in (plain, patched)]
    torch.testing.assert_close(*apart)


def test_the_original_has_the_layers_of_the_paper() -> None:
    """Odena et al., 2017, appendix A: 16 to 512 filters at 32 px end in 4×4 positions."""
    net = ACGAN(ACGANConfig(), 10, (32, 32))
    filters = [module for module in net.discriminator.modules() if isinstance(module, nn.Conv2d)]
    assert [layer.out_channels for layer in filters] == [16, 32, 64, 128, 256, 512]
    assert [layer.stride[0] for layer in filters] == [2, 1, 2, 1, 2, 1]
    assert net.discriminator.label.in_features == 512 * 4 * 4
    assert net.generator.coarsest == (384, 4, 4)
    real, label = net.discriminator(net.generator(torch.randn(4, 100), LABELS))
    assert (real.shape, label.shape) == ((4,), (4, 10))


def test_spectral_normalisation_lets_no_layer_stretch_its_input_more_than_once() -> None:
    discriminator = Discriminator(SPECTRAL, 3, (16, 16))
    assert not [module for module in discriminator.modules() if isinstance(module, nn.BatchNorm2d)]
    for _ in range(30):
        discriminator(images())  # each pass in training mode brings the estimate nearer
    for layer in (discriminator.label, *(m for m in discriminator.layers if isinstance(m, nn.Conv2d))):
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.05)


def test_averaged_weights_are_held_once_they_are_measured_anew() -> None:
    first, second = (Discriminator(SPECTRAL, 3, (16, 16)) for _ in range(2))
    with torch.no_grad():
        for mine, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
            mine.lerp_(other, 0.5)
    settle(first)
    first.eval()
    for layer in (first.label, *(module for module in first.layers if isinstance(module, nn.Conv2d))):
        length = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        assert float(length) == pytest.approx(1, abs=0.05)


# ── losses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_who_cannot_tell_loses_two_logarithms_of_two_and_that_of_the_classes() -> None:
    losses = discriminator_loss(Told(0.0, 0.0, label=torch.zeros(4, 3)), images(), images(), LABELS)
    assert losses.source.item() == pytest.approx(2 * math.log(2))
    assert losses.label.item() == pytest.approx(math.log(3))
    assert losses.total.item() == pytest.approx(2 * math.log(2) + math.log(3))


def test_one_who_tells_loses_nothing_and_the_generator_much() -> None:
    sure = 30 * torch.nn.functional.one_hot(LABELS, 3).float()
    losses = discriminator_loss(Told(30.0, -30.0, label=sure), images(), images(), LABELS)
    assert losses.total.item() == pytest.approx(0, abs=1e-6)
    fooled = generator_loss(Told(-30.0, label=sure), images(), LABELS)
    assert fooled.source.item() == pytest.approx(30)
    assert fooled.label.item() == pytest.approx(0, abs=1e-6)


def test_the_discriminators_loss_reaches_no_generator() -> None:
    net = ACGAN(ACGANConfig(widths=(8,), discriminator_widths=(8,)), 3, (16, 16))
    made = net.generator(torch.randn(4, 100), LABELS)
    discriminator_loss(net.discriminator, images(), made, LABELS, penalty=1.0).total.backward()
    assert all(parameter.grad is None for parameter in net.generator.parameters())
    assert all(parameter.grad is not None for parameter in net.discriminator.parameters())


def test_the_penalty_of_a_linear_answer_is_half_its_squared_weights() -> None:
    weights, shown = images(1)[0], images().requires_grad_()
    real = (shown * weights).sum((1, 2, 3))
    assert gradient_penalty(real, shown).item() == pytest.approx(float(weights.square().sum()) / 2, rel=1e-5)


# ── disguises ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["color", "translation", "cutout"])
def test_every_disguise_is_repeatable_differs_by_image_and_lets_a_gradient_through(kind) -> None:
    same = images(1).expand(6, -1, -1, -1)
    first = disguise(same, [kind], torch.Generator().manual_seed(3))
    assert torch.equal(first, disguise(same, [kind], torch.Generator().manual_seed(3)))
    assert len({tuple(image.flatten().tolist()) for image in first}) > 1
    shown = images().requires_grad_()
    disguise(shown, [kind], torch.Generator().manual_seed(3)).sum().backward()
    assert shown.grad is not None
    assert shown.grad.abs().max() > 0


def test_a_translation_moves_by_an_eighth_at_most_and_brings_zeros_in() -> None:
    plain = torch.ones(200, 3, 16, 16)
    moved = disguise(plain, ["translation"], torch.Generator().manual_seed(1))
    zeros = (moved[:, 0] == 0).float().mean((1, 2))
    assert zeros.max() <= 1 - (14 / 16) ** 2
    assert zeros.min() == 0  # some stay where they are
    assert (moved[:, 0, 2:14, 2:14] == 1).all()


def test_a_translation_keeps_what_it_moves() -> None:
    image = images(1).expand(50, -1, -1, -1)
    moved = disguise(image, ["translation"], torch.Generator().manual_seed(2))
    inner = image[0, :, 4:12, 4:12]
    for each in moved:
        places = [
            (row, column)
            for row in range(2, 7)
            for column in range(2, 7)
            if torch.equal(each[:, row : row + 8, column : column + 8], inner)
        ]
        assert len(places) == 1


def test_a_cutout_hides_a_quarter_at_most() -> None:
    cut = disguise(torch.ones(300, 3, 16, 16), ["cutout"], torch.Generator().manual_seed(1))
    shares = (cut[:, 0] == 0).float().mean((1, 2))
    assert shares.max() == 0.25
    assert shares.min() >= 1 / 16


def test_colours_keep_what_is_grey_grey() -> None:
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    changed = disguise(grey, ["color"], torch.Generator().manual_seed(1))
    assert torch.allclose(changed[:, 0], changed[:, 1], atol=1e-6)


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"widths": ()}, "--generator.widths is empty"),
        ({"discriminator_widths": (0,)}, "--generator.discriminator-widths is 0; it must be at least 1"),
        ({"dropout": 1.0}, "--generator.dropout is 1; it must be at least 0 and at most 0.9"),
        ({"disguises": ("color", "color")}, "--generator.disguises names color twice"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ACGANConfig(**settings)


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────

TINY = {
    "generator": {"kind": "acgan", "widths": [8, 8], "discriminator_widths": [8, 8]},
    "fit": {"epochs": 3, "batch_size": 16, "checkpoint_seconds": 0.0},
}


class Killed(BaseException):
    """Ends a training as a kill would: nothing is caught, nothing is written any more."""


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return coloured_folder(tmp_path / "colours", 20)


def trained(run: Path) -> tuple[dict[str, Tensor], str]:
    """The weights that a run handed on, and its losses."""
    table = csv.DictReader((run / "metrics.csv").open())
    losses = [{name: row[name] for name in row if name.endswith("loss")} for row in table]
    return read_weights(run / "model.safetensors")[0], str(losses)


def test_the_two_learn_in_turn_and_only_the_generator_is_handed_on(colours: Path, tmp_path: Path, monkeypatch) -> None:
    changed: list[set[str]] = []
    before: dict[str, Tensor] = {}
    end = learners.Learner.on_train_batch_end

    def seen(self, outputs, batch, batch_idx) -> None:
        now = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        if before:
            changed.append({name.partition(".")[0] for name, value in now.items() if not value.equal(before[name])})
        before.update(now)
        end(self, outputs, batch, batch_idx)

    monkeypatch.setattr(learners.Learner, "on_train_batch_end", seen)
    run = sightline.train(colours, recipe="acgan", settings=TINY, run=tmp_path / "run")
    assert run is not None
    assert changed[:4] == [{"generator"}, {"discriminator"}, {"generator"}, {"discriminator"}]
    weights, losses = trained(run)
    assert not [name for name in weights if name.startswith("discriminator")]
    for name in ("train_loss", "train_generator_loss", "val_loss", "val_generator_loss"):
        assert name in losses
    table = list(csv.DictReader((run / "metrics.csv").open()))
    assert all(float(row["val_loss"]) < 10 for row in table)  # of averaged weights, whose estimates are measured anew
    assert (run / "samples" / "epoch-003.png").exists()
    assert read_model(run)["kind"] == "acgan"


@pytest.mark.parametrize("occasion", [5, 7, 8])
def test_a_training_that_was_killed_in_anyones_turn_ends_in_the_same_bits(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, occasion: int
) -> None:
    whole = sightline.train(colours, recipe="acgan", settings=TINY, run=tmp_path / "whole")
    step, count = learners.ACGANLearner.training_step, 0

    def killed(self, batch, batch_idx):
        nonlocal count
        count += 1
        if count == occasion:
            raise Killed
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(learners.ACGANLearner, "training_step", killed)
        with pytest.raises(Killed):
            sightline.train(colours, recipe="acgan", settings=TINY, run=tmp_path / "run")
    resumed = sightline.train(run=tmp_path / "run", resume=True)
    assert whole is not None
    assert resumed is not None
    first, second = trained(whole), trained(resumed)
    assert first[1] == second[1]
    assert all(first[0][name].equal(second[0][name]) for name in first[0])


def test_an_image_depends_on_its_seed_and_class_alone(colours: Path, tmp_path: Path) -> None:
    run = sightline.train(colours, recipe="acgan", settings=TINY, run=tmp_path / "run")
    assert run is not None
    generator, model = load_generator(run, device="cpu")
    together = generator.make([0, 1, 2, 1], [5, 6, 7, 8], None)
    assert together.shape == (4, *model["size"], 3)
    assert (generator.make([1], [8], None)[0] == together[3]).all()
    assert (together[1] != together[3]).any()
    made = sightline.generate(run, out=tmp_path / "made", per_class=2)
    assert made.images == 6
    lines = list(csv.DictReader((tmp_path / "made" / "manifest.csv").open()))
    assert {(line["guidance"], line["steps"], line["sampler"]) for line in lines} == {("", "", "")}
    with pytest.raises(ConfigError, match="have no effect on this generator"):
        sightline.generate(run, out=tmp_path / "more", how=SamplingConfig())
    with pytest.raises(ConfigError, match="makes an image in one pass, so there is no way to show"):
        sightline.generate(run, out=tmp_path / "more", animation=tmp_path / "way.gif")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fit": {"processes": 2}}, "only one of two networks learns"),
        ({"fit": {"compile": True}}, "has no effect on --generator.kind acgan"),
        ({"data": {"synthetic": "made"}}, "a generator learns from real images alone"),
        ({"data": {"size": 18}}, "images of 18 px cannot be halved 2 times"),
    ],
)
def test_what_two_networks_cannot_do_is_refused(settings, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        resolve_any(TINY, settings)
