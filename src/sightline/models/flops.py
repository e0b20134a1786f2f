"""Floating-point operations of a network and of its training: convolutions and matrix products, nothing else."""

from collections import Counter
from collections.abc import Collection, Sequence

import torch

from sightline.models.acgan import ACGAN
from sightline.models.base import Network
from sightline.models.unet import ConditionalUNet

__all__ = ["Countable", "flops_per_image", "forward_once", "training_flops"]

Size = tuple[int, int]
Countable = Network | ConditionalUNet | ACGAN


def flops_per_image(network: Countable, size: Size) -> int:
    """Count the operations of one forward pass of one image; a training step takes about three times as many."""
    return _by_module(network, size)[""]


def training_flops(
    network: Countable, epochs: Sequence[tuple[Size, frozenset[str]]], images: int, *, kept_views: int = 0
) -> int:
    """Count the operations of the forward and backward passes of a training.

    A layer's forward pass counts once; once more where its weights learn, and once more where anything before it does,
    for the gradients of its weights and of what it is given. Those of the optimizer, of augmentation, and of validation
    and test are not counted.

    Args:
        network: what was trained.
        epochs: of each epoch the (height, width) of its images in pixels, and the names of the parameters that learned.
        images: images an epoch.
        kept_views: views of each image of which what a frozen backbone makes was computed once and kept; 0: it was
            computed in every epoch anew.
    """
    if isinstance(network, ACGAN):
        return sum(images * _turn_flops(network, size) for size, _ in epochs)
    total, once = 0, 0
    for (size, trained), times in Counter(epochs).items():
        step = _step_flops(network, size, trained)
        once = _backbone_flops(network, size) if kept_views and isinstance(network, Network) else 0
        total += times * images * (step - once)
    return total + kept_views * images * once


def _turn_flops(network: ACGAN, size: Size) -> int:
    """Count operations for one image of a step of a generator and a discriminator that learn in turn, the mean of both.

    A step of the discriminator makes an image, and looks at it and at a real one, three times the work of a forward
    pass each; one of the generator makes an image, three times, and looks at it, twice: what looks does not learn.
    """
    counts = _by_module(network, size)
    make, look = counts["generator"], counts["discriminator"] // 2  # it looked at both
    return (make + 6 * look + 3 * make + 2 * look) // 2


def _step_flops(network: Countable, size: Size, trained: Collection[str]) -> int:
    """Count the operations of a training step for one image."""
    counts = _by_module(network, size)
    within = Counter[str]()  # what runs in the modules that a module calls, or whose children it calls in their place
    for name in counts:
        within[_caller(name, counts)] += counts[name] if name else 0
    learned, total = False, 0  # whether anything learns in what comes before, in the order in which modules were made
    for name, module in network.named_modules():
        begin = f"{name}." if name else ""
        own = counts[name] - within[name]
        weights = {f"{begin}{inner}": weight for inner, weight in module.named_parameters(recurse=False)}
        if weights:  # of which a bias takes no product
            total += own * (
                1 + any(inner in trained and weight.ndim > 1 for inner, weight in weights.items()) + learned
            )
            learned = learned or any(inner in trained for inner in weights)
        else:  # a product of what it is given, such as a query and a key
            total += own * (3 if learned or any(parameter.startswith(begin) for parameter in trained) else 1)
    return total


def _caller(name: str, called: Collection[str]) -> str:
    """Return the name of the smallest called module around a module."""
    while name:
        name = name.rpartition(".")[0]
        if name in called:
            break
    return name


def _backbone_flops(network: Network, size: Size) -> int:
    """Count the operations of a forward pass of one image, but for what lies beyond the backbone."""
    counts = _by_module(network, size)
    return counts[""] - sum(counts[begin.removesuffix(".")] for begin in network.beyond_backbone)


def _by_module(network: Countable, size: Size) -> Counter[str]:
    """Count the operations of a forward pass of one image by the names of modules, each with all that it holds."""
    from torch.utils.flop_counter import FlopCounterMode

    if isinstance(network, Network):
        network.train_whitening(
            True
        )  # else its layer runs under no name; a training sets this at the start of each epoch
    with FlopCounterMode(display=False) as counter:
        forward_once(network, size)
    root = type(network).__name__
    return Counter(
        {
            name.removeprefix(root).removeprefix("."): int(sum(operations.values()))
            for name, operations in counter.get_flop_counts().items()
            if name == root or name.startswith(f"{root}.")
        }
    )


def forward_once(network: Countable, size: Size) -> None:
    """Run an image of nothing but zeros through a network, which is left as it was."""
    training = network.training
    parameter = next(network.parameters())
    inputs = (part.to(parameter.device) for part in network.example(size))
    with torch.no_grad():
        network.eval()(*(part.to(parameter) if part.is_floating_point() else part for part in inputs))
    network.train(training)
