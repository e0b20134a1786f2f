"""What a classifier knows of its doubts: thresholds that travel with it, corrupted images, and images of no class."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from conftest import Finished, coloured_folder
from sightline.cli.main import main
from sightline.data.batches import Batch
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, DataError
from sightline.evaluation.calibration import calibrate, prior_shifts
from sightline.evaluation.ood import measure_ood
from sightline.evaluation.robustness import measure_corruptions
from sightline.explanation.explainer import Explainer
from sightline.inference.logistic_regression import Examples, solve_head
from sightline.measures.metrics import probabilities
from sightline.runs.folder import read_model, read_weights
from sightline.training.preparation import prepare_training


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run that may be changed."""
    return Path(shutil.copytree(finished.run, tmp_path / "run"))


def logits_of(n: int, strength: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two views, (2, n, 4), and the classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(4, size=n)
    noise = random.normal(size=(2, n, 4))
    return (strength * np.eye(4)[labels] + noise).astype(np.float32), labels


def test_each_number_of_views_has_its_temperature_and_thresholds() -> None:
    logits_VNK, labels = logits_of(2_000, 3.0)
    temperatures, trust = calibrate(logits_VNK, labels, np.random.default_rng(1).random(2_000), ["one", "flip"])
    assert set(temperatures) == set(trust["sets"]["thresholds"]) == {"one", "flip"}
    assert trust["views"] == "flip"
    assert trust["sets"]["coverages"]["0.9"]["threshold"] == trust["sets"]["thresholds"]["flip"]["0.9"]
    assert trust["calibration_error"] < trust["calibration_error_unscaled"] / 2  # the logits are too faint by far
    assert sum(one["n"] for one in trust["reliability"]) == trust["n"] == 2_000


def test_a_run_keeps_what_it_is_to_be_trusted_with_and_the_weights_alone_do_too(finished: Finished) -> None:
    trust = read_model(finished.run)["trust"]
    assert trust["n"] == 15
    assert trust["sets"]["thresholds"]["one"]["0.99"] is None  # 15 images are too few for it
    assert set(trust["corruptions"]["accuracy"]) == {"noise", "blur", "contrast", "jpeg", "pixelation"}
    assert all(len(severities) == 5 for severities in trust["corruptions"]["accuracy"].values())
    assert set(trust["unknown"]["rates"]) == {"noise", "plain colours", "own images in pieces"}
    assert read_weights(finished.run / "model.safetensors")[1]["trust"] == trust
    measured = json.loads((finished.run / "evaluation.json").read_text())
    assert set(measured["sets"]) == {"0.9", "0.95"}
    assert 0 <= measured["unknown_share"] <= 1


def test_clean_accuracy_is_that_of_validation_and_the_same_again(finished: Finished) -> None:
    classifier = sightline.load(finished.run)
    random = np.random.default_rng(0)
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(finished.data.glob("*/*.png"))])
    labels = np.repeat(np.arange(3), 30)
    rows = random.permutation(90)[:40]
    found = measure_corruptions(classifier, pixels, rows, labels[rows])
    answers = classifier.view_logits(pixels, "one", rows=rows)[0].argmax(1)
    assert found["clean"] == (answers == labels[rows]).mean()
    assert found == measure_corruptions(classifier, pixels, rows, labels[rows])
    assert measure_ood(classifier, pixels, rows) == measure_ood(classifier, pixels, rows)


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of two classes, one of 5 %, their classes, and the known probability of the rare one."""
    random = np.random.default_rng(seed)
    labels_N = (random.random(n) < 0.05).astype(np.int64)
    points_N = random.normal(size=n) + 2 * labels_N  # the logarithm of the densities' ratio is 2 x - 2
    return points_N, labels_N, 1 / (1 + 19 * np.exp(2 - 2 * points_N))


def test_a_classifier_of_balanced_weights_is_corrected_to_the_known_posterior() -> None:
    points_N, labels_N, _ = drawn(40_000, 0)
    counts_K = np.bincount(labels_N)
    weights_N = torch.from_numpy((len(labels_N) / (2 * counts_K))[labels_N]).float()
    features_N1 = torch.from_numpy(points_N[:, None]).float()
    (head,) = solve_head(Examples(features_N1, torch.from_numpy(labels_N), 2, weights_N), (1e-6,))
    points_N, labels_N, posterior_N = drawn(40_000, 1)
    logits_NK = 0.5 * head.logits(torch.from_numpy(points_N[:, None]).float())  # too faint, besides
    uniforms_N = np.random.default_rng(2).random(len(labels_N))
    plain, _ = calibrate(logits_NK[None], labels_N, uniforms_N, ["one"])
    assert probabilities(logits_NK, plain["one"])[:, 1].mean() > 0.15  # no temperature can make it right
    shifts = prior_shifts(counts_K, True, "train")
    temperatures, trust = calibrate(logits_NK[None], labels_N, uniforms_N, ["one"], shifts)
    assert temperatures["one"] == pytest.approx(0.5, rel=0.05)
    chances_N = probabilities(logits_NK / temperatures["one"] + shifts.answers_K)[:, 1]
    assert chances_N.mean() == pytest.approx(0.05, abs=0.004)
    assert np.abs(chances_N - posterior_N).mean() < 0.005
    assert trust["classwise_calibration_error"] < 0.01
    assert not prior_shifts(counts_K, True, "equal").answers_K.any()  # asked for as if equally frequent: as trained
    equal = prior_shifts(counts_K, False, "equal")  # of one that was trained on the images as they come
    assert equal.answers_K == pytest.approx(-shifts.answers_K)
    assert not equal.own_K.any()


@pytest.mark.parametrize("settings", [{"fit": {"class_weights": "balanced"}}, {"data": {"sampling": "balanced"}}])
def test_validation_while_training_is_measured_as_the_finished_classifier_answers(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    data = coloured_folder(tmp_path / "colours", images=20)
    for index in range(12, 20):
        (data / "grass" / f"{index:03d}.png").unlink()
    plan = prepare_training(data, "small", settings, ignore)
    learner = plan.learner(fresh=True)
    counts_K = np.bincount(plan.images.labels[plan.splits.train])
    expected_K = np.log(counts_K / counts_K.mean())
    assert learner.answer_shift is not None
    assert learner.answer_shift.numpy() == pytest.approx(expected_K, abs=1e-6)
    pixels = torch.randn(4, 3, *plan.images.size)
    batch = Batch(pixels, torch.tensor([0, 1, 0, 1]), 0, 0)
    learner.network.eval()
    with torch.no_grad():
        learner.validation_step(batch, 0)
        logits = learner.network(pixels).float() + learner.answer_shift
    loss, right, images = learner.validation_totals.sums
    assert loss / images == pytest.approx(float(torch.nn.functional.cross_entropy(logits, batch.labels)), rel=1e-5)
    assert right == int((logits.argmax(1) == batch.labels).sum())
    plain = prepare_training(data, "small", {}, ignore)
    assert plain.learner(fresh=True).answer_shift is None


def test_a_run_with_class_weights_keeps_its_correction_and_every_way_of_answering_has_it(tmp_path: Path) -> None:
    data = coloured_folder(tmp_path / "colours", images=20)
    for index in range(12, 20):
        (data / "grass" / f"{index:03d}.png").unlink()
    runs = {}
    for prior in ("train", "equal"):
        settings = {
            "fit": {"epochs": 1, "class_weights": "balanced"},
            "network": {"kind": "speednet", "widths": [8, 8, 8]},
            "evaluation": {"robustness": False, "on": "none", "prior": prior},
        }
        run = sightline.train(data, recipe="small", settings=settings, run=tmp_path / prior)
        assert run is not None
        runs[prior] = sightline.load(run)
    corrected, plain = runs["train"], runs["equal"]
    assert "prior_shift" not in plain.model
    assert corrected.model["prior_shift"][1] < -0.2  # grass
    pixels = np.random.default_rng(0).integers(0, 256, (8, *plain.resize, 3), np.uint8)
    views = plain.views
    difference = corrected.view_logits(pixels, views) - plain.view_logits(pixels, views)
    expected = np.array(corrected.model["prior_shift"]) * corrected.model["temperatures"][views]
    assert difference == pytest.approx(np.broadcast_to(expected, difference.shape), abs=1e-4)
    chances = corrected.probabilities(pixels, "one")
    explainer = Explainer(corrected, ["grad_cam"])
    with torch.no_grad():
        of_curves = explainer._probabilities(explainer.images(pixels)).numpy()
    assert of_curves == pytest.approx(chances, abs=1e-5)
    answers = corrected.answers(pixels, "one")
    assert [one.probabilities["grass"] for one in answers] == pytest.approx(chances[:, 1].tolist(), abs=1e-6)


def test_a_run_answers_in_float32_whatever_it_was_trained_in_unless_another_format_is_asked_for(
    finished: Finished, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sightline.machine.devices.has_fast_bfloat16", lambda device: True)
    assert read_model(run)["precision"] == "auto"
    assert json.loads((run / "evaluation.json").read_text())["arithmetic"] == "float32"
    pixels = np.random.default_rng(0).integers(0, 256, (8, *sightline.load(run).resize, 3), np.uint8)
    exact = sightline.load(run).probabilities(pixels)
    assert sightline.load(run).dtype == torch.float32
    assert sightline.load(run, precision="bfloat16").dtype == torch.bfloat16
    assert (sightline.load(run, precision="float32").probabilities(pixels) == exact).all()
    model = read_model(run)
    del model["answer_precision"]  # as runs from before had it
    (run / "model.json").write_text(json.dumps(model))
    assert sightline.load(run).dtype == torch.bfloat16


def test_half_precision_of_answers_is_refused_before_the_training_on_a_processor(finished: Finished) -> None:
    with pytest.raises(ConfigError, match=r"--evaluation.precision float16 needs a GPU"):
        sightline.train(finished.data, settings={"evaluation": {"precision": "float16"}}, dry_run=True)
    with pytest.raises(ConfigError, match=r"--precision half: wanted auto, float32"):
        sightline.load(finished.run, precision="half")


def test_robustness_can_be_left_out(tmp_path: Path) -> None:
    run = sightline.train(
        coloured_folder(tmp_path / "colours", images=10),
        recipe="small",
        settings={
            "fit": {"epochs": 1},
            "network": {"kind": "speednet", "widths": [8, 8, 8]},
            "evaluation": {"robustness": False},
        },
        run=tmp_path / "run",
    )
    assert run is not None
    trust = read_model(run)["trust"]
    assert "corruptions" not in trust
    assert trust["unknown"]["rates"] == {}


def with_limit(run: Path, limit: float) -> None:
    """Set the threshold from which on an image is called unknown."""
    model = json.loads((run / "model.json").read_text())
    limits = model["trust"]["unknown"]["thresholds"]
    limits.update(dict.fromkeys(limits, limit))
    (run / "model.json").write_text(json.dumps(model))


def test_an_image_of_none_of_the_classes_is_said_to_be_one(
    finished: Finished, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(finished.data / "grass" / "000.png")
    with_limit(run, 1e9)
    assert main(["predict", str(run), image]) == 0
    assert "none of these" not in capsys.readouterr().out
    with_limit(run, -1e9)
    assert main(["predict", str(run), image]) == 0
    assert f"{image}: none of these; the nearest: " in capsys.readouterr().out
    assert sightline.load(run).predict([image])[0].unknown is True


def test_sets_are_given_on_request_in_the_order_of_probability(
    finished: Finished, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers.csv"
    assert main(["predict", str(run), str(finished.data), "--sets", "0.99", "--out", str(out)]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    sets = [row["set_0.99"] for row in rows]
    assert all(
        set(one.lstrip("'").split("; ")) == {"=blood", "grass", "ünder wasser"} for one in sets
    )  # all: 15 images
    assert all(one.startswith(row["class"]) for one, row in zip(sets, rows, strict=True))
    capsys.readouterr()
    assert main(["predict", str(run), str(finished.data / "grass" / "000.png"), "--sets", "0.9"]) == 0
    assert "\n  prediction set for 90%: " in capsys.readouterr().out


@pytest.mark.parametrize("coverage", ["0.5", "1", "0.905"])
def test_a_coverage_that_no_threshold_is_kept_for_is_refused(
    coverage: str, finished: Finished, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), str(finished.data), "--sets", coverage]) == 2
    assert f"sets of a coverage of {coverage}: wanted 0.8 to 0.99, in steps of 0.01" in capsys.readouterr().err


def test_a_run_from_before_there_were_thresholds_predicts_as_it_did(finished: Finished, run: Path) -> None:
    model = json.loads((run / "model.json").read_text())
    del model["trust"]
    (run / "model.json").write_text(json.dumps(model))
    classifier = sightline.load(run)
    (answer,) = classifier.predict([finished.data / "grass" / "000.png"])
    assert answer.unknown is None
    with pytest.raises(ConfigError, match="train it again to have them"):
        classifier.predict([finished.data / "grass" / "000.png"], coverage=0.9)


def test_the_share_of_other_things_that_are_called_unknown_is_noted_in_the_run(
    finished: Finished, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_limit(run, -1e9)
    other = tmp_path / "others"
    for name in ("bicycle", "teapot"):
        shutil.copytree(finished.data / "grass", other / name)
    assert main(["evaluate", str(run), str(other), "--unknown"]) == 0
    assert capsys.readouterr().out == "100.0% of 60 images are called none of the classes\n"
    model = read_model(run)
    assert model["trust"]["unknown"]["rates"]["others"] == {"n": 60, "rate": 1.0}
    assert model["test_readings"] == read_model(finished.run)["test_readings"]


def test_other_things_must_be_other_things(finished: Finished, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="class '=blood' of colours is one of the classifier's own"):
        sightline.evaluation.evaluate.evaluate_unknown(run, finished.data)
    assert main(["evaluate", str(run), "--unknown"]) == 2
    assert "name the set" in capsys.readouterr().err
