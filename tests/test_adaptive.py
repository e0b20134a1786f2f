"""Adaptive views: one view, and the other five only where it leaves the classifier unsure."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sightline
from conftest import QUICK, Finished, coloured_folder
from sightline.errors import ConfigError, RunError
from sightline.evaluation.adaptive import GRID, choose_threshold, decided_outputs
from sightline.evaluation.results import about_passes
from sightline.inference.classifier import Classifier, Outputs
from sightline.inference.views import combine
from sightline.measures.metrics import energies, probabilities
from sightline_runtime.views import decide, unsure

Array = np.ndarray[Any, Any]


def logits_of(seed: int, strength: float, labels_N: Array, classes: int = 4) -> Array:
    """Logits of a classifier that is the better the stronger it is, of few images right and sure, of others a guess."""
    random = np.random.default_rng(seed)
    clear_N = random.random(len(labels_N)) < 0.7
    logits_NK = random.normal(size=(len(labels_N), classes))
    logits_NK[np.arange(len(labels_N)), labels_N] += np.where(clear_N, 9.0, strength)
    return logits_NK.astype(np.float32)


@pytest.fixture
def labels_N() -> Array:  # noqa: N802
    return np.random.default_rng(0).integers(0, 4, 4_000)


# ── the threshold ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_further_views_mend_only_unsure_answers_sure_ones_are_left_alone(labels_N: Array) -> None:
    one_NK, six_NK = (probabilities(logits_of(1, strength, labels_N)) for strength in (1.0, 2.0))
    chosen = choose_threshold(one_NK, six_NK, labels_N)
    assert 0.3 < chosen["threshold"] < 1
    assert 1.2 < chosen["passes"] < 4
    accuracy, log_likelihood = chosen["accuracy"], chosen["log_likelihood"]
    assert accuracy["one"] + 0.05 < accuracy["six"]
    assert accuracy["adaptive"] > accuracy["six"] - 0.003
    assert log_likelihood["one"] < log_likelihood["adaptive"]
    asked_N = one_NK.max(1) < chosen["threshold"]
    assert chosen["passes"] == pytest.approx(1 + 5 * asked_N.mean())
    assert accuracy["adaptive"] == pytest.approx(
        (np.where(asked_N[:, None], six_NK, one_NK).argmax(1) == labels_N).mean()
    )


def test_few_images_cannot_show_that_one_view_is_enough() -> None:
    """By less than its standard error as many images as one likes could be wrong, where there are few."""
    labels_N, passes = np.random.default_rng(0).integers(0, 4, 40_000), []
    one_NK, six_NK = (probabilities(logits_of(1, strength, labels_N)) for strength in (1.0, 2.0))
    for count in (100, 1_000, 40_000):
        chosen = choose_threshold(one_NK[:count], six_NK[:count], labels_N[:count])
        passes.append(chosen["passes"])
        asked_N = unsure(one_NK, chosen["threshold"])
        adaptive_NK = np.where(asked_N[:, None], six_NK, one_NK)
        held_out = (adaptive_NK.argmax(1) == labels_N).mean() - (six_NK.argmax(1) == labels_N).mean()
        assert held_out > -0.004, (count, chosen["threshold"])
    assert passes[0] > passes[-1]


def test_where_six_views_are_no_better_no_image_is_shown_again(labels_N: Array) -> None:
    chances_NK = probabilities(logits_of(1, 1.0, labels_N))
    chosen = choose_threshold(chances_NK, chances_NK, labels_N)
    assert (chosen["threshold"], chosen["passes"]) == (0.0, 1.0)
    (sentence,) = about_passes({"views": "adaptive", "trust": {"adaptive": chosen}})
    assert sentence.startswith("Six views were no better than one on the 4,000 validation images")


def test_where_sure_answers_are_wrong_too_every_image_is_shown_six_times_and_the_run_says_so(labels_N: Array) -> None:
    wrong_N = np.random.default_rng(5).random(len(labels_N)) < 0.2
    one_NK = np.full((len(labels_N), 4), 1e-5)
    one_NK[np.arange(len(labels_N)), np.where(wrong_N, (labels_N + 1) % 4, labels_N)] = 1 - 3e-5
    six_NK = np.full_like(one_NK, 0.01)
    six_NK[np.arange(len(labels_N)), labels_N] = 0.97
    chosen = choose_threshold(one_NK, six_NK, labels_N)
    assert (chosen["threshold"], chosen["passes"]) == (1.0, 6.0)
    assert chosen["accuracy"]["adaptive"] == chosen["accuracy"]["six"] == 1.0
    (sentence,) = about_passes({"views": "adaptive", "trust": {"adaptive": chosen}})
    assert sentence.startswith(
        "Adaptive views save nothing here: at no threshold were they as good as six views on the 4,000"
    )


def test_a_threshold_of_one_asks_also_of_a_probability_of_one() -> None:
    chances_BK = np.array([[1.0, 0.0], [0.6, 0.4]])
    assert unsure(chances_BK, 1.0).tolist() == [True, True]
    assert unsure(chances_BK, 0.7).tolist() == [False, True]
    assert unsure(chances_BK, 0.0).tolist() == [False, False]
    assert (GRID[0], GRID[-1]) == (0.0, 1.0)
    assert list(GRID) == sorted(set(GRID))


# ── the logits ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_image_has_the_probabilities_of_the_views_that_it_was_shown(labels_N: Array) -> None:
    one_NK, six_NK = logits_of(1, 1.0, labels_N), logits_of(2, 2.0, labels_N)
    asked_N = np.arange(len(labels_N)) % 3 == 0
    decided_NK = probabilities(decide(one_NK, six_NK, asked_N, 0.4, 1.7), 1.7)
    assert np.allclose(decided_NK[asked_N], probabilities(six_NK, 1.7)[asked_N], atol=1e-6)
    assert np.allclose(decided_NK[~asked_N], probabilities(one_NK, 0.4)[~asked_N], atol=1e-6)


def test_outputs_from_all_six_views_are_shifted_by_class_frequencies_at_each_temperature(labels_N: Array) -> None:
    logits_VNK = np.stack([logits_of(seed, 1.0, labels_N) for seed in range(6)])
    shift_K, temperatures = np.array([0.5, -0.5, 0.0, 0.2]), {"one": 0.5, "six": 1.5}
    outputs = decided_outputs(Outputs(logits_VNK), temperatures, 0.8, shift_K)
    assert outputs.asked_N is not None
    one_NK, six_NK = (
        probabilities(combine(logits_VNK, views) + temperatures[views] * shift_K, temperatures[views])
        for views in ("one", "six")
    )
    assert np.array_equal(outputs.asked_N, one_NK.max(1) < 0.8)
    assert 0.1 < outputs.asked_N.mean() < 0.9
    expected_NK = np.where(outputs.asked_N[:, None], six_NK, one_NK)
    assert np.allclose(probabilities(combine(outputs.logits_VNK, "adaptive"), 1.5), expected_NK, atol=1e-5)


# ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run with adaptive views."""
    root = tmp_path_factory.mktemp("adaptive")
    data = coloured_folder(root / "colours")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(root / "cache"))
        run = sightline.train(
            data, recipe="small", settings=QUICK | {"evaluation": {"views": "adaptive"}}, run=root / "run"
        )
    assert run is not None
    return Finished(run, data, root / "cache")


