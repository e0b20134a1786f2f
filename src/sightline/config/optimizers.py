"""The settings of optimizers."""

from sightline.config.building import Kind
from sightline.config.checks import AboveZero, BelowOne, Finite, OpenShare, Share
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


class SGDConfig(Kind, frozen=True, kw_only=True, tag="sgd"):
    """Stochastic gradient descent with momentum."""

    learning_rate: AboveZero = 0.1
    """Peak learning rate; auto: found by a range test before the training."""
    momentum: Share = 0.9
    """Share of the last step that is kept."""
    nesterov: bool = True
    """Look ahead along the momentum before measuring."""
    weight_decay: Finite = 5e-4
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""

    def _check(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ConfigError(
                "--optimizer.nesterov has no effect with --optimizer.momentum 0; add --no-optimizer.nesterov."
            )


class AdamWConfig(Kind, frozen=True, kw_only=True, tag="adamw"):
    """Adam with decoupled weight decay."""

    learning_rate: AboveZero = 1e-3
    """Peak learning rate; auto: found by a range test before the training."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay of the running mean of gradients and of their squares."""
    weight_decay: Finite = 1e-2
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""


class AdamConfig(Kind, frozen=True, kw_only=True, tag="adam"):
    """Adam: momentum, and a rate for each weight; the weight decay is added to the gradient."""

    learning_rate: AboveZero = 1e-3
    """Peak learning rate; auto: found by a range test before the training."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Decay of the running mean of gradients and of their squares."""
    weight_decay: Finite = 0.0
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""


class AdagradConfig(Kind, frozen=True, kw_only=True, tag="adagrad"):
    """Adagrad: a rate for each weight, which falls with the sum of its squared gradients."""

    learning_rate: AboveZero = 1e-2
    """Peak learning rate; auto: found by a range test before the training."""
    weight_decay: Finite = 0.0
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""


class RMSpropConfig(Kind, frozen=True, kw_only=True, tag="rmsprop"):
    """RMSProp: a rate for each weight, by the running mean of its squared gradients."""

    learning_rate: AboveZero = 1e-3
    """Peak learning rate; auto: found by a range test before the training."""
    alpha: BelowOne = 0.99
    """Decay of the running mean of squared gradients."""
    momentum: Share = 0.0
    """Share of the last step that is kept."""
    weight_decay: Finite = 0.0
    """Pull of filters and matrices towards zero; biases and norms are not decayed."""


class MuonConfig(Kind, frozen=True, kw_only=True, tag="muon"):
    """Muon (orthogonalized momentum, filters kept at unit norm) for filters; Nesterov SGD for head and biases."""

    learning_rate: AboveZero = 0.24
    """Peak learning rate of the filters; auto: found by a range test before the training, which scales the other two by
    the same factor."""
    momentum: OpenShare = 0.6
    """Momentum of the filters."""
    head_learning_rate: AboveZero = 0.02
    """Peak learning rate of the last layer, divided by the nodes that it reads side by side (one unless a head has
    more), and of the biases, norms and positions of a head."""
    bias_learning_rate: AboveZero = 106.0
    """Peak learning rate of the biases and norms before the head; it is this large because the head, and so their
    gradient, is small."""
    head_momentum: OpenShare = 0.85
    """Momentum of the last layer, the biases and the norms."""
    shrink: Share = 0.004
    """Weight decay times learning rate, for the last layer, the biases and the norms, at their peak rate."""


OptimizerConfig = SGDConfig | AdamWConfig | MuonConfig | AdamConfig | AdagradConfig | RMSpropConfig
