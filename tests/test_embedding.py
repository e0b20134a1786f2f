"""One vector for each image: of the box or of a run, kept, the same the second time, and shared with the photos path."""

from functools import partial

import numpy as np
import pytest
import torch

from conftest import Finished
from sightline.checks import embedding
from sightline.checks.embedding import SMALL_SHOWN, embed
from sightline.config.backbones import BOX, BOX_NETWORK
from sightline.config.networks import TimmConfig
from sightline.data.batches import Normalization
from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.inference.encoder import Encoder
from sightline.inference.feature_store import FeatureStore
from sightline.inference.predict import load
from sightline.models.build import build_network
from sightline.models.pretrained import load_weights


def test_small_images_are_enlarged_for_the_box_and_found_again_the_second_time(folder, files, image_file, monkeypatch):
    monkeypatch.setattr(embedding, "FeatureStore", partial(FeatureStore, precision="float32"))  # on every processor
    contents = files("cat", "dog", images=5, side=32) | {
        "cat/broken.png": image_file(np.zeros((32, 32, 3), np.uint8))[:50]
    }
    source = find_source(folder(contents))
    first = embed(source, None)
    assert first.name == f"the backbone in the box at {SMALL_SHOWN} px"
    assert first.features_ND.shape == (10, 1280)
    assert np.asarray(first.features_ND).dtype == np.float32
    again = embed(source, None)
    assert (first.computed, again.computed) == (10, 0)
    assert np.array_equal(first.features_ND, again.features_ND)

    images = open_images(source)
    config = TimmConfig(name=BOX_NETWORK, weights=BOX)
    network = build_network(config, 2, (SMALL_SHOWN, SMALL_SHOWN)).eval()
    weights = load_weights(network, config, (SMALL_SHOWN, SMALL_SHOWN))
    pixels = torch.from_numpy(images.pixels[images.readable]).permute(0, 3, 1, 2).float()
    larger = (
        torch.nn.functional.interpolate(pixels, (SMALL_SHOWN, SMALL_SHOWN), mode="bicubic", antialias=True).clamp(
            0, 255
        )
        / 255
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (weights.mean, weights.std))
    with torch.no_grad():
        expected = network.features((larger - mean) / std)
    torch.testing.assert_close(torch.from_numpy(np.asarray(first.features_ND)), expected, rtol=1e-3, atol=1e-3)


def test_photographs_share_the_features_of_a_probe(folder, files):
    source = find_source(folder(files("cat", "dog", images=3, side=100)))
    images = open_images(source, 224)
    config = TimmConfig(name=BOX_NETWORK, weights=BOX)
    network = build_network(config, 2, (224, 224))
    weights = load_weights(network, config, (224, 224))
    probed = FeatureStore(network, images, Normalization(weights.mean, weights.std)).features(images.readable)
    found = embed(source, None)
    assert (found.computed, found.name) == (0, "the backbone in the box at 224 px")
    assert np.array_equal(found.features_ND, probed.numpy())


def test_a_run_gives_the_features_that_encode_gives(finished: Finished, monkeypatch):
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    source, classifier = find_source(finished.data), load(finished.run)
    images = open_images(source, None, exactly=(classifier.size, classifier.resize))
    expected = Encoder(classifier).encode_rows(images.pixels, images.readable)
    found = embed(source, finished.run)
    assert np.allclose(found.features_ND, expected, rtol=1e-3, atol=1e-4)
    assert embed(source, finished.run).computed == 0


def test_the_cost_is_announced_by_what_the_first_batches_took(folder, files, monkeypatch):
    source = find_source(folder(files("cat", "dog", images=8, side=16)))
    open_images(source)  # decoded, which has a progress of its own
    sentences = []
    monkeypatch.setattr(embedding, "WORTH_SAYING", 0.0)
    monkeypatch.setattr(embedding, "BATCH", 2)
    counted = []
    embed(source, None, progress=lambda done, total: counted.append((done, total)), on_event=sentences.append)
    assert len(sentences) == 1
    assert sentences[0].startswith(f"16 images are embedded by the backbone in the box at {SMALL_SHOWN} px: about ")
    assert sentences[0].endswith(" s; kept for the next time")
    assert counted[-1] == (16, 16)
    assert [done for done, _ in counted] == [2, 10, 16]
    embed(source, None, on_event=sentences.append)
    assert len(sentences) == 1


def test_a_stopped_embedding_goes_on_where_it_was(folder, files, monkeypatch):
    source = find_source(folder(files("cat", "dog", images=8, side=16)))
    open_images(source)
    monkeypatch.setattr(embedding, "BATCH", 2)

    def stop(done: int, total: int) -> None:
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(source, None, progress=stop)
    assert embed(source, None).computed == 14
