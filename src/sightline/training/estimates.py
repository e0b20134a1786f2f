"""Estimates of the time and the memory of a training: its operations are counted, and one step of it is timed."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline.config.generating import AnyRecipe
from sightline.config.settings import Recipe
from sightline.data.augment.augment import shown_size
from sightline.data.batches import augmentation_of
from sightline.machine.cores import adjust_threads
from sightline.machine.devices import arithmetic, choose_device
from sightline.models.base import Network
from sightline.models.flops import Countable, forward_once, training_flops
from sightline.training.kept_features import bytes_kept
from sightline.training.phases import Phase, frozen_modules, layers_of, phases_of

__all__ = ["Estimate", "estimate_training", "features_per_second", "seconds_of", "training_operations"]

PASSED = 8  # images of a forward pass that is timed
TIMED = 256  # images of a step that is timed, at most
LEARNING_BYTES = 12  # a number that learns: its gradient and two numbers of the optimizer, in float32


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a training."""

    seconds: float
    speed: float
    """Images a second, in a step of the phase that computes most, at full size."""
    memory: int
    """Bytes."""
    kept: bool
    """Whether the frozen layers compute once."""
    device: torch.device
    dtype: torch.dtype


def estimate_training(
    recipe: AnyRecipe, network: Countable, size: tuple[int, int], images: int, held_out: int
) -> Estimate:
    """Estimate a training before its first step: frozen layers have no backward pass, and compute once where kept.

    Args:
        recipe: every setting.
        network: as it was built; it stays as it is.
        size: (height, width) of the images in pixels.
        images: training images.
        held_out: validation images, of which features are kept as well.
    """
    device = choose_device()
    dtype = arithmetic(recipe.fit.precision, device)
    phases = phases_of(recipe, network)
    total = training_operations(recipe, phases, network, size, images)
    steps = [training_flops(network, [(size, phase.trained)], 1) for phase in phases]
    costliest = max(range(len(phases)), key=steps.__getitem__)
    batch = min(recipe.fit.batch_size, TIMED)
    speed = batch / _seconds_of_step(network, phases[costliest], size, batch, device, dtype)
    views = kept_views(recipe)
    kept = bytes_kept(network, views * images + held_out, size) if views and isinstance(network, Network) else 0
    memory = max(_bytes(recipe, network, phases, phase, size, dtype, views > 0) for phase in phases) + kept
    return Estimate(total / (steps[costliest] * speed), speed, memory, views > 0, device, dtype)


def features_per_second(network: Network, size: tuple[int, int], precision: str) -> float:
    """Measure the images a second of a forward pass alone, by the second of two batches on a copy of the network.

    Args:
        network: as it was built; it stays as it is.
        size: (height, width) of the images in pixels.
        precision: as ``fit.precision`` has it.
    """
    device = choose_device()
    dtype = arithmetic(precision, device)
    trial = copy.deepcopy(network).to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    images = torch.zeros(PASSED, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        return PASSED / seconds_of(lambda: trial.features(images).float().sum())


def seconds_of(work: Callable[[], Tensor]) -> float:
    """Time the second of two calls of what computes a number on a device."""
    seconds = 0.0
    for _ in range(2):
        adjust_threads()
        start = time.perf_counter()
        float(work().detach())  # waits for the device
        seconds = time.perf_counter() - start
    return seconds


def training_operations(
    recipe: AnyRecipe,
    phases: Sequence[Phase],
    network: Countable,
    size: tuple[int, int],
    images: int,
    epochs: int | None = None,
) -> int:
    """Count the floating-point operations of a training: smaller images, and what is frozen, cost less.

    Args:
        recipe: every setting.
        phases: of the training, by what could learn before anything was frozen.
        network: what is trained.
        size: (height, width) of the images in pixels.
        images: training images.
        epochs: how many of the recipe's are trained; None: all.
    """
    shown = []
    for epoch in range(recipe.fit.epochs if epochs is None else epochs):
        phase = max((phase for phase in phases if phase.first <= epoch), key=lambda phase: phase.first)
        shown.append((shown_size(augmentation_of(recipe), size, epoch, recipe.fit.epochs), phase.trained))
    return training_flops(network, shown, images, kept_views=kept_views(recipe))


def kept_views(recipe: AnyRecipe) -> int:
    """Count the views of each training image of which a frozen backbone's features are kept; 0: none are."""
    if not isinstance(recipe, Recipe) or not recipe.keeps_features:
        return 0
    return 1 if recipe.augment.flip == "none" else 2


def _seconds_of_step(
    network: Countable, phase: Phase, size: tuple[int, int], batch: int, device: torch.device, dtype: torch.dtype
) -> float:
    """Time a forward and backward pass of a phase, on a copy of the network: one pass to warm up, one timed."""
    trial = copy.deepcopy(network).to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for module in frozen_modules(trial, layers_of(trial), phase.trained):
        module.training = False
    for name, parameter in trial.named_parameters():
        parameter.requires_grad = name in phase.trained
    images, *more = (part.to(device) for part in network.example(size, batch))
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss: Tensor = trial(images, *more).float().logsumexp(1).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return seconds_of(step)


def _bytes(
    recipe: AnyRecipe,
    network: Countable,
    phases: Sequence[Phase],
    phase: Phase,
    size: tuple[int, int],
    dtype: torch.dtype,
    kept: bool,
) -> int:
    """Estimate the bytes of a phase: weights, what belongs to those that learn, and what the layers put out."""
    parameters = {name: parameter.numel() for name, parameter in network.named_parameters()}
    so_far = frozenset[str]().union(*(other.trained for other in phases if other.first <= phase.first))
    averaged = 4 if recipe.averaging is not None else 0
    weights = sum(parameters.values()) * (4 + averaged) + sum(parameters[name] for name in so_far) * LEARNING_BYTES
    held = _numbers_held(network, size, phase, kept)
    return weights + held * recipe.fit.batch_size * (2 if dtype != torch.float32 else 4)


def _numbers_held(network: Countable, size: tuple[int, int], phase: Phase, kept: bool) -> int:
    """Count the numbers that layers put out for one image and that are in memory at once, with their gradients.

    From the first layer that learns on, all are; of those before it two at a time, and at least two of all where a
    frozen backbone computes its features once.
    """
    before, after = [0, 0], [0]
    learnt = False

    def note(module: nn.Module, _: object, output: object) -> None:
        nonlocal learnt
        learnt = learnt or any(id(parameter) in trained for parameter in module.parameters())
        if isinstance(output, Tensor) and not list(module.children()):
            (after if learnt else before).append(output.numel())

    trained = {id(parameter) for name, parameter in network.named_parameters() if name in phase.trained}
    hooks = [module.register_forward_hook(note) for module in network.modules() if module is not network]
    try:
        forward_once(network, size)
    finally:
        for hook in hooks:
            hook.remove()
    below = sum(sorted(before)[-2:])
    return max(below, 2 * sum(after)) if kept else below + 2 * sum(after)
