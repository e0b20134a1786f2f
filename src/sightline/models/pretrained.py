"""Pretrained weights of timm, torchvision, the box, a package or a file: found, or refused, and loaded.

The only file of ``models/`` that reads files. Weights are tensors by name; of a file that could hold code (.pth, .pt)
only tensors are read.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from sightline.config.backbones import BACKBONES, BOX, BOX_FILE, LITE_PACKAGES, PACKAGE, PRETRAINED
from sightline.config.networks import ResNet18Config, ResNet34Config, TimmConfig, TorchvisionConfig
from sightline.data.sources.downloads import PATIENCE, ask_for, reachable
from sightline.errors import ConfigError
from sightline.machine.extras import packaged_weights
from sightline.machine.patience import within
from sightline.models.base import Network
from sightline.models.libraries import timm_body, timm_weights_entry, torchvision_models
from sightline.models.transfer import LoadedWeights, put_in, timm_names
from sightline.runs.tensors import METADATA_KEY, read_tensors

__all__ = ["load_weights", "native_size", "refuse_missing_weights"]

IMAGENET = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "license": None,
}  # torchvision names no license
IMAGENET_SIDE = 224  # pixels; of torchvision's weights of ResNets
ANSWER = 1.5  # seconds that a host of weights may take to say whether it has a file
SAFE = ".safetensors"
SAFE_NAMES = {  # of the same weights in a format that holds no code
    "pytorch_model.bin": "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}

Read = Callable[[], Mapping[str, Tensor]]


def load_weights(network: Network, config: Any, size: tuple[int, int]) -> LoadedWeights | None:
    """Put the weights that its settings name into a network.

    Args:
        network: as built from the settings.
        config: its settings; those without ``weights``, or with none, change nothing.
        size: (height, width) of the images in pixels.
    Raises:
        ConfigError: the weights cannot be had or read, or none of them fits.
    """
    if getattr(config, "weights", None) is None:
        return None
    source, read = _find_weights(config, size)
    published: Any = IMAGENET
    if isinstance(config, TimmConfig):
        published = {"license": "unknown"} | network.body.pretrained_cfg  # type: ignore[union-attr,operator]
    loaded = put_in(network, read(), source, mean=list(published["mean"]), std=list(published["std"]))
    return replace(loaded, license=published["license"]) if config.weights == PRETRAINED else loaded


def refuse_missing_weights(config: Any) -> None:
    """Refuse weights that no source has, within 3 seconds: the box, a package, a file, this machine's cache, a host.

    Args:
        config: the settings of a network; those without weights are passed.
    Raises:
        ConfigError: there is no such network, or its weights cannot be had.
    """
    if getattr(config, "weights", None) is not None:
        _find_weights(config)


def native_size(config: Any) -> int | None:
    """Return the side, in pixels, of the images that the weights of a network are best at; None without weights.

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
            weights = torchvision_models(config.name).get_model_weights(config.name).DEFAULT
            return int(weights.transforms.keywords["crop_size"])
    if config.name in (sides := {backbone.name: backbone.side for backbone in BACKBONES.values()}):
        return sides[config.name]
    published = timm_weights_entry(config.name)
    return None if published is None else int(published.input_size[-1])


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
                f"{flag} is a classifier of sightline; name its run instead, so that no image it has learned from is"
                " tested on: --network run:FOLDER."
            )
        return tensors
    if suffix not in (".pth", ".pt"):
        raise ConfigError(f"{flag} ends in {suffix or 'nothing'}; wanted .safetensors, .pth or .pt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is in the file
        raise ConfigError(
            f"{flag} cannot be read without running code that is in it, or is broken"
            f" ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__}); wanted a file of tensors"
            " by name."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    named = isinstance(content, Mapping) and all(isinstance(name, str) for name in content)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)} if named else {}
    if not tensors:
        raise ConfigError(f"{flag} holds no tensors by name, at its top or under 'state_dict' or 'model'.")
    return tensors


