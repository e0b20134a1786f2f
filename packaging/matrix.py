"""Install the wheels of dist/ into empty environments and use them: `make matrix`, outside of CI.

A row is a distribution, a Python and a choice of versions: the newest on each Python, and on the oldest the lowest that
our bounds allow of what we name ourselves (uv's lowest-direct). uv makes the environments, and fetches a Python that is
not here if it can; a row whose Python cannot be had says so. `--full` runs the tests in place of a smoke; they import
the installed wheel, since nothing puts src/ on their path.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv.exe" if os.name == "nt" else "uv")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
RESOLUTIONS = ("highest", "lowest-direct")
HOURS = 3
"""That all tests may take."""
PROJECTS = {
    "sightline-vision": ROOT / "pyproject.toml",
    "sightline-vision-runtime": ROOT / "packaging/runtime/pyproject.toml",
}
SHOWN = {
    "sightline-vision": ("torch", "numpy", "pillow"),
    "sightline-vision-runtime": ("onnxruntime", "numpy", "pillow"),
}
IMAGE = "from PIL import Image; Image.effect_noise((16, 16), 90).convert('RGB').save('a.png')"
DECODE = (
    "import onnxruntime, sightline_runtime; sightline_runtime.load; import sightline_runtime.decoding.decode as d;"
    " assert d.decode(open('a.png', 'rb').read()).shape == (16, 16, 3)"
)
SMOKE = {
    "sightline-vision": (
        ("sightline", "--help"),
        ("sightline", "environment"),
        ("sightline", "train", "digits", "--recipe", "small", "--fit.epochs", "1", "--run", "run"),
        ("python", "-c", IMAGE),
        ("sightline", "predict", "run", "a.png"),
    ),
    "sightline-vision-runtime": (
        ("sightline-predict", "--help"),
        ("python", "-c", IMAGE),
        ("python", "-c", DECODE),
    ),
}


class FailedError(Exception):
    """What ended a row, with the end of what it printed."""


@dataclass(frozen=True)
class Row:
    """One environment of the matrix."""

    distribution: str
    python: str
    resolution: str
    """``highest`` or ``lowest-direct``, as uv calls them."""

    @property
    def wheel(self) -> Path:
        """Its file in dist/, of the version of the checkout."""
        version = tomllib.loads(PROJECTS[self.distribution].read_text("utf-8"))["project"]["version"]
        return ROOT / "dist" / f"{self.distribution.replace('-', '_')}-{version}-py3-none-any.whl"

    def __str__(self) -> str:
        return f"{self.distribution:<25} {self.python:<6} {self.resolution:<14}"


def rows(distributions: list[str], pythons: list[str], resolutions: list[str]) -> Iterator[Row]:
    """Yield the newest versions on each Python, and the lowest on the oldest."""
    for distribution in distributions:
        if PYTHONS[0] in pythons and "lowest-direct" in resolutions:
            yield Row(distribution, PYTHONS[0], "lowest-direct")
        for python in pythons if "highest" in resolutions else ():
            yield Row(distribution, python, "highest")


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a row: nothing of this environment or checkout, and caches of its own.

    The Pythons of pyenv come first: its shims do not start one that is not chosen.
    """
    kept = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [str(path) for python in PYTHONS for path in sorted(versions.glob(f"{python}.*/bin"))]
    return kept | {"PATH": os.pathsep.join([*found, kept["PATH"]]), "SIGHTLINE_CACHE": str(folder / "cache")}


def run(command: list[str | Path], cwd: Path, variables: dict[str, str], limit: float) -> str:
    """Run a command and return what it printed.

    Raises:
        FailedError: it failed, or took longer than the limit, in seconds.
    """
    words = [str(word) for word in command]
    try:
        ended = subprocess.run(
            words, cwd=cwd, env=variables, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"{' '.join(words[:4])} took more than {limit:,.0f} s") from error
    if ended.returncode:
        lines = (ended.stdout + ended.stderr).strip().splitlines()[-15:]
        raise FailedError("\n".join([f"{' '.join(words[:6])} ended with status {ended.returncode}", *lines]))
    return ended.stdout


def install(row: Row, folder: Path, variables: dict[str, str], full: bool) -> Path:
    """Make the row's environment below a folder, and return the folder of its programs."""
    place = folder / "venv"
    run([UV, "venv", "--no-config", "--quiet", "--seed", "--python", row.python, place], folder, variables, 600)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    pip, python = [UV, "pip", "--no-config", "--quiet"], programs / "python"
    # From the list of the project, since of a wheel only the wheel itself is named directly
    versions = [*pip[:2], "compile", *pip[2:], PROJECTS[row.distribution], "--python", python]
    versions += ["--resolution", row.resolution, "--output-file", "versions.txt"]
    run(versions + (["--extra", "dev"] if full else []), folder, variables, 600)
    run([*pip[:2], "install", *pip[2:], "--python", python, "-r", "versions.txt", row.wheel], folder, variables, 3600)
    return programs


def use(row: Row, programs: Path, folder: Path, variables: dict[str, str], full: bool) -> str:
    """Run the smoke, or all tests, and return the versions that it ran with."""
    own = variables | {"PATH": os.pathsep.join([str(programs), variables["PATH"]])}
    if full and row.distribution == "sightline-vision":
        run([programs / "python", "-m", "pytest", "--maxfail=10", "-p", "no:cacheprovider"], ROOT, own, HOURS * 3600)
    else:
        for program, *arguments in SMOKE[row.distribution]:
            run([shutil.which(program, path=str(programs)) or program, *arguments], folder, own, 900)
    asked = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    return run([programs / "python", "-c", asked, *SHOWN[row.distribution]], folder, own, 60).strip()


def main() -> None:
    """Print one line a row as it ends; fail if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pythons", nargs="+", choices=PYTHONS, default=list(PYTHONS))
    parser.add_argument("--resolutions", nargs="+", choices=RESOLUTIONS, default=list(RESOLUTIONS))
    parser.add_argument("--only", choices=PROJECTS, help="one of the two distributions")
    parser.add_argument("--full", action="store_true", help="all tests in place of a smoke; hours")
    options = parser.parse_args()
    failures = []
    for row in rows([options.only] if options.only else list(PROJECTS), options.pythons, options.resolutions):
        if not row.wheel.is_file():
            sys.exit(f"{row.wheel.relative_to(ROOT)} is not there; run `make dist` first.")
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            folder, full = Path(name), options.full and row.distribution == "sightline-vision"
            variables = environment(folder)
            try:
                if not has_python(row.python, folder, variables):
                    print(f"{row} not run: uv finds no Python {row.python} here and cannot fetch it", flush=True)
                    continue
                result = use(row, install(row, folder, variables, full), folder, variables, full)
            except FailedError as error:
                failures.append(f"{row}\n{error}")
                result = "FAILED"
        print(f"{row} {'tests' if full else 'smoke'} {time.monotonic() - start:5.0f} s  {result}", flush=True)
    if failures:
        sys.exit("\n\n".join(["", *failures]))


def has_python(version: str, folder: Path, variables: dict[str, str]) -> bool:
    """Whether uv has a Python, or fetches it."""
    for command in (("find",), ("install", "--quiet")):
        try:
            run([UV, "python", *command, version], folder, variables, 600)
            return True
        except FailedError:
            continue
    return False


if __name__ == "__main__":
    main()
