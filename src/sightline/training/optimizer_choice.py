"""Replace the optimizer of a recipe where it would destroy what a network has learnt."""

import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace
from torch import nn

from sightline.config.building import AUTO
from sightline.config.networks import HubConfig, RunConfig, TimmConfig, TorchvisionConfig
from sightline.config.optimizers import AdamWConfig, MuonConfig, SGDConfig
from sightline.config.resolving import spell_out
from sightline.config.settings import Recipe
from sightline.errors import ConfigError
from sightline.models.base import Network
from sightline.models.heads import HeadedNetwork
from sightline.runs.folder import read_run_recipe
from sightline.runs.hub import fetched
from sightline.training.network import Built
from sightline.training.phases import phases_of

__all__ = ["settle_optimizer"]

# Three kinds of apples of the Grocery Store photographs (train 139, test 173) at 96 px, tf_efficientnet_lite0 with
# ImageNet weights, recipe small, 5 epochs in batches of 32, means of 2 seeds: 0.645 at 3e-4, 0.697 at 1e-3, 0.705 at
# 3e-3 (of which one seed was 0.746 and the other 0.665); Muon 0.306 (1 seed), worse than guessing.
PRESERVING = AdamWConfig(learning_rate=1e-3)
LARGE_RATE = 0.05  # of SGD; recipes that train from scratch have 0.1
SCALE_FREE = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)  # behind filters
LAYER_SCALE = re.compile(r"(^|\.)(gamma(_\d+)?|layer_scale\w*|ls\d*)(\.|$)")  # what libraries call it


def settle_optimizer(recipe: Recipe, settings: Mapping[str, Any], built: Built) -> tuple[Recipe, str]:
    """Replace an optimizer that would destroy the weights of a network, unless it was asked for.

    Args:
        recipe: every setting.
        settings: what the user set over the recipe that was named or chosen.
        built: the network, with its weights.
    Returns:
        The recipe, and a line for the user; empty where the optimizer stays.
    Raises:
        ConfigError: the user asked for Muon, or set anything of it, and it is what would destroy them.
    """
    harm = _harm(recipe, built)
    if not harm:
        return recipe, ""
    kind = recipe.optimizer.kind
    named = [name for name, value in (spell_out(settings).get("optimizer") or {}).items() if value != AUTO]
    if not named:
        line = (
            f"optimizer: {PRESERVING.kind} at {PRESERVING.learning_rate:g} in place of the recipe's {kind}: it {harm}"
        )
        return replace(recipe, optimizer=PRESERVING), line
    if not isinstance(recipe.optimizer, MuonConfig):
        return recipe, ""
    flag = f"--optimizer.{named[0].replace('_', '-')}"
    subject = f"{flag} {kind}" if "kind" in named else f"{flag} is a setting of the recipe's {kind}, which"
    raise ConfigError(
        f"{subject} {harm}; leave the option out, and {PRESERVING.kind} takes its place, or name another optimizer."
    )


def _harm(recipe: Recipe, built: Built) -> str:
    """Return what the optimizer of a recipe would do to a network, as a clause; empty where it does no harm."""
    if not _backbone_learns(recipe, built.network):
        return ""
    muon = isinstance(recipe.optimizer, MuonConfig)
    if built.weights is not None and not _trained_by_muon(recipe):
        start = f"the weights from {built.weights.source}"
        if muon:
            return f"sets every filter to a norm of its own, which destroys {start}"
        if isinstance(recipe.optimizer, SGDConfig) and recipe.optimizer.learning_rate >= LARGE_RATE:
            return f"has a rate for training from scratch ({recipe.optimizer.learning_rate:g}), which destroys {start}"
    if muon and isinstance(built.architecture, TimmConfig | TorchvisionConfig | HubConfig):
        network = built.network.backbone if isinstance(built.network, HeadedNetwork) else built.network
        if _scale_matters(network):
            name = built.architecture.name
            return (
                f"sets every filter to a norm of its own, and {name} has no batch-norm behind its filters to undo that"
            )
    return ""


def _backbone_learns(recipe: Recipe, network: Network) -> bool:
    trained = (name for phase in phases_of(recipe, network) for name in phase.trained)
    return any(not name.startswith(network.beyond_backbone) for name in trained)


def _trained_by_muon(recipe: Recipe) -> bool:
    """Tell whether a training starts from a run whose filters have the norms that Muon gives them already."""
    network = recipe.network
    return isinstance(network, RunConfig) and isinstance(read_run_recipe(fetched(network.folder)).optimizer, MuonConfig)


def _scale_matters(network: nn.Module) -> bool:
    """Tell whether scaling its filters changes what a network computes: layer norms, layer scale, or no norms."""
    kinds = [module for module in network.modules() if "norm" in type(module).__name__.lower()]
    if not any(isinstance(module, SCALE_FREE) for module in kinds):
        return True
    if any(isinstance(module, nn.LayerNorm) or "rms" in type(module).__name__.lower() for module in kinds):
        return True
    return any(LAYER_SCALE.search(name) for name, _ in network.named_parameters())
