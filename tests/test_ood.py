"""Out-of-distribution images: the score, its threshold, and the reference that travels in the weights file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sightline
from conftest import Finished
from sightline.config.networks import TimmConfig
from sightline.errors import RunError
from sightline.evaluation.ood import left_out_distances, set_threshold, unknown_share
from sightline.inference.classifier import Outputs
from sightline.inference.ood import HEAD, MOST_BYTES, Reference, compared_layer
from sightline.measures.mahalanobis import fit_normal
from sightline.models.build import build_network
from sightline.models.resnet import ResNet18
from sightline.runs.folder import BOX, read_model, read_weights, read_weights_and_reference, write_weights
from sightline.runs.tensors import REFERENCE_PREFIX


def images_of(n: int, seed: int, width: int = 40, shift: float = 0.0) -> np.ndarray:
    """Features that vary widely along 5 of their directions and hardly along the others, where they may be shifted."""
    random = np.random.default_rng(seed)
    deviations = np.where(np.arange(width) < 5, 10.0, 0.1)
    features = random.normal(size=(n, width)) * deviations
    features[:, 5:] += shift
    return features.astype(np.float32) + 20


def test_the_distance_is_that_of_mahalanobis() -> None:
    features = images_of(4_000, 0, width=6)
    mean, covariance = features.mean(0), np.cov(features.T)
    centered = features[:50] - mean
    expected = (centered @ np.linalg.inv(covariance) * centered).sum(1)
    assert np.allclose(fit_normal(features).distances(features[:50]), expected, rtol=0.01)


def test_a_small_shift_where_images_hardly_vary_is_seen_and_a_large_one_elsewhere_is_not() -> None:
    normal = fit_normal(images_of(2_000, 0))
    own, shifted = normal.distances(images_of(500, 1)), normal.distances(images_of(500, 2, shift=0.5))
    assert shifted.min() > np.quantile(own, 0.99)
    assert own.mean() == pytest.approx(40, rel=0.05)  # as many as there are features
    along = images_of(500, 3)
    along[:, 0] += 10  # one deviation
    assert normal.distances(along).mean() < 1.1 * own.mean()


@pytest.mark.parametrize("count", [2, 3, 10, 39, 41])
def test_fewer_images_than_features_give_finite_distances(count: int) -> None:
    normal = fit_normal(images_of(count, 0))
    assert np.isfinite(normal.distances(images_of(20, 1))).all()
    assert len(normal.axes_RD) == max(1, count // 4)


def test_features_that_are_not_finite_are_far_from_everything_and_leave_the_reference_as_it_is() -> None:
    features = images_of(200, 0)
    broken = np.concatenate([features, np.full((1, 40), np.nan, np.float32), np.full((1, 40), np.inf, np.float32)])
    reference, whole = Reference.fit("maps", broken), Reference.fit("maps", features)
    assert np.array_equal(reference.distances(features), whole.distances(features))
    assert (reference.distances(broken)[-2:] > 1e20).all()
    assert np.isfinite(Reference.fit("maps", broken[-2:]).distances(features)).all()


def test_a_twentieth_of_its_own_images_is_called_unknown_and_others_are() -> None:
    reference = Reference.fit("maps", images_of(2_000, 0))
    random = np.random.default_rng(0)

    def outputs(features: np.ndarray, strength: float, weight: float = 0.0) -> Outputs:
        logits = random.normal(size=(2, len(features), 4)).astype(np.float32)
        logits[..., 0] += strength
        return Outputs(logits, reference.distances(features), weight)

    weighed, own, unknown = set_threshold(reference, outputs(images_of(2_000, 1), 8.0), ["one", "flip"], False)
    assert unknown["threshold"] == unknown["thresholds"]["flip"] != unknown["thresholds"]["one"]
    assert unknown_share(own.unknown_scores("flip"), unknown["threshold"]) == pytest.approx(0.05, abs=0.001)
    fresh, shifted, faint = (
        outputs(images_of(2_000, 2, shift=shift), strength, weighed.energy_weight)
        for shift, strength in ((0.0, 8.0), (0.5, 8.0), (0.0, 0.0))
    )
    shares = [unknown_share(one.unknown_scores("flip"), unknown["threshold"]) for one in (fresh, shifted, faint)]
    assert shares[0] == pytest.approx(0.05, abs=0.02)
    assert min(shares[1:]) > 0.99  # by the features, and by the logits


def test_of_a_pretrained_network_the_energy_does_not_count_and_lengths_of_what_a_head_reads_do_not() -> None:
    features = images_of(500, 0)
    outputs = Outputs(features[None, :, :4], np.arange(500.0))
    for pretrained in (True, False):
        weighed, _, _ = set_threshold(Reference.fit("maps", features), outputs, ["one"], pretrained)
        assert (weighed.energy_weight == 0) == pretrained
    reference = Reference.fit(HEAD, features)
    assert np.allclose(reference.distances(features), reference.distances(3 * features), rtol=1e-3)
    assert Reference.fit("maps", features).weighed(np.arange(9.0), np.zeros(9)).energy_weight == 0


def test_the_compared_layer_lies_deeper_in_a_pretrained_network() -> None:
    config = TimmConfig(name="tf_efficientnet_lite0")
    network = build_network(config, 2, (64, 64))
    assert [compared_layer(network, pretrained) for pretrained in (True, False)] == ["body.blocks.5", "body.blocks.4"]
    resnet = ResNet18(2, (32, 32))
    names = dict(resnet.named_modules())
    assert names[compared_layer(resnet, False)] is resnet.cam_layers[1]
    assert names[compared_layer(resnet, True)] is resnet.cam_layers[0]


def test_few_images_are_measured_from_others_and_not_from_themselves() -> None:
    features = images_of(40, 0)
    own = Reference.fit("maps", features).distances(features)
    left_out = left_out_distances("maps", features, np.arange(40) % 10)
    fresh = Reference.fit("maps", features).distances(images_of(500, 1))
    assert np.median(own) < 0.8 * np.median(fresh)
    assert np.median(left_out) == pytest.approx(np.median(fresh), rel=0.35)


def test_the_reference_travels_in_the_weights_and_is_small(finished: Finished) -> None:
    _, parts, model = read_weights_and_reference(finished.run / "model.safetensors")
    assert 0 < sum(tensor.numel() * tensor.element_size() for tensor in parts.values()) <= MOST_BYTES
    assert (model["trust"]["unknown"]["score"], model["trust"]["unknown"]["layer"]) == ("mahalanobis", "groups.1")
    alone = sightline.load(finished.run / "model.safetensors")
    images = sorted(finished.data.glob("*/*.png"))[::9]
    assert alone.predict(images) == sightline.load(finished.run).predict(images)
    wide = Reference.fit(HEAD, np.random.default_rng(0).normal(size=(300, 9_000)).astype(np.float32))
    assert sum(tensor.numel() * tensor.element_size() for tensor in wide.tensors().values()) <= MOST_BYTES


def test_a_run_with_another_that_it_starts_from_has_a_reference_of_its_own(finished: Finished, tmp_path: Path) -> None:
    run = sightline.train(
        finished.data,
        recipe="small",
        settings={
            "fit": {"epochs": 1},
            "network": {"kind": "run", "folder": str(finished.run)},
            "evaluation": {"robustness": False, "on": "none"},
        },
        run=tmp_path / "run",
    )
    assert run is not None
    assert read_model(run)["trust"]["unknown"]["layer"] == "groups.1"
    old, new = (sightline.load(folder).reference for folder in (finished.run, run))
    assert old is not None
    assert new is not None
    assert not np.array_equal(old.normal.mean_D, new.normal.mean_D)


def test_a_run_from_before_there_were_references_answers_by_the_energy(finished: Finished, tmp_path: Path) -> None:
    assert sightline.load(None).reference is None
    assert read_weights(BOX)[1]["trust"]["unknown"]["score"] == "energy"
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    model = json.loads((run / "model.json").read_text())
    model["trust"]["unknown"] |= {"score": "energy", "thresholds": {"one": 1e9, "flip": 1e9, "six": 1e9}}
    (run / "model.json").write_text(json.dumps(model))
    classifier = sightline.load(run)
    assert classifier.reference is None
    pixels = np.zeros((1, *classifier.resize, 3), np.uint8)
    outputs = classifier.outputs(pixels, "one")
    logits = outputs.logits_VNK[0, 0].astype(float)
    assert outputs.unknown_scores("one")[0] == pytest.approx(-np.log(np.exp(logits).sum()))


def test_a_reference_in_another_number_format_is_read(finished: Finished, tmp_path: Path) -> None:
    tensors, parts, model = read_weights_and_reference(finished.run / "model.safetensors")
    tensors |= {name: tensor.bfloat16() for name, tensor in parts.items()}
    write_weights(tmp_path / "model.safetensors", tensors, model)
    assert sightline.load(tmp_path / "model.safetensors").reference is not None


def lacking(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{REFERENCE_PREFIX}axes"]


def of_integers(tensors: dict[str, Tensor]) -> None:
    tensors[f"{REFERENCE_PREFIX}mean"] = torch.zeros(256, dtype=torch.int64)


def of_other_shapes(tensors: dict[str, Tensor]) -> None:
    tensors[f"{REFERENCE_PREFIX}axes"] = torch.zeros(3, 2)


def too_large(tensors: dict[str, Tensor]) -> None:
    tensors[f"{REFERENCE_PREFIX}axes"] = torch.zeros(1_000, 1_000)


def negative(tensors: dict[str, Tensor]) -> None:
    tensors[f"{REFERENCE_PREFIX}variances"] = -tensors[f"{REFERENCE_PREFIX}variances"]


def infinite(tensors: dict[str, Tensor]) -> None:
    tensors[f"{REFERENCE_PREFIX}rest"] = torch.tensor([torch.inf])


def with_more(tensors: dict[str, Tensor]) -> None:
    tensors[f"{REFERENCE_PREFIX}code"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lacking, "axes is missing"),
        (of_integers, "wanted real numbers"),
        (of_other_shapes, "its shapes are"),
        (too_large, "larger than 2,000,000 bytes"),
        (negative, "a variance is not positive"),
        (infinite, "values that are not finite"),
        (with_more, "'code' is no part of it"),
    ],
)
def test_a_damaged_reference_is_refused_with_a_sentence(
    damage: Callable[[dict[str, Tensor]], None], sentence: str, finished: Finished, tmp_path: Path
) -> None:
    tensors, parts, model = read_weights_and_reference(finished.run / "model.safetensors")
    tensors |= parts
    damage(tensors)
    write_weights(tmp_path / "model.safetensors", tensors, model)
    with pytest.raises(RunError, match=rf"{sentence}.*copy the run again"):
        sightline.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layer": "groups.9"}, "layer 'groups.9', which the network does not have"),
        ({"layer": None}, "the layer of the reference is missing"),
        ({"layer": 3}, "layer is 3"),
        ({"score": "entropy"}, "score is 'entropy'"),
    ],
)
def test_a_score_that_the_network_cannot_give_is_refused_when_it_is_loaded(
    change: dict[str, Any], sentence: str, finished: Finished, tmp_path: Path
) -> None:
    tensors, parts, model = read_weights_and_reference(finished.run / "model.safetensors")
    tensors |= parts
    model["trust"]["unknown"] |= change
    write_weights(tmp_path / "model.safetensors", tensors, model)
    with pytest.raises(RunError, match=sentence):
        sightline.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("layer", ["groups.1.norm1.weight", "groups.2", "head", "maximum", "whiten"])
def test_a_reference_to_another_layer_is_refused(layer: str, finished: Finished, tmp_path: Path) -> None:
    tensors, parts, model = read_weights_and_reference(finished.run / "model.safetensors")
    tensors |= parts
    tensors[f"{REFERENCE_PREFIX}mean"] = torch.zeros(7)
    tensors[f"{REFERENCE_PREFIX}axes"] = torch.zeros(len(tensors[f"{REFERENCE_PREFIX}variances"]), 7)
    model["trust"]["unknown"]["layer"] = layer
    write_weights(tmp_path / "model.safetensors", tensors, model)

    def answer() -> None:
        sightline.load(tmp_path / "model.safetensors").predict(np.zeros((32, 32, 3), np.uint8))

    with pytest.raises(RunError, match="the reference of out-of-distribution images"):
        answer()
