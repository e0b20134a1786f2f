"""What stands on screens is said in words that a practitioner knows: no name of ours reaches a console or a page."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from conftest import Finished
from sightline.cli.main import main
from sightline.display.events import Measured
from sightline.display.lines import Lines
from sightline.explanation.explain import summarize_explanations
from sightline.explanation.explainer import ExplainedImage
from sightline.training.optimizers import PARTS as OPTIMIZED
from sightline.training.summary import PARTS

INTERNAL = re.compile(r"FLOP/s|probe_flops|\braps\b|head_biases|gap \(|of fit\b|× that|\benergy\b", re.IGNORECASE)


def internal(text: str) -> list[str]:
    """What of a text is a name of ours, with its surroundings."""
    return [text[max(0, found.start() - 60) : found.end() + 60] for found in INTERNAL.finditer(text)]


@pytest.mark.parametrize(
    "line",
    [
        "  × FLOP/s of the probe   12.1 × 1e+09",
        "a chosen probability (RAPS, calibrated on 15 images)",
        "peak rates: head 0.1, head_biases 0.1",
        "gap (worst)",
        "seconds of fit and evaluation",
    ],
)
def test_the_names_that_stood_there_would_be_noticed(line: str) -> None:
    assert internal(line)


def test_no_name_of_ours_is_in_a_report_with_all_its_sections(finished: Finished) -> None:
    page = (finished.run / "report.html").read_text("utf-8")
    shown = page[
        : page.index("sightline train DATA --config")
    ]  # below it stands the recipe, in the words of its settings
    for title in ("Prediction sets", "Images of no class", "What it took"):
        assert title in shown
    assert internal(re.sub(r"<style.*?</style>|data:image\S*", "", shown, flags=re.DOTALL)) == []


def test_no_name_of_ours_is_on_the_console_after_a_training(finished: Finished) -> None:
    measured = json.loads((finished.run / "evaluation.json").read_text())
    assert {"fit_seconds", "probe_flops", "cost"} <= set(measured["cost"])  # where benchmarks read it
    console = Console(file=io.StringIO(), width=200)
    Lines(console)(Measured(measured))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "seconds of training and test" in printed
    assert "prediction sets for 90%: hold the true class" in printed
    assert internal(printed) == []


def test_every_part_with_a_learning_rate_has_a_name_in_words() -> None:
    assert set(PARTS) == set(OPTIMIZED)
    assert not any("_" in name for name in PARTS.values())


def test_no_name_of_ours_is_in_a_comparison(finished: Finished, tmp_path: Path, capsys) -> None:
    other = shutil.copytree(finished.run, tmp_path / "other")
    assert main(["compare", str(finished.run), str(other), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "runs.html").read_text("utf-8")
    assert internal(capsys.readouterr().out + page) == []
    assert "cost" in (tmp_path / "out" / "runs.csv").read_text().splitlines()[0]


def test_the_table_of_explanations_says_which_way_is_good() -> None:
    image = ExplainedImage("cat", 0.9, "cat", [], None)
    columns = summarize_explanations([image]).columns
    assert columns == ["method", "images", "sum off by (worst)", "deletion (low is good)", "insertion (high is good)"]
