"""Answers of an exported classifier without torch: by numpy, Pillow and onnxruntime.

    import sightline_runtime

    classifier = sightline_runtime.load("model.onnx")  # a file of ``sightline export``
    classifier.predict("cat.jpg").label

What a training and its exported file must do alike lives here once: ``sightline`` imports it from here, and nothing
here imports ``sightline`` or torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sightline_runtime.errors import ConfigError, DataError, RunError, SightlineError, StorageError

if TYPE_CHECKING:
    from sightline_runtime.exported import ExportedClassifier, load
    from sightline_runtime.predictions import Prediction

__all__ = [
    "ConfigError",
    "DataError",
    "ExportedClassifier",
    "Prediction",
    "RunError",
    "SightlineError",
    "StorageError",
    "load",
]

_HOMES = {
    "ExportedClassifier": "sightline_runtime.exported",
    "Prediction": "sightline_runtime.predictions",
    "load": "sightline_runtime.exported",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sightline_runtime' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
