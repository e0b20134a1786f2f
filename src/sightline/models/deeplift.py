"""DeepLift's rules, and what a network computes that there is none for. B images, D channels, n outputs of a channel.

A layer that is linear hands a difference down by its gradient. Any other needs a rule, a module of its own and a single
call; without them the multipliers are wrong, and nothing says so. What a network computes is read off autograd's graph:
it shows functions that are called without a module, too.

Source:
    Shrikumar et al., "Learning Important Features Through Propagating Activation Differences", ICML 2017; as
    multipliers in place of gradients: Ancona et al., "Towards better understanding of gradient-based attribution
    methods", ICLR 2018.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sightline.errors import ConfigError
from sightline.models.base import GlobalMaximum, recorded

__all__ = ["refuse_without_rules", "rules"]

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish),
)
MAXIMA: tuple[type[nn.Module], ...] = (nn.MaxPool2d, GlobalMaximum)

# Names of autograd's nodes, without their ending: what is linear in all that it reads,
SUMS = frozenset(
    (
        *("Add", "Sub", "Neg", "Cat", "Stack", "Sum", "Mean", "View", "UnsafeView", "ReshapeAlias", "Alias", "Expand"),
        *("Permute", "Transpose", "T", "Unsqueeze", "Squeeze", "Clone", "ToCopy", "Select", "Slice", "Split", "Index"),
        *("SplitWithSizes", "Unbind", "AsStrided", "Roll", "Flip", "ConstantPadNd", "ReflectionPad2D"),
        *("ReplicationPad2D", "AvgPool2D", "AdaptiveAvgPool2D", "MkldnnAdaptiveAvgPool2D", "UpsampleBilinear2D"),
        *("UpsampleNearest2D", "PixelShuffle"),
    )
)
# and what is where one factor alone depends on the image.
PRODUCTS = frozenset(
    (
        *("Mul", "Mm", "Bmm", "Addmm", "Convolution", "MkldnnConvolution"),
        *("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"),
    )
)

Rule = Callable[..., Tensor]
Node = Any  # of autograd's graph


@cache
def rules() -> dict[type[nn.Module], Rule]:
    """Return the rule of each kind of layer that is not linear, in captum's terms."""
    return {**dict.fromkeys(ELEMENTWISE, rescale), **dict.fromkeys(MAXIMA, rescale_maximum)}


def rescale(
    module: nn.Module, inputs: Tensor, outputs: Tensor, grad_input: Tensor, grad_output: Tensor, eps: float
) -> Tensor:
    """Return the multiplier of a function of single numbers: the difference of its outputs over that of its inputs.

    Args:
        module: the layer.
        inputs, outputs: of the images, and behind them of their baselines, (2B, ...).
        grad_input, grad_output: gradients, or multipliers, of the logit by them.
        eps: difference below which the gradient takes the ratio's place.
    """
    change_in, change_out = _changes(inputs), _changes(outputs)
    ratio = torch.where(change_in.abs() < eps, 0, change_out / change_in)
    return torch.where(
        torch.cat([change_in, change_in]).abs() < eps, grad_input, grad_output * torch.cat([ratio, ratio])
    )


def rescale_maximum(
    module: nn.Module, inputs: Tensor, outputs: Tensor, grad_input: Tensor, grad_output: Tensor, eps: float
) -> Tensor:
    """Return the multipliers of maxima: each change goes to the place where the larger of image and baseline has it.

    There the input changes at least as much as the output, so no multiplier is above 1. captum's own rule takes the
    first image's gradient for all, and loses what windows that overlap share.

    Args:
        module, inputs, outputs, grad_input, grad_output, eps: as ``rescale`` has them.
    """
    places_BDn, baseline_places_BDn = _places(module, inputs).chunk(2)
    output_BDn, baseline_output_BDn = outputs.reshape(*outputs.shape[:2], -1).chunk(2)
    chosen_BDn = torch.where(output_BDn >= baseline_output_BDn, places_BDn, baseline_places_BDn)
    change_BDN = _changes(inputs.flatten(2))
    change_BDn = change_BDN.gather(2, chosen_BDn)
    shares_BDn = torch.where(change_BDn.abs() < eps, 1, (output_BDn - baseline_output_BDn) / change_BDn)
    passed_BDn = grad_output.reshape(*outputs.shape[:2], -1).chunk(2)[0] * shares_BDn
    multipliers = (
        torch.zeros_like(change_BDN).scatter_add_(2, chosen_BDn, passed_BDn).view_as(inputs[: len(change_BDN)])
    )
    return torch.cat([multipliers, multipliers])


