"""The settings of networks: what is built, and whose weights it starts from."""

from typing import Annotated, ClassVar

from msgspec import Meta

from sightline.config.backbones import BOX, BOX_NETWORK, LITE_PACKAGES, PACKAGE, PRETRAINED
from sightline.config.building import Kind
from sightline.config.checks import Finite
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


Width = Annotated[int, Meta(ge=8, le=8192)]


class SpeednetConfig(Kind, frozen=True, kw_only=True, tag="speednet"):
    """A small, fast convolutional network with a whitening first layer fitted to the image set."""

    layers: ClassVar[tuple[str, ...]] = ("groups.0", "groups.1", "groups.2")  # whose maps a head can read, in order
    widths: tuple[Width, Width, Width] = (64, 256, 256)
    """Channels of the three groups."""
    depth: Annotated[int, Meta(ge=2, le=3)] = 2
    """Convolutions of each group: two, or three, of which a shortcut skips the last two."""
    whiten_bias_epochs: Finite = 3.0
    """Epochs during which the bias of the whitening layer learns; its rate falls to zero over them."""


class ResNet18Config(Kind, frozen=True, kw_only=True, tag="resnet18"):
    """The 18-layer residual network; a 3×3 stem without pooling up to 64 px, the original 7×7 stem above."""

    layers: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3", "layer4")
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


class ResNet34Config(Kind, frozen=True, kw_only=True, tag="resnet34"):
    """The 34-layer residual network, with the stems of the 18-layer one."""

    layers: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3", "layer4")
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


class CustomResNetConfig(Kind, frozen=True, kw_only=True, tag="custom_resnet"):
    """Nine layers of 6.6 million parameters for small images, without knobs."""

    layers: ClassVar[tuple[str, ...]] = ("prep", "layer1", "residual1", "layer2", "layer3", "residual2")


class TimmConfig(Kind, frozen=True, kw_only=True, tag="timm"):
    """A network of the library timm."""

    name: str
    """What the library or repository calls the network."""
    weights: str | None = None
    """Weights to start from: null for none, box for those that come with sightline (tf_efficientnet_lite0), package for
    those of an installed package (tf_efficientnet_lite1, tf_efficientnet_lite2), pretrained for the library's own, or a
    file (.safetensors, .pth, .pt)."""

    def _check(self) -> None:
        for word, networks in ((BOX, (BOX_NETWORK,)), (PACKAGE, tuple(LITE_PACKAGES))):
            if self.weights == word and self.name not in networks:
                raise ConfigError(
                    f"--network.weights {word} has no weights of {self.name}, only of {' and '.join(networks)}; write"
                    f" {PRETRAINED}, or name a file."
                )


class TorchvisionConfig(Kind, frozen=True, kw_only=True, tag="torchvision"):
    """A network of torchvision whose last layer is linear; its ResNets get a 3×3 stem without pooling up to 64 px."""

    name: str
    """What the library or repository calls the network."""
    weights: str | None = None
    """Weights to start from: null for none, pretrained for the library's own, or a file (.safetensors, .pth, .pt)."""


class HubConfig(Kind, frozen=True, kw_only=True, tag="hub"):
    """A network that torch.hub builds by running the code of a repository."""

    repo: str
    """OWNER/REPO[:BRANCH], or the folder of a clone."""
    name: str
    """What the library or repository calls the network."""
    trust_code: bool = False
    """Run the code of the repository, which may do whatever you may do; a flag or Python says so, never a file."""


class RunConfig(Kind, frozen=True, kw_only=True, tag="run"):
    """The network of an earlier run, with its weights; the head is new where the classes differ."""

    folder: str
    """Folder of the finished run, or hf:OWNER/NAME[@REVISION] of the hub."""
    trust_code: bool = False
    """Run the code of the repository, which may do whatever you may do; a flag or Python says so, never a file."""


ArchitectureConfig = (
    SpeednetConfig | ResNet18Config | ResNet34Config | CustomResNetConfig | TimmConfig | TorchvisionConfig | HubConfig
)
"""What a network can be built from; a run's network is one of these."""
NetworkConfig = ArchitectureConfig | RunConfig
