"""The README runs: every command and every block of Python in it, in order, and prints what it shows."""

import re
import shlex
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from blocks import blocks, commands, not_printed
from sightline.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_every_command_of_the_readme_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(str(files("sightline") / "resources/box/groceries.zip")) as packed:
        (photo, *_) = [name for name in sorted(packed.namelist()) if name.startswith("Satsumas/")][3:]
        (tmp_path / "photo.jpg").write_bytes(packed.read(photo))
    listed = commands("".join(block.code for block in blocks(README, "console")))
    assert len(listed) == 3
    for command, shown in listed:
        program, *arguments = shlex.split(command)
        assert program == "sightline"
        assert main(arguments) == 0, command
        assert not not_printed(shown, capsys.readouterr().out), command
    for block in blocks(README, "python"):
        exec(compile(block.code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("Satsumas ")


def test_every_make_target_of_the_readme_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert {"train", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_the_readme_is_short_and_its_pictures_are_there() -> None:
    assert len(README.split()) <= 500
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert len(pictures) == 2
    for picture in pictures:
        assert 10_000 < (ROOT / picture).stat().st_size <= 300_000