def _changes(values: Tensor) -> Tensor:
    images, baselines = values.chunk(2)
    return images - baselines


def _places(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return where each maximum lies within its channel, (2B, D, n), as an index into the flat map."""
    if isinstance(module, GlobalMaximum):
        return inputs.flatten(2).argmax(dim=2, keepdim=True)
    assert isinstance(module, nn.MaxPool2d)
    places: Tensor = functional.max_pool2d(
        *(inputs, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode),
        return_indices=True,
    )[1]
    return places.flatten(2)


# ── what there is no rule for ────────────────────────────────────────────────────────────────────────────────────────


def refuse_without_rules(network: nn.Module, images_BCHW: Tensor) -> None:
    """Refuse a network that computes something which is neither linear nor has a rule.

    Args:
        network: in evaluation mode, where norms by the batch are linear.
        images_BCHW: normalized; one is enough.
    Raises:
        ConfigError: with the first such thing.
    """
    names = {module: name for name, module in network.named_modules()}
    images_BCHW = images_BCHW.detach().clone().requires_grad_()
    modules = {module: module for module in names}
    with recorded(modules, lambda _, output: getattr(output, "grad_fn", None)) as outputs, torch.enable_grad():
        logits_BK = network(images_BCHW)
    calls: dict[nn.Module, list[Node]] = defaultdict(list)
    for module, node in outputs:
        if node is not None:
            calls[module].append(node)
    ruled = {module: nodes for module, nodes in calls.items() if type(module) in rules()}
    for module, nodes in ruled.items():
        if len(nodes) > 1:
            raise ConfigError(
                f"deeplift needs every {type(module).__name__} called once, and {names[module]} of this network is"
                f" called {len(nodes)} times; choose integrated_gradients."
            )
    known = {node for nodes in ruled.values() for node in nodes}
    whose = {
        node: f"{names[module]} ({type(module).__name__})"
        for module, nodes in reversed(calls.items())
        for node in nodes
    }
    for node, read in _depending(logits_BK.grad_fn, images_BCHW).items():
        kind = re.sub(r"Backward\d*$", "", node.name())
        linear = kind in SUMS or (kind in PRODUCTS and len(read) == 1) or (kind == "Div" and read == [0])
        if not linear and node not in known:
            what = whose[node] if node in whose else f"a {kind.lower()} that is no layer of its own"
            raise ConfigError(
                f"deeplift has no rule for {what} in this network, so its map would not add up; choose"
                " integrated_gradients."
            )


def _depending(last: Node, images: Tensor) -> dict[Node, list[int]]:
    """Return the nodes of a graph whose values depend on the images, each with which of what it reads does."""
    edges: dict[Node, list[Node | None]] = {}
    waiting, leaf = [last], None
    while waiting:
        node = waiting.pop()
        if node in edges:
            continue
        edges[node] = [before for before, _ in node.next_functions]
        leaf = node if getattr(node, "variable", None) is images else leaf
        waiting += [before for before in edges[node] if before is not None]
    users: dict[Node, list[Node]] = defaultdict(list)
    for node, before in edges.items():
        for other in before:
            users[other].append(node)
    reached, waiting = {leaf}, [leaf]
    while waiting:
        fresh = [user for user in users[waiting.pop()] if user not in reached]
        reached.update(fresh)
        waiting += fresh
    return {
        node: [place for place, before in enumerate(edges[node]) if before in reached]
        for node in edges
        if node in reached and node is not leaf
    }
