"""Our name on an index is sightline-vision: what another project is called may not be installed by anything we print."""

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sightline.evaluation.results import cost_section

ROOT = Path(__file__).parents[1]
OLD = re.compile(
    r"pip3? install\b[^\n`;#]*?[\s'\"]sightline(?![\w./\\-])"
    r"|\bsightline\[(?!\[)[a-z][\w, -]*\]"
    r"|--upgrade[ =]['\"]?sightline(?![\w./\\-])"
    r"|\b(?:version|requires|distribution|metadata)\(['\"]sightline['\"]\)"
    r"|^name = ['\"]sightline['\"]|\bsightline *(?:==|>=|~=)"
)


@pytest.mark.parametrize(
    "line",
    [
        "pip install sightline",
        "run: pip install 'sightline[tune]'",
        "python -m pip install --quiet sightline",
        'pip install -U "sightline" then',
        "needs `sightline[explain]`",
        'all = ["sightline[app,tune]"]',
        "pip install --upgrade sightline",
        "uv pip install --upgrade 'sightline'",
        'importlib.metadata.version("sightline")',
        'name = "sightline"',
        "sightline>=0.1",
    ],
)
def test_each_old_form_is_seen(line: str) -> None:
    assert OLD.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "pip install '.[tune]'",
        "pip install sightline-vision",
        'all = ["sightline-vision[app,tune]"]',
        "pip install torch torchvision  # then `sightline train`",
        "pip install .; sightline train flowers/",
        "upgrade sightline to read it",
        'version("sightline-vision")',
        'name="sightline"',
    ],
)
def test_what_is_ours_is_left_alone(line: str) -> None:
    assert not OLD.search(line)


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no checkout of git")
def test_no_tracked_file_names_the_distribution_of_strangers() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    found = []
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if path == Path(__file__) or not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:  # pictures and weights
            continue
        found += [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if OLD.search(line)]
    assert not found, "\n".join(found)


def test_the_installed_distribution_is_ours() -> None:
    assert importlib.metadata.metadata("sightline-vision")["Name"] == "sightline-vision"


def test_the_version_that_an_old_run_was_trained_with_is_still_shown() -> None:
    table = cost_section({"versions": {"python": "3.11.0", "sightline": "0.0.9", "torch": "2.11"}}, None).table
    assert table is not None
    assert ("sightline", "0.0.9") in table.rows
