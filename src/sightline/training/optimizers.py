"""Optimizers: one for each learner, whose parameter groups say how each part is trained."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from sightline.config.optimizers import (
    AdagradConfig,
    AdamConfig,
    AdamWConfig,
    MuonConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
)
from sightline.config.resolving import to_mapping
from sightline.machine.devices import has_fast_bfloat16

__all__ = ["Muon", "build_optimizer", "main_rate", "orthogonalize", "part_of", "peaks", "scale_peaks", "scaled"]

PARTS = ("filters", "head", "biases", "whitening", "head_biases")


def build_optimizer(
    config: OptimizerConfig, network: nn.Module, shares: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Make the optimizer of a network's trainable parameters.

    Every group carries ``part``: ``filters``, ``head`` (the last linear layer alone, also behind an attention, whose
    matrices are filters), ``biases``, ``whitening`` for the bias of a whitening layer, or ``head_biases`` for those
    that are none of the backbone's. Biases and norms (every parameter of fewer than two dimensions, and what is
    called no
    weight: positions, tokens, queries) are not decayed, except by Muon's ``shrink``.

    Args:
        shares: of the part's rate that some parameters, by their names, learn at; those of one part and one share are a
            group, which carries its ``share``.
    """
    beyond_backbone = getattr(network, "beyond_backbone", ("head.",))
    parts: dict[tuple[str, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            share = (shares or {}).get(name, 1.0)
            parts.setdefault((part_of(name, parameter, beyond_backbone), share), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"part": part, "share": share, "params": parts[part, share]}
        for part, share in sorted(parts, key=lambda group: (PARTS.index(group[0]), -group[1]))
    ]
    if isinstance(config, MuonConfig):
        return _muon(config, groups, getattr(network, "side_by_side", 1))
    rate = config.learning_rate
    for group in groups:
        group["lr"] = rate * group["share"]
        group["weight_decay"] = config.weight_decay if group["part"] in ("filters", "head") else 0.0
    match config:
        case SGDConfig():
            return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, nesterov=config.nesterov)
        case AdamWConfig():
            return torch.optim.AdamW(groups, lr=rate, betas=config.betas)
        case AdamConfig():
            return torch.optim.Adam(groups, lr=rate, betas=config.betas)
        case AdagradConfig():
            return torch.optim.Adagrad(groups, lr=rate)
        case RMSpropConfig():
            return torch.optim.RMSprop(groups, lr=rate, alpha=config.alpha, momentum=config.momentum)


def part_of(name: str, parameter: nn.Parameter, beyond_backbone: tuple[str, ...] = ("head.",)) -> str:
    """Return the part of a network that a parameter belongs to: one of ``PARTS``.

    Args:
        name: of the parameter.
        parameter: whose dimensions tell filters and matrices from biases and norms.
        beyond_backbone: beginnings of the names of those that are none of the backbone's.
    """
    if name.removeprefix("backbone.") == "whiten.bias":  # also where the network has a head of its own
        return "whitening"
    if parameter.ndim < 2 or not name.endswith("weight"):  # also positions, class tokens, queries and scales
        return "head_biases" if name.startswith(beyond_backbone) else "biases"
    return "head" if name.startswith("head.") else "filters"


def main_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the rate that is shown: the largest of the filters that learn; of the head, where all are frozen."""
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        if any(parameter.requires_grad for parameter in group["params"]):
            rates[group["part"]] = max(rates.get(group["part"], 0.0), float(group["lr"]))
    return next((rates[part] for part in PARTS if part in rates), 0.0)


def scaled(config: OptimizerConfig, factor: float) -> OptimizerConfig:
    """Return the settings with every rate multiplied by a factor, to three digits; Muon's ``shrink`` stays."""
    rates = {name: value for name, value in to_mapping(config).items() if name.endswith("learning_rate")}
    higher: Any = {name: float(f"{value * factor:.3g}") for name, value in rates.items()}
    return replace(config, **higher)


def peaks(optimizer: torch.optim.Optimizer) -> list[tuple[float, float]]:
    """Return (rate, weight decay) of each group as it was built."""
    return [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]


def scale_peaks(optimizer: torch.optim.Optimizer, before: Sequence[tuple[float, float]], factor: float) -> None:
    """Set every group to what it would be built with if all rates of the settings were multiplied by a factor.

    Muon's setting for the head, the biases and the norms is ``shrink``, their rate times their weight decay, so there
    the decay is divided by the factor.

    Args:
        before: from ``peaks``.
    """
    for group, (rate, decay) in zip(optimizer.param_groups, before, strict=True):
        group["lr"] = rate * factor
        group["weight_decay"] = decay / factor if isinstance(optimizer, Muon) else decay


class Muon(torch.optim.Optimizer):
    """Muon for the groups with ``orthogonal=True``, SGD with Nesterov momentum for the others.

    One optimizer for both, so that clipping, accumulation, averaging and the finders see one.

    Source:
        Muon: K. Jordan et al., 2024 (kellerjordan.github.io/posts/muon); filters are set back to the norm
        sqrt(outputs) before each step, as in the CIFAR-10 record of the same author.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": 0.0, "weight_decay": 0.0, "orthogonal": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; a closure, where given, computes the gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                if group["orthogonal"]:
                    _muon_step(parameter, parameter.grad, state["momentum_buffer"], group)
                else:
                    _nesterov_step(parameter, parameter.grad, state["momentum_buffer"], group)
        return loss


def orthogonalize(matrix: Tensor, steps: int = 3) -> Tensor:
    """Bring all singular values of a matrix near one, by a quintic Newton–Schulz iteration.

    It runs in bfloat16 where the device has instructions for it; elsewhere that takes 27 times as long as float32 (a
    matrix of 256 × 2,304 on a core of an AMD EPYC with AVX2: 2.3 s and 0.085 s, n = 3). The coefficients trade
    accuracy for speed: after three steps the values lie roughly between 0.5 and 1.5.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if has_fast_bfloat16(matrix.device) else matrix.float()
    x = x / (x.norm() + 1e-7)  # no singular value above 1, where the iteration would diverge
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


def _muon(config: MuonConfig, groups: list[dict[str, Any]], side_by_side: int) -> Muon:
    rates = {
        "head": config.head_learning_rate / side_by_side,  # of so many inputs more each step moves the logits more
        "head_biases": config.head_learning_rate,  # the logits' own gradient is large, that of the backbone's small
    }
    for group in groups:
        if group["part"] == "filters":
            rate = config.learning_rate
            group |= {"momentum": config.momentum, "orthogonal": True}
        else:
            rate = rates.get(group["part"], config.bias_learning_rate)
            group |= {"momentum": config.head_momentum, "weight_decay": config.shrink / rate}
        group["lr"] = rate * group["share"]
    return Muon(groups)


def _muon_step(parameter: Tensor, gradient: Tensor, momentum: Tensor, group: dict[str, Any]) -> None:
    momentum.mul_(group["momentum"]).add_(gradient)
    ahead = gradient.add(momentum, alpha=group["momentum"])
    parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
    parameter.add_(orthogonalize(ahead.flatten(1)).view_as(parameter), alpha=-group["lr"])


def _nesterov_step(parameter: Tensor, gradient: Tensor, momentum: Tensor, group: dict[str, Any]) -> None:
    gradient = gradient.add(parameter, alpha=group["weight_decay"])
    momentum.mul_(group["momentum"]).add_(gradient)
    parameter.add_(gradient.add(momentum, alpha=group["momentum"]), alpha=-group["lr"])
