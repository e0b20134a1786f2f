"""The standard FID: the Fréchet distance in the features that papers measure it in. N images, H × W pixels.

The network is the InceptionV3 that TensorFlow published in 2015, and the features are the 2,048 that its last pooling
gives. torch-fidelity has it as TensorFlow computed it, down to the resizing; this is its only door. Other weights, and
other ways to resize, give other numbers, so the weights are those of one published file and nothing else.

Nothing here loads torch before an image is looked at.

Source:
    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017;
    Obukhov et al., "High-fidelity performance metrics for generative models in PyTorch", 2020.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from sightline.data.cache import CachedImages
from sightline.data.sources.downloads import Progress, PublishedFile, fetch, reachable
from sightline.data.sources.source import ImageSource
from sightline.errors import ConfigError, DataError
from sightline.machine.extras import require
from sightline.machine.folders import cache_folder
from sightline.measures.fidelity import frechet_distance
from sightline_runtime.decoding.decode import decode, pixel_hash

if TYPE_CHECKING:
    import torch

__all__ = ["WEIGHTS", "Inception", "StandardFid", "fetch_weights", "native_size", "refuse_missing", "standard_fid"]

_NAME = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS = PublishedFile(
    _NAME,
    95_628_359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    (
        f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_NAME}",
        f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_{_NAME.removeprefix('weights-')}",
    ),
)
"""TensorFlow's weights for PyTorch; torch-fidelity and pytorch-fid publish the same file."""
PATIENCE = 1.0  # seconds that the host of the weights may take to answer
BATCH = 64  # images, each of 299 × 299 pixels within the network; torch-fidelity's own
FEATURES = "2048"  # torch-fidelity's name of what the last pooling gives, and how many there are

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StandardFid:
    """The Fréchet distance in the Inception features of the literature, with all that it depends on.

    Papers take 50,000 made images against every training image (CIFAR-10's 50,000, say), and so does this function take
    whatever is there of both. The distance falls with either number, so one of fewer compares only with one of as many.
    Images go in as uint8 at the size of the made ones; the network's first step makes them 299 × 299, bilinearly and
    without smoothing, as TensorFlow did.
    """

    fid: float
    made: int
    """Images."""
    real: int
    size: list[int]
    """[height, width] in pixels of the made images, to which the real ones are brought."""
    weights: str
    """The file that the network's weights are of."""


def refuse_missing() -> None:
    """Refuse early what cannot be measured on this machine; torch is not loaded.

    Raises:
        ConfigError: torch-fidelity is not installed, or the weights are neither here nor to be had.
    """
    require("torch_fidelity", "fid", "--fid")
    if not (_folder() / WEIGHTS.name).exists() and not reachable(WEIGHTS.urls[0], PATIENCE):
        raise ConfigError(
            f"--fid needs the Inception weights of the literature ({WEIGHTS.size / 1e6:.0f} MB), which are not on this"
            f" machine, and {urlsplit(WEIGHTS.urls[0]).hostname} cannot be reached; where you are online, download"
            f" {WEIGHTS.urls[0]} and put it into {_folder()}."
        )


def fetch_weights(progress: Progress | None = None) -> Path:
    """Fetch the file of the weights into ``downloads/inception`` of the cache folder, once, and hold it to its SHA-256.

    Args:
        progress: called with (megabytes done, megabytes in all).
    Raises:
        ConfigError: as ``refuse_missing`` has it.
        DataError: it cannot be downloaded, or what lies there is another file.
    """
    refuse_missing()
    fetch((WEIGHTS,), _folder(), progress)
    return _folder() / WEIGHTS.name


def _folder() -> Path:
    return cache_folder() / "downloads" / "inception"


def native_size(source: ImageSource, path: str) -> tuple[int, int]:
    """Read the (height, width) of one image of a set, as its file has it.

    Args:
        path: of an image that can be read.
    Raises:
        OSError: it cannot be read any more.
    """
    entries = [entry for entry in source.scan().entries if entry.name == path]
    _, data = next(iter(source.read(entries[:1])))
    if isinstance(data, OSError):
        raise data
    height, width = (decode(data) if isinstance(data, bytes) else data).shape[:2]
    return height, width


