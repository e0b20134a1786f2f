"""Features of a frozen backbone, computed once and kept on disk. N images, D features, C channels, B images of a batch.

They lie in the cache folder beside the decoded sets, known by all that they depend on: the decoded set (its files, size
and resize rule), the weights, the normalization and the number format. A second training, and a study, start from them
at once. Every batch is filled up to the same size, so that an image's features do not depend on which images are
computed with it.
"""

import errno
import hashlib
import io
import json
import os
import shutil
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sightline.data.augment.augment import center, normalize
from sightline.data.batches import Normalization
from sightline.data.cache import CachedImages
from sightline.data.sources.downloads import Progress
from sightline.inference.ood import HEAD, compared_layer, features_of
from sightline.machine.cores import adjust_threads, sharing_cores
from sightline.machine.devices import arithmetic, choose_device
from sightline.machine.folders import cache_folder
from sightline.models.base import Network, recorded

__all__ = ["FeatureStore", "weights_digest"]

FORMAT = 2  # rises when what is kept changes its meaning; older features are then computed anew
BATCH = 32  # images; on a processor 224 px ran as fast with 16 as with 64
ON_GPU = 256

Array = np.ndarray[Any, Any]


class _Digests(msgspec.Struct):
    """The index of kept features: SHA-256 of their files, and how many columns are features rather than channels."""

    rows: str
    features: str
    width: int


