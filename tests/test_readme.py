"""The README runs: every command and every block of Python in it, in order, and prints what it shows."""

import re
import shlex
from pathlib import Path

import pytest

from blocks import blocks, commands, not_printed
from conftest import coloured_folder
from sightline.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_every_command_of_the_readme_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = coloured_folder(tmp_path / "photos")
    for name, animal in (("=blood", "cat"), ("grass", "dog"), ("ünder wasser", "fox")):
        (photos / name).rename(photos / animal)
    listed = commands("".join(block.code for block in blocks(README, "console")))
    assert len(listed) >= 6
    for command, shown in listed:
        program, *arguments = shlex.split(command)
        assert program == "sightline"
        assert main(arguments) == 0, command
        assert not not_printed(shown, capsys.readouterr().out), command
    for block in blocks(README, "python"):
        exec(compile(block.code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("fox ")


def test_every_make_target_of_the_readme_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert {"train", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_the_readme_fits_on_two_screens() -> None:
    assert len(README.splitlines()) <= 100
