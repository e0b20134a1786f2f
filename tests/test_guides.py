"""The pages of Start and the guides run: every command, in order, prints what is shown below it.

A ``console`` block is run, a ``python`` block executed, a block with a title written to the file of that name. What no
test can do (wait for visitors, ask a hub, train for hours) stands in ``sh`` blocks, whose commands are held against the
command line, and not run. Trainings that several pages begin with are run once for all of them.
"""

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest
from filelock import FileLock

from blocks import Block, blocks, commands, not_printed
from sightline.cli.main import main
from sightline.cli.parser import application
from sightline.cli.verbs import VERBS

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted([DOCS / "index.md", *(DOCS / "start").glob("*.md"), *(DOCS / "guides").glob("*.md")])
SHARED = {
    "runs/photos": "sightline train photos --run runs/photos",
    "runs/digits": "sightline train digits --fit.epochs 2 --run runs/digits",
}
"""Trainings that are run once, by the folder that they leave."""
RUN = ("console", "python")  # languages of blocks that are run
LONGEST = 80  # lines of a guide


@dataclass(frozen=True)
class Workshop:
    """The folder of the shared trainings, for all processes of this test run."""

    root: Path

    def output(self, run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
        """Return what a shared training printed; the first who asks trains it."""
        record = self.root / f"{Path(run).name}.txt"
        with FileLock(f"{record}.lock"):
            if not record.exists():
                monkeypatch.chdir(self.root)
                capsys.readouterr()
                assert main(shlex.split(SHARED[run])[1:]) == 0
                output = capsys.readouterr()
                record.write_text(output.out + output.err, "utf-8")
        return record.read_text("utf-8")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "guides"
    root.mkdir(exist_ok=True)
    with FileLock(root / "photos.lock"), pytest.MonkeyPatch.context() as patch:
        if not (root / "photos").exists():
            patch.chdir(root)
            (block,) = blocks((DOCS / "start" / "photos.md").read_text("utf-8"), "python")[:1]
            exec(compile(block.code, "photos.md", "exec"), {})
    return Workshop(root)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_every_command_of_a_page_prints_what_it_shows(
    page: Path,
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = page.read_text("utf-8")
    monkeypatch.setenv("SIGHTLINE_CACHE", str(workshop.root / "cache"))
    code = "".join(block.code for block in blocks(text) if block.language in RUN)
    printed = {SHARED[run]: workshop.output(run, monkeypatch, capsys) for run in SHARED if run in code}
    for folder in ("photos", "more"):
        (tmp_path / folder).symlink_to(workshop.root / folder)
    for command in printed:
        run = shlex.split(command)[-1]
        shutil.copytree(workshop.root / run, tmp_path / run)
    monkeypatch.chdir(tmp_path)
    for block in blocks(text):
        if block.title:
            Path(block.title).write_text(block.code, "utf-8")
        elif block.language == "python":
            exec(compile(block.code, page.name, "exec"), {})
            capsys.readouterr()
        elif block.language == "console":
            _run(block, printed, capsys)


def _run(block: Block, printed: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for command, shown in commands(block.code):
        program, *arguments = shlex.split(command, comments=True)
        assert program == "sightline", command
        plain = shlex.join([program, *arguments])
        if plain not in printed:
            capsys.readouterr()
            status = main(arguments)
            output = capsys.readouterr()
            assert status == 0, (command, output.err)
            printed[plain] = output.out + output.err
        assert not not_printed(shown, printed[plain]), (command, printed[plain])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_commands_that_are_not_run_are_those_of_the_command_line(page: Path) -> None:
    for block in blocks(page.read_text("utf-8"), "sh"):
        for line in block.code.replace("\\\n", "").splitlines():
            program, *arguments = shlex.split(line, comments=True) or ["", ""]
            if program == "sightline":
                arguments = list(takewhile(lambda word: word not in (">", "|", "&"), arguments))  # the shell's own
                application(VERBS, arguments).parse_args(arguments, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_a_page_is_short(page: Path) -> None:
    assert len(page.read_text("utf-8").splitlines()) <= LONGEST


def test_every_verb_that_people_begin_with_has_a_guide() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    for verb in VERBS:
        assert re.search(rf"sightline {verb}\b", text), verb
