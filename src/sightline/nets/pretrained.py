"""Networks and weights from elsewhere: timm, torchvision, torch.hub, files. The only room of ``nets/`` that reads files.

Weights are tensors by name; of a file that could hold code (.pth, .pt) only tensors are read. Only ``torch.hub`` runs
foreign code, where the user said so.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from sightline.config import HubConfig, TimmConfig, TorchvisionConfig
from sightline.config.resolving import nearest
from sightline.errors import ConfigError
from sightline.extras import require
from sightline.images.downloads import reachable
from sightline.nets.base import Network
from sightline.nets.foreign import ForeignNetwork, TimmNetwork, start_small
from sightline.nets.resnet import SMALL_SIDE, small_stem
from sightline.runs import METADATA_KEY, read_tensors

__all__ = ["LoadedWeights", "build_foreign", "load_weights", "put_in"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights
PRETRAINED = "pretrained"
PATIENCE = 1.0  # seconds that a host of weights may take to answer
LISTED = 3  # names of tensors in a sentence


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
    require("timm", "timm", f"the network timm:{name}")
    import timm

    if not timm.is_model(name):  # also the names that timm would download from elsewhere
        raise ConfigError(f"timm has no network {name!r}; {_like(name, timm.list_models())}")
    published = timm.get_pretrained_cfg(name)
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


def _torchvision(name: str, classes: int, size: tuple[int, int]) -> ForeignNetwork:
    from torchvision import models

    known = models.list_models(module=models)  # those that classify
    if name not in known:
        raise ConfigError(f"torchvision has no network {name!r} that classifies; {_like(name, known)}")
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


@dataclass(frozen=True)
class LoadedWeights:
    """Which of a network's tensors were taken from where."""

    source: str
    loaded: int
    """Tensors taken over."""
    total: int
    """Tensors of the network."""
    mean: list[float] | None = None
    """Of the images that the weights were trained with, channel by channel; None where it is told elsewhere."""
    std: list[float] | None = None
    fresh_head: bool = False
    """The head stays as it was made: the weights' tells other classes apart."""
    fresh_stem: bool = False
    """The first layer stays as it was made: small images have another."""
    missing: list[str] = field(default_factory=list)
    """Tensors of the network that the weights lack."""
    unexpected: list[str] = field(default_factory=list)
    """Tensors of the weights that the network lacks."""
    misshapen: list[str] = field(default_factory=list)
    """Tensors of other shapes, besides those of the head and the stem."""

    def lines(self) -> list[str]:
        """What a user is told."""
        said = [f"weights: {self.loaded} of {self.total} tensors from {self.source}"]
        if self.fresh_stem:
            said.append(f"  a fresh first layer, 3×3 without pooling, for images of at most {SMALL_SIDE} px")
        if self.fresh_head:
            said.append("  a fresh head: these weights tell other classes apart")
        for count, what in (
            (self.missing, "of the network are missing in the weights and stay fresh"),
            (self.unexpected, "of the weights are unknown to the network and were left out"),
            (self.misshapen, "have other shapes and stay fresh"),
        ):
            if count:
                more = ", ..." if len(count) > LISTED else ""
                said.append(f"  warning: {len(count)} tensors {what} ({', '.join(count[:LISTED])}{more})")
        return said

    def to_json(self) -> dict[str, Any]:
        """For ``model.json``."""
        return asdict(self)


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
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if isinstance(config, TimmConfig):
        published: Any = network.body.pretrained_cfg  # type: ignore[union-attr]
        mean, std = published["mean"], published["std"]
    if wanted != PRETRAINED:
        tensors, source = read_foreign(wanted), wanted
    elif isinstance(config, TimmConfig):
        tensors, source = _timm_weights(network, config.name, size)
    else:
        tensors, source = _torchvision_weights(getattr(config, "name", config.kind))
    return put_in(network, tensors, source, mean=list(mean), std=list(std))


