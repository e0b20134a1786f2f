"""Networks and weights from elsewhere: timm, torchvision, torch.hub, files. The only room of ``nets/`` that reads files.

Weights are tensors by name; of a file that could hold code (.pth, .pt) only tensors are read. Only ``torch.hub`` runs
foreign code, where the user said so.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from sightline.config import HubConfig, ResNet18Config, ResNet34Config, TimmConfig, TorchvisionConfig
from sightline.config.backbones import BACKBONES, BOX, BOX_FILE, LITE_PACKAGES, PACKAGE, PRETRAINED
from sightline.config.checks import nearest
from sightline.data.sources.downloads import ask_for, reachable, within
from sightline.errors import ConfigError
from sightline.machine.extras import packaged_weights
from sightline.models.base import Network
from sightline.models.efficientnet_lite import timm_names
from sightline.models.foreign import ForeignNetwork, TimmNetwork, start_small
from sightline.models.resnet import SMALL_SIDE, small_stem
from sightline.models.weights import LISTED, LoadedWeights, put_in
from sightline.runs.tensors import METADATA_KEY, read_tensors

__all__ = ["build_foreign", "load_weights", "native_size", "refuse_missing_weights"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights
IMAGENET_SIDE = 224  # pixels; of torchvision's weights of ResNets
PATIENCE = 1.0  # seconds that a host of weights may take to take a connection
ANSWER = 1.5  # seconds that it may then take to say whether it has a file


# ── networks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def build_foreign(config: TimmConfig | TorchvisionConfig | HubConfig, classes: int, size: tuple[int, int]) -> Network:
    """Build a network of another library, without weights (a hub's repository may bring its own).

    Raises:
        ConfigError: there is no such network, it cannot be used, or its library is missing.
    """
    network: TimmNetwork | ForeignNetwork
    match config:
        case TimmConfig():
            body = _timm(config.name, size, num_classes=classes)
            network = TimmNetwork(body, classes, size, f"timm's {config.name}")
        case TorchvisionConfig():
            network = _torchvision(config.name, classes, size)
        case HubConfig():
            name = f"{config.name} of {config.repo}"
            return ForeignNetwork(_hub(config.repo, config.name), classes, size, name)  # whose head may have learnt
    assert isinstance(network.head, nn.Linear)
    start_small(network.head)
    return network


def _timm(name: str, size: tuple[int, int], **options: Any) -> Any:
    import timm

    published = _published(name)
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


def _published(name: str) -> Any:
    """What timm knows of a network's weights; None where it knows none.

    Raises:
        ConfigError: timm has no such network, or no such weights of it.
    """
    import timm

    if not timm.is_model(name):  # also the names that timm would download from elsewhere
        hint = _like(name, [*BACKBONES, *timm.list_models()])
        raise ConfigError(
            f"timm has no network {name!r}, nor is a backbone called so (without a connection there is box, and with their"
            f" packages lite1 and lite2); {hint}"
        )
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        network, _, tag = name.partition(".")
        hint = nearest(name, timm.list_pretrained(f"{network}.*"))
        raise ConfigError(f"timm has no weights {tag!r} of {network}; {hint}") from error


def _torchvision(name: str, classes: int, size: tuple[int, int]) -> ForeignNetwork:
    models = _models_with(name)
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


def _models_with(name: str) -> Any:
    """torchvision's networks, of which one is wanted."""
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


HUB = "https://github.com"


def _cached_clone(repo: str) -> str | None:
    """The folder of a repository that torch.hub has downloaded before; asking for it again would need the network."""
    path, _, branch = repo.partition(":")
    clones = sorted(Path(torch.hub.get_dir()).glob(f"{path.replace('/', '_')}_{branch or '*'}"))
    return str(clones[0]) if len(clones) == 1 else None


def _like(name: str, known: list[str]) -> str:
    hint = nearest(name, known)
    return hint if hint.startswith("did") else f"there are {len(known):,}, such as {', '.join(known[:LISTED])}."


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def load_weights(network: Network, config: Any, size: tuple[int, int]) -> LoadedWeights | None:
    """Put the weights that its settings name into a network.

    Args:
        network: as built from the settings.
        config: its settings; those without ``weights``, or with none, change nothing.
        size: (height, width) of the images in pixels.
    Raises:
        ConfigError: the weights cannot be had or read, or none of them fits.
    """
    wanted = getattr(config, "weights", None)
    if wanted is None:
        return None
    published: Any = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "license": None}  # torchvision names none
    if isinstance(config, TimmConfig):
        published = {"license": "unknown"} | network.body.pretrained_cfg  # type: ignore[union-attr,operator]
    if wanted == BOX:
        tensors, source = read_tensors(BOX_FILE)[0], "the backbone in the box (EfficientNet-Lite0)"
    elif wanted == PACKAGE:
        tensors = timm_names(read_foreign(str(packaged_weights(config.name))), config.name)
        source = f"the package {LITE_PACKAGES[config.name].distribution}"
    elif wanted != PRETRAINED:
        tensors, source = read_foreign(wanted), wanted
    elif isinstance(config, TimmConfig):
        tensors, source = _timm_weights(config.name, size)
    else:
        tensors, source = _torchvision_weights(getattr(config, "name", config.kind))
    loaded = put_in(network, tensors, source, mean=list(published["mean"]), std=list(published["std"]))
    return replace(loaded, license=published["license"]) if wanted == PRETRAINED else loaded


