"""A file for phones answers as its run does, or there is none. In .venv-mobile: make test-mobile."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("executorch", reason="ExecuTorch has an environment of its own: make test-mobile")

from executorch.runtime import OperatorRegistry, Runtime

import sightline
from conftest import Finished
from sightline.errors import ConfigError, RunError
from sightline.evaluation.exporting import program
from sightline.evaluation.exporting.export import Exported, export
from sightline.evaluation.exporting.graph import ClassifierGraph
from sightline.evaluation.exporting.program import ProgramDraft
from sightline_runtime.metadata import parse_metadata
from untrained import NETWORKS, SPEEDNET, untrained

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The file of the finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(finished.cache))
        return export(finished.run, out=tmp_path_factory.mktemp("exported") / "model.pte")


@pytest.fixture
def pixels(finished: Finished) -> Array:
    """Some images of the set, and noise."""
    from PIL import Image

    files = sorted(finished.data.rglob("*.png"))[::9]
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    return np.concatenate([np.stack([np.asarray(Image.open(file)) for file in files]), noise])


def ask(content: bytes | Path, pixels: Array, views: list[int]) -> list[Array]:
    """Ask a file for its answers, one image at a time, as a phone does."""
    asked = Runtime.get().load_program(content).load_method("forward")
    shown = torch.tensor(views)
    answers = [asked.execute([torch.from_numpy(image[None].copy()), shown]) for image in pixels]
    return [np.concatenate([one.numpy() for one in column]) for column in zip(*answers, strict=True)]


# ── one file that answers as the run ─────────────────────────────────────────────────────────────────────────────────


def test_the_file_has_the_probabilities_logits_and_scores_of_predict(exported: Exported, finished, pixels) -> None:
    classifier = sightline.load(finished.run, device="cpu", precision="float32")
    for views, shown in (("flip", [0, 1]), ("one", [0])):
        chances_BK, logits_BK, scores_B = ask(exported.path, pixels, shown)
        outputs = classifier.outputs(pixels, views)
        assert chances_BK == pytest.approx(classifier.probabilities(pixels, views), abs=1e-5)
        expected_B = outputs.unknown_scores(views)
        assert scores_B == pytest.approx(expected_B, abs=1e-3 * np.ptp(expected_B))
        assert logits_BK == pytest.approx(outputs.logits_VNK[: len(shown)].mean(0), abs=1e-3)


def test_a_method_named_sightline_says_what_the_file_is(exported: Exported) -> None:
    told = Runtime.get().load_program(exported.path)
    assert told.method_names == {"forward", "sightline"}
    (text,) = told.load_method("sightline").execute([])
    metadata = parse_metadata(text, "it")
    assert metadata == exported.metadata
    assert metadata.numbers == "float32"
    assert metadata.measured.split == "validation"
    assert metadata.measured.n == metadata.measured.equal_answers
    assert 0 <= metadata.measured.largest_difference < 1e-4


def test_the_file_knows_no_folder_of_this_machine(exported: Exported, finished: Finished) -> None:
    content = exported.path.read_bytes()
    for folder in (str(Path(sightline.__file__).parent), str(finished.run.parent), "site-packages", ".py"):
        assert folder.encode() not in content, folder


def test_nothing_is_told_on_the_standard_error(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    export(finished.run, out=tmp_path / "model.pte")
    assert capfd.readouterr().err == ""


def test_the_views_of_a_second_call_complete_those_of_the_first() -> None:
    classifier, pixels = untrained(SPEEDNET, 32)
    classifier.views = classifier.model["views"] = "six"
    classifier.model["temperatures"]["six"] = 0.6
    content = ProgramDraft(classifier).packed()
    first, rest, whole = (ask(content, pixels[:2], views)[1] for views in ([0], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]))
    assert pytest.approx(whole, abs=1e-4) == 0.25 * first + 0.75 * rest


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_and_head_is_exported(name: str) -> None:
    classifier, pixels = untrained(*NETWORKS[name])
    content = ProgramDraft(classifier).packed()
    for views, shown in (("one", [0]), ("flip", [0, 1])):
        chances_BK, _, scores_B = ask(content, pixels, shown)
        assert chances_BK == pytest.approx(classifier.probabilities(pixels, views), abs=1e-5)
        assert scores_B == pytest.approx(classifier.outputs(pixels, views).unknown_scores(views), rel=1e-3)


def test_a_run_of_one_view_without_a_score_answers_too() -> None:
    classifier, pixels = untrained(SPEEDNET, 32)
    classifier.views, classifier.reference, classifier.model["trust"] = "one", None, None
    chances_BK, _ = ask(ProgramDraft(classifier).packed(), pixels, [0])
    assert chances_BK == pytest.approx(classifier.probabilities(pixels, "one"), abs=1e-5)


def test_answers_that_overflow_are_the_same_for_every_class_in_both() -> None:
    classifier, pixels = untrained(SPEEDNET, 32)
    classifier.reference = None
    with torch.no_grad():
        classifier.network.head.weight.fill_(3e38)
    chances_BK, _, _ = ask(ProgramDraft(classifier).packed(), pixels, [0, 1])
    assert chances_BK == pytest.approx(np.full((5, 5), 0.2))
    assert classifier.probabilities(pixels) == pytest.approx(chances_BK)


def test_the_network_of_the_run_is_left_as_it_was() -> None:
    classifier, pixels = untrained(SPEEDNET, 32)
    orders = [parameter.stride() for parameter in classifier.network.parameters()]
    before = classifier.probabilities(pixels)
    ProgramDraft(classifier).packed()
    assert [parameter.stride() for parameter in classifier.network.parameters()] == orders
    assert np.array_equal(classifier.probabilities(pixels), before)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_operator_that_executorch_does_not_have_is_named() -> None:
    class Bessel(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(maps)

    classifier, _ = untrained(SPEEDNET, 32)
    classifier.network.activation = Bessel()
    with pytest.raises(
        ConfigError,
        match=r"the network speednet has the operator .*bessel_j0.*, which ExecuTorch does not have; export",
    ):
        ProgramDraft(classifier).packed()


def test_an_operator_without_a_kernel_in_the_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Runtime.get().operator_registry.operator_names - {"aten::index_select.out"}
    monkeypatch.setattr(OperatorRegistry, "operator_names", known)
    classifier, _ = untrained(SPEEDNET, 32)
    with pytest.raises(ConfigError, match=r"the network speednet has the operator aten::index_select.out, which"):
        ProgramDraft(classifier).packed()


def test_a_network_that_looks_at_its_numbers_is_refused_with_the_reason() -> None:
    class Branch(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return maps if float(maps.sum()) > 0 else -maps

    classifier, _ = untrained(SPEEDNET, 32)
    classifier.network.activation = Branch()
    with pytest.raises(ConfigError, match=r"the network speednet cannot be exported \(.*\); export a run with another"):
        ProgramDraft(classifier).packed()


def another_mean(graph: ClassifierGraph) -> None:
    graph.shift_C += 0.2


def two_outputs_swapped(graph: ClassifierGraph) -> None:
    head = graph.network.head
    head.weight.data = head.weight.data[[1, 0, 2]]


def one_view_for_all(graph: ClassifierGraph) -> None:
    graph.places_VP[:] = graph.places_VP[1:2].clone()


def another_temperature(graph: ClassifierGraph) -> None:
    graph.temperatures *= 1.1


@pytest.mark.parametrize(
    "change", [another_mean, two_outputs_swapped, one_view_for_all, another_temperature], ids=lambda one: one.__name__
)
def test_a_graph_that_drifts_is_refused_and_leaves_no_file(
    change: Callable[[ClassifierGraph], None], finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(classifier: Any) -> ClassifierGraph:
        graph = copy.deepcopy(ClassifierGraph(classifier))
        with torch.no_grad():
            change(graph)
        return graph

    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    monkeypatch.setattr(program, "ClassifierGraph", changed)
    with pytest.raises(RunError, match=r"the exported file does not answer as the run does: .*; no file was written"):
        export(finished.run, out=tmp_path / "model.pte")
    assert [path for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_a_file_that_does_not_run_is_refused() -> None:
    draft = ProgramDraft(untrained(SPEEDNET, 32)[0])
    with pytest.raises(RunError, match=r"the exported file does not run in ExecuTorch \(.*\); no file was written"):
        draft.answers(b"nothing that ExecuTorch knows", np.zeros((1, 36, 38, 3), np.uint8), np.arange(1))
