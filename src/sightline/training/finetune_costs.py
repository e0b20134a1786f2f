"""The cost of fine-tuning more or fewer layers of a network here, by timing a step of each."""

import copy
import time
from dataclasses import dataclass
from itertools import pairwise

import torch

from sightline.data.augment.augment import shrunk_side
from sightline.machine.devices import arithmetic, choose_device
from sightline.machine.memory import free_memory
from sightline.models.base import Network
from sightline.training.base import with_settings
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.estimates import seconds_of

__all__ = ["Candidate", "candidates"]

TIMED = 16  # images of a step that is timed
MOST_MEMORY = 1 / 3  # of what is free, for kept maps
SHARES = (0.7, 0.4)  # of the operations, that the layers behind a cut may take at most: of each the deepest cut


@dataclass(frozen=True)
class Candidate:
    """A way to fine-tune."""

    after: str | None
    """The last frozen layer; None: everything learns."""
    once: float
    """Seconds to compute the maps that are kept."""
    epoch: float
    """Seconds of an epoch, with its validation; their mean where the images are smaller at first."""


def candidates(plan: ClassifierPlan) -> list[Candidate]:
    """Return the ways to fine-tune a network, the most layers first, with their seconds on this machine just now."""
    recipe, splits = plan.recipe, plan.splits
    device = choose_device()
    dtype = arithmetic(recipe.fit.precision, device)
    network = copy.deepcopy(plan.network).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    count = min(recipe.fit.batch_size, len(splits.train), TIMED)
    images = torch.zeros(count, 3, *plan.images.size, device=device).contiguous(memory_format=torch.channels_last)
    # kept maps do without the crop and the policy of the recipe photos, never without anything that the user named
    without = with_settings(recipe, "augment", crop=None, policy=None)
    only_whole = recipe.finetune is not None or plan.named_views or not without.shows_two_views
    options = []
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        forward = _seconds(network, images, learns=False) / count
        whole = _seconds_at(network, images, recipe.augment.scales) / count
        options.append(Candidate(None, 0.0, whole * len(splits.train) + forward * len(splits.validation)))
        for layer in [] if only_whole else _cuts(network, images):
            network.cut_after(layer)
            maps, below = _timed_maps(network, images)
            views = 1 if recipe.augment.flip == "none" else 2
            shown = views * len(splits.train) + len(splits.validation)
            if maps[0].numel() * 4 * shown > MOST_MEMORY * free_memory(device):
                continue
            for name, parameter in network.named_parameters():
                parameter.requires_grad = name.startswith(network.beyond_backbone)
            above = _seconds(network, maps, learns=True, kept=True) / count
            once = below / count * shown
            options.append(Candidate(layer, once, above * (len(splits.train) + len(splits.validation) / 3)))
    return options


def _cuts(network: Network, images: torch.Tensor) -> list[str]:
    """Return the layers of the chain behind which about two thirds, and a third, of the time of a pass is spent."""
    times = [0.0]
    maps = images[:4]
    with torch.inference_mode():
        for layer in network.chain:
            start = time.perf_counter()
            maps = network.get_submodule(layer)(maps)
            times.append(time.perf_counter() - start)
    total = sum(times)
    cuts = []
    for share in SHARES:
        done = 0.0
        for (_, seconds), layer in zip(pairwise(times), network.chain[:-1], strict=False):
            done += seconds
            learns = any(True for _ in network.get_submodule(layer).parameters())
            if learns and 1 - done / total <= share:
                cuts.append(layer)
                break
    return list(dict.fromkeys(cuts))


def _timed_maps(network: Network, images: torch.Tensor) -> tuple[torch.Tensor, float]:
    with torch.no_grad():
        network.eval()
        start = time.perf_counter()
        maps = network.backbone_output(images)
        return maps, time.perf_counter() - start


def _seconds_at(network: Network, images: torch.Tensor, scales: tuple[float, ...]) -> float:
    """Time a step, as the mean at shares of the side; at the full side where there are none."""
    total = 0.0
    for scale in scales or (1.0,):
        height, width = (shrunk_side(side, scale) for side in images.shape[2:])
        total += _seconds(
            network, images[:, :, :height, :width].contiguous(memory_format=torch.channels_last), learns=True
        )
    return total / max(len(scales), 1)


def _seconds(network: Network, given: torch.Tensor, *, learns: bool, kept: bool = False) -> float:
    """Time a pass, and where it learns its gradients, for a batch."""
    network.train(learns)

    def step() -> torch.Tensor:
        with torch.set_grad_enabled(learns):
            loss: torch.Tensor = (network.classify(given) if kept else network(given)).float().logsumexp(1).mean()
        if learns:
            loss.backward()  # type: ignore[no-untyped-call]
            network.zero_grad()
        return loss

    return seconds_of(step)