def standard_fid(
    made: CachedImages,
    made_rows: Array,
    real: CachedImages,
    real_rows: Array,
    network: "Inception",
    progress: Progress | None = None,
) -> StandardFid:
    """Measure the Fréchet distance of made images and real ones, in the features of a network.

    Args:
        made: opened at the size that its images have (see ``native_size``).
        real: opened at the same size.
        made_rows, real_rows: which of them.
        network: the Inception network.
        progress: called with (images done, images in all).
    Raises:
        DataError: made images of several sizes, or fewer than two of either.
    """
    _refuse_resized(made, made_rows)
    both = len(made_rows) + len(real_rows)
    report = progress or (lambda done, total: None)
    features = network.encode_rows(made.pixels, made_rows, lambda done: report(done, both))
    others = network.encode_rows(real.pixels, real_rows, lambda done: report(len(made_rows) + done, both))
    distance = frechet_distance(features, others)
    return StandardFid(distance, len(made_rows), len(real_rows), list(made.pixels.shape[1:3]), network.weights.name)


def _refuse_resized(images: CachedImages, rows: Array) -> None:
    """Refuse rows whose pixels are not those of their files: they were brought to another size."""
    height, width = images.pixels.shape[1:3]
    for row in rows:
        if pixel_hash(images.pixels[row]).hex() != images.hashes[row]:
            raise DataError(
                f"{images.paths[row]} of {images.name} is not {height}×{width} px as the first image is; --fid wants"
                " generated images of one size, as nothing but the network may resize them."
            )


class Inception:
    """The Inception network: it takes the features of images."""

    def __init__(self, weights: str | os.PathLike[str], device: "torch.device | str" = "cpu") -> None:
        """
        Args:
            weights: the network's tensors by name, in PyTorch's format (.pth); from ``fetch_weights`` for distances
                that compare with papers.
            device: where it runs.
        Raises:
            ConfigError: torch-fidelity is not installed.
            DataError: the file holds more than tensors, is broken, or is of another network.
        """
        require("torch_fidelity", "fid", "the Inception network")
        import torch
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.weights = Path(weights)
        # The library would run whatever code is in a file, so it is handed a copy of the tensors alone.
        copy = io.BytesIO()
        torch.save(_read_tensors(self.weights), copy)
        copy.seek(0)
        try:
            extractor = FeatureExtractorInceptionV3("inception", [FEATURES], feature_extractor_weights_path=copy)
        except RuntimeError as error:  # a name or a shape
            raise DataError(
                f"{weights} holds the weights of another network; wanted those of {WEIGHTS.name}."
            ) from error
        self._extractor = extractor.to(device)
        self._device = device

    def encode_rows(self, pixels_NHWC: Array, rows: Array, progress: Callable[[int], None] | None = None) -> Array:
        """Compute features, (n, 2048), in float32, of some rows.

        Args:
            pixels_NHWC: uint8, RGB, of any one size; may be memory-mapped.
            rows: which of them, (n,).
            progress: called with the number of images done.
        """
        import torch

        features = np.empty((len(rows), int(FEATURES)), np.float32)
        for start in range(0, len(rows), BATCH):
            chosen = rows[start : start + BATCH]
            pixels_BCHW = torch.from_numpy(pixels_NHWC[chosen]).to(self._device).permute(0, 3, 1, 2)
            # float32 as papers have it: cuDNN would round the factors of a convolution to ten bits (TF32).
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                (features_BD,) = self._extractor(pixels_BCHW)
            features[start : start + BATCH] = features_BD.cpu().numpy()
            if progress:
                progress(start + len(chosen))
        return features


def _read_tensors(file: Path) -> dict[str, "torch.Tensor"]:
    import torch

    try:
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever is in the file
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise DataError(f"{file} holds more than tensors, or is broken ({reason}); wanted {WEIGHTS.name}.") from error
