"""What a training is said to cost is what it computes and holds."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sightline.config.resolving import resolve
from sightline.config.settings import Recipe
from sightline.models.base import Network
from sightline.models.build import build_network
from sightline.training import estimates
from sightline.training.phases import frozen_modules, layers_of, phases_of

SIDE = (32, 32)
IMAGES, BATCH = 64, 16


def recipe(**blocks: object) -> Recipe:
    plain = {"crop": None, "flip": "none"}
    fit = {"epochs": 6, "batch_size": BATCH, "precision": "float32"}
    return resolve({"network": "resnet18", "augment": plain, "fit": fit}, blocks)


def computed(chosen: Recipe, network: Network) -> int:
    """Operations that the steps of a training run through autograd, counted as they are computed."""
    phases = phases_of(chosen, network)
    layers, total = layers_of(network), 0
    for phase in phases:
        network.train()
        for module in frozen_modules(network, layers, phase.trained):
            module.training = False
        for name, parameter in network.named_parameters():
            parameter.requires_grad = name in phase.trained
        with FlopCounterMode(display=False) as counter:
            network(torch.randn(BATCH, 3, *SIDE)).logsumexp(1).mean().backward()
        total += counter.get_total_flops() * phase.epochs * IMAGES // BATCH
    return total


@pytest.mark.parametrize(
    "finetune",
    [None, {"kind": "gradual", "phases": 3, "growth": 1}, {"kind": "frozen", "features": "recompute"}],
    ids=["whole", "gradual", "frozen"],
)
def test_the_time_is_that_of_what_is_computed(finetune: dict | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # a machine on which a step takes a second for each 10⁹ operations that it computes
    chosen, network = recipe(finetune=finetune), build_network(recipe().network, 3, SIDE)
    monkeypatch.setattr(estimates, "_seconds_of_step", counted_seconds)
    found = estimates.estimate_training(chosen, network, SIDE, IMAGES, 8)
    assert found.seconds == pytest.approx(computed(chosen, network) / 1e9, rel=0.2)


def test_kept_features_take_a_pass_over_the_images_and_the_heads_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, network = recipe(finetune={"kind": "frozen", "features": "keep"}), build_network(recipe().network, 3, SIDE)
    monkeypatch.setattr(estimates, "_seconds_of_step", counted_seconds)
    found = estimates.estimate_training(chosen, network, SIDE, IMAGES, 8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.randn(IMAGES, 3, *SIDE))
    assert found.kept
    assert found.seconds == pytest.approx(
        counter.get_total_flops() / 1e9, rel=0.01
    )  # of the head's there are hardly any
    whole = estimates.estimate_training(recipe(), network, SIDE, IMAGES, 8)
    assert whole.seconds == pytest.approx(6 * 3 * found.seconds, rel=0.05)  # six epochs; backward is twice forward


def counted_seconds(network: Network, phase: object, size: tuple[int, int], batch: int, *_: object) -> float:
    return estimates.training_flops(network, [(size, phase.trained)], batch) / 1e9  # type: ignore[attr-defined]


class Chain(Network):
    """Three convolutions, each of which puts out 8 maps of the size of the image, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.third = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 2, bias=False)

    def feature_map(self, images: Tensor) -> Tensor:
        maps: Tensor = self.third(self.second(self.first(images)))
        return maps


def test_memory_counts_gradients_where_something_learns_and_maps_from_the_first_layer_that_does() -> None:
    network = Chain()
    below, head, maps = 8 * 27 + 2 * 8 * 72, 16, 8 * 32 * 32
    everything = recipe()
    assert memory(everything, network) == (below + head) * (4 + 12) + 4 * BATCH * 2 * (3 * maps + 2)
    anew = recipe(finetune={"kind": "frozen", "features": "recompute"})
    assert memory(anew, network) == below * 4 + head * (4 + 12) + 4 * BATCH * (2 * maps + 2 * 2)
    last = {"kind": "phases", "phases": [{"epochs": 6, "train": ["third", "head"]}]}
    learning = 8 * 72 + head
    wanted = (below + head) * 4 + learning * 12 + 4 * BATCH * (2 * maps + 2 * (maps + 2))
    assert memory(recipe(finetune=last), network) == wanted
    kept = recipe(finetune={"kind": "frozen", "features": "keep"}, augment={"flip": "random"})
    # a pass over a batch, and eight features of 4 bytes of every image, its mirror image, and 10 validation images
    assert memory(kept, network) == below * 4 + head * (4 + 12) + 4 * BATCH * 2 * maps + (2 * IMAGES + 10) * 8 * 4
    averaged = recipe(averaging="ema")
    assert memory(averaged, network) - memory(everything, network) == (below + head) * 4


def memory(chosen: Recipe, network: Network) -> int:
    return estimates.estimate_training(chosen, network, SIDE, IMAGES, 10).memory


def test_a_step_is_timed_as_its_phase_trains_and_leaves_the_network_as_it_was() -> None:
    network = build_network(recipe().network, 3, SIDE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = estimates.estimate_training(recipe(finetune="frozen"), network, SIDE, IMAGES, 10)
    assert found.seconds > 0
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
