"""The settings of networks: what is built, and whose weights it starts from."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from sightline.config.backbones import BOX, BOX_NETWORK, LITE_PACKAGES, PACKAGE, PRETRAINED
from sightline.config.checks import INFINITY, within
from sightline.errors import ConfigError

__all__ = [
    "ArchitectureConfig",
    "CustomResNetConfig",
    "HubConfig",
    "NetworkConfig",
    "ResNet18Config",
    "ResNet34Config",
    "RunConfig",
    "SpeednetConfig",
    "TimmConfig",
    "TorchvisionConfig",
]


@dataclass(frozen=True, kw_only=True)
class SpeednetConfig:
    """A small, fast convolutional network with a whitening first layer fitted to the image set."""

    layers: ClassVar[tuple[str, ...]] = ("groups.0", "groups.1", "groups.2")  # whose maps a head can read, in order
    kind: Literal["speednet"] = "speednet"
    widths: tuple[int, int, int] = (64, 256, 256)
    """Channels of the three groups."""
    depth: int = 2
    """Convolutions of each group: two, or three, of which a shortcut skips the last two."""
    whiten_bias_epochs: float = 3.0
    """Epochs during which the bias of the whitening layer learns; its rate falls to zero over them."""

    def __post_init__(self) -> None:
        for width in self.widths:
            within("network.widths", width, 8, 8192)
        within("network.depth", self.depth, 2, 3)
        within("network.whiten-bias-epochs", self.whiten_bias_epochs, 0, INFINITY)


@dataclass(frozen=True, kw_only=True)
class ResNet18Config:
    """The 18-layer residual network; a 3×3 stem without pooling up to 64 px, the original 7×7 stem above."""

    layers: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3", "layer4")
    kind: Literal["resnet18"] = "resnet18"
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


@dataclass(frozen=True, kw_only=True)
class ResNet34Config:
    """The 34-layer residual network, with the stems of the 18-layer one."""

    layers: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3", "layer4")
    kind: Literal["resnet34"] = "resnet34"
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


@dataclass(frozen=True, kw_only=True)
class CustomResNetConfig:
    """Nine layers of 6.6 million parameters for small images, without knobs."""

    layers: ClassVar[tuple[str, ...]] = ("prep", "layer1", "residual1", "layer2", "layer3", "residual2")
    kind: Literal["custom_resnet"] = "custom_resnet"


@dataclass(frozen=True, kw_only=True)
class TimmConfig:
    """A network of the library timm."""

    kind: Literal["timm"] = "timm"
    name: str
    """What the library or repository calls the network."""
    weights: str | None = None
    """Weights to start from: null for none, box for those that come with sightline (tf_efficientnet_lite0), package for
    those of an installed package (tf_efficientnet_lite1, tf_efficientnet_lite2), pretrained for the library's own, or a
    file (.safetensors, .pth, .pt)."""

    def __post_init__(self) -> None:
        for word, networks in ((BOX, (BOX_NETWORK,)), (PACKAGE, tuple(LITE_PACKAGES))):
            if self.weights == word and self.name not in networks:
                raise ConfigError(
                    f"--network.weights {word} has no weights of {self.name}, only of {' and '.join(networks)}; write"
                    f" {PRETRAINED}, or name a file."
                )


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig:
    """A network of torchvision whose last layer is linear; its ResNets get a 3×3 stem without pooling up to 64 px."""

    kind: Literal["torchvision"] = "torchvision"
    name: str
    """What the library or repository calls the network."""
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


@dataclass(frozen=True, kw_only=True)
class HubConfig:
    """A network that torch.hub builds by running the code of a repository."""

    kind: Literal["hub"] = "hub"
    repo: str
    """OWNER/REPO[:BRANCH], or the folder of a clone."""
    name: str
    """What the library or repository calls the network."""
    trust_code: bool = False
    """Run the code of the repository, which may do whatever you may do."""

    def __post_init__(self) -> None:
        if not self.trust_code:
            raise ConfigError(
                f"network hub runs the code of {self.repo} on this machine (torch.hub downloads and executes it); read"
                " it, then add --network.trust-code."
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The network of an earlier run, with its weights; the head is new where the classes differ."""

    kind: Literal["run"] = "run"
    folder: str
    """Folder of the finished run."""
    trust_code: bool = False
    """Run the code of the repository, which may do whatever you may do."""


ArchitectureConfig = (
    SpeednetConfig | ResNet18Config | ResNet34Config | CustomResNetConfig | TimmConfig | TorchvisionConfig | HubConfig
)
"""What a network can be built from; a run's network is one of these."""
NetworkConfig = ArchitectureConfig | RunConfig
