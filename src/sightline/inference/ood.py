"""Out-of-distribution score: how far the features of an image lie from those of the training images.

B images, D features, R axes. The score is a squared Mahalanobis distance to one normal distribution, of the mean of
each channel of a late map: the last features of a network know its classes and little else. Where the network was
trained from scratch, the energy of the logits is added, which knows what the map does not. What is compared with, the
reference, travels in the weights file as tensors of reserved names. How it was chosen: docs/results/ood.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline.config.checks import shown
from sightline.errors import RunError
from sightline.measures.mahalanobis import Normal, fit_normal
from sightline.models.base import Network
from sightline.runs.tensors import REFERENCE_PREFIX

__all__ = [
    "HEAD",
    "MOST_BYTES",
    "Reference",
    "compared_layer",
    "features_of",
    "pooled_features",
    "reference_in",
    "refuse_other_layer",
]

HEAD = "head"  # the layer whose input is compared, rather than its output, where a network has no maps
MOST_BYTES = 2_000_000
NAMES = ("mean", "axes", "variances", "rest", "energy")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Reference:
    """The features of the training images at one layer, as a normal distribution."""

    layer: str
    normal: Normal
    energy_weight: float = 0.0
    """What the energy of the logits counts beside the distance."""

    @classmethod
    def fit(cls, layer: str, features_ND: Array) -> "Reference":
        """Fit the distribution to features of ``features_of``, those of an image that are not finite left out."""
        finite_ND = features_ND[np.isfinite(features_ND).all(axis=1)]
        return cls(layer, fit_normal(_scaled(layer, finite_ND if len(finite_ND) else np.zeros_like(features_ND[:1]))))

    def distances(self, features_BD: Array) -> Array:
        """Compute the score of each image, (B,), from features of ``features_of``: the higher, the less like them.

        Raises:
            RunError: the layer has another number of channels than the reference.
        """
        if features_BD.ndim != 2 or features_BD.shape[1] != len(self.normal.mean_D):
            raise RunError(
                f"the reference of out-of-distribution images has {len(self.normal.mean_D)} features and the layer"
                f" {self.layer!r} gives {features_BD.shape[1:]}; copy the run again."
            )
        return self.normal.distances(_scaled(self.layer, features_BD))

    def weighed(self, distances_N: Array, energies_N: Array) -> "Reference":
        """Return it with energies that scatter as far as the distances do, over images that it was not fitted to.

        Source:
            The sum is that of Wang et al., "ViM: Out-Of-Distribution with Virtual-logit Matching", CVPR 2022.
        """
        spreads = [float(np.subtract(*np.quantile(one_N, (0.75, 0.25)))) for one_N in (distances_N, energies_N)]
        return replace(self, energy_weight=spreads[0] / spreads[1] if spreads[1] > 0 else 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """Return its tensors by the names that they have in a weights file."""
        normal = self.normal
        numbers = (np.array([number], np.float32) for number in (normal.rest, self.energy_weight))
        arrays = (normal.mean_D, normal.axes_RD.astype(np.float16), normal.variances_R, *numbers)
        return {
            REFERENCE_PREFIX + name: torch.from_numpy(np.array(array))
            for name, array in zip(NAMES, arrays, strict=True)
        }


def compared_layer(network: Network, pretrained: bool) -> str:
    """Return the name of the layer whose channels are compared.

    Of a network that was trained from scratch it is the last map but one, or the last where there is only one. In a
    pretrained one that map still knows the camera, and would take every JPEG of lower quality for a foreign image;
    there it is the next layer of the same kind, if any. Of a network that does not say which layers have maps it is
    the head.
    """
    name_of = {module: name for name, module in network.named_modules()}
    try:
        maps = network.cam_layers
    except NotImplementedError:
        return HEAD
    name: str = name_of[maps[min(1, len(maps) - 1)]]
    parent, _, last = name.rpartition(".")
    children = list(network.get_submodule(parent).named_children())
    place = [child for child, _ in children].index(last)
    for following, module in children[place + 1 :]:
        if pretrained and len(maps) > 1 and isinstance(module, type(children[place][1])):  # not a pool or a list
            return f"{parent}.{following}".lstrip(".")
    return name


def features_of(layer: str, inputs: tuple[Any, ...], output: Any, count: int) -> Array:
    """Return the features, (count, D), of the first images of a batch, from what a layer was given and returned."""
    features_BD: Array = pooled_features(layer, inputs, output, count).cpu().numpy()
    return features_BD


def pooled_features(layer: str, inputs: tuple[Any, ...], output: Any, count: int) -> Tensor:
    """Return what ``features_of`` does, as a tensor where the layer computes."""
    tensor: Tensor = inputs[0] if layer == HEAD else output
    tensor = tensor[:count].float()
    if layer == HEAD:
        return tensor.flatten(1)
    if tensor.ndim > 2:  # a map, (B, D, h, w), or tokens, (B, N, D)
        tensor = tensor.mean(dim=(2, 3) if tensor.ndim == 4 else 1)
    return tensor


def reference_in(tensors: Mapping[str, Tensor], model: Mapping[str, Any], where: str) -> Reference | None:
    """Return the reference in a weights file; None where ``model.json`` names another score, as in older ones.

    Args:
        tensors: its tensors of reserved names.
        model: content of ``model.json``.
        where: the file, for messages.
    Raises:
        RunError: the reference is damaged, too large, or lacks a part.
    """
    unknown = (model.get("trust") or {}).get("unknown") or {}
    if unknown.get("score", "energy") != "mahalanobis":
        return None
    parts = {name.removeprefix(REFERENCE_PREFIX): tensor for name, tensor in tensors.items()}
    if problem := _problem(parts):
        raise RunError(
            f"{where}: the reference of out-of-distribution images is damaged ({problem}); copy the run again from"
            " where it was made."
        )
    mean_D, axes_RD, variances_R, rest, energy = (parts[name].float().numpy() for name in NAMES)
    normal = Normal(mean_D, axes_RD, variances_R, float(rest[0]))
    return Reference(str(unknown["layer"]), normal, float(energy[0]))


def refuse_other_layer(network: nn.Module, reference: Reference, where: str) -> None:
    """Refuse a reference to a layer that the network does not have.

    Raises:
        RunError: it has none of this name.
    """
    if reference.layer not in dict(network.named_modules()):
        raise RunError(
            f"{where}: the reference of out-of-distribution images is of the layer {shown(reference.layer)}, which the"
            " network does not have; copy the run again."
        )


def _problem(parts: Mapping[str, Tensor]) -> str:
    """Return what is wrong with the tensors of a reference; empty where nothing is."""
    for name in NAMES:
        if name not in parts:
            return f"{name} is missing"
    if extra := parts.keys() - set(NAMES):
        return f"{shown(min(extra))} is no part of it"
    if sum(part.numel() * part.element_size() for part in parts.values()) > MOST_BYTES:
        return f"it is larger than {MOST_BYTES:,} bytes"
    if any(not part.is_floating_point() for part in parts.values()):
        return "wanted real numbers"
    mean_D, _, variances_R, rest, energy = (parts[name] for name in NAMES)
    width, axes = mean_D.numel(), variances_R.numel()
    shapes = [tuple(parts[name].shape) for name in NAMES]
    if shapes != [(width,), (axes, width), (axes,), (1,), (1,)]:
        return f"its shapes are {', '.join(map(str, shapes))}"
    if not bool((variances_R > 0).all()) or float(rest) <= 0 or float(energy) < 0:
        return "a variance is not positive, or the weight of the energy is negative"
    return ""


def _scaled(layer: str, features_ND: Array) -> Array:
    """Bring what a head reads to length 1, since its length says how strong a class is and little of what it is.

    Source:
        Müller and Hein, "Mahalanobis++: Improving OOD Detection via Feature Normalization", ICML 2025.
    """
    if layer != HEAD:
        return features_ND
    lengths_N = np.linalg.norm(features_ND, axis=1, keepdims=True)
    scaled_ND: Array = features_ND / np.maximum(lengths_N, np.finfo(np.float32).tiny)
    return scaled_ND
