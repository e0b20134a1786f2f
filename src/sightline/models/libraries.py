"""Build networks of other libraries by name: timm, torchvision, torch.hub. The only file that imports timm.

Only ``torch.hub`` runs foreign code, where the user said so.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn

from sightline.config.backbones import BACKBONES
from sightline.config.checks import nearest
from sightline.config.networks import HubConfig, TimmConfig, TorchvisionConfig
from sightline.config.trust import untrusted
from sightline.data.sources.downloads import PATIENCE, reachable
from sightline.errors import ConfigError
from sightline.models.adapters import ForeignNetwork, TimmNetwork, start_small
from sightline.models.base import Network
from sightline.models.resnet import SMALL_SIDE, small_stem
from sightline.models.transfer import LISTED

__all__ = ["build_foreign", "timm_body", "timm_weights_entry", "torchvision_models"]

HUB = "https://github.com"


def build_foreign(config: TimmConfig | TorchvisionConfig | HubConfig, classes: int, size: tuple[int, int]) -> Network:
    """Build a network of another library, without weights (a hub's repository may bring its own).

    Raises:
        ConfigError: there is no such network, it cannot be used, or its library is missing.
    """
    network: TimmNetwork | ForeignNetwork
    match config:
        case TimmConfig():
            body = timm_body(config.name, size, num_classes=classes)
            network = TimmNetwork(body, classes, size, f"timm's {config.name}")
        case TorchvisionConfig():
            network = _torchvision(config.name, classes, size)
        case HubConfig():
            if not config.trust_code:
                raise untrusted("network", config.repo)
            name = f"{config.name} of {config.repo}"
            return ForeignNetwork(_hub(config.repo, config.name), classes, size, name)  # whose head may have learned
    assert isinstance(network.head, nn.Linear)
    start_small(network.head)
    return network


def timm_body(name: str, size: tuple[int, int], **options: Any) -> Any:
    """Build a network of timm, for images of a size where it is made for one."""
    import timm

    published = timm_weights_entry(name)
    if published is not None and published.fixed_input_size:
        try:
            return timm.create_model(name, img_size=size, **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
        except AssertionError as error:
            raise ConfigError(
                f"timm's {name} cannot be built for images of {size[0]}×{size[1]} px ({error}); choose another"
                " --data.size or network."
            ) from error
    return timm.create_model(name, **options)


def timm_weights_entry(name: str) -> Any:
    """Return what timm knows of a network's weights; None where it knows none.

    Raises:
        ConfigError: timm has no such network, or no such weights of it.
    """
    import timm

    if not timm.is_model(name):  # also the names that timm would download from elsewhere
        hint = _like(name, [*BACKBONES, *timm.list_models()])
        raise ConfigError(
            f"timm has no network {name!r}, nor is a backbone called so (without a connection there is box, and with"
            f" their packages lite1 and lite2); {hint}"
        )
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        network, _, tag = name.partition(".")
        hint = nearest(name, timm.list_pretrained(f"{network}.*"))
        raise ConfigError(f"timm has no weights {tag!r} of {network}; {hint}") from error


def _torchvision(name: str, classes: int, size: tuple[int, int]) -> ForeignNetwork:
    models = torchvision_models(name)
    body = models.get_model(name, num_classes=classes)
    if isinstance(body, models.VisionTransformer):
        raise ConfigError(f"torchvision's {name} gives no map of the image; take one of timm's: --network timm:NAME.")
    small = isinstance(body, models.ResNet) and max(size) <= SMALL_SIDE
    if small:
        body.conv1, body.maxpool = small_stem(), nn.Identity()
    network = ForeignNetwork(body, classes, size, f"torchvision's {name}")
    if small:
        network.exchanged = ("body.conv1.", "body.bn1.")
    return network


def torchvision_models(name: str) -> Any:
    """Return torchvision's networks, of which one is asked for."""
    from torchvision import models

    known = models.list_models(module=models)  # those that classify
    if name not in known:
        raise ConfigError(f"torchvision has no network {name!r} that classifies; {_like(name, known)}")
    return models


def _hub(repo: str, name: str) -> nn.Module:
    folder = repo if os.path.isdir(repo) else _cached_clone(repo)
    if folder is None and not reachable(HUB, PATIENCE):
        raise ConfigError(
            f"{urlsplit(HUB).hostname} cannot be reached and torch.hub has no copy of {repo}; clone it where you are"
            " online, and name the folder: --network hub:FOLDER:NAME."
        )
    try:
        if folder is None:
            body = torch.hub.load(repo, name, trust_repo=True, verbose=False)  # type: ignore[no-untyped-call]
        else:
            body = torch.hub.load(folder, name, source="local", verbose=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # it is foreign code
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"{repo} does not build {name!r} ({reason}); read its hubconf.py.") from error
    if not isinstance(body, nn.Module):
        raise ConfigError(f"{name} of {repo} is a {type(body).__name__}; wanted a network.")
    return body


def _cached_clone(repo: str) -> str | None:
    """Return the folder of a repository that torch.hub has downloaded before.

    Asking for it again would need the network.
    """
    path, _, branch = repo.partition(":")
    clones = sorted(Path(torch.hub.get_dir()).glob(f"{path.replace('/', '_')}_{branch or '*'}"))
    return str(clones[0]) if len(clones) == 1 else None


def _like(name: str, known: list[str]) -> str:
    hint = nearest(name, known)
    return hint if hint.startswith("did") else f"there are {len(known):,}, such as {', '.join(known[:LISTED])}."