def put_in(
    network: Network,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    mean: list[float] | None = None,
    std: list[float] | None = None,
) -> LoadedWeights:
    """Take over the tensors whose names and shapes fit; the head and an exchanged stem only as a whole.

    A head that stays fresh starts small.

    Those of layers that the network does without are passed over: a head of its own reads an earlier map.

    Raises:
        ConfigError: none fits.
    """
    own = network.state_dict()
    found = {_translated(name, network.original_names): tensor for name, tensor in tensors.items()}
    if sum(name in own for name in tensors) > sum(name in own for name in found):
        found = dict(tensors)  # they have our names already
    found = {name: tensor for name, tensor in found.items() if not name.startswith(network.dropped)}
    apart = {name for name in own if name in found and found[name].shape != own[name].shape}
    fresh = {
        part: any(name.startswith(begin) for begin in begins for name in apart)
        for part, begins in (("head", ("head.",)), ("stem", network.exchanged))
    }
    left = (("head.",) if fresh["head"] else ()) + (network.exchanged if fresh["stem"] else ())
    taken = {name for name in own if name in found and name not in apart and not name.startswith(left)}
    if not any(own[name].ndim for name in taken):
        shown = ", ".join(list(tensors)[:LISTED])
        raise ConfigError(
            f"none of the {len(tensors)} tensors of {source} ({shown}, ...) fits the network"
            f" ({', '.join(list(own)[:LISTED])}, ...); name the network that they were trained with."
        )
    network.load_state_dict({name: found[name] if name in taken else own[name] for name in own})
    if isinstance(network.head, nn.Linear) and "head.weight" not in taken:
        start_small(network.head)
    counted = [name for name in own if not name.endswith("num_batches_tracked")]  # old files have none
    return LoadedWeights(
        source=source,
        loaded=sum(name in taken for name in counted),
        total=len(counted),
        mean=mean,
        std=std,
        fresh_head=fresh["head"],
        fresh_stem=fresh["stem"],
        missing=[name for name in counted if name not in found],
        unexpected=[name for name in found if name not in own],
        misshapen=sorted(name for name in apart if not name.startswith(left)),
    )


def read_foreign(path: str) -> dict[str, Tensor]:
    """Read the tensors of a weights file; no code in it is run.

    Raises:
        ConfigError: no such file, none of the formats, or more than tensors in it.
    """
    flag = f"--network.weights {path}"
    if not os.path.isfile(path):
        raise ConfigError(f"{flag}: there is no such file; name one, or write {PRETRAINED}.")
    suffix = Path(path).suffix.lower()
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
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)} if _named(found) else {}
    if not tensors:
        raise ConfigError(f"{flag} holds no tensors by name, at its top or under 'state_dict' or 'model'.")
    return tensors


def _named(found: Any) -> bool:
    return isinstance(found, Mapping) and all(isinstance(name, str) for name in found)


def _translated(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in pairs:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _torchvision_weights(name: str) -> tuple[dict[str, Tensor], str]:
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlsplit(weights.url).path)
    if not file.exists():
        _refuse_offline(
            f"torchvision's weights of {name}", weights.url, f"download {weights.url} to {file}, or name the file"
        )
    state = weights.get_state_dict(progress=False, weights_only=True)
    return dict(state), f"torchvision's {weights}"


def _timm_weights(network: Network, name: str, size: tuple[int, int]) -> tuple[dict[str, Tensor], str]:
    import huggingface_hub

    published: Any = network.body.pretrained_cfg  # type: ignore[union-attr]
    title = f"{published['architecture']}{'.' if published['tag'] else ''}{published['tag']}"
    repo, url = published.get("hf_hub_id"), published.get("url")
    if not (repo or url):
        raise ConfigError(
            f"--network.weights {PRETRAINED}: timm has no weights of {name}; choose another network or a file."
        )
    file: str | None = None
    if repo:
        names = [published["hf_hub_filename"]] if published.get("hf_hub_filename") else [SAFE, "pytorch_model.bin"]
        copies = [huggingface_hub.try_to_load_from_cache(repo, item) for item in names]
        file = next((copy for copy in copies if isinstance(copy, str)), None)
        url = f"{huggingface_hub.constants.ENDPOINT}/{repo}/resolve/main/{names[0]}"
    elif (cached := Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlsplit(url).path)).exists():
        file = str(cached)
    if file is None:
        _refuse_offline(f"timm's weights {title}", url, f"download {url}, and name the file")
    options: dict[str, Any] = {"pretrained": True}
    if file is not None:
        options["pretrained_cfg_overlay"] = {"file": file}  # asks no host whether there is a newer one
    original = _timm(name, size, **options)
    return TimmNetwork(original, original.num_classes, size, f"timm's {name}").state_dict(), f"timm's {title}"


SAFE = "model.safetensors"


def _refuse_offline(what: str, url: str, instead: str) -> None:
    if not reachable(url, PATIENCE):
        raise ConfigError(
            f"--network.weights {PRETRAINED}: {what} are not on this machine and {urlsplit(url).hostname} cannot be"
            f" reached; where you are online, {instead}: --network.weights FILE."
        )