def native_size(config: Any) -> int | None:
    """The side, in pixels, of the images that the weights of a network are best at; None without weights.

    Args:
        config: the settings of the network, which is not built.
    Raises:
        ConfigError: there is no such network.
    """
    if getattr(config, "weights", None) is None:
        return None
    match config:
        case ResNet18Config() | ResNet34Config():
            return IMAGENET_SIDE
        case TorchvisionConfig():
            weights = _models_with(config.name).get_model_weights(config.name).DEFAULT
            return int(weights.transforms.keywords["crop_size"])
    if config.name in (sides := {backbone.name: backbone.side for backbone in BACKBONES.values()}):
        return sides[config.name]
    published = _published(config.name)
    return None if published is None else int(published.input_size[-1])


def refuse_missing_weights(config: Any) -> None:
    """Refuse weights that no source has, within 3 seconds: the box, a package, a file, this machine's cache, a host.

    Args:
        config: the settings of a network; those without weights are passed.
    Raises:
        ConfigError: there is no such network, or its weights cannot be had.
    """
    wanted = getattr(config, "weights", None)
    if wanted is None or wanted == BOX:
        return
    if wanted == PACKAGE:
        packaged_weights(config.name)
    elif wanted != PRETRAINED:
        _refuse_missing_file(os.path.expanduser(wanted))
    elif isinstance(config, TimmConfig):
        _timm_file(config.name)
    else:
        _torchvision_file(getattr(config, "name", config.kind))


def read_foreign(path: str) -> dict[str, Tensor]:
    """Read the tensors of a weights file; no code in it is run.

    Raises:
        ConfigError: no such file, none of the formats, or more than tensors in it.
    """
    _refuse_missing_file(path)
    flag, suffix = f"--network.weights {path}", Path(path).suffix.lower()
    if suffix == ".safetensors":
        tensors, metadata = read_tensors(path)
        if METADATA_KEY in metadata:
            raise ConfigError(
                f"{flag} is a classifier of sightline; name its run instead, so that no image it has learnt from is"
                " tested on: --network run:FOLDER."
            )
        return tensors
    if suffix not in (".pth", ".pt"):
        raise ConfigError(f"{flag} ends in {suffix or 'nothing'}; wanted .safetensors, .pth or .pt.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is in the file
        raise ConfigError(
            f"{flag} cannot be read without running code that is in it, or is broken"
            f" ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__}); wanted a file of tensors by"
            " name."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    named = isinstance(found, Mapping) and all(isinstance(name, str) for name in found)
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)} if named else {}
    if not tensors:
        raise ConfigError(f"{flag} holds no tensors by name, at its top or under 'state_dict' or 'model'.")
    return tensors


def _refuse_missing_file(path: str) -> None:
    if not os.path.isfile(path):
        raise ConfigError(f"--network.weights {path}: there is no such file; name one, or write {PRETRAINED}.")


def _torchvision_weights(name: str) -> tuple[dict[str, Tensor], str]:
    weights = _torchvision_file(name)
    return dict(weights.get_state_dict(progress=False, weights_only=True)), f"torchvision's {weights}"


