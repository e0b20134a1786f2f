"""The text for a bug report: complete, harmless to publish, and there even where a library is broken."""

import getpass
import importlib
import os
import re
import time
from pathlib import Path

import pytest

import sightline
from conftest import Finished
from sightline.cli.main import main
from sightline.machine import environment


def test_a_report_names_the_versions_the_devices_the_extras_and_the_cache(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    start = time.process_time()
    found = sightline.environment()
    assert time.process_time() - start < 10
    assert found["torch"] == torch.__version__
    assert found["sightline"] == importlib.metadata.version("sightline-vision")
    assert found["threads"].endswith(f"of {os.cpu_count()} cores")
    assert found["fast bfloat16"] in ("yes", "no")
    assert found["cache"].startswith(str(finished.cache))
    assert re.search(r", \d+ image sets?, [\d.]+ MB", found["cache"])  # other tests read it, too
    assert {"Python", "system", "torchvision", "lightning", "memory", "device", "CUDA", "MPS"} <= set(found)


def test_an_extra_that_is_missing_comes_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.machine import extras

    lines = ["torch>=2", "nowhere>=1; extra == 'timm'", 'pillow>=1; extra == "check"', "nowhere; extra == 'all'"]
    monkeypatch.setattr(extras, "requires", lambda _: lines)
    found = environment.environment()
    assert found["extra timm"] == "no nowhere: pip install '.[timm]'"
    assert found["extra check"] == f"pillow {importlib.metadata.version('pillow')}"
    assert {name for name in found if name.startswith("extra ")} == {"extra timm", "extra check"}


def test_a_broken_library_is_a_line_that_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load = importlib.import_module

    def broken(name: str) -> object:
        if name in ("torch", "torchvision"):
            raise OSError(f"{tmp_path}/home/eve/lib/libtorch.so: undefined symbol")
        return load(name)

    monkeypatch.setenv("HOME", str(tmp_path / "home" / "eve"))
    monkeypatch.setattr(importlib, "import_module", broken)
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "home" / "eve" / "cache"))
    found = sightline.environment()
    assert found["torch"] == "broken (OSError: ~/lib/libtorch.so: undefined symbol)"
    assert found["torchvision"].endswith("but broken (OSError: ~/lib/libtorch.so: undefined symbol)")
    assert found["cache"] == "~/cache, 0 image sets, 0.0 MB"
    assert not any("eve" in line for line in found.values())


def test_paths_and_names_of_people_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/eve")
    assert environment._without_home("/home/eve/.cache/sightline, 2 image sets") == "~/.cache/sightline, 2 image sets"
    assert environment._without_home("broken (OSError: /opt/secret/lib/x.so: no)") == "broken (OSError: .../x.so: no)"
    monkeypatch.setenv("WANDB_API_KEY", "a-secret")
    assert "a-secret" not in str(sightline.environment())


def test_the_verb_prints_a_table_that_pastes_as_markdown(capsys) -> None:
    assert main(["environment"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert all(line.startswith("|") and line.endswith("|") for line in lines)
    assert lines[1].replace("-", "").replace("|", "") == ""
    assert any(line.startswith("| torch ") for line in lines)
    assert getpass.getuser() == "root" or not any(getpass.getuser() in line for line in lines)
