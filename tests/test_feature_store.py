"""Features of a frozen backbone are computed once, known by all that they depend on, and never wrong when damaged."""

import errno
import hashlib
import io
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sightline.data.batches import Normalization
from sightline.data.cache import cached, clear, open_images
from sightline.data.sources.find_source import find_source
from sightline.inference import feature_store, vectors
from sightline.inference.feature_store import FeatureStore, weights_digest
from sightline.models.resnet import ResNet18

GREY = Normalization([0.5] * 3, [0.5] * 3)


@pytest.fixture
def images(folder, files):
    return open_images(find_source(folder(files("cat", "dog", images=20, side=32), "pets")))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet18(2, (32, 32))


def test_features_are_those_of_the_network_and_are_computed_once(images, network):
    rows = images.readable
    store = FeatureStore(network, images, GREY, "float32")
    features = store.features(rows)
    pixels = torch.from_numpy(np.array(images.pixels)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = network.eval().features((pixels - 0.5) / 0.5)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    again = FeatureStore(network, images, GREY, "float32")
    assert torch.equal(again.features(rows), features)
    assert (store.computed, again.computed) == (40, 0)


def test_the_channels_of_a_late_map_are_kept_from_the_same_pass(images, network):
    rows = images.readable[::3]
    store = FeatureStore(network, images, GREY, "float32", pretrained=False)
    store.features(images.readable)
    maps = []
    handle = network.cam_layers[1].register_forward_hook(lambda module, inputs, output: maps.append(output))
    pixels = torch.from_numpy(np.array(images.pixels[rows])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        network.eval().features((pixels - 0.5) / 0.5)
    handle.remove()
    torch.testing.assert_close(store.compared(rows), maps[0].mean((2, 3)), rtol=1e-4, atol=1e-4)
    again = FeatureStore(network, images, GREY, "float32", pretrained=False)
    assert torch.equal(again.compared(rows), store.compared(rows))
    assert again.features(rows).shape == (len(rows), network.head.in_features)
    assert (store.computed, again.computed) == (40, 0)


def test_only_what_is_missing_is_computed_and_rows_keep_their_order(images, network):
    FeatureStore(network, images, GREY).features(np.arange(10, 30))
    store = FeatureStore(network, images, GREY)
    rows = np.array([35, 3, 12])
    found = store.features(rows)
    assert store.computed == 2
    assert torch.equal(found[2], store.features(np.array([12]))[0])
    assert torch.equal(found, store.features(rows))


def test_an_image_has_the_same_features_whatever_else_is_computed_with_it(images, network):
    whole = FeatureStore(network, images, GREY).features(np.arange(40))
    clear()
    some = open_images(find_source(images.location))
    parts = FeatureStore(network, some, GREY).features(np.arange(3, 38))
    assert torch.equal(whole[3:38], parts)


def test_the_head_does_not_matter_and_everything_else_does(images, network):
    digest = weights_digest(network)
    nn.init.ones_(network.head.weight)
    assert weights_digest(network) == digest
    place = FeatureStore(network, images, GREY).folder
    assert FeatureStore(network, images, Normalization([0.4] * 3, [0.5] * 3)).folder != place
    with torch.no_grad():
        next(network.parameters()).add_(1e-6)
    assert weights_digest(network) != digest
    assert FeatureStore(network, images, GREY).folder != place


def test_another_size_of_the_images_has_features_of_its_own(folder, files, network):
    source = find_source(folder(files("cat", "dog", images=4, side=100), "pets"))
    places = {FeatureStore(network, open_images(source, size), GREY).folder for size in (32, 48)}
    assert len(places) == 2


@pytest.mark.parametrize("file", ["features.npy", "rows.npy", "index.json"])
@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
def test_damaged_features_are_computed_anew_and_that_is_said(images, network, file, harm):
    rows = images.readable
    features = FeatureStore(network, images, GREY).features(rows)
    path = FeatureStore(network, images, GREY).folder / file
    content = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content[:-5] if harm == "cut" else content)
    store = FeatureStore(network, images, GREY)
    assert "kept features were damaged" in store.note
    assert torch.equal(store.features(rows), features)
    assert store.computed == len(rows)
    assert FeatureStore(network, images, GREY).note == ""


def test_a_full_disk_costs_the_next_training_time_and_this_one_nothing(images, network, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    store = FeatureStore(network, images, GREY)
    assert len(store.features(images.readable)) == 40
    assert store.note == "the features are not kept for the next training: the disk is full"
    assert not list(store.folder.parent.glob("*features*"))


def test_kept_features_are_listed_and_cleared_with_the_cache(images, network):
    store = FeatureStore(network, images, GREY)
    store.features(images.readable)
    assert ("pets, features", 40) in {(row["name"], row["images"]) for row in cached()}
    clear()
    assert not store.folder.exists()


def test_features_of_another_format_are_not_taken(images, network, monkeypatch):
    FeatureStore(network, images, GREY).features(images.readable)
    monkeypatch.setattr(feature_store, "FORMAT", feature_store.FORMAT + 1)
    store = FeatureStore(network, images, GREY)
    store.features(images.readable)
    assert store.computed == 40


def test_a_disk_that_fills_up_while_features_are_added_loses_none(images, network, monkeypatch):
    store = FeatureStore(network, images, GREY)
    first = store.features(np.arange(10, 30))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(FeatureStore, "_write", full)
        found = store.features(images.readable)
    assert torch.equal(found[10:30], first)
    assert store.note == "the features are not kept for the next training: the disk is full"
    again = FeatureStore(network, images, GREY)
    assert torch.equal(again.features(images.readable), found)
    assert again.computed == 20


def test_features_that_0_3_kept_are_read(images, network):
    rows = images.readable
    store = FeatureStore(network, images, GREY)
    features, both = store.features(rows), np.concatenate([store.features(rows), store.compared(rows)], axis=1)
    content = {}
    for name, values in (("rows", rows), ("features", both)):  # as it wrote them
        file = io.BytesIO()
        np.save(file, values)
        content[name] = file.getvalue()
        assert content[name] == (store.folder / f"{name}.npy").read_bytes()
    index = json.loads((store.folder / "index.json").read_text())
    assert {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}.items() <= index.items()
    again = FeatureStore(network, images, GREY)
    assert torch.equal(again.features(rows), features)
    assert again.computed == 0


def test_many_features_are_kept_opened_and_asked_for_without_holding_all(images, network, monkeypatch):
    count, width = 20_000, 512
    monkeypatch.setattr(feature_store, "WRITTEN", 500)
    monkeypatch.setattr(vectors, "BLOCK", 500)
    store = FeatureStore(network, images, GREY)
    computed = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    store._width = width - 8
    tracemalloc.start()
    for part in np.split(np.arange(count), 4):
        store._keep(part, computed[part[0] : part[-1] + 1])
    again = FeatureStore(network, images, GREY)
    features, late = again.vectors(np.arange(count))
    both = features.beside(late).part(np.arange(0, count, 100))[np.array([7, 3])]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert again.note == ""
    assert np.array_equal(both, computed[[700, 300]])
    assert peak < computed.nbytes / 3
