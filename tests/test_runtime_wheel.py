"""The distribution of the runtime alone: what is in its wheel, and that its packages suffice to answer and to serve."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from test_runtime import CLASSES, answering, exported, odd_files

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging" / "runtime"
MOST_MEGABYTES = 170
UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|No matching distribution found for setuptools"
)


def pip(python: str | Path, *arguments: str | Path) -> None:
    """Run pip for a Python; skip where no index can be reached."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    command += map(str, arguments)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # or it finds itself there
    ended = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=300, check=False)
    if ended.returncode and UNREACHABLE.search(ended.stderr):
        pytest.skip("no package index can be reached")
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", folder, PACKAGING)
    (path,) = folder.glob("sightline_vision_runtime-*.whl")
    return path


def packages_of_dockerfile() -> list[str]:
    """What the image installs, as its Dockerfile says."""
    text = (PACKAGING / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^RUN pip install (.*)$", text, re.MULTILINE)
    return [word for word in shlex.split(line) if not word.startswith("--")]


def test_both_distributions_have_one_version_and_the_dockerfile_installs_what_the_runtime_needs() -> None:
    product, runtime = (
        tomllib.loads(path.read_text("utf-8"))["project"]
        for path in (ROOT / "pyproject.toml", PACKAGING / "pyproject.toml")
    )
    assert product["version"] == runtime["version"]
    assert packages_of_dockerfile() == runtime["dependencies"] + runtime["optional-dependencies"]["serve"]


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: Path) -> None:
    package = ROOT / "src" / "sightline_runtime"
    sources = {f"sightline_runtime/{path.relative_to(package).as_posix()}" for path in package.rglob("*.py")}
    with zipfile.ZipFile(wheel) as packed:
        held = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert held == sources | {"sightline_runtime/py.typed"}


def test_its_packages_suffice_to_answer_as_the_product_does_and_to_serve(wheel: Path, tmp_path: Path) -> None:
    from sightline.cli.main import main

    venv.create(tmp_path / "venv", with_pip=False)
    programs = tmp_path / "venv" / "bin"
    pip(programs / "python", "install", "--no-compile", *packages_of_dockerfile(), wheel)
    added = [path for path in (tmp_path / "venv" / "lib").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in added) <= MOST_MEGABYTES * 1e6
    assert not [
        path for path in added if "/torch/" in path.as_posix() or path.as_posix().endswith("/sightline/__init__.py")
    ]
    model, photos = exported(tmp_path / "model.onnx"), tmp_path / "photos"
    photos.mkdir()
    for name, data in odd_files():
        (photos / name).write_bytes(data)
    clean = {"PATH": str(programs), "OMP_NUM_THREADS": "1"}
    own, other = tmp_path / "own.csv", tmp_path / "other.csv"
    command = [programs / "sightline-predict", model, photos, "--sets", "0.9", "--out", own]
    subprocess.run(command, env=clean, cwd=tmp_path, check=True, timeout=120)
    assert main(["predict", str(model), str(photos), "--sets", "0.9", "--out", str(other)]) == 0
    assert own.read_bytes() == other.read_bytes()
    told = answering([str(programs / "sightline-serve"), str(model), "--port", "0"], clean)
    assert told["classes"] == CLASSES
