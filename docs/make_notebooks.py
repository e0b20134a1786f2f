"""Run the notebooks of docs/notebooks from start to end, each in a fresh folder, and keep what their cells show.

    python docs/make_notebooks.py [NAME ...]    # `make notebooks` runs both

What would differ from machine to machine for no reason (paths, times of execution) is taken out.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent / "notebooks"
INSTALLS = "install"  # tag of the cell that is for elsewhere, and not run
LONGEST = 600  # seconds of a cell
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook as it is once all its cells have run in a folder.

    Raises:
        CellExecutionError: a cell ended with an error.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook, timeout=LONGEST, kernel_name="python3", resources=resources, skip_cells_with_tag=INSTALLS
    )
    client.execute()
    return normalized(notebook, folder)


def normalized(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Take times, the folder's path and what the kernel says of itself out, and join what was printed in pieces."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
            for output in cell.outputs:
                output.pop("transient", None)
                for place in (output, output.get("data", {})):
                    for key, text in place.items():
                        if isinstance(text, str) and not key.startswith("image/"):
                            place[key] = text.replace(f"{folder}/", "")
    return notebook


def joined(outputs: list[Any]) -> list[Any]:
    """Join what a cell printed without anything between."""
    kept: list[Any] = []
    for output in outputs:
        if kept and output.output_type == kept[-1].output_type == "stream" and output.name == kept[-1].name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def main(names: list[str]) -> None:
    """Run the notebooks of these names, or all, and write them back."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if not names or path.stem in names:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["SIGHTLINE_CACHE"] = f"{folder}/cache"  # a fresh one: nothing is known from before
                nbformat.write(execute(path, Path(folder)), path)
            print(f"{path}: {path.stat().st_size / 1e3:.0f} KB")


if __name__ == "__main__":
    main(sys.argv[1:])
