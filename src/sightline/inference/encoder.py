"""Features of images at one layer of a classifier's network. B images, D features."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline.config.checks import nearest
from sightline.errors import ConfigError
from sightline.inference.classifier import BATCH, Classifier

__all__ = ["FEATURES", "Encoder"]

FEATURES = "features"  # the layer's name for what the head reads

Array = np.ndarray[Any, Any]


class Encoder:
    """Reads the output of one layer of a classifier's network."""

    def __init__(self, classifier: Classifier, layer: str = FEATURES) -> None:
        """
        Args:
            classifier: from ``load``.
            layer: ``features``, what the head reads, or the name of a layer.
        Raises:
            ConfigError: there is no such layer; the nearest are named.
        """
        self.classifier = classifier
        self.layer = layer
        modules = dict(classifier.network.named_modules())
        modules.pop("")
        if layer != FEATURES and layer not in modules:
            top = [name for name, _ in classifier.network.named_children()]
            raise ConfigError(f"--layer {layer}: {_hint(layer, [FEATURES, *modules], [FEATURES, *top])}")
        self._module: nn.Module | None = modules.get(layer)

    def encode(self, pixels_BHWC: Array) -> Array:
        """Return features, (B, D), in float32, of uint8 images already at the cached size.

        Raises:
            ConfigError: the layer is not called, or gives no tensor of a vector or a map an image.
        """
        with torch.inference_mode(), self.classifier.autocast():
            images = self.classifier.prepare(pixels_BHWC)
            output = self.classifier.network.features(images) if self._module is None else self._output(images)
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4) or len(output) != len(images):
            raise ConfigError(f"--layer {self.layer} gives no vector or map of each image; choose another layer.")
        if output.ndim > 2:  # a map, (B, D, h, w), or tokens, (B, N, D)
            output = output.float().mean(dim=(2, 3) if output.ndim == 4 else 1)
        pooled: Array = output.float().cpu().numpy()
        return pooled

    def encode_rows(self, pixels_NHWC: Array, rows: Array, progress: Callable[[int, int], None] | None = None) -> Array:
        """Return features, (n, D), of some rows of a cache at the classifier's size.

        Args:
            pixels_NHWC: uint8; may be memory-mapped.
            rows: which of them, (n,).
            progress: called with (images done, images in all).
        """
        features = []
        for start in range(0, len(rows), BATCH):
            features.append(self.encode(pixels_NHWC[rows[start : start + BATCH]]))
            if progress:
                progress(min(start + BATCH, len(rows)), len(rows))
        return np.concatenate(features)

    def _output(self, images: Tensor) -> Any:
        outputs: list[Any] = []
        assert self._module is not None
        hook = self._module.register_forward_hook(lambda module, _, output: outputs.append(output))
        try:
            self.classifier.network(images)
        finally:
            hook.remove()
        return outputs[-1] if outputs else None


def _hint(layer: str, known: list[str], top: list[str]) -> str:
    hint = nearest(layer, known)
    there = f"there are {', '.join(top)}, and the layers within, such as {known[-1]}."
    return f"there is no such layer; {hint if hint.startswith('did') else there}"
