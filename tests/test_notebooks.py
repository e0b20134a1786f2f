"""The notebooks run from start to end, as they are kept, with what their cells show beside them."""

import base64
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
LARGEST = 600_000  # bytes of a notebook with its pictures


@pytest.fixture(scope="module")
def making() -> ModuleType:
    """What ``make notebooks`` runs."""
    pytest.importorskip("nbclient", reason="notebooks are run by nbclient: pip install '.[dev]'")
    spec = importlib.util.spec_from_file_location("make_notebooks", DOCS / "make_notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["photos", "survey"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_start_to_end(path: Path, making: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    kept = json.loads(path.read_text("utf-8"))["cells"]
    ran = making.execute(path, folder).cells  # raises where a cell does
    assert [cell.source for cell in ran] == ["".join(cell["source"]) for cell in kept]
    for cell, now in zip(kept, ran, strict=True):
        if cell["cell_type"] == "code":  # as run last by `make notebooks`, it showed something where it does now
            assert kinds(cell["outputs"]) == kinds(now.outputs), now.source
            assert "stderr" not in {output.get("name") for output in now.outputs}, now.outputs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_is_small_whole_and_of_no_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text) <= LARGEST
    cells = json.loads(text)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["metadata"].get("tags") for cell in code if cell["execution_count"] is None] == [["install"]]
    assert [cell["execution_count"] for cell in code[1:]] == list(range(1, len(code)))
    assert not [cell for cell in cells if "execution" in cell["metadata"]]
    for output in (output for cell in code for output in cell["outputs"]):
        assert output["output_type"] != "error"
        for kind, content in output.get("data", {}).items():
            if kind.startswith("image/"):
                assert base64.b64decode("".join(content))
    assert not [place for place in ("/tmp/", "/home/", "/work/", "/root/", "C:\\\\") if place in text]


def kinds(outputs: list[dict[str, object]]) -> set[str]:
    """Return of which kinds the outputs of a cell are."""
    found: set[str] = set()
    for output in outputs:
        data = output.get("data")
        found |= set(data) if isinstance(data, dict) else {str(output["output_type"])}
    return found - {"text/html", "text/plain"}  # a stage that was over at once showed no bar
