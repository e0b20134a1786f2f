"""The network of a training before its first step, whose weights it starts from, and the images that those have seen.

A network that starts from an earlier run must not be tested on images that the run has learned from, so every run keeps
the hashes of its images (``seen.npz``), and those of the runs that it started from.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from msgspec.structs import replace

from sightline.config.backbones import BOX, PACKAGE, PRETRAINED
from sightline.config.generating import GeneratorRecipe
from sightline.config.heads import HeadConfig, refuse_unknown_layer
from sightline.config.networks import ArchitectureConfig, HubConfig, RunConfig
from sightline.config.resolving import to_mapping
from sightline.config.settings import Recipe
from sightline.data.batches import EvaluationBatches, Normalization
from sightline.data.cache import CachedImages
from sightline.data.seen import Seen, number_of, numbers_of, read_seen, write_seen_file
from sightline.data.splits import Splits
from sightline.errors import ConfigError, DataError, RunError
from sightline.inference.architecture import architecture_of, head_of
from sightline.models.adapters import answer
from sightline.models.base import Network
from sightline.models.build import build_network
from sightline.models.heads import HeadedNetwork
from sightline.models.pretrained import load_weights
from sightline.models.transfer import LoadedWeights, put_in
from sightline.runs.folder import read_model_of_finished, read_weights
from sightline.runs.hub import fetched, on_hub
from sightline_runtime.sentences import quoted

__all__ = [
    "Built",
    "build",
    "describe_network",
    "fit_to_images",
    "with_whole_paths",
    "write_seen",
]

WHITENING_IMAGES = 2_000  # images that a network is fitted to before the first step

Array = np.ndarray[Any, Any]
AnyRecipeT = TypeVar("AnyRecipeT", Recipe, GeneratorRecipe)


@dataclass(frozen=True)
class Built:
    """A network before the first step, and where it comes from."""

    network: Network
    architecture: ArchitectureConfig
    """Builds it again, without the weights."""
    head: HeadConfig | None
    """With this head; None: with its own."""
    size: tuple[int, int]
    """(height, width) that it was built for; that of the images, but for the network of an earlier run."""
    weights: LoadedWeights | None
    seen: Seen | None
    """Of the earlier run whose weights it has."""


def build(recipe: Recipe, images: CachedImages, splits: Splits) -> Built:
    """Build the network of a recipe for an image set, with the weights that it asks for.

    Raises:
        ConfigError: the network cannot be had, does not take such images, or does not suit the head.
        DataError: an image of test or validation was learned from by the run that it starts from.
        RunError: that run is missing, unfinished or broken.
    """
    config, classes = recipe.network, len(images.classes)
    if isinstance(config, RunConfig):
        built = _from_run(config, recipe.head, images, splits)
    else:
        network = build_network(config, classes, images.size, recipe.head)
        weights = load_weights(_backbone(network), config, images.size)
        built = Built(network, config, recipe.head, images.size, weights, None)
    if built.head is not None or hasattr(built.network, "body"):  # only those may insist on a size
        _try_sizes(built, recipe, images.size)
    return built


def fit_to_images(network: Network, images: CachedImages, rows: Array, normalization: Normalization) -> None:
    """Set what a network computes from the training images, of which there are ``rows``; it is on the processor."""
    sample = EvaluationBatches(
        images,
        rows[:: max(1, len(rows) // WHITENING_IMAGES)][:WHITENING_IMAGES],
        normalization,
        batch_size=WHITENING_IMAGES,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    network.fit_to(next(iter(sample)).images)


def describe_network(built: Built) -> dict[str, Any]:
    """Return what ``model.json`` needs to build the network again by itself."""
    settings = to_mapping(built.architecture)
    return {
        "network": {name: value for name, value in settings.items() if name not in ("weights", "trust_code")},
        "head": to_mapping(built.head),
        "built_for": list(built.size),
        "weights": built.weights.to_json() if built.weights else None,
    }


def with_whole_paths(recipe: AnyRecipeT) -> AnyRecipeT:
    """Return the recipe with absolute paths of its data and network, so that it can be repeated from anywhere."""
    for name in ("exclude", "corrections", "synthetic", "keep_split"):
        path = getattr(recipe.data, name)
        if path is not None and not on_hub(path):
            whole = os.path.abspath(os.path.expanduser(path))
            recipe = replace(recipe, data=replace(recipe.data, **{name: whole}))
    own = getattr(recipe.augment, "own", None)
    if own is not None:
        own = replace(own, file=os.path.abspath(os.path.expanduser(own.file)))
        recipe = replace(recipe, augment=replace(recipe.augment, own=own))
    network: Any = getattr(recipe, "network", None)  # which the recipe of a generator does not have
    changed = {}
    for name in ("folder", "weights", "repo"):
        path = getattr(network, name, None)
        word = name == "weights" and path in (BOX, PACKAGE, PRETRAINED)
        if path is not None and not word and os.path.exists(os.path.expanduser(path)):
            changed[name] = os.path.abspath(os.path.expanduser(path))
    return replace(recipe, network=replace(network, **changed)) if changed else recipe


def write_seen(run: Path, images: CachedImages, splits: Splits, before: Seen | None) -> None:
    """Write the hashes of the images that a run depends on, and of those that its backbone does."""
    parts = {"trained": splits.train, "validated": splits.validation}
    content = {name: numbers_of(images.hashes[row] for row in rows) for name, rows in parts.items()}
    if before is not None:
        content = {name: np.union1d(numbers, getattr(before, name)) for name, numbers in content.items()}
    content["tested"] = numbers_of(images.hashes[row] for row in splits.test)
    write_seen_file(run, content, splits.kept)


def _backbone(network: Network) -> Network:
    """Return what published weights are of: the network without a head of its own."""
    return network.backbone if isinstance(network, HeadedNetwork) else network


def _from_run(config: RunConfig, requested: HeadConfig | None, images: CachedImages, splits: Splits) -> Built:
    """Build the network of an earlier run: with its head, or its backbone with a requested head, which is fresh."""
    files = fetched(config.folder)
    model = read_model_of_finished(files)
    folder = Path(config.folder)  # for what is said of it
    if config.trust_code and model["network"]["kind"] != HubConfig.kind:
        raise ConfigError(
            f"--network.trust-code has no effect: the network of {folder} is a {model['network']['kind']}, of our own"
            " code; leave the option out."
        )
    seen = read_seen(files)
    _refuse_seen(images, splits, seen, folder)
    architecture = architecture_of(model, str(folder), trust_code=config.trust_code)
    own, size = head_of(model, str(folder)), tuple(model.get("built_for") or model["size"])
    head = own if requested is None else _on_what_is_left(requested, own, architecture, folder)
    head_size = tuple(model["size"]) if requested is None else images.size
    network = build_network(architecture, len(images.classes), size, head, head_size)
    tensors, _ = read_weights(files / "model.safetensors")
    same = model["classes"] == images.classes
    if requested is None:
        kept = {name: tensor for name, tensor in tensors.items() if same or not name.startswith("head.")}
        weights = put_in(network, kept, f"the run {folder}", **model["normalization"])
    else:
        mark = "" if own is None else "backbone."
        kept = {name.removeprefix(mark): tensor for name, tensor in tensors.items() if name.startswith(mark)}
        weights = put_in(_backbone(network), kept, f"the run {folder}", **model["normalization"])
        if own is not None and weights.missing:
            raise ConfigError(
                f"--head {requested.kind} reads layers that {folder} does without ({weights.missing[0]}, ...), since"
                f" its own head is a {own.kind}; choose another head, or an earlier run."
            )
    fresh_head = requested is None and not same
    conflicts = ["head.weight"] if requested is None and same and weights.fresh_head else []
    conflicts += weights.missing + weights.unexpected + weights.misshapen
    if conflicts:
        raise RunError(f"the weights of {folder} do not fit its network ({conflicts[0]}); copy the run again.")
    return Built(
        network, architecture, head, size, dataclasses.replace(weights, missing=[], fresh_head=fresh_head), seen
    )


def _on_what_is_left(
    requested: HeadConfig, own: HeadConfig | None, architecture: ArchitectureConfig, folder: Path
) -> HeadConfig:
    """Return a head for the backbone of a run, which ends where the run's own head reads it.

    Raises:
        ConfigError: the layer that it asks for is unknown, or not kept by the run.
    """
    layers: tuple[str, ...] = getattr(architecture, "layers", ())
    if own is not None and own.layer is not None:
        layers = layers[: layers.index(own.layer) + 1]
    if requested.layer is not None:
        refuse_unknown_layer(requested.layer, layers, f"of {folder}")
        return requested
    return requested if own is None else replace(requested, layer=own.layer)


def _refuse_seen(images: CachedImages, splits: Splits, seen: Seen, folder: Path) -> None:
    """Refuse test images that the backbone depends on, and validation images that it was trained on.

    An image that lies, pixel for pixel, in train as well is left to the warning that every training gives of it.
    """
    for kind, rows, known, own in (
        ("test", splits.test, np.union1d(seen.trained, seen.validated), np.union1d(splits.train, splits.validation)),
        ("validation", splits.validation, seen.trained, splits.train),
    ):
        excused = numbers_of(images.hashes[row] for row in own)
        numbers = np.array([number_of(images.hashes[row]) for row in rows], np.uint64)
        met = rows[np.isin(numbers, known) & ~np.isin(numbers, excused)]
        if len(met):
            raise DataError(
                f"{len(met)} of the {len(rows)} {kind} images of {images.name} were trained or selected on by the"
                f" backbone {folder} (the first: {images.paths[met[0]]}), so {kind} would flatter the new classifier;"
                f" keep its splits (--data.keep-split {quoted(str(folder))}), split as that run did"
                " (--data.split-seed, --data.validation, --data.fraction), or take another image set."
            )


def _try_sizes(built: Built, recipe: Recipe, size: tuple[int, int]) -> None:
    """Refuse images of a size that the network cannot read, before the first step."""
    built.network.eval()
    name = f"the network {recipe.network.kind}"
    if size != built.size:
        answer(built.network, size, name)
    for scale in sorted({scale for scale in recipe.augment.scales if scale != 1}):
        answer(built.network, (round(size[0] * scale), round(size[1] * scale)), f"{name} (--augment.scales {scale:g})")
    built.network.train()
