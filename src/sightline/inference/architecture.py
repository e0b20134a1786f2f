"""The network of a finished run, built again from what its ``model.json`` says."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sightline.config.building import build as build_settings
from sightline.config.heads import HeadConfig
from sightline.config.networks import ArchitectureConfig, HubConfig, RunConfig
from sightline.config.resolving import resolve
from sightline.errors import ConfigError, RunError, SightlineError
from sightline.models.base import Network
from sightline.models.build import build_network

__all__ = ["architecture_of", "build_trained", "fill", "head_of"]

Tensors = Mapping[str, Tensor]

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


def build_trained(model: Mapping[str, Any], tensors: Tensors, where: str, *, trust_code: bool) -> Network:
    """Build the network of a classifier and put its weights into it.

    Before any memory is taken for it, its shapes are compared with those of the weights: a damaged file may ask for any
    number of channels.

    Args:
        model: content of ``model.json``.
        tensors: its weights by name.
        where: their file, for messages.
        trust_code: run the code of the repository that a network of ``torch.hub`` is built by.
    Raises:
        ConfigError: the network needs a library that is missing, or code that is not trusted.
        RunError: it cannot be built, or the weights do not fit it.
    """
    config, head = architecture_of(model, where, trust_code=trust_code), head_of(model, where)
    size = tuple(model["size"])

    def build() -> Network:
        return build_network(config, len(model["classes"]), tuple(model.get("built_for") or size), head, size)

    if not isinstance(config, HubConfig):  # whose code is run once
        with suppress(RuntimeError), torch.device("meta"):  # of another library's network that computes in its making
            refuse_other_weights(build(), tensors, where)
    return fill(build(), tensors, where)


def fill(network: AnyNetwork, tensors: Tensors, where: str) -> AnyNetwork:
    """Put weights into a network of which they are all; returns it.

    Raises:
        RunError: they do not fit.
    """
    refuse_other_weights(network, tensors, where)
    network.load_state_dict(tensors)
    return network


def refuse_other_weights(network: nn.Module, tensors: Tensors, where: str) -> None:
    """Refuse weights of other names, shapes or kinds of numbers than a network has."""
    expected = network.state_dict()
    conflicts = [f"{name} is missing" for name in expected if name not in tensors]
    conflicts += [f"{name} is not in the network" for name in tensors if name not in expected]
    for name, other in tensors.items():
        own = expected.get(name, other)
        if own.shape != other.shape:
            conflicts.append(f"{name} is {tuple(other.shape)} and the network has {tuple(own.shape)}")
        elif own.is_floating_point() and not other.is_floating_point():
            conflicts.append(f"{name} is of {other.dtype} and the network's of {own.dtype}")
    if conflicts:
        more = f", and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
        raise RunError(
            f"the weights {where!r} do not fit the network of the run: {conflicts[0]}{more}; copy the run again."
        )


def architecture_of(model: Mapping[str, Any], where: str, *, trust_code: bool) -> ArchitectureConfig:
    """Return the network's settings in a ``model.json``.

    Args:
        model: its content.
        where: where it lies, for messages.
        trust_code: whether code of a foreign repository may be run.
    Raises:
        ConfigError: it may not, and the network is one of torch.hub.
        RunError: there are no such settings.
    """
    if model.get("network") is None:
        raise RunError(f"{where}: network is missing; copy the run again from where it was made.")
    settings = dict(model["network"])
    if settings["kind"] == HubConfig.kind:
        if not trust_code:
            raise ConfigError(
                f"the network of {where} is built by the code of {settings.get('repo')}, which torch.hub would run on"
                " this machine; read it, then add --trust-code, in Python trust_code=True (for a training:"
                " --network.trust-code)."
            )
        settings = {**settings, "repo": _place_of_code(str(settings.get("repo")), Path(where)), "trust_code": True}
    try:
        config = resolve({"network": settings}).network
    except SightlineError as error:
        raise RunError(f"{where}: its network cannot be built again: {error}") from error
    if isinstance(config, RunConfig):
        raise RunError(f"{where}: its network is that of another run, so it cannot be built again; copy the run again.")
    return config


def _place_of_code(repo: str, where: Path) -> str:
    """Return the repository that builds a network; where its folder is gone, the run's own, if it has a hubconf.py.

    Raises:
        RunError: the folder is gone, and nobody has copied the file.
    """
    if not os.path.isabs(repo) or os.path.isdir(repo):
        return repo
    folder = where if where.is_dir() else where.parent
    if not (folder / "hubconf.py").is_file():
        raise RunError(
            f"{where}: its network is built by hubconf.py of {repo}, which is not on this machine; copy that file, and"
            f" what it imports, into {folder}."
        )
    return str(folder)


def head_of(model: Mapping[str, Any], where: str) -> HeadConfig | None:
    """Return the settings of the head in a ``model.json``; None where the network has its own last layer."""
    try:
        head: HeadConfig | None = build_settings(HeadConfig | None, model.get("head"), "head")
    except SightlineError as error:
        raise RunError(f"{where}: its head cannot be built again: {error}") from error
    return head
