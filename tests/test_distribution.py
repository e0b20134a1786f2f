"""What a release is made of. Our name on an index is sightline-vision: what another project is called may not be
installed by anything we print."""

import fnmatch
import importlib.metadata
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

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


# ── what a release holds ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_every_file_of_the_packages_that_is_no_module_is_named_for_the_wheel(settings: dict[str, Any]) -> None:
    """`make dist` compares a built wheel; this needs no build."""
    named = settings["tool"]["setuptools"]["package-data"]
    for package, patterns in named.items():
        folder = ROOT / "src" / package
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        files = {name for name in files if not name.endswith(".py") and "__pycache__/" not in name}
        left_out = {name for name in files if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
        assert "py.typed" in files
        assert not left_out, package
    assert set(named) == {path.parent.name for path in (ROOT / "src").glob("*/__init__.py")}


def test_one_version_stands_wherever_a_release_is_named(settings: dict[str, Any]) -> None:
    version = settings["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.findall(r"^## \[(.+?)\]", changes, re.MULTILINE)[0] == version


def test_changes_have_the_form_of_keep_a_changelog() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert "keepachangelog.com" in changes
    for heading in re.findall(r"^## (.*)$", changes, re.MULTILINE):
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - (unreleased|\d{4}-\d\d-\d\d)", heading), heading
    kinds = re.findall(r"^### (.*)$", changes, re.MULTILINE)
    assert kinds
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_each_promise_of_security_names_tests_that_are_there() -> None:
    promises = [line for line in (ROOT / "SECURITY.md").read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    assert len(promises) > 10
    for line in promises:
        named = re.findall(r"(test_\w+\.py)`", line)
        assert named, line
        assert [name for name in named if not (ROOT / "tests" / name).is_file()] == [], line


def test_workflows_and_releases_call_targets_that_the_makefile_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    calls = re.compile(r"(?:run: |^ *)make ((?:[a-z-]+ ?)+)", re.MULTILINE)
    files = [*(ROOT / ".github" / "workflows").glob("*.yml"), ROOT / "RELEASING.md", ROOT / "docs" / "contributing.md"]
    for file in files:
        called = {word for words in calls.findall(file.read_text("utf-8")) for word in words.split()}
        assert called, file
        assert called <= targets, file
