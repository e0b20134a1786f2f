"""Answers of an exported classifier without torch: by numpy, Pillow and onnxruntime.

What a training and its exported file must do alike lives here once: ``sightline`` imports it from here, and nothing
here imports ``sightline`` or torch.
"""

from typing import TYPE_CHECKING, Any

from sightline_runtime.errors import ConfigError, DataError, RunError, SightlineError, StorageError

if TYPE_CHECKING:
    from sightline_runtime.predictions import Prediction

__all__ = ["ConfigError", "DataError", "Prediction", "RunError", "SightlineError", "StorageError"]


def __getattr__(name: str) -> Any:
    if name != "Prediction":
        raise AttributeError(f"module 'sightline_runtime' has no attribute {name!r}")
    from sightline_runtime.predictions import Prediction

    return Prediction
