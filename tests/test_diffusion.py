"""The laws of diffusion: noise, the loss, guidance, and samplers that find what the network is sure of."""

import math
from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sightline.config.generators import DiffusionConfig, Sampler
from sightline.errors import ConfigError
from sightline.models.diffusion import FAINTEST, add_noise, guided, linear_noise, loss, sample, strength_of, times_of
from sightline.models.flops import training_flops
from sightline.models.unet import UNet, time_features
from sightline.training.generator_plan import FEW_WIDTHS, MANY_WIDTHS

KEPT = linear_noise(500, 1e-4, 0.028)
SIZE = (8, 8)
SPREAD = 0.2  # of normal images: five deviations lie between -1 and 1


def picture(seed: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, *SIZE, generator=generator) * 1.8 - 0.9


class Knowing:
    """Knows which image is below the noise: one for each class, and the noise is what is left."""

    no_class = 2

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.asked: list[int] = []

    def __call__(self, noisy: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(noisy))
        kept = KEPT[times][:, None, None, None].float()
        return (noisy - kept.sqrt() * self.images[labels]) / (1 - kept).sqrt()


class Doubting(Knowing):
    """Has two images in mind, and believes in each by how near it is: the exact noise of a set of two images."""

    def __call__(self, noisy: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        kept = KEPT[times][:, None, None, None, None].float()
        far = (noisy[:, None] - kept.sqrt() * self.images[None]).square().sum((2, 3, 4)) / (
            2 * (1 - kept[..., 0, 0, 0])
        )
        clean = ((-far).softmax(1)[..., None, None, None] * self.images[None]).sum(1)
        return (noisy - kept[:, 0].sqrt() * clean) / (1 - kept[:, 0]).sqrt()


class Normal:
    """The exact noise of images whose pixels are all normal, of mean 0 and deviation ``SPREAD``."""

    no_class = 1

    def __call__(self, noisy: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        kept = KEPT[times][:, None, None, None].float()
        return noisy * (1 - kept).sqrt() / (kept * SPREAD**2 + 1 - kept)


normal = Normal()


@pytest.fixture
def net() -> UNet:
    torch.manual_seed(0)
    made = UNet(DiffusionConfig(widths=(16, 16)), 3)
    for parameter in made.parameters():  # the last filters start at zero
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


# ── noise and the loss ───────────────────────────────────────────────────────────────────────────────────────────────


def test_every_step_leaves_less_of_the_image_and_the_last_leaves_nearly_nothing() -> None:
    assert (KEPT[1:] < KEPT[:-1]).all()
    assert KEPT[0] == pytest.approx(1 - 1e-4)
    assert KEPT[1] == pytest.approx((1 - 1e-4) * (1 - 1e-4 - (0.028 - 1e-4) / 499))
    assert 0 < KEPT[-1] < 1e-3


def test_noisy_images_keep_their_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    images, noise = (torch.randn(1000, 3, 8, 8, generator=generator) for _ in range(2))
    for kept in (0.9, 0.5, 0.01):
        assert add_noise(images, noise, torch.full((1000,), kept)).var() == pytest.approx(1, abs=0.02)


class Silent:
    no_class = 1

    def __call__(self, noisy: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(noisy)


def test_the_loss_of_who_knows_the_noise_is_zero_and_of_who_says_nothing_one() -> None:
    images, labels = picture(1, 2), torch.tensor([0, 1])
    generator = torch.Generator().manual_seed(0)
    assert loss(Knowing(images), images, labels, KEPT, generator) == pytest.approx(0, abs=1e-6)
    many, labels = picture(2, 200), torch.zeros(200, dtype=torch.long)
    assert loss(Silent(), many, labels, KEPT, generator).item() == pytest.approx(1, abs=0.02)


def test_so_many_classes_are_not_told_as_was_asked_for() -> None:
    told: list[torch.Tensor] = []

    class Listening(Knowing):
        def __call__(self, noisy: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            told.append(labels)
            return noisy

    labels = torch.zeros(2000, dtype=torch.long)
    for share in (0.0, 0.25):
        net = Listening(picture(1, 3))
        loss(net, picture(0, 2000), labels, KEPT, torch.Generator().manual_seed(0), drop_labels=share)
        assert (told[-1] == net.no_class).float().mean() == pytest.approx(share, abs=0.03)


def test_the_loss_depends_on_its_generator_alone(net: UNet) -> None:
    images, labels = picture(1, 4), torch.tensor([0, 1, 2, 0])
    found = [loss(net, images, labels, KEPT, torch.Generator().manual_seed(seed)).item() for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_processes_that_share_a_batch_see_what_one_would(net: UNet) -> None:
    images, labels = picture(1, 5), torch.tensor([0, 1, 2, 0, 1])

    def found(first: int, last: int) -> float:
        own = slice(first, last)
        generator = torch.Generator().manual_seed(0)
        return loss(net, images[own], labels[own], KEPT, generator, drop_labels=0.5, first=first, of=5).item()

    assert (2 * found(0, 2) + 3 * found(2, 5)) / 5 == pytest.approx(found(0, 5), rel=1e-5)


# ── guidance ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_guidance_goes_beyond_the_class_away_from_no_class() -> None:
    net, noisy, times = Knowing(picture(1, 3)), picture(2, 2), torch.tensor([100, 400])
    labels = torch.tensor([0, 1])
    conditional, none = net(noisy, times, labels), net(noisy, times, torch.tensor([2, 2]))
    torch.testing.assert_close(guided(net, noisy, times, labels, 1.8), 2.8 * conditional - 1.8 * none)


def test_without_guidance_only_the_class_is_asked() -> None:
    net, noisy, times, labels = Knowing(picture(1, 3)), picture(2, 2), torch.tensor([100, 400]), torch.tensor([0, 1])
    assert guided(net, noisy, times, labels, 0).equal(net(noisy, times, labels))
    guided(net, noisy, times, labels, 1.0)
    assert net.asked == [2, 2, 4]


# ── samplers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sampler", DiffusionConfig.samplers)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_every_sampler_finds_the_image_that_the_network_knows(sampler: Sampler, steps: int) -> None:
    images = picture(1, 3)
    made = sample(Knowing(images), torch.tensor([1, 0]), steps, KEPT, seeds=[5, 6], size=SIZE, sampler=sampler)
    torch.testing.assert_close(made, images[[1, 0]], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", DiffusionConfig.samplers)
def test_every_sampler_decides_for_one_of_two_images_half_of_the_time(sampler: Sampler) -> None:
    net, count = Doubting(picture(1, 2)), 200
    made = sample(net, torch.zeros(count, dtype=torch.long), 60, KEPT, seeds=range(count), size=SIZE, sampler=sampler)
    far = (made[:, None] - net.images[None]).abs().amax((2, 3, 4))
    assert (far.amin(1) < 0.02).float().mean() > 0.95  # hardly any is in between
    assert 0.35 < (far.argmin(1) == 0).float().mean() < 0.65


def test_on_normal_images_the_way_is_known_and_the_higher_order_keeps_closer_to_it() -> None:
    labels = torch.zeros(4, dtype=torch.long)
    start = torch.stack([torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed)) for seed in range(4)])
    exact = start * SPREAD / math.sqrt(KEPT[-1] * SPREAD**2 + 1 - KEPT[-1])  # every pixel shrinks as the deviation does

    def error(steps: int, sampler: Sampler) -> float:
        made = sample(normal, labels, steps, KEPT, seeds=range(4), size=SIZE, sampler=sampler)
        return (made - exact).abs().mean().item()

    assert error(500, "ddim") < 0.01 * SPREAD
    assert error(20, "dpm++") < 0.5 * error(20, "ddim")


@pytest.mark.parametrize("sampler", DiffusionConfig.samplers)
def test_an_image_does_not_depend_on_those_that_are_made_beside_it(net: UNet, sampler: Sampler) -> None:
    labels = torch.tensor([0, 1, 2, 1, 0])

    def made(chosen: list[int]) -> torch.Tensor:
        seeds = [10 + index for index in chosen]
        found = sample(net, labels[chosen], 5, KEPT, seeds=seeds, size=SIZE, guidance=1.0, sampler=sampler)
        return ((found + 1) * 127.5).round()

    together = made([0, 1, 2, 3, 4])
    assert made([3, 1]).equal(together[[3, 1]])
    assert made([4]).equal(together[[4]])
    assert not together[1].equal(together[3])  # of one class, by two seeds


def test_what_is_watched_begins_with_noise_and_ends_with_the_image() -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    made = sample(
        *(Knowing(picture(1, 3)), torch.tensor([1]), 3, KEPT),
        seeds=[0],
        size=SIZE,
        watch=lambda step, images: seen.append((step, images)),
    )
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert seen[0][1][0].equal(torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0)))
    assert seen[-1][1].equal(made)


class Listening:
    """Writes down what it is told, and how strong the noise is."""

    no_class = 2

    def __init__(self) -> None:
        self.heard: list[tuple[float, list[int]]] = []

    def __call__(self, noisy: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.heard.append((strength_of(float(KEPT[times[0]])), labels.tolist()))
        return normal(noisy, times, labels)


def test_in_faint_noise_the_class_is_not_told_and_nothing_is_guided() -> None:
    net = Listening()
    sample(net, torch.tensor([1, 0]), 20, KEPT, seeds=[5, 6], size=SIZE, guidance=1.0, tell_above=0.3)
    assert [told for strength, told in net.heard if strength > 0.3] == [[1, 0, 2, 2]] * 14
    assert [told for strength, told in net.heard if strength <= 0.3] == [[2, 2]] * 6
    net = Listening()
    sample(net, torch.tensor([1, 0]), 20, KEPT, seeds=[5, 6], size=SIZE, guidance=1.0)
    assert [told for _, told in net.heard] == [[1, 0, 2, 2]] * 20


def test_guidance_in_an_interval_leaves_the_strongest_noise_to_the_class_alone() -> None:
    net = Listening()
    how = {"guidance": 1.0, "tell_above": 0.3, "guide_below": 5.0}
    sample(net, torch.tensor([1, 0]), 20, KEPT, seeds=[5, 6], size=SIZE, **how)
    assert len(net.heard) == 20
    for strength, told in net.heard:
        assert told == ([2, 2] if strength <= 0.3 else [1, 0, 2, 2] if strength < 5 else [1, 0]), strength
    assert {len(told) for _, told in net.heard} == {2, 4}


def test_the_network_is_asked_from_pure_noise_to_the_faintest_that_it_knows() -> None:
    times = times_of(KEPT, 6)
    assert times[0] == 499
    before, last = (strength_of(float(KEPT[time])) for time in (times[-1] - 1, times[-1]))
    assert before < FAINTEST <= last
    ratios = [math.log(KEPT[time] / (1 - KEPT[time])) for time in times]
    steps = [later - earlier for earlier, later in pairwise(ratios)]
    assert steps == pytest.approx([(ratios[-1] - ratios[0]) / 5] * 5, rel=0.1)
    assert times_of(KEPT, 500) == list(range(499, -1, -1))  # there are not so many of stronger noise
    assert times_of(KEPT, 1) == [499]
    for count in (2, 20, 333, 499):
        assert len(set(times_of(KEPT, count))) == count
    for count in (0, 501):
        with pytest.raises(ConfigError, match=f"--steps is {count}; it must be at least 1 and at most 500"):
            times_of(KEPT, count)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # their use of NumPy
@pytest.mark.parametrize("steps", [10, 25])
def test_the_samplers_are_those_of_diffusers(steps: int) -> None:
    schedulers = pytest.importorskip("diffusers.schedulers")
    named = {"num_train_timesteps": 500, "beta_start": 1e-4, "beta_end": 0.028, "beta_schedule": "linear"}
    theirs = {
        "ddim": schedulers.DDIMScheduler(**named, clip_sample=False, set_alpha_to_one=True),
        "dpm++": schedulers.DPMSolverMultistepScheduler(**named, final_sigmas_type="zero"),
    }
    label, times = torch.tensor([0]), times_of(KEPT, steps)
    for sampler, scheduler in theirs.items():
        ours = sample(normal, label, steps, KEPT, seeds=[3], size=SIZE, sampler=sampler)  # type: ignore[arg-type]
        images = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(3))[None]
        if sampler == "ddim":  # its step leads to the time that is so much before, whatever was asked for
            for time, following in zip(times, [*times[1:], -1], strict=True):
                scheduler.num_inference_steps = 1
                scheduler.config.num_train_timesteps = time - following
                noise = normal(images, torch.tensor([time]), label)
                images = scheduler.step(noise, time, images).prev_sample
        else:
            scheduler.set_timesteps(timesteps=times)
            for time in scheduler.timesteps:
                noise = normal(images, time[None], label)
                images = scheduler.step(noise, time, images).prev_sample
        torch.testing.assert_close(ours, images, atol=2e-4, rtol=0)


# ── the U-Net ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_unet_that_has_learnt_nothing_takes_of_an_image_what_its_time_says_for_noise(patch: int) -> None:
    config = DiffusionConfig(widths=(48, 16), blocks=2, attention=(2,), patch=patch)
    assert config.side_multiple == 2 * patch
    noisy = torch.randn(2, 3, 16, 24)
    found = UNet(config, 3)(noisy, torch.tensor([0, 499]), torch.tensor([0, 3]))
    torch.testing.assert_close(found[0], noisy[0] * 1e-4**0.5, atol=1e-5, rtol=0)  # of one step
    torch.testing.assert_close(found[1], noisy[1], atol=2e-3, rtol=0)  # of nearly all


def test_a_unet_hears_the_time_and_the_class(net: UNet) -> None:
    noisy, times, labels = torch.randn(1, 3, 8, 8), torch.tensor([10]), torch.tensor([0])
    plain = net(noisy, times, labels)
    assert not torch.allclose(net(noisy, torch.tensor([400]), labels), plain, atol=1e-3)
    assert not torch.allclose(net(noisy, times, torch.tensor([net.no_class])), plain, atol=1e-3)


def test_times_are_waves_of_which_the_first_is_fastest() -> None:
    waves = time_features(torch.tensor([0, 3]), 8)
    assert waves[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert waves[1, 0].item() == pytest.approx(math.cos(3))
    assert waves[1, 5].item() == pytest.approx(math.sin(3 / 10))


def test_the_operations_of_a_training_are_those_that_pytorch_counts_in_a_step() -> None:
    net, size = UNet(DiffusionConfig(widths=(16, 32), attention=(2,)), 3), (16, 16)
    noisy, *told = net.example(size)
    with FlopCounterMode(display=False) as counter:
        net(noisy, *told).square().sum().backward()
    learning = frozenset(name for name, _ in net.named_parameters())
    assert training_flops(net, [(size, learning)] * 2, 5) == pytest.approx(10 * counter.get_total_flops(), rel=0.01)


def test_the_networks_that_the_recipes_build_cost_what_they_say() -> None:
    def of(config: DiffusionConfig) -> float:
        net = UNet(config, 10)
        return training_flops(net, [((32, 32), frozenset(name for name, _ in net.named_parameters()))], 1) / 1e9

    assert of(DiffusionConfig(widths=FEW_WIDTHS, patch=4)) == pytest.approx(0.086, abs=0.001)
    assert of(DiffusionConfig(widths=MANY_WIDTHS, patch=2)) == pytest.approx(1.176, abs=0.001)  # CIFAR-10: at most 1.2
