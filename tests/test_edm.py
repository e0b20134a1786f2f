"""The laws of EDM: scales that depend on the strength of the noise, the loss, and samplers along a curve."""

import math
from itertools import pairwise

import pytest
import torch

from sightline.config.generators import DiffusionConfig, EDMConfig, Sampler
from sightline.models.edm import loss, sample, strengths_of
from sightline.models.unet import EDMUNet, UNet

CONFIG = EDMConfig(widths=(16, 16))
SIZE = (8, 8)
SPREAD = 0.2  # of normal images: five deviations lie between -1 and 1


def picture(seed: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *SIZE, generator=generator) * 1.8 - 0.9


class Asked:
    """Writes down the strengths that it is asked about, and the labels it is told."""

    no_class = 2
    image_deviation = 0.5

    def __init__(self) -> None:
        self.heard: list[tuple[float, list[int]]] = []

    def __call__(self, noisy: torch.Tensor, strengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.heard.append((float(strengths[0]), labels.tolist()))
        return self.image(noisy, strengths[:, None, None, None])

    def image(self, noisy: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
        """The best guess of images whose pixels are all normal, of mean 0 and deviation ``SPREAD``."""
        return noisy * SPREAD**2 / (SPREAD**2 + strengths**2)


class Doubting(Asked):
    """Has some images in mind, and believes in each by how near it is: the exact mean of what could be below."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = images

    def image(self, noisy: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
        far = (noisy[:, None] - self.images[None]).square().sum((2, 3, 4)) / (2 * strengths[..., 0, 0].square())
        return ((-far).softmax(1)[..., None, None, None] * self.images[None]).sum(1)


@pytest.fixture
def net() -> EDMUNet:
    torch.manual_seed(0)
    made = EDMUNet(CONFIG, 3)
    for parameter in made.parameters():  # the last filters start at zero
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def made_by(net: Asked | EDMUNet, steps: int, sampler: Sampler, count: int = 4, **how: float) -> torch.Tensor:
    labels = torch.zeros(count, dtype=torch.long)
    return sample(net, labels, steps, CONFIG, seeds=range(count), size=SIZE, sampler=sampler, **how)  # type: ignore[arg-type]


# ── the network's scales ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("patch", [1, 2])
def test_a_network_that_has_learnt_nothing_keeps_what_has_no_noise_and_of_pure_noise_takes_the_mean(patch: int) -> None:
    net = EDMUNet(EDMConfig(widths=(16, 16), patch=patch, image_deviation=0.4), 3)
    images, labels = picture(1, 3), torch.tensor([0, 3, 1])
    found = net(images, torch.tensor([1e-4, 0.4, 1e4]), labels)
    torch.testing.assert_close(found[0], images[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], images[1] / 2)  # as much noise as image
    torch.testing.assert_close(found[2], torch.zeros_like(images[2]), atol=1e-6, rtol=0)


def test_the_layers_are_given_a_variance_of_one_at_every_strength_and_what_they_give_counts_as_the_paper_says() -> None:
    torch.manual_seed(0)
    config = EDMConfig(widths=(16,))
    net, seen = EDMUNet(config, 1), []
    net.stem.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    torch.nn.init.ones_(net.out.bias)  # the correction is one everywhere
    images = 0.5 * torch.randn(4, 3, 64, 64)
    strengths = torch.tensor([0.002, 0.3, 2.0, 80.0])
    noisy = images + strengths[:, None, None, None] * torch.randn_like(images)
    with torch.no_grad():
        found = net(noisy, strengths, torch.zeros(4, dtype=torch.long))
    assert seen[0].var((1, 2, 3)).tolist() == pytest.approx([1] * 4, abs=0.05)
    for index, strength in enumerate(strengths.tolist()):
        variance = strength**2 + 0.25
        expected = 0.25 / variance * noisy[index] + strength * 0.5 / math.sqrt(variance)
        torch.testing.assert_close(found[index], expected, atol=1e-5, rtol=1e-5)


def test_a_network_hears_the_strength_and_the_class(net: EDMUNet) -> None:
    noisy, strengths, labels = torch.randn(1, 3, 8, 8), torch.tensor([0.3]), torch.tensor([0])
    waves: list[torch.Tensor] = []
    net.time.register_forward_pre_hook(lambda _, inputs: waves.append(inputs[0]))
    plain = net(noisy, strengths, labels)
    assert not torch.allclose(net(noisy, strengths, torch.tensor([net.no_class])), plain, atol=1e-3)
    for strength in (0.002, 80.0):
        net(noisy, torch.tensor([strength]), labels)
    assert waves[2][0].tolist() == [1] * 8 + [0] * 8  # the least noise is step 0
    assert waves[3][0, 0].item() == pytest.approx(math.cos(1000), abs=1e-3)  # and the most step 1000
    assert not torch.allclose(waves[0], waves[2])


def test_its_weights_are_named_as_those_of_the_network_of_ddpm_and_are_as_many() -> None:
    ours, theirs = EDMUNet(CONFIG, 3).state_dict(), UNet(DiffusionConfig(widths=(16, 16)), 3).state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}


# ── the loss ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_loss_is_the_error_of_the_correction_that_was_wanted(net: EDMUNet) -> None:
    images, labels = picture(1, 5), torch.tensor([0, 1, 2, 0, 1])
    found = loss(net, images, labels, CONFIG, torch.Generator().manual_seed(3), drop_labels=0.5)
    generator = torch.Generator().manual_seed(3)
    strengths = (math.log(0.3) + 1.2 * torch.randn(5, generator=generator)).exp()
    noise = torch.randn(5, 3, *SIZE, generator=generator)
    labels = labels.masked_fill(torch.rand(5, generator=generator) < 0.5, net.no_class)
    deviation, strength = 0.5, strengths[:, None, None, None]
    variance = strength**2 + deviation**2
    noisy = images + strength * noise
    own, scale = deviation**2 / variance, strength * deviation / variance.sqrt()
    wanted = (images - own * noisy) / scale
    given = (net(noisy, strengths, labels) - own * noisy) / scale
    assert found.item() == pytest.approx((given - wanted).square().mean().item(), rel=1e-4)


def test_the_loss_of_who_knows_the_image_is_zero_and_of_an_untrained_network_one() -> None:
    class Knowing(Asked):
        def image(self, noisy: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
            return images

    images = 0.5 * torch.randn(300, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    labels, generator = torch.zeros(300, dtype=torch.long), torch.Generator().manual_seed(1)
    assert loss(Knowing(), images, labels, CONFIG, generator) == 0
    assert loss(EDMUNet(CONFIG, 1), images, labels, CONFIG, generator).item() == pytest.approx(1, abs=0.02)


def test_strengths_are_log_normal_and_so_many_classes_are_not_told() -> None:
    class All(Asked):
        def __call__(self, noisy: torch.Tensor, strengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            heard.append((strengths, labels))
            return noisy

    heard: list[tuple[torch.Tensor, torch.Tensor]] = []
    images, labels = torch.zeros(4000, 3, 2, 2), torch.zeros(4000, dtype=torch.long)
    noise = EDMConfig(typical_noise=0.5, noise_spread=0.8)
    for share in (0.0, 0.25):
        loss(All(), images, labels, noise, torch.Generator().manual_seed(0), drop_labels=share)
        strengths, told = heard[-1]
        assert strengths.log().mean() == pytest.approx(math.log(0.5), abs=0.05)
        assert strengths.log().std() == pytest.approx(0.8, abs=0.03)
        assert (told == All.no_class).float().mean() == pytest.approx(share, abs=0.03)


def test_processes_that_share_a_batch_see_what_one_would(net: EDMUNet) -> None:
    images, labels = picture(1, 5), torch.tensor([0, 1, 2, 0, 1])

    def found(first: int, last: int) -> float:
        own, generator = slice(first, last), torch.Generator().manual_seed(0)
        return loss(net, images[own], labels[own], CONFIG, generator, drop_labels=0.5, first=first, of=5).item()

    assert (2 * found(0, 2) + 3 * found(2, 5)) / 5 == pytest.approx(found(0, 5), rel=1e-5)
    assert found(0, 5) == found(0, 5)


# ── samplers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_strengths_fall_from_the_most_to_the_least_and_are_evenly_apart_in_their_seventh_root() -> None:
    found = strengths_of(18, 0.002, 80)
    assert (found[0], found[-1]) == (pytest.approx(80), pytest.approx(0.002))
    steps = [a ** (1 / 7) - b ** (1 / 7) for a, b in pairwise(found)]
    assert steps == pytest.approx([steps[0]] * 17)
    assert strengths_of(1, 0.002, 80) == [80]


@pytest.mark.parametrize("sampler", EDMConfig.samplers)
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_the_network_is_asked_so_many_times_and_no_more(sampler: Sampler, steps: int) -> None:
    net, seen = Asked(), []
    labels = torch.zeros(2, dtype=torch.long)
    sample(
        *(net, labels, steps, CONFIG),
        seeds=[0, 1],
        size=SIZE,
        sampler=sampler,
        watch=lambda step, images: seen.append((step, images)),
    )
    assert len(net.heard) == steps
    assert (seen[0][0], seen[-1][0]) == (0, steps)
    assert all(after > before for (before, _), (after, _) in pairwise(seen))
    start = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen[0][1][0], start, atol=1e-3, rtol=0)  # noise, of the variance that can be seen


@pytest.mark.parametrize("sampler", EDMConfig.samplers)
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_every_sampler_finds_the_image_that_the_network_knows(sampler: Sampler, steps: int) -> None:
    image = picture(1)
    made = made_by(Doubting(image), steps, sampler)
    torch.testing.assert_close(made, image.expand(4, -1, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", EDMConfig.samplers)
def test_every_sampler_ends_on_one_of_the_images_and_on_each_as_often(sampler: Sampler) -> None:
    net = Doubting(picture(1, 2))
    made = made_by(net, 39, sampler, count=200)
    far = (made[:, None] - net.images[None]).abs().amax((2, 3, 4))
    assert (far.amin(1) < 0.02).float().mean() > 0.95  # hardly any is in between
    assert 0.35 < (far.argmin(1) == 0).float().mean() < 0.65


def test_on_normal_images_the_way_is_known_and_the_higher_orders_keep_closer_to_it() -> None:
    start = torch.stack([torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed)) for seed in range(4)])
    exact = 80 * start * SPREAD / math.sqrt(SPREAD**2 + 80**2)  # every pixel shrinks as the deviation does

    def error(steps: int, sampler: Sampler) -> float:
        return (made_by(Asked(), steps, sampler) - exact).abs().mean().item()

    assert error(500, "ddim") < 0.02 * SPREAD
    assert error(20, "dpm++") < 0.5 * error(20, "ddim") < 0.5 * error(20, "heun")  # whose few points lie too far apart
    assert error(39, "heun") < error(39, "ddim")
    assert error(79, "heun") < 0.4 * error(39, "heun")  # of second order: about a quarter
    assert error(79, "heun") < 0.5 * error(79, "ddim")
    assert error(79, "dpm++") < 0.5 * error(79, "heun")


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # their use of NumPy
@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("steps", [10, 25])
def test_the_samplers_are_those_of_diffusers(sampler: Sampler, steps: int) -> None:
    schedulers = pytest.importorskip("diffusers.schedulers")
    named = {"ddim": "EDMEulerScheduler", "dpm++": "EDMDPMSolverMultistepScheduler"}
    scheduler = getattr(schedulers, named[sampler])(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0)
    scheduler.set_timesteps(steps)
    assert scheduler.sigmas[:-1].tolist() == pytest.approx(strengths_of(steps, 0.002, 80), rel=1e-4)
    images = 80 * torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    for time, strength in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        scheduler.scale_model_input(images, time)
        variance = strength**2 + 0.25  # theirs takes what the layers give, not the image
        wanted = Asked().image(images, strength) - 0.25 / variance * images
        images = scheduler.step(wanted * variance.sqrt() / (strength * 0.5), time, images).prev_sample
    torch.testing.assert_close(made_by(Asked(), steps, sampler, count=1), images, atol=2e-4, rtol=0)


def test_heun_is_the_algorithm_of_the_paper_written_out() -> None:
    net, points = Asked(), [*strengths_of(20, 0.002, 80), 0.0]
    images = 80 * torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    for now, then in pairwise(points):
        slope = (images - net.image(images, torch.tensor(now))) / now
        further = images + (then - now) * slope
        if then:
            slope_then = (further - net.image(further, torch.tensor(then))) / then
            further = images + (then - now) * (slope + slope_then) / 2
        images = further
    torch.testing.assert_close(made_by(net, 39, "heun", count=1), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", EDMConfig.samplers)
def test_an_image_does_not_depend_on_those_that_are_made_beside_it(net: EDMUNet, sampler: Sampler) -> None:
    labels = torch.tensor([0, 1, 2, 1, 0])

    def made(chosen: list[int]) -> torch.Tensor:
        seeds = [10 + index for index in chosen]
        found = sample(net, labels[chosen], 6, CONFIG, seeds=seeds, size=SIZE, guidance=1.0, sampler=sampler)
        return ((found + 1) * 127.5).round()

    together = made([0, 1, 2, 3, 4])
    assert made([3, 1]).equal(together[[3, 1]])
    assert made([4]).equal(together[[4]])
    assert not together[1].equal(together[3])  # of one class, by two seeds


def test_the_class_is_told_in_strong_noise_and_guidance_is_in_its_interval_alone() -> None:
    net = Asked()
    made_by(net, 39, "heun", count=1, guidance=1.0, tell_above=0.3, guide_below=5.0)
    assert len(net.heard) == 39
    for strength, told in net.heard:
        expected = [2] if strength <= 0.3 else [0, 2] if strength < 5 else [0]
        assert told == expected, strength
    assert {tuple(told) for _, told in net.heard} == {(2,), (0, 2), (0,)}
    net = Asked()
    made_by(net, 39, "heun", count=1, guidance=1.0)
    assert [told for _, told in net.heard] == [[0, 2]] * 39