def _refuse_missing_file(path: str) -> None:
    if not os.path.isfile(path):
        raise ConfigError(f"--network.weights {path}: there is no such file; name one, or write {PRETRAINED}.")


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _find_weights(config: Any, size: tuple[int, int] = (0, 0)) -> tuple[str, Read]:
    """Return what the weights of some settings are called, and what reads them, once a source has them."""
    chosen = config.weights
    if chosen == BOX:
        return "the backbone in the box (EfficientNet-Lite0)", lambda: read_tensors(BOX_FILE)[0]
    if chosen == PACKAGE:
        file = str(packaged_weights(config.name))
        source = f"the package {LITE_PACKAGES[config.name].distribution}"
        return source, lambda: timm_names(read_foreign(file), config.name)
    if chosen != PRETRAINED:
        path = os.path.expanduser(chosen)
        _refuse_missing_file(path)
        return chosen, lambda: read_foreign(path)
    if isinstance(config, TimmConfig):
        title, repo, file = _timm_file(config.name)
        return f"timm's {title}", lambda: _timm_weights(config.name, size, title, repo, file)
    weights = _torchvision_weights(getattr(config, "name", config.kind))
    return f"torchvision's {weights}", lambda: dict(weights.get_state_dict(progress=False, weights_only=True))


def _torchvision_weights(name: str) -> Any:
    """Return torchvision's entry of a network's weights, which are on this machine or can be downloaded."""
    weights = torchvision_models(name).get_model_weights(name).DEFAULT
    file = _in_torch_cache(weights.url)
    if not file.exists():
        instead = f"download {weights.url} to {file}, or name the file"
        _refuse_unpublished(f"torchvision's weights of {name}", weights.url, instead)
    return weights


def _in_torch_cache(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlsplit(url).path)


def _timm_file(name: str) -> tuple[str, str | None, str]:
    """Find timm's weights of a network.

    Returns:
        What they are called, then either None and the file on this machine, or an address that is no hub's; or the
        hub's repository and the name of the file in it.
    """
    import huggingface_hub

    published = timm_weights_entry(name)
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


def _in_hub(repo: str, names: list[str], title: str) -> str:
    """Return the first of some files that a repository of the hub has."""
    from huggingface_hub import constants, get_hf_file_metadata
    from huggingface_hub.errors import EntryNotFoundError

    urls = {item: f"{constants.ENDPOINT}/{repo}/resolve/main/{item}" for item in names}
    url, what = urls[names[0]], f"timm's weights {title}"
    instead = f"download {url}, and name the file"
    _refuse_unreachable(what, url, instead)

    def look() -> str:
        for item in names[:-1]:
            with suppress(EntryNotFoundError):
                get_hf_file_metadata(urls[item], timeout=ANSWER)
                return item
        get_hf_file_metadata(urls[names[-1]], timeout=ANSWER)
        return names[-1]

    try:
        return str(within(ANSWER, look))
    except Exception as error:  # of any of the client's layers: no such repository, no right to it, no answer
        raise _unavailable(what, url, instead, error) from error


def _timm_weights(name: str, size: tuple[int, int], title: str, repo: str | None, file: str) -> Mapping[str, Tensor]:
    if repo is not None:
        import huggingface_hub

        try:
            file = str(huggingface_hub.hf_hub_download(repo, file))
        except Exception as error:  # the connection, the disk
            url = huggingface_hub.hf_hub_url(repo, file)
            raise _unavailable(f"timm's weights {title}", url, "start again, or name the file", error) from error
    local = (
        {"pretrained_cfg_overlay": {"file": file}} if os.path.isfile(file) else {}
    )  # then no host is asked for a newer one
    state: Mapping[str, Tensor] = timm_body(name, size, pretrained=True, **local).state_dict()
    return state


def _refuse_unpublished(what: str, url: str, instead: str) -> None:
    """Refuse weights whose host cannot be reached, or does not have them."""
    _refuse_unreachable(what, url, instead)
    try:
        ask_for(url, ANSWER)
    except OSError as error:  # urllib's are, too
        raise _unavailable(what, url, instead, error) from error


def _refuse_unreachable(what: str, url: str, instead: str) -> None:
    if not reachable(url, PATIENCE):
        raise _unavailable(what, url, instead)


def _unavailable(what: str, url: str, instead: str, error: Exception | None = None) -> ConfigError:
    """Return the error for weights whose host gives none: with the reason, or since it cannot be reached."""
    problem = "cannot be reached; where you are online,"
    if error is not None:
        problem = f"does not give them ({' '.join(str(error).split())[:120] or type(error).__name__});"
    return ConfigError(
        f"--network.weights {PRETRAINED}: {what} are not on this machine and {urlsplit(url).hostname} {problem}"
        f" {instead}: --network.weights FILE (--backbone {BOX} needs no connection)."
    )
