"""The settings of optimizers."""

from dataclasses import dataclass
from typing import Literal

from sightline.config.checks import INFINITY, within
from sightline.errors import ConfigError

__all__ = [
    "AdagradConfig",
    "AdamConfig",
    "AdamWConfig",
    "MuonConfig",
    "OptimizerConfig",
    "RMSpropConfig",
    "SGDConfig",
]


@dataclass(frozen=True, kw_only=True)
class SGDConfig:
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = 0.1
    """Peak learning rate; auto: found by a range test before the training."""
    momentum: float = 0.9
    """Share of the last step that is kept."""
    nesterov: bool = True
    """Look ahead along the momentum before measuring."""
    weight_decay: float = 5e-4
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        within("optimizer.learning-rate", self.learning_rate, 0, INFINITY, open_low=True)
        within("optimizer.momentum", self.momentum, 0, 1)
        within("optimizer.weight-decay", self.weight_decay, 0, INFINITY)
        if self.nesterov and self.momentum == 0:
            raise ConfigError(
                "--optimizer.nesterov has no effect with --optimizer.momentum 0; add --no-optimizer.nesterov."
            )


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = 1e-3
    """Peak learning rate; auto: found by a range test before the training."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean of gradients and of their squares."""
    weight_decay: float = 1e-2
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        within("optimizer.learning-rate", self.learning_rate, 0, INFINITY, open_low=True)
        for beta in self.betas:
            within("optimizer.betas", beta, 0, 0.999999)
        within("optimizer.weight-decay", self.weight_decay, 0, INFINITY)


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """Adam: momentum, and a rate for each weight; the weight decay is added to the gradient."""

    kind: Literal["adam"] = "adam"
    learning_rate: float = 1e-3
    """Peak learning rate; auto: found by a range test before the training."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean of gradients and of their squares."""
    weight_decay: float = 0.0
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        within("optimizer.learning-rate", self.learning_rate, 0, INFINITY, open_low=True)
        for beta in self.betas:
            within("optimizer.betas", beta, 0, 0.999999)
        within("optimizer.weight-decay", self.weight_decay, 0, INFINITY)


@dataclass(frozen=True, kw_only=True)
class AdagradConfig:
    """Adagrad: a rate for each weight, which falls with the sum of its squared gradients."""

    kind: Literal["adagrad"] = "adagrad"
    learning_rate: float = 1e-2
    """Peak learning rate; auto: found by a range test before the training."""
    weight_decay: float = 0.0
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        within("optimizer.learning-rate", self.learning_rate, 0, INFINITY, open_low=True)
        within("optimizer.weight-decay", self.weight_decay, 0, INFINITY)


@dataclass(frozen=True, kw_only=True)
class RMSpropConfig:
    """RMSProp: a rate for each weight, by the running mean of its squared gradients."""

    kind: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = 1e-3
    """Peak learning rate; auto: found by a range test before the training."""
    alpha: float = 0.99
    """Decay of the running mean of squared gradients."""
    momentum: float = 0.0
    """Share of the last step that is kept."""
    weight_decay: float = 0.0
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def __post_init__(self) -> None:
        within("optimizer.learning-rate", self.learning_rate, 0, INFINITY, open_low=True)
        within("optimizer.alpha", self.alpha, 0, 0.999999)
        within("optimizer.momentum", self.momentum, 0, 1)
        within("optimizer.weight-decay", self.weight_decay, 0, INFINITY)


@dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon (orthogonalised momentum, filters kept at unit norm) for filters; Nesterov SGD for head and biases."""

    kind: Literal["muon"] = "muon"
    learning_rate: float = 0.24
    """Peak learning rate of the filters; auto: found by a range test before the training, which scales the other two by the
    same factor."""
    momentum: float = 0.6
    """Momentum of the filters."""
    head_learning_rate: float = 0.02
    """Peak learning rate of the last layer, divided by the nodes that it reads side by side (one unless a head has more),
    and of the biases, norms and positions of a head."""
    bias_learning_rate: float = 106.0
    """Peak learning rate of the biases and norms before the head; it is this large because the head, and so their
    gradient, is small."""
    head_momentum: float = 0.85
    """Momentum of the last layer, the biases and the norms."""
    shrink: float = 0.004
    """Weight decay times learning rate, for the last layer, the biases and the norms, at their peak rate."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "head_learning_rate", "bias_learning_rate"):
            within(f"optimizer.{name.replace('_', '-')}", getattr(self, name), 0, INFINITY, open_low=True)
        for name in ("momentum", "head_momentum"):
            within(f"optimizer.{name.replace('_', '-')}", getattr(self, name), 0, 0.999999, open_low=True)
        within("optimizer.shrink", self.shrink, 0, 1)


OptimizerConfig = SGDConfig | AdamWConfig | MuonConfig | AdamConfig | AdagradConfig | RMSpropConfig
