"""Grad-CAM against its definition, on every kind of network."""

import pytest
import torch
from torch import Tensor, nn

from sightline.config.networks import SpeednetConfig
from sightline.errors import ConfigError
from sightline.models.base import Network
from sightline.models.build import build_network
from sightline.models.gradcam import default_layer, grad_cam, map_sizes


class TwoChannels(Network):
    """Channel 0 of its map is what is red, channel 1 what is green; the two classes weigh them 3 and -1, -1 and 2."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Identity()
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[3.0, -1.0], [-1.0, 2.0]]))

    def feature_map(self, images: Tensor) -> Tensor:
        maps: Tensor = self.map(images[:, :2])
        return maps

    @property
    def cam_layers(self) -> list[nn.Module]:
        return [self.map]


def half_red_half_green() -> Tensor:
    """8 × 8 pixels, the left half red and the right half green."""
    images = torch.zeros(1, 3, 8, 8)
    images[:, 0, :, :4] = 1
    images[:, 1, :, 4:] = 1
    return images


def test_a_channel_weighs_its_mean_gradient_and_what_speaks_against_a_class_counts_as_nothing() -> None:
    network = TwoChannels().eval()
    red, green = (grad_cam(network, half_red_half_green(), torch.tensor([index]), network.map) for index in (0, 1))
    assert red[0, :, :4].allclose(torch.tensor(3 / 64))  # the mean gradient over the 64 positions
    assert red[0, :, 4:].eq(0).all()
    assert green[0, :, :4].eq(0).all()
    assert green[0, :, 4:].allclose(torch.tensor(2 / 64))


def test_each_image_of_a_batch_is_explained_by_itself() -> None:
    torch.manual_seed(0)
    network = build_network(SpeednetConfig(widths=(8, 16, 16)), 3, (32, 32)).eval()
    images = torch.randn(4, 3, 32, 32)
    layer = default_layer(network, images)
    classes = torch.tensor([0, 1, 2, 1])
    together = grad_cam(network, images, classes, layer)
    apart = [grad_cam(network, images[i : i + 1], classes[i : i + 1], layer) for i in range(4)]
    assert together.shape == (4, 32, 32)
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)


def test_a_frozen_network_is_explained_and_keeps_no_gradients() -> None:
    network = build_network(SpeednetConfig(widths=(8, 16, 16)), 3, (32, 32)).eval().requires_grad_(False)
    images = torch.randn(2, 3, 32, 32)
    assert grad_cam(network, images, torch.tensor([0, 1]), default_layer(network, images)).isfinite().all()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_deepest_layer_of_seven_positions_is_shown() -> None:
    network = build_network(SpeednetConfig(widths=(8, 16, 16)), 3, (32, 32)).eval()  # maps of 15, 7 and 3 positions
    assert default_layer(network, torch.zeros(1, 3, 32, 32)) is network.get_submodule("groups.1")
    sizes = map_sizes(network, torch.zeros(1, 3, 32, 32))
    assert [sizes[layer] for layer in network.cam_layers] == [(3, 3), (7, 7), (15, 15)]  # coarse to fine


def test_a_layer_without_a_map_is_refused() -> None:
    network = build_network(SpeednetConfig(widths=(8, 16, 16)), 3, (32, 32)).eval()
    with pytest.raises(ConfigError, match="gives no map of the image; choose another layer"):
        grad_cam(network, torch.zeros(1, 3, 32, 32), torch.tensor([0]), network.head)
