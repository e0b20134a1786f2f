"""Build wheel and sdist of both distributions into dist/: `make dist`.

Each wheel is built from its sdist, so an sdist that lacks something fails here. The runtime's sources lie beside those
of the product, and an sdist cannot hold what lies above its pyproject.toml: the runtime is built from a copy of both.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
RUNTIME = ROOT / "packaging" / "runtime"
ABOVE = '"../../src"'  # where the runtime's pyproject.toml finds its sources within the checkout


def runtime_alone(folder: Path) -> Path:
    """Copy the runtime with its sources beside its pyproject.toml into a folder.

    Raises:
        SystemExit: its pyproject.toml names its sources in another way than this file knows.
    """
    settings = (RUNTIME / "pyproject.toml").read_text("utf-8")
    if ABOVE not in settings:
        sys.exit(f"packaging/runtime/pyproject.toml does not name {ABOVE}; change packaging/distributions.py with it.")
    for name in ("LICENSE", "NOTICE", "README.md"):
        shutil.copy(RUNTIME / name, folder)
    (folder / "pyproject.toml").write_text(settings.replace(ABOVE, '"src"'), "utf-8")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "sightline_runtime", folder / "src" / "sightline_runtime", ignore=ignored)
    return folder


def product(folder: Path) -> Path:
    """Copy what the product's distributions are made of, so that an earlier build/ in the checkout adds nothing."""
    names = ("LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "MANIFEST.in", "pyproject.toml")
    for name in names:
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return folder


def main() -> None:
    """Empty dist/ of earlier distributions and build all four files."""
    DIST.mkdir(exist_ok=True)
    for earlier in (*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")):
        earlier.unlink()
    for copied in (product, runtime_alone):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "build", "--outdir", str(DIST), str(copied(Path(folder)))]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            sys.exit(ended.stdout + ended.stderr)
    for path in sorted(DIST.iterdir()):
        print(f"{path.relative_to(ROOT).as_posix()}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
