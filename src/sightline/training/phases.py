"""Phases: the parameters that learn in each epoch, and their share of the rate; fine-tuning, as plain functions.

A layer is what an image runs through as one piece: a child of the network, or a child of one that holds nearly all of
it.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

from torch import nn

from sightline.config.checks import nearest
from sightline.config.finetuning import (
    ALL,
    HEAD,
    FrozenConfig,
    GradualConfig,
    PhaseConfig,
    PhasesConfig,
    UpperConfig,
    lies_in,
    phase_epochs,
    same_as_before,
)
from sightline.config.generating import AnyRecipe
from sightline.config.networks import SpeednetConfig
from sightline.errors import ConfigError
from sightline.training.optimizers import part_of

__all__ = ["Layer", "Phase", "frozen_modules", "layers_of", "modes_kept", "phases_of", "shares_of", "whitening_epochs"]

MOST = 0.8  # of the parameters below the head; a layer that holds more is taken apart
FEW = 4  # layers; where there are fewer, the largest is taken apart


@dataclass(frozen=True)
class Layer:
    """A piece of a network, as its names and the parameters in it that learn."""

    names: tuple[str, ...]
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Phase:
    """Some epochs of a training in which the same parameters learn."""

    first: int
    """The epoch that it begins with, counted from 0."""
    epochs: int
    layers: tuple[str, ...]
    """Names of the layers that learn, or ``all``."""
    trained: frozenset[str]
    """Names of the parameters that learn."""
    rate: float
    """What the peak rates are multiplied by."""

    @property
    def when(self) -> str:
        """Its epochs as a person says them, counted from 1."""
        last = self.first + self.epochs
        return f"epochs {self.first + 1} to {last}" if self.epochs > 1 else f"epoch {last}"


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def layers_of(network: nn.Module) -> list[Layer]:
    """Return the layers of a network in which anything learns, the first first and the head last.

    They are the children of the network in their order; one that holds more than four fifths of the parameters below
    the head (a body, a stack of blocks), or the largest while there are fewer than four, is taken apart into its own
    children. What has no filters or matrices that learn (a norm, positions, a class token) goes with the layer before
    it, or at the very beginning with the one after it.
    """
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    filters = {name for name, parameter in learning.items() if part_of(name, parameter) == "filters"}
    joined: list[list[str]] = []
    loose: list[str] = []  # at the very beginning
    for name in _taken_apart(network):
        if _any_in(filters, name):
            joined.append([*loose, name])
            loose = []
        elif _any_in(learning, name):
            (joined[-1] if joined else loose).append(name)
    if loose:
        joined.append(loose)
    layers = [Layer(tuple(names), _within(learning, names)) for names in [*joined, [HEAD]]]
    return [layer for layer in layers if layer.parameters]


def _taken_apart(network: nn.Module) -> list[str]:
    """Return the names of the layers below the head, whether they learn or not, by the sizes of their parameters."""
    parameters = {name: item for name, item in network.named_parameters() if not lies_in(name, HEAD)}
    filters = [name for name, item in parameters.items() if part_of(name, item) == "filters"]
    total = sum(item.numel() for item in parameters.values())
    names = _pieces(network, "", parameters)
    while True:
        sizes = {name: sum(item.numel() for at, item in parameters.items() if lies_in(at, name)) for name in names}
        pieces = {name: _pieces(network, name, parameters) for name in names if name not in parameters}
        wholes = [name for name, inner in pieces.items() if any(piece not in parameters for piece in inner)]
        large = [name for name in wholes if sizes[name] > MOST * total]
        if not large and len(names) < FEW:  # of which each gives two layers or more
            large = [name for name in wholes if sum(_any_in(filters, piece) for piece in pieces[name]) > 1]
        if not large:
            return names
        largest = max(large, key=sizes.__getitem__)
        place = names.index(largest)
        names[place : place + 1] = pieces[largest]


def _pieces(network: nn.Module, name: str, below: Iterable[str]) -> list[str]:
    """Return what a layer is made of: its own parameters, then its children, each as far as it holds any."""
    module = network.get_submodule(name)
    inner = [where for where, _ in [*module.named_parameters(recurse=False), *module.named_children()]]
    pieces = [f"{name}.{where}" if name else where for where in inner]
    return [piece for piece in pieces if _any_in(below, piece)]


def _any_in(parameters: Iterable[str], layer: str) -> bool:
    return any(lies_in(name, layer) for name in parameters)


def _within(parameters: Iterable[str], layers: Iterable[str]) -> tuple[str, ...]:
    layers = list(layers)
    return tuple(name for name in parameters if any(lies_in(name, layer) for layer in layers))


# ── phases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def phases_of(recipe: AnyRecipe, network: nn.Module) -> list[Phase]:
    """Return the phases of a training, of which there is one where nothing is frozen, or the same throughout.

    Args:
        recipe: every setting.
        network: as it was built: what does not learn in it by nature has ``requires_grad`` False.
    Raises:
        ConfigError: a phase names a layer that is not there, trains nothing, or is the one before again.
    """
    finetune = recipe.finetune
    lengths = phase_epochs(finetune, recipe.fit.epochs)
    match finetune:
        case PhasesConfig():
            written = finetune.phases
            for number, phase in enumerate(written, start=1):
                _refuse_unknown(number, phase, network)
        case GradualConfig():
            written = _gradual(finetune, lengths, layers_of(network))
        case UpperConfig():
            written = (PhaseConfig(epochs=lengths[0], train=(HEAD, *_behind(finetune.after, network))),)
        case FrozenConfig():
            written = (PhaseConfig(epochs=lengths[0], train=(HEAD,)),)
        case _:
            written = (PhaseConfig(epochs=lengths[0], train=(ALL,)),)
    firsts = accumulate(lengths, initial=0)
    phases = [_settled(recipe, network, phase, first) for phase, first in zip(written, firsts, strict=False)]
    if finetune is not None:
        for number in range(1, len(phases) + 1):
            _refuse_without_effect(number, phases)
    return phases


def _behind(layer: str, network: nn.Module) -> list[str]:
    """Return the layers of a chain behind one of them in which anything can learn."""
    chain: tuple[str, ...] = getattr(network, "chain", ())
    behind = chain[chain.index(layer) + 1 :]
    return [name for name in behind if any(True for _ in network.get_submodule(name).parameters())]


def _gradual(finetune: GradualConfig, lengths: Iterable[int], layers: list[Layer]) -> tuple[PhaseConfig, ...]:
    """Return phases of the head, then of more and more of the layers below it, the last of them first."""
    below = [layer.names for layer in layers if layer.names != (HEAD,)]
    steps = finetune.phases - 1
    if steps > len(below):
        raise ConfigError(
            f"--finetune.phases {finetune.phases} is more than the network allows: a head and {len(below)} layers below"
            f" it ({', '.join(names[-1] for names in below)}); choose at most {len(below) + 1}."
        )
    phases = []
    for step, epochs in enumerate(lengths):
        deep = math.ceil(len(below) * step / steps)
        trained = [name for names in reversed(below[len(below) - deep :]) for name in names]
        phases.append(PhaseConfig(epochs=epochs, train=(HEAD, *trained) if step < steps else (ALL,)))
    return tuple(phases)


def _settled(recipe: AnyRecipe, network: nn.Module, phase: PhaseConfig, first: int) -> Phase:
    """Return a phase with the names of its parameters; the whitening bias learns in the first epochs only."""
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if recipe.finetune is not None and first >= whitening_epochs(recipe):
        learning = {name: item for name, item in learning.items() if part_of(name, item) != "whitening"}
    return Phase(first, phase.epochs, phase.train, frozenset(_within(learning, phase.train)), phase.rate)


def whitening_epochs(recipe: AnyRecipe) -> float:
    """Return the epochs, from the first on, in which the bias of a whitening layer learns."""
    network = getattr(recipe, "network", None)  # which the recipe of a generator does not have
    return network.whiten_bias_epochs if isinstance(network, SpeednetConfig) else 0.0


def _refuse_unknown(number: int, phase: PhaseConfig, network: nn.Module) -> None:
    modules = [name for name, module in network.named_modules() if name and any(True for _ in module.parameters())]
    known = [ALL, *modules, *(name for name, _ in network.named_parameters())]
    for name in phase.train:
        if name not in known:
            listed = [ALL, *(name for layer in reversed(layers_of(network)) for name in layer.names)]
            raise ConfigError(
                f"phase {number} of finetune trains {name!r}, and the network has no such layer;"
                f" {nearest(name, known, listed)}"
            )


def _refuse_without_effect(number: int, phases: list[Phase]) -> None:
    phase = phases[number - 1]
    for layer in phase.layers:
        if not _any_in(phase.trained, layer):
            raise ConfigError(
                f"phase {number} of finetune trains {layer!r}, in which nothing learns"
                f"{' any more' if phase.first else ''}; leave it out."
            )
    if number > 1 and (phase.trained, phase.rate) == (phases[number - 2].trained, phases[number - 2].rate):
        raise ConfigError(same_as_before(number))


# ── what follows from them ───────────────────────────────────────────────────────────────────────────────────────────


def shares_of(recipe: AnyRecipe, network: nn.Module) -> dict[str, float]:
    """Return the share of the peak rate of each parameter by its distance from the head; empty: all at the whole."""
    decay = getattr(recipe.finetune, "layer_decay", None)
    if decay is None:
        return {}
    return {
        name: decay**distance
        for distance, layer in enumerate(reversed(layers_of(network)))
        for name in layer.parameters
    }


def frozen_modules(network: nn.Module, layers: Iterable[Layer], trained: Iterable[str]) -> list[nn.Module]:
    """Return the modules of a network that stay in evaluation mode while only some of its parameters learn.

    A module is frozen where nothing that could learn in it does. One in which nothing could learn (dropout, a norm
    without weights) goes with the smallest module around it in which something could; behind the last layer, with the
    head.

    Args:
        layers: of the network as it was built.
        trained: names of the parameters that learn.
    """
    could = _around(name for layer in layers for name in layer.parameters)
    does = _around(trained)
    frozen: dict[str, bool] = {}
    for name, _ in network.named_modules():
        frozen[name] = name not in does if name in could else frozen[name.rpartition(".")[0]]
    pieces = [name for layer in layers for name in layer.names if name != HEAD]
    for name in reversed(frozen):
        if any(lies_in(name, piece) for piece in pieces) or not name:
            break
        if name not in could:
            frozen[name] = frozen[HEAD]
    return [module for name, module in network.named_modules() if frozen[name]]


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Put the modes of all modules of a network, training or evaluation, back to what they were."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _around(parameters: Iterable[str]) -> set[str]:
    """Return the names of all modules that some parameters lie in; that of the network itself is empty."""
    modules = {""}
    for name in parameters:
        while name := name.rpartition(".")[0]:
            modules.add(name)
    return modules
