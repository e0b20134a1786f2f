"""Both packages bring their types: a strict client passes mypy."""

import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = Path(__file__).with_name("typed_client.py")
LIBRARIES = ("torch", "torchvision", "lightning", "timm", "matplotlib", "gradio", "fastapi", "pydantic")
SKIPPED = "\n".join(f"[mypy-{library}.*]\nfollow_imports = skip\n" for library in LIBRARIES)
"""What has no type of ours takes mypy most of its time."""


def test_a_strict_client_passes_by_the_types_that_both_packages_bring(tmp_path: Path) -> None:
    """As installed: found beside the libraries, where mypy reads no package without a py.typed."""
    pytest.importorskip("mypy", reason="types are checked by mypy: pip install '.[dev]'")
    (tmp_path / "client.py").write_bytes(CLIENT.read_bytes())
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = true\n\n{SKIPPED}")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "client.py"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