class FeatureStore:
    """The pooled features of a set's images by one backbone, in float32: kept ones are read, missing ones computed.

    Kept with them, from the same pass, is what tells out-of-distribution images (``inference.ood``).
    """

    def __init__(
        self,
        network: Network,
        images: CachedImages,
        normalization: Normalization,
        precision: str = "auto",
        pretrained: bool = True,
        shown: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            network: whose ``backbone_output`` gives one vector an image; its head does not matter.
            images: the decoded set.
            normalization: that the weights were trained with.
            precision: number format of the arithmetic, as ``fit.precision`` has it.
            pretrained: whether others have trained the network, as ``compared_layer`` asks.
            shown: (height, width) in pixels that small images are enlarged to for the network; None: as they are.
        """
        self.network, self.images, self._shown = network, images, shown
        self.device = choose_device()
        self.dtype = arithmetic(precision, self.device)
        self._mean, self._std = normalization.tensors(self.device)
        self._layer = compared_layer(network, pretrained)
        weights = weights_digest(network)
        parts = [FORMAT, images.folder.name, images.size, normalization, weights, self.dtype, self._layer]
        parts += [] if shown is None else [shown]
        digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape")).hexdigest()[:20]
        self.folder = cache_folder() / f"{images.folder.name[:-21]}-features-{digest}"
        self.computed = 0
        """Images whose features were not kept and have been computed."""
        self.note = ""
        """Why kept features could not be used, or new ones not be kept; empty where all went well."""
        self._width = 0
        self._rows, self._features_ND = self._read()  # features and channels, (N, D + C)

    def missing(self, rows: Array) -> Array:
        """Return which of some rows are not kept yet, ascending."""
        return np.setdiff1d(rows, self._rows)

    def features(self, rows: Array, progress: Progress | None = None) -> torch.Tensor:
        """Return features of some rows of the set, (n, D), on the CPU; those that are not kept yet are computed.

        Args:
            rows: of the images, (n,).
            progress: called with (images done, images in all) of those that are computed.
        """
        return self._all(rows, progress)[:, : self._width]

    def compared(self, rows: Array, progress: Progress | None = None) -> torch.Tensor:
        """Return what a reference of ``inference.ood`` compares of some rows, (n, C), as ``features`` returns those."""
        both = self._all(rows, progress)
        return both if self._layer == HEAD else both[:, self._width :]

    def _all(self, rows: Array, progress: Progress | None) -> torch.Tensor:
        missing = self.missing(rows)
        if len(missing):
            computed = self._compute(missing, progress)
            self.computed += len(missing)
            known = computed if self._features_ND is None else np.concatenate([self._features_ND, computed])
            order = np.argsort(np.concatenate([self._rows, missing]), kind="stable")
            self._rows, self._features_ND = np.concatenate([self._rows, missing])[order], known[order]
            self._write()
        assert self._features_ND is not None
        return torch.from_numpy(self._features_ND[np.searchsorted(self._rows, rows)])

    @torch.no_grad()
    def _compute(self, rows: Array, progress: Progress | None) -> Array:
        network = self.network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        training = network.training
        network.eval()
        size = BATCH if self.device.type == "cpu" else ON_GPU
        watched = {} if self._layer == HEAD else {self._layer: network.get_submodule(self._layer)}
        parts = []
        autocast = torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)
        with autocast, sharing_cores(self.device, self.dtype):
            for start in range(0, len(rows), size):
                adjust_threads()
                some = rows[start : start + size]
                pixels = torch.from_numpy(self.images.pixels[some])
                if len(some) < size and (len(rows) > size or len(self._rows)):
                    pixels = torch.cat([pixels, pixels.new_zeros(size - len(some), *pixels.shape[1:])])
                pixels = self._enlarged(center(pixels.to(self.device), self.images.size))
                with recorded(watched, lambda inputs, output: (inputs, output)) as calls:
                    output = network.features(normalize(pixels, self._mean, self._std, self.dtype))
                self._width = output.shape[1]
                channels = [torch.from_numpy(features_of(name, *call, len(some))) for name, call in calls]
                parts.append(torch.cat([output[: len(some)].float().cpu(), *channels], 1))
                if progress:
                    progress(min(start + size, len(rows)), len(rows))
        network.train(training)
        return torch.cat(parts).numpy()

    def _enlarged(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        """Bring images to the size that the network is shown, by cubic interpolation."""
        if self._shown is None or self._shown == tuple(pixels_BHWC.shape[1:3]):
            return pixels_BHWC
        levels_BCHW = pixels_BHWC.permute(0, 3, 1, 2).float()
        with torch.autocast(self.device.type, enabled=False):
            larger_BCHW = functional.interpolate(levels_BCHW, self._shown, mode="bicubic", antialias=True)
        return larger_BCHW.clamp(0, 255).permute(0, 2, 3, 1)

    def _read(self) -> tuple[Array, Array | None]:
        """Read the kept rows and features; none where there are none, or they are damaged."""
        nothing = np.array([], np.int64)
        if not self.folder.exists():
            return nothing, None
        try:
            index = msgspec.convert(json.loads((self.folder / "index.json").read_text("utf-8")), _Digests)
            content = {name: (self.folder / f"{name}.npy").read_bytes() for name in ("rows", "features")}
            if any(hashlib.sha256(data).hexdigest() != getattr(index, name) for name, data in content.items()):
                raise ValueError("their checksum is wrong")
            self._width = index.width
            rows, features = (np.load(io.BytesIO(content[name]), allow_pickle=False) for name in ("rows", "features"))
            return rows, features
        except (OSError, ValueError, TypeError, EOFError, RecursionError) as error:
            self.note = f"kept features were damaged ({type(error).__name__}: {error}) and are computed anew"
            shutil.rmtree(self.folder, ignore_errors=True)
            return nothing, None

    def _write(self) -> None:
        """Keep what is known; a disk that is full costs the next training time, and this one nothing."""
        content = {}
        for name, values in (("rows", self._rows), ("features", self._features_ND)):
            file = io.BytesIO()
            np.save(file, values)  # type: ignore[arg-type]
            content[name] = file.getvalue()
        index: dict[str, Any] = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        index |= {
            "width": self._width,
            "name": f"{self.images.name}, features",
            "location": self.images.location,
            "images": len(self._rows),
        }
        partial = self.folder.with_name(f"{self.folder.name}.partial-{os.getpid()}")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, data in content.items():
                (partial / f"{name}.npy").write_bytes(data)
            (partial / "index.json").write_text(json.dumps(index), "utf-8")
            shutil.rmtree(self.folder, ignore_errors=True)
            os.rename(partial, self.folder)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "the disk is full" if full else error.strerror or str(error)
            self.note = f"the features are not kept for the next training: {why}"
            shutil.rmtree(partial, ignore_errors=True)


def weights_digest(network: nn.Module) -> str:
    """Return a digest of the tensors of a network but those of its head, and of its structure."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        if not name.startswith("head."):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for name, module in network.named_modules():
        if not name.startswith("head"):
            digest.update(f"{name} {type(module).__name__}".encode())
    return digest.hexdigest()