def _torchvision_file(name: str) -> Any:
    """torchvision's entry of a network's weights, which are on this machine or can be downloaded."""
    weights = _models_with(name).get_model_weights(name).DEFAULT
    file = _in_torch_cache(weights.url)
    if not file.exists():
        _refuse_unpublished(
            f"torchvision's weights of {name}", weights.url, f"download {weights.url} to {file}, or name the file"
        )
    return weights


def _in_torch_cache(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlsplit(url).path)


def _timm_weights(name: str, size: tuple[int, int]) -> tuple[dict[str, Tensor], str]:
    title, repo, file = _timm_file(name)
    options: dict[str, Any] = {"pretrained": True}
    if repo is not None:
        file = _downloaded(repo, file, title)
    if os.path.isfile(file):
        options["pretrained_cfg_overlay"] = {"file": file}  # asks no host whether there is a newer one
    return _timm(name, size, **options).state_dict(), f"timm's {title}"


def _timm_file(name: str) -> tuple[str, str | None, str]:
    """Where timm's weights of a network are.

    Returns:
        What they are called, then either None and the file on this machine, or an address that is no hub's; or the hub's
        repository and the name of the file in it.
    """
    import huggingface_hub

    published = _published(name)
    if published is None or not (published.hf_hub_id or published.url):
        raise ConfigError(
            f"--network.weights {PRETRAINED}: timm has no weights of {name}; choose another network or a file."
        )
    title = ".".join(filter(None, (published.architecture, published.tag)))
    repo, url = published.hf_hub_id, published.url
    if not repo:
        if _in_torch_cache(url).exists():
            return title, None, str(_in_torch_cache(url))
        _refuse_unpublished(f"timm's weights {title}", url, f"download {url}, and name the file")
        return title, None, url
    pickled = published.hf_hub_filename or "pytorch_model.bin"
    names = [pickled] if pickled.endswith(SAFE) else [SAFE_NAMES.get(pickled, pickled), pickled]
    for item in names:
        copy = huggingface_hub.try_to_load_from_cache(repo, item)
        if isinstance(copy, str):
            return title, None, copy
    return title, repo, _in_hub(repo, names, title)


SAFE = ".safetensors"
SAFE_NAMES = {  # of the same weights in a format that holds no code
    "pytorch_model.bin": "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}


def _in_hub(repo: str, names: list[str], title: str) -> str:
    """The first of some files that a repository of the hub has."""
    from huggingface_hub import constants, get_hf_file_metadata
    from huggingface_hub.errors import EntryNotFoundError

    urls = {item: f"{constants.ENDPOINT}/{repo}/resolve/main/{item}" for item in names}
    url, what = urls[names[0]], f"timm's weights {title}"
    instead = f"download {url}, and name the file"
    _refuse_offline(what, url, instead)

    def look() -> str:
        for item in names:
            try:
                get_hf_file_metadata(urls[item], timeout=ANSWER)
                return item
            except EntryNotFoundError as error:
                last = error
        raise last

    try:
        return str(within(ANSWER, look))
    except Exception as error:  # of any of the client's layers: no such repository, no right to it, no answer
        raise _not_given(what, url, error, instead) from error


def _downloaded(repo: str, name: str, title: str) -> str:
    import huggingface_hub

    try:
        return str(huggingface_hub.hf_hub_download(repo, name))
    except Exception as error:  # the connection, the disk
        url = huggingface_hub.hf_hub_url(repo, name)
        raise _not_given(f"timm's weights {title}", url, error, "start again, or name the file") from error


def _refuse_unpublished(what: str, url: str, instead: str) -> None:
    """Refuse weights whose host cannot be reached, or does not have them."""
    _refuse_offline(what, url, instead)
    try:
        ask_for(url, ANSWER)
    except OSError as error:  # urllib's are, too
        raise _not_given(what, url, error, instead) from error


def _refuse_offline(what: str, url: str, instead: str) -> None:
    if not reachable(url, PATIENCE):
        raise ConfigError(
            f"--network.weights {PRETRAINED}: {what} are not on this machine and {urlsplit(url).hostname} cannot be"
            f" reached; where you are online, {instead}: --network.weights FILE (--backbone {BOX} needs no connection)."
        )


def _not_given(what: str, url: str, error: Exception, instead: str) -> ConfigError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return ConfigError(
        f"--network.weights {PRETRAINED}: {what} are not on this machine and {urlsplit(url).hostname} does not give them"
        f" ({reason}); {instead}: --network.weights FILE (--backbone {BOX} needs no connection)."
    )
