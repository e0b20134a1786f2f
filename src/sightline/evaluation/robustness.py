"""Robustness: the accuracy of a classifier on corrupted images. N and B images."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sightline.data.batches import derived_seed
from sightline.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from sightline.inference.classifier import BATCH, Classifier

__all__ = ["measure_corruptions"]

MOST_IMAGES = 1000  # each is seen 26 times

Array = np.ndarray[Any, Any]


def measure_corruptions(
    classifier: Classifier,
    pixels_NHWC: Array,
    rows: Array,
    labels: Array,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure accuracy with one view on images that are corrupted in five ways at five severities.

    Args:
        classifier: the classifier.
        pixels_NHWC: images at the cached size.
        rows: which of them; a thousand, evenly spread over them, are enough.
        labels: classes of those, (B,).
        progress: called with (images done, images in all).
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_IMAGES)).round().astype(int))
    rows, labels = rows[chosen], labels[chosen]
    total = len(rows) * (1 + len(CORRUPTIONS) * len(SEVERITIES))
    done = 0

    def accuracy(kind: str = "", severity: int = 0) -> float:
        nonlocal done
        random = torch.Generator().manual_seed(derived_seed("corruption", kind, severity))
        right = 0
        for start in range(0, len(rows), BATCH):
            pixels = np.ascontiguousarray(pixels_NHWC[rows[start : start + BATCH]])
            if kind:
                on_device = torch.from_numpy(pixels).to(classifier.device)
                pixels = corrupt(on_device, kind, severity, random).cpu().numpy()
            predicted = classifier.view_logits(pixels, "one")[0].argmax(1)
            right += int((predicted == labels[start : start + BATCH]).sum())
            done += len(pixels)
            if progress:
                progress(done, total)
        return right / len(rows)

    return {
        "n": len(rows),
        "views": "one",
        "clean": accuracy(),
        "accuracy": {kind: [accuracy(kind, severity) for severity in SEVERITIES] for kind in CORRUPTIONS},
    }