def model_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "model.json").read_text("utf-8")))


def with_threshold(run: Path, copy: Path, threshold: float) -> Classifier:
    shutil.copytree(run, copy)
    model = model_of(copy)
    model["trust"]["adaptive"]["threshold"] = threshold
    (copy / "model.json").write_text(json.dumps(model), "utf-8")
    return sightline.load(copy, device="cpu")


def test_a_run_keeps_threshold_temperatures_and_limits_and_says_how_often_it_looks(adaptive: Finished) -> None:
    model = model_of(adaptive.run)
    assert model["views"] == "adaptive"
    assert list(model["temperatures"]) == ["one", "flip", "six", "adaptive"]
    assert model["temperatures"]["adaptive"] == model["temperatures"]["six"]
    for part in ("sets", "unknown"):
        assert list(model["trust"][part]["thresholds"]) == ["one", "flip", "six", "adaptive"]
    chosen = model["trust"]["adaptive"]
    assert chosen["n"] == model["calibrated_on"]
    assert 0 <= chosen["threshold"] <= 1
    measured = json.loads((adaptive.run / "evaluation.json").read_text("utf-8"))
    assert measured["views"] == "adaptive"
    assert 1 <= measured["passes"] <= 6
    page = (adaptive.run / "report.html").read_text("utf-8")
    assert "How often it looks" in page
    assert "log-likelihood" in page


