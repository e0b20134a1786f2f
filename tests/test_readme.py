"""The README runs: every command and every block of Python in it, in order, and prints what it shows."""

import re
import shlex
from pathlib import Path

import pytest

from conftest import coloured_folder
from sightline.cli.main import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def commands() -> list[tuple[str, list[str]]]:
    """(command line, lines shown below it) of every console block."""
    found: list[tuple[str, list[str]]] = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def test_every_command_of_the_readme_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = coloured_folder(tmp_path / "photos")
    for name, animal in (("=blood", "cat"), ("grass", "dog"), ("ünder wasser", "fox")):
        (photos / name).rename(photos / animal)
    assert len(commands()) >= 6
    for command, shown in commands():
        program, *arguments = shlex.split(command)
        assert program == "sightline"
        assert main(arguments) == 0, command
        printed = capsys.readouterr().out
        for line in shown:
            pattern = ".*".join(map(re.escape, line.split("...")))
            pattern = re.sub(r"\d+\\\.\d%", r"[0-9.]+%", pattern)  # a percentage may move in its last digits
            assert re.search(pattern, printed), f"{command} does not print {line!r}"
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("fox ")


def test_every_make_target_of_the_readme_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert {"train", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_the_readme_fits_on_two_screens() -> None:
    assert len(README.splitlines()) <= 100
