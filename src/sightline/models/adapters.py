"""Networks of other libraries, made to give what all give. B images, height H, width W, D features, N tokens.

Nothing is known of them beforehand, so one batch is sent through when they are built: it shows which layer gives the
last map, whether the last linear layer is what gives the logits, and whether they take images of this size at all.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import ConfigError, ShapeError
from sightline.models.base import Network, recorded

__all__ = ["ForeignNetwork", "TimmNetwork", "answer", "start_small"]

_Pool = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)

Call = tuple[str, tuple[int, ...]]  # a layer that was called, and the shape of what it returned


class ForeignNetwork(Network):
    """A network that ends in a linear layer, which becomes ``head``; its input is the features."""

    def __init__(self, body: nn.Module, classes: int, size: tuple[int, int], name: str) -> None:
        """
        Args:
            body: the network, with any number of classes.
            classes: classes to tell apart; another number than the body's gets a fresh head.
            size: (height, width) of the images in pixels.
            name: what the user calls it, for messages.
        Raises:
            ConfigError: it is built otherwise, or does not take such images.
        """
        super().__init__()
        linears = [where for where, module in body.named_modules() if isinstance(module, nn.Linear)]
        if not linears:
            raise ConfigError(f"{name} has no linear layer, so its head cannot be exchanged; choose another network.")
        if getattr(body, "aux_logits", False):
            raise ConfigError(
                f"{name} has auxiliary outputs while it trains, which would be ignored; choose another network."
            )
        body.eval()
        head = body.get_submodule(linears[-1])
        assert isinstance(head, nn.Linear)
        calls, logits = _trace(body, body, size, name)
        body.set_submodule(linears[-1], nn.Identity())
        _refuse_other_ends(answer(body, size, name), head, logits, name)
        layers = _layers_of_maps(body, calls, size)
        if not layers:
            raise ConfigError(f"{name} gives no map of the image; choose another network.")
        self.body, self.head = body.train(), _head_for(head, classes).train()
        self.original_names = ((f"{linears[-1]}.", "head."), ("", "body."))
        self._layers = layers

    def feature_map(self, images: Tensor) -> Tensor:
        with recorded({"last": self.cam_layers[0]}, lambda _, output: output) as outputs:
            self.body(images)
        maps: Tensor = outputs[-1][1]
        return maps

    def features(self, images: Tensor) -> Tensor:
        features_BD: Tensor = self.body(images)
        return features_BD

    @property
    def cam_layers(self) -> list[nn.Module]:
        return [self.body.get_submodule(layer) for layer in self._layers]


class TimmNetwork(Network):
    """A network of timm, which knows its parts: maps or tokens, their pooling, the classifier.

    Where the last map is not a layer's output (tokens, or channels in the last place), it runs through ``map``: before
    the last block of a transformer, since behind it no gradient reaches the patches when a class token is read.
    """

    def __init__(self, body: Any, classes: int, size: tuple[int, int], name: str) -> None:
        """
        Args:
            body: the network, with its number of classes.
            classes: classes to tell apart; another number than the body's gets a fresh head.
            size: (height, width) of the images in pixels.
            name: what the user calls it, for messages.
        Raises:
            ConfigError: it has no single linear classifier, no map, or does not take such images.
        """
        super().__init__()
        head = body.get_classifier()
        if not isinstance(head, nn.Linear):
            raise ConfigError(f"{name} does not end in one linear layer; choose another network.")
        where = next(where for where, module in body.named_modules() if module is head)
        body.eval()
        logits = answer(body, size, name)
        body.reset_classifier(0)
        calls, maps = _trace(body, body.forward_features, size, name)
        with torch.no_grad():
            _refuse_other_ends(body.forward_head(maps), head, logits, name)
        head = _head_for(head, classes)
        self.chain = tuple(f"body.{layer}" for layer in _chain(body, size))
        self.body = body.train()
        self.original_names = ((f"{where}.", "head."), ("", "body."))
        self._prefix = int(getattr(body, "num_prefix_tokens", 0))  # class and register tokens, before the patches
        self._grid: tuple[int, int] | None = None
        self._channels_last = maps.ndim == 4 and getattr(body, "output_fmt", "NCHW") == "NHWC"
        self._layers = [] if self._channels_last or maps.ndim != 4 else _layers_of_maps(body, calls, size)
        if maps.ndim == 3:
            self._grid = _grid(body, maps.shape[1] - self._prefix)
        if not self._layers:
            self.map = nn.Identity()
        if self._grid:
            body.blocks[-1].register_forward_pre_hook(self._through_map)
        if not (self._layers or self._grid or self._channels_last):
            raise ConfigError(f"{name} gives no map of the image; choose another network.")
        self.head = head.train()
        self._cut = 0  # layers of the chain that lie below what ``classify`` reads; 0: all, and the pooling

    def cut_after(self, layer: str) -> None:
        if layer not in self.chain[:-1]:
            listed = ", ".join(self.chain[:-1]) or "it is no chain of layers"
            raise ConfigError(f"--finetune.after {layer}: the network cannot be cut there; wanted one of: {listed}.")
        self._cut = self.chain.index(layer) + 1
        self.beyond_backbone = ("head.", *(f"{later}." for later in self.chain[self._cut :]))

    def backbone_output(self, images: Tensor) -> Tensor:
        if not self._cut:
            return self.features(images)
        for layer in self.chain[: self._cut]:
            images = self.get_submodule(layer)(images)
        return images

    def classify(self, backbone_output: Tensor) -> Tensor:
        if self._cut:
            for layer in self.chain[self._cut :]:
                backbone_output = self.get_submodule(layer)(backbone_output)
            backbone_output = self.body.forward_head(backbone_output)
        logits: Tensor = self.head(backbone_output)
        return logits

    def feature_map(self, images: Tensor) -> Tensor:
        maps: Tensor = self.body.forward_features(images)
        if self._grid:
            return self._to_map(maps)
        return maps.permute(0, 3, 1, 2) if self._channels_last else maps

    def features(self, images: Tensor) -> Tensor:
        maps: Tensor = self.body.forward_features(images)
        if self._channels_last:
            maps = self.map(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        features_BD: Tensor = self.body.forward_head(maps)
        return features_BD

    @property
    def cam_layers(self) -> list[nn.Module]:
        return [self.body.get_submodule(layer) for layer in self._layers] or [self.map]

    def _to_map(self, tokens_BND: Tensor) -> Tensor:
        assert self._grid is not None
        maps: Tensor = tokens_BND[:, self._prefix :].mT.reshape(tokens_BND.shape[0], -1, *self._grid)
        return maps

    def _through_map(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tokens_BND, *others = inputs
        patches_BND = self.map(self._to_map(tokens_BND)).flatten(2).mT
        return (torch.cat([tokens_BND[:, : self._prefix], patches_BND], dim=1), *others)


def start_small(head: nn.Linear) -> nn.Linear:
    """Initialize a head so that the first loss is near ln K: weights from U(±1/D), biases zero; returns the head.

    Libraries start theirs larger, timm's for EfficientNets at U(±1/√K): a first loss of 3.4 for two classes, where ln 2
    is 0.69, whose gradients damage what the network has learned.
    """
    nn.init.uniform_(head.weight, -1 / head.in_features, 1 / head.in_features)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return head


def _head_for(head: nn.Linear, classes: int) -> nn.Linear:
    """Return a head where it tells as many classes apart, else a fresh one."""
    if head.out_features == classes:
        return head
    return start_small(nn.Linear(head.in_features, classes, bias=head.bias is not None))


# ── what one batch shows ─────────────────────────────────────────────────────────────────────────────────────────────


def answer(ask: Callable[[Tensor], Any], size: tuple[int, int], name: str) -> Tensor:
    """Ask a network about a fixed batch of two images; none of its numbers is changed.

    Raises:
        ConfigError: it does not take images of this size, or answers with anything but one tensor.
    """
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            output = ask(images)
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError, ShapeError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ConfigError(
            f"{name} cannot read images of {size[0]}×{size[1]} px ({reason}); choose another --data.size or network."
        ) from error
    if not isinstance(output, Tensor):
        raise ConfigError(f"{name} answers with a {type(output).__name__}; wanted one tensor: choose another network.")
    return output


def _trace(
    body: nn.Module, ask: Callable[[Tensor], Any], size: tuple[int, int], name: str
) -> tuple[list[Call], Tensor]:
    """Return the calls of a fixed batch, and the answer to it."""
    layers = {layer: module for layer, module in body.named_modules() if layer}
    with recorded(layers, lambda _, output: tuple(output.shape) if isinstance(output, Tensor) else ()) as shapes:
        output = answer(ask, size, name)
    return [(layer, shape) for layer, shape in shapes if shape], output


def _chain(body: Any, size: tuple[int, int]) -> list[str]:
    """Return the layers between image and last map, if each reads only what the one before it gives; else none.

    Layers are the children of the network, and those of its sequences.
    """
    layers: dict[str, nn.Module] = {}
    for name, child in body.named_children():
        inner = child.named_children() if isinstance(child, nn.Sequential) else ()
        layers |= {f"{name}.{part}": module for part, module in inner} or {name: child}
    read: Any = torch.zeros(1, 3, *size)

    def ends(inputs: tuple[Any, ...], output: Any) -> tuple[Any, Any]:
        return inputs[0] if len(inputs) == 1 else None, output

    with recorded(layers, ends) as calls, torch.no_grad():
        last = body.forward_features(read)
    for _, (source, output) in calls:
        if source is not read:
            return []
        read = output
    return [layer for layer, _ in calls] if read is last else []


def _refuse_other_ends(features_BD: Tensor, head: nn.Linear, logits_BK: Tensor, name: str) -> None:
    with torch.no_grad():
        fits = features_BD.ndim == 2 and features_BD.shape[1] == head.in_features
        if not fits or not torch.allclose(head(features_BD), logits_BK, atol=1e-4, rtol=1e-4):
            raise ConfigError(
                f"{name} does not end in its last linear layer, so its head cannot be exchanged; choose another"
                " network."
            )


def _layers_of_maps(body: nn.Module, calls: list[Call], size: tuple[int, int]) -> list[str]:
    """Return the names of the outermost and last layer of each size of map, coarse to fine."""
    pools = [index for index, (layer, _) in enumerate(calls) if isinstance(body.get_submodule(layer), _Pool)]
    if pools:
        after = [shape[2:] for _, shape in calls[pools[-1] :] if len(shape) == 4]
        if max(after) == after[0]:  # the one before the head; one that gates channels is followed by larger maps
            calls = calls[: pools[-1]]
    height, width = size
    often = Counter(layer for layer, _ in calls)
    best: dict[tuple[int, ...], str] = {}
    for layer, shape in calls:
        if len(shape) != 4 or abs(shape[2] - shape[3] * height / width) > 1.5 or often[layer] > 1:
            continue  # a map is as high and wide as the image is, which channels in the last place would not be
        old = best.pop(shape[2:], None)  # the last comes last
        best[shape[2:]] = old if old and old.count(".") < layer.count(".") else layer
    kept: dict[tuple[int, ...], str] = {}
    for sides, layer in reversed(best.items()):
        if not kept or all(new > old for new, old in zip(sides, next(reversed(kept)), strict=True)):
            kept[sides] = layer
    return list(kept.values())


def _grid(body: Any, tokens: int) -> tuple[int, int] | None:
    """Return (rows, columns) of the patches where they lie in a grid and run through blocks."""
    rows, columns = getattr(getattr(body, "patch_embed", None), "grid_size", None) or (0, 0)
    return (int(rows), int(columns)) if rows * columns == tokens and hasattr(body, "blocks") else None