@pytest.mark.parametrize("threshold", [0.0, 0.97, 1.0])
def test_answers_sets_and_none_of_these_are_those_of_the_views_that_were_shown(
    adaptive: Finished, tmp_path: Path, threshold: float
) -> None:
    classifier = with_threshold(adaptive.run, tmp_path / "run", threshold)
    pixels = np.random.default_rng(3).integers(0, 256, (24, *classifier.resize, 3), np.uint8)
    pixels[::2, ..., 0] = 255  # half of them like a class
    outputs, one, six = (classifier.outputs(pixels, views) for views in ("adaptive", "one", "six"))
    chances = {views: classifier.probabilities(pixels, views) for views in ("adaptive", "one", "six")}
    asked_N = outputs.asked_N
    assert asked_N is not None
    assert np.array_equal(asked_N, unsure(chances["one"], threshold))
    assert np.allclose(chances["adaptive"], np.where(asked_N[:, None], chances["six"], chances["one"]), atol=1e-4)
    energies_N = np.where(asked_N, energies(combine(six.logits_VNK, "six")), energies(combine(one.logits_VNK, "one")))
    assert one.distances_N is not None
    assert np.allclose(
        outputs.unknown_scores("adaptive"), one.distances_N + one.energy_weight * energies_N, rtol=1e-3, atol=1e-3
    )
    answers = classifier.answers(pixels, coverage=0.9)
    assert [answer.probability for answer in answers] == pytest.approx(chances["adaptive"].max(1).tolist(), abs=1e-4)
    assert all(answer.within is not None and answer.unknown is not None for answer in answers)


def test_five_views_are_computed_of_unsure_images_alone(
    adaptive: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = with_threshold(adaptive.run, tmp_path / "run", 0.9)
    pixels = np.random.default_rng(3).integers(0, 256, (10, *classifier.resize, 3), np.uint8)
    shown: list[int] = []
    forward = classifier.network.forward
    monkeypatch.setattr(classifier.network, "forward", lambda images: (shown.append(len(images)), forward(images))[1])
    outputs = classifier.outputs(pixels, "adaptive")
    assert outputs.asked_N is not None
    asked = int(outputs.asked_N.sum())
    assert shown == ([10, 5 * asked] if asked else [10])


def test_the_rows_of_a_set_are_answered_as_the_images_themselves(adaptive: Finished) -> None:
    classifier = sightline.load(adaptive.run, device="cpu")
    pixels = np.random.default_rng(3).integers(0, 256, (12, *classifier.resize, 3), np.uint8)
    rows = np.array([7, 2, 9])
    some, those = classifier.outputs(pixels, "adaptive", rows=rows), classifier.outputs(pixels[rows], "adaptive")
    assert np.allclose(some.logits_VNK, those.logits_VNK, atol=1e-5)


def test_predict_and_evaluate_take_them(adaptive: Finished, tmp_path: Path) -> None:
    measured = sightline.evaluate(adaptive.run, adaptive.data)
    assert 1 <= measured["passes"] <= 6
    files = sorted(adaptive.data.rglob("*.png"))[:3]
    own, named = (sightline.predict(adaptive.run, files, views=views).predictions for views in (None, "adaptive"))
    assert own == named


def test_a_run_without_them_refuses_them_and_a_damaged_one_is_refused(
    finished: Finished, adaptive: Finished, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--views adaptive: this classifier was calibrated for one"):
        sightline.predict(finished.run, sorted(finished.data.rglob("*.png"))[:1], views="adaptive")
    damaged = shutil.copytree(adaptive.run, tmp_path / "damaged")
    model = model_of(damaged)
    del model["trust"]["adaptive"]
    (damaged / "model.json").write_text(json.dumps(model), "utf-8")
    with pytest.raises(RunError, match=r"trust\.adaptive, or a temperature of one or six views, is missing"):
        sightline.load(damaged)


def test_an_exported_file_looks_again_as_the_run_does(
    adaptive: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    import sightline_runtime

    monkeypatch.setenv("SIGHTLINE_CACHE", str(adaptive.cache))
    classifier = with_threshold(adaptive.run, tmp_path / "run", 0.97)
    exported = sightline.export(tmp_path / "run", out=tmp_path / "model.onnx")
    assert exported.metadata.adaptive == 0.97
    assert exported.metadata.views == "adaptive"
    runtime = sightline_runtime.load(tmp_path / "model.onnx", threads=1)
    pixels = np.random.default_rng(3).integers(0, 256, (24, *classifier.resize, 3), np.uint8)
    pixels[::2, ..., 0] = 255
    for own, other in zip(classifier.answers(pixels, coverage=0.9), runtime.answers(pixels, coverage=0.9), strict=True):
        assert other.probabilities == pytest.approx(own.probabilities, abs=1e-4)
        assert (other.unknown, other.within) == (own.unknown, own.within)
