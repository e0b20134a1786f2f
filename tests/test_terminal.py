"""What is printed is readable and never an error, whatever a file or a class is called."""

import csv
import io
import os
import subprocess
import sys
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from sightline.cli.bars import Bars
from sightline.cli.main import main
from sightline.display import events
from sightline.display.events import Event
from sightline.display.lines import Lines
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.display.terminal import in_notebook, natural_order, readable, show, show_rows

NO_UTF_8 = os.fsdecode(b"caf\xe9.png")
ODD = {
    "no UTF-8": NO_UTF_8,
    "half a character": "x\ud83dy",
    "emoji": "🦊 fox",
    "markup that closes": "[/x]",
    "markup that opens": "[bold red]fox[link=http://x]",
    "code of an emoji": ":fox_face:",
    "a backslash": "a\\[b]",
    "a color": "\x1b[31mred",
    "a title of the window": "\x1b]0;owned\x07",
    "a return": "over\rwritten",
    "turned around": "gpj.\u202egnp",
    "a null": "a\0b",
    "combining": "e\u0301",
    "Japanese": "日本",
    "Arabic": "قط",
    "braces": "{0} %s {x!r}",
}
ENCODINGS = ("utf-8", "cp1252", "ascii", "latin-1", "cp932", "utf-16")


def written(encoding: str, *, console: bool, table: bool) -> str:
    """All odd names as a stream of an encoding gets them."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    for name in ODD.values():
        content = events.Table((name,), [(name,)], title=name) if table else name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            to = Lines(Console(file=stream, width=300)) if console else Lines() if table else show
            to(content)  # type: ignore[operator]
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("console", [False, True])
def test_no_name_is_an_error_in_any_encoding(encoding: str, console: bool, table: bool) -> None:
    text = written(encoding, console=console, table=table)
    for word in ("[/x]", "[bold red]fox[link=http://x]", ":fox_face:", "a\\[b]", "{0} %s {x!r}", "caf\\xe9.png"):
        assert word in text
    assert not {"\x1b", "\x07", "\r", "\0", "\u202e"} & set(text)
    assert ("🦊" in text) == encoding.startswith("utf")
    assert ("\\U0001f98a" in text) == (not encoding.startswith("utf"))


def test_text_that_anyone_can_read_stays_as_it_is() -> None:
    for text in ("", "fox", "ünder wasser", "日本", "قط", "a\tb", "1×1 – 2"):
        assert readable(text) == text
    assert readable("a\x1b[31m\x9b1m\ud83d\udce9") == "a\\x1b[31m\\x9b1m\\ud83d\\xe9"
    assert readable("é", "no such encoding") == "\\xe9"


def test_a_line_feed_in_a_name_makes_no_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    show("left out a\nsightline: all is well")
    assert capsys.readouterr().out == "left out a\\nsightline: all is well\n"
    show("a: 1\nb: 2", lines=True)
    assert capsys.readouterr().out == "a: 1\nb: 2\n"


def test_a_line_is_as_long_as_it_is_and_a_quiet_console_stays_quiet() -> None:
    file = io.StringIO()
    show("x" * 500 + " y", Console(file=file, width=40))
    assert file.getvalue() == "x" * 500 + " y\n"
    file = io.StringIO()
    show("x", Console(file=file, quiet=True))
    assert file.getvalue() == ""


def test_tables_of_pages_and_the_titles_of_bars_show_names_as_they_are() -> None:
    for name in ODD.values():
        for terminal in (False, True):
            file = io.StringIO()
            console = Console(file=file, width=300, force_terminal=terminal)
            with closing((Bars if terminal else Lines)(console)) as draw:
                draw(events.Table((name, "n"), [(name, "1")], title=name))
                with stage(draw, f"Reading {name}") as progress:
                    progress(1, 2)
            file.getvalue().encode("utf-8")
            if "\x1b" in name:
                assert name not in file.getvalue()


def test_csv_for_a_program_keeps_every_byte(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch) -> None:
    names = [NO_UTF_8, "🦊", "[/x]", "a\x1bb", "two\nlines", "é"]
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline=""))
    show_rows(["file"], [[name] for name in names])
    data = sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
    assert b"caf\xe9.png" in data
    found = list(csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))
    assert found == [["file"], *([name] for name in names)]


def test_commands_name_odd_files_on_a_terminal_of_cp1252(tmp_path: Path) -> None:
    folder = tmp_path / "[/x] 🦊"
    try:
        (folder / NO_UTF_8).mkdir(parents=True)
    except OSError:
        pytest.skip("this file system refuses such names")
    for words in (
        ["runs", str(folder)],
        ["check", str(folder)],
        ["predict", str(folder / NO_UTF_8)],
        ["train", "--help"],
    ):
        for encoding in ("cp1252", "ascii", "utf-8"):
            done = subprocess.run(
                [sys.executable, "-m", "sightline", *map(os.fsencode, words)],
                env=os.environ | {"PYTHONIOENCODING": encoding, "SIGHTLINE_CACHE": str(tmp_path)},
                capture_output=True,
                check=False,
            )
            assert b"Traceback" not in done.stderr, done.stderr.decode("utf-8", "replace")
            assert done.returncode in (0, 2)


def test_a_disk_that_is_full_is_said_where_the_output_goes_to_it(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sightline", "recipes"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.stderr.decode().startswith("sightline: the disk is full; free space")
    assert done.stderr.count(b"\n") == 1
    assert done.returncode == 2


def test_names_are_in_the_order_that_people_expect() -> None:
    names = ["10", "9", "img12", "img2", "IMG1", "b", "a10b2", "a10b10", "a2", "é", "", "02", "2", "9" * 5000]
    assert natural_order(names) == [
        "",
        "02",
        "2",
        "9",
        "10",
        "9" * 5000,
        "a2",
        "a10b2",
        "a10b10",
        "b",
        "IMG1",
        "img2",
        "img12",
        "é",
    ]
    assert natural_order(reversed(names)) == natural_order(names)
    assert natural_order([unicodedata.normalize("NFD", "é"), "f"]) == [unicodedata.normalize("NFD", "é"), "f"]


@reporting
def count(on_event: Listener = ignore) -> Listener:
    """A verb that reports a line."""
    on_event("epoch 1/4")
    return on_event


def test_outside_of_a_notebook_nothing_is_reported_unless_it_is_listened_to(monkeypatch, capsys) -> None:
    assert not in_notebook()
    assert count() is ignore
    heard: list[Event] = []
    count(on_event=heard.append)
    assert heard == ["epoch 1/4"]
    assert capsys.readouterr().out == ""

    class Shell:
        kernel = object()

    class IPython:
        get_ipython = staticmethod(Shell)

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    assert in_notebook()
    count()
    assert capsys.readouterr().out == "epoch 1/4\n"
    monkeypatch.setattr(IPython, "get_ipython", staticmethod(lambda: None))
    assert not in_notebook()


def test_an_error_with_a_name_that_no_terminal_shows_is_one_line(capsys) -> None:
    assert main(["train", "no\nset \x1b[31m" + NO_UTF_8]) == 2
    assert capsys.readouterr().err.count("\n") == 1
