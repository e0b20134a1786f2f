"""Features of a frozen backbone, computed once and kept on disk. N images, D features, C channels, B images of a batch.

They lie in the cache folder beside the decoded sets, known by all that they depend on: the decoded set (its files, size
and resize rule), the weights, the normalization and the number format. A second training, and a study, start from them
at once. Every batch is filled up to the same size, so that an image's features do not depend on which images are
computed with it. They stay on disk: what is asked for is read through a memory map, so a set of 600,000 images, whose
features are 3.5 GB, needs no more memory than a small one.
"""

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
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
from sightline.inference.vectors import Vectors
from sightline.machine.cores import adjust_threads, sharing_cores
from sightline.machine.devices import arithmetic, choose_device
from sightline.machine.folders import cache_folder
from sightline.models.base import Network, recorded
from sightline.runs.writing import rename

__all__ = ["FeatureStore", "weights_digest"]

FORMAT = 2  # rises when what is kept changes its meaning; older features are then computed anew
BATCH = 32  # images; on a processor 224 px ran as fast with 16 as with 64
ON_GPU = 256
WRITTEN = 8192  # images whose features are put on disk at a time

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
        self._rows, self._both_ND = self._read()  # features and channels, (N, D + C)

    def missing(self, rows: Array) -> Array:
        """Return which of some rows are not kept yet, ascending."""
        return np.setdiff1d(rows, self._rows)

    def features(self, rows: Array, progress: Progress | None = None) -> torch.Tensor:
        """Return features of some rows of the set, (n, D), on the CPU; those that are not kept yet are computed.

        Args:
            rows: of the images, (n,).
            progress: called with (images done, images in all) of those that are computed.
        """
        return torch.from_numpy(np.asarray(self.vectors(rows, progress)[0]))

    def compared(self, rows: Array, progress: Progress | None = None) -> torch.Tensor:
        """Return what a reference of ``inference.ood`` compares of some rows, (n, C), as ``features`` returns those."""
        return torch.from_numpy(np.asarray(self.vectors(rows, progress)[1]))

    def vectors(self, rows: Array, progress: Progress | None = None) -> tuple[Vectors, Vectors]:
        """Return what ``features`` and ``compared`` return, unread: for sets that memory does not hold."""
        self.compute(rows, progress)
        assert self._both_ND is not None
        places = np.searchsorted(self._rows, rows)
        features = Vectors([self._both_ND[:, : self._width]], places)
        return features, features if self._layer == HEAD else Vectors([self._both_ND[:, self._width :]], places)

    def compute(self, rows: Array, progress: Progress | None = None) -> None:
        """Compute and keep the features of those of some rows that are not kept yet."""
        missing = self.missing(rows)
        if len(missing):
            computed_ND = self._compute(missing, progress)
            self.computed += len(missing)
            self._keep(missing, computed_ND)

    @torch.no_grad()
    def _compute(self, rows: Array, progress: Progress | None) -> Array:
        network = self.network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        training = network.training
        network.eval()
        size = BATCH if self.device.type == "cpu" else ON_GPU
        watched = {} if self._layer == HEAD else {self._layer: network.get_submodule(self._layer)}
        both_ND: Array | None = None
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
                both_BD = torch.cat([output[: len(some)].float().cpu(), *channels], 1).numpy()
                both_ND = np.empty((len(rows), both_BD.shape[1]), np.float32) if both_ND is None else both_ND
                both_ND[start : start + len(some)] = both_BD
                if progress:
                    progress(min(start + size, len(rows)), len(rows))
        network.train(training)
        assert both_ND is not None  # nobody asks for no rows
        return both_ND

    def _enlarged(self, pixels_BHWC: torch.Tensor) -> torch.Tensor:
        """Bring images to the size that the network is shown, by cubic interpolation."""
        if self._shown is None or self._shown == tuple(pixels_BHWC.shape[1:3]):
            return pixels_BHWC
        levels_BCHW = pixels_BHWC.permute(0, 3, 1, 2).float()
        with torch.autocast(self.device.type, enabled=False):
            larger_BCHW = functional.interpolate(levels_BCHW, self._shown, mode="bicubic", antialias=True)
        return larger_BCHW.clamp(0, 255).permute(0, 2, 3, 1)

    def _read(self) -> tuple[Array, Array | None]:
        """Open the kept rows and features; none where there are none, or they are damaged."""
        nothing = np.array([], np.int64)
        if not self.folder.exists():
            return nothing, None
        try:
            index = msgspec.convert(json.loads((self.folder / "index.json").read_text("utf-8")), _Digests)
            for name in ("rows", "features"):
                with (self.folder / f"{name}.npy").open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != getattr(index, name):
                        raise ValueError("their checksum is wrong")
            rows, features_ND = np.load(self.folder / "rows.npy", allow_pickle=False), self._mapped()
            self._width = index.width
            return rows, features_ND
        except (OSError, ValueError, TypeError, EOFError, RecursionError) as error:
            self.note = f"kept features were damaged ({type(error).__name__}: {error}) and are computed anew"
            shutil.rmtree(self.folder, ignore_errors=True)
            return nothing, None

    def _mapped(self) -> Array:
        features_ND: Array = np.load(self.folder / "features.npy", mmap_mode="r", allow_pickle=False)
        return features_ND

    def _keep(self, rows: Array, computed_ND: Array) -> None:
        """Put features on disk, merged with those that are there, by ascending rows; in memory where that fails.

        A disk that is full costs the next training time, and this one nothing.
        """
        kept_ND = computed_ND[:0] if self._both_ND is None else self._both_ND
        unsorted = np.concatenate([self._rows, rows])
        order = np.argsort(unsorted, kind="stable")
        self._rows = unsorted[order]
        partial = self.folder.with_name(f"{self.folder.name}.partial-{os.getpid()}")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            self._write(partial, kept_ND, computed_ND, order)
        except OSError as error:
            self._both_ND = np.concatenate([kept_ND, computed_ND])[order]
            self._not_kept(partial, error)
            return
        del kept_ND
        self._both_ND = None  # Windows deletes no file that is mapped into memory
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            rename(partial, self.folder)
            self._both_ND = self._mapped()
        except OSError as error:
            self._both_ND = np.load(partial / "features.npy", allow_pickle=False)
            self._not_kept(partial, error)

    def _not_kept(self, partial: Path, error: OSError) -> None:
        """Say why features are in memory alone, and delete what was written of them."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror or str(error)
        self.note = f"the features are not kept for the next training: {why}"
        shutil.rmtree(partial, ignore_errors=True)

    def _write(self, folder: Path, kept_ND: Array, computed_ND: Array, order: Array) -> None:
        """Write the rows, the features and their index into a folder.

        Args:
            folder: that is empty.
            kept_ND, computed_ND: features, one below the other.
            order: of these, in which they are written.
        """
        rows = io.BytesIO()
        np.save(rows, self._rows)
        (folder / "rows.npy").write_bytes(rows.getvalue())
        header, digest = io.BytesIO(), hashlib.sha256()
        shape = len(order), computed_ND.shape[1]
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with (folder / "features.npy").open("wb") as file:
            for block in chain([header.getvalue()], _blocks(kept_ND, computed_ND, order)):
                digest.update(block)
                file.write(block)
        index: dict[str, Any] = {
            "rows": hashlib.sha256(rows.getvalue()).hexdigest(),
            "features": digest.hexdigest(),
            "width": self._width,
            "name": f"{self.images.name}, features",
            "location": self.images.location,
            "images": len(self._rows),
        }
        (folder / "index.json").write_text(json.dumps(index), "utf-8")


def _blocks(kept_ND: Array, computed_ND: Array, order: Array) -> Iterator[bytes]:
    """Yield features in some order, so many at a time that memory holds them."""
    for start in range(0, len(order), WRITTEN):
        some = order[start : start + WRITTEN]
        block_BD = np.empty((len(some), computed_ND.shape[1]), np.dtype("<f4"))
        of_kept = some < len(kept_ND)
        block_BD[of_kept] = kept_ND[some[of_kept]]
        block_BD[~of_kept] = computed_ND[some[~of_kept] - len(kept_ND)]
        yield block_BD.tobytes()


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
