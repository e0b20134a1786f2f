"""What a path names by how it is spelled and what lies there: a run, its weights, or images."""

import os
from typing import NoReturn

from sightline.errors import RunError
from sightline.runs.hub import on_hub
from sightline_runtime.sentences import quoted

__all__ = ["FOREIGN", "names_a_run", "refuse_as_image"]

FOREIGN = (".pte", ".pt", ".pt2", ".pth", ".ckpt", ".pkl", ".joblib", ".h5", ".keras", ".tflite", ".mlmodel", ".engine")
"""Endings of weights that sightline does not open."""


def names_a_run(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a run, finished or not, its weights, its exported file or one of the hub, not images; a
    file of weights that sightline does not open is one, too, and refused as such.
    """
    if on_hub(path) or os.fspath(path).endswith((".safetensors", ".onnx")):
        return True
    if os.fspath(path).lower().endswith(FOREIGN) and not os.path.isdir(path):
        return True
    return any(os.path.exists(os.path.join(path, name)) for name in ("model.json", "recipe.yaml", "DONE"))


def refuse_as_image(path: str | os.PathLike[str]) -> NoReturn:
    """Refuse what ``names_a_run`` where images are wanted.

    Raises:
        RunError: with what it is, and where it is to be named.
    """
    text = os.fspath(path)
    if text.lower().endswith(FOREIGN) and not os.path.isdir(path):
        raise RunError(
            f"{text!r} holds weights that sightline does not open, and no image; wanted images, and before them the"
            " folder of a finished run, its model.safetensors or the model.onnx of an export."
        )
    kind = "a run"
    if on_hub(path):
        kind = "a classifier of the hub"
    elif not os.path.isdir(path):
        kind = "the weights of a run" if text.endswith(".safetensors") else "an exported classifier"
    raise RunError(f"{text} is {kind} and no image; name it first: `sightline predict {quoted(text)} IMAGES...`.")
