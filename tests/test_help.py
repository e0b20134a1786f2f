"""The terminal: what help shows, how wide it is, in which letters, and that every error says what to type next."""

import ast
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sightline
from conftest import Finished
from sightline.cli.helping import OFTEN, first_sentence
from sightline.cli.main import COMMANDS, main
from sightline.cli.verbs import VERBS
from sightline.config.resolving import named_recipes
from sightline.config.studies import named_studies

HELPS = [[], ["--help"], ["find"], *([*name.split(), "--help"] for name in VERBS)]
LONG = [[*name.split(), "--help-all"] for name in ("train", "tune", "plan", "find rate")]
LISTS = [["recipes"], ["studies"], ["recipes", "auto"], ["runs"], ["cache"], ["environment"]]
COLOR = re.compile(r"\x1b\[[0-9;]*m")


def printed_by(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


# ── width, letters and color ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("arguments", HELPS + LONG, ids=" ".join)
def test_help_is_no_wider_than_the_terminal_and_cuts_no_flag(
    arguments: list[str], capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", printed_by(*arguments, capsys=capsys)))
    for columns in (40, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = printed_by(*arguments, capsys=capsys)
        assert max(map(len, text.splitlines())) <= columns
        assert not [flag for flag in flags if flag not in text]
        assert "\x1b" not in text


@pytest.mark.parametrize("arguments", [*HELPS, *LONG, *LISTS], ids=" ".join)
def test_what_is_printed_loses_no_word_in_the_code_page_of_windows(
    arguments: list[str], capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    words = set(re.findall(r"[\w.-]+", printed_by(*arguments, capsys=capsys)))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252", newline=""))
    assert main(arguments) == 0
    sys.stdout.flush()
    text = raw.getvalue().decode("cp1252")
    assert words <= set(re.findall(r"[\w.-]+", text))
    assert not re.search(r"\\[ux][0-9a-f]{2}", text)  # nothing escaped


def test_a_real_process_of_a_windows_code_page_prints_every_help_and_refusal(tmp_path: Path) -> None:
    code = f"from sightline.cli.main import main\nfor words in {[*HELPS, *LISTS[:4], *REFUSED]!r}: main(words)"
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code],
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "COLUMNS": "80"},
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert done.stderr.decode("cp1252").count("sightline: ") == len(REFUSED)


def test_sentences_are_written_in_letters_that_every_western_code_page_has() -> None:
    drawn = {"pictures.py", "mistakes.py", "compare_page.py"}  # on pages and in pictures, never printed
    for path in Path(sightline.__file__).parents[1].glob("sightline*/**/*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        documented = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
                assert (
                    path.name in drawn
                    or node.value.encode("cp1252", "ignore").decode("cp1252") == node.value
                    or (
                        not node.value.isprintable()  # patterns of what is no text
                    )
                ), (path, node.lineno, node.value)


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal is opened by openpty")
def test_colors_are_for_terminals_that_want_them(tmp_path: Path) -> None:
    import pty

    def drawn(**environment: str) -> str:
        leader, follower = pty.openpty()
        subprocess.run(
            [sys.executable, "-m", "sightline", "cache", "--help"],
            env={key: value for key, value in os.environ.items() if key != "NO_COLOR"} | environment,
            stdout=follower,
            check=True,
        )
        os.close(follower)
        text = b""
        while len(part := _read(leader)):
            text += part
        os.close(leader)
        return text.decode()

    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", drawn(TERM="xterm-256color"))
    for environment in ({"TERM": "xterm-256color", "NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", drawn(**environment))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux ends a terminal that nobody writes to
        return b""


def test_a_table_that_a_narrow_terminal_cannot_hold_is_written_below_each_other(
    finished: Finished, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.run, tmp_path / "r")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    text = printed_by("runs", ".", capsys=capsys)
    assert [line.strip() for line in text.splitlines()][:2] == ["r", "state: finished"]
    assert "accuracy: 1.0000" in text
    monkeypatch.setenv("COLUMNS", "80")
    assert re.search(r"\br +finished +", printed_by("runs", ".", capsys=capsys))


# ── which settings ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("verb", ["train", "tune", "plan", "find rate", "find batch"])
def test_help_shows_the_dozen_settings_that_people_change_and_names_how_to_see_all(verb: str, capsys) -> None:
    text = printed_by(*verb.split(), "--help", capsys=capsys)
    flags = [f"--{name.replace('_', '-')}" for name in OFTEN]
    assert len(flags) == 12
    assert all(re.search(rf"│ {flag} ", text) for flag in flags)
    assert "--optimizer.momentum" not in text
    assert f"`sightline {verb} --help-all` shows all" in text
    whole = printed_by(*verb.split(), "--help-all", capsys=capsys)
    assert "--optimizer.momentum" in whole
    assert "--help-all" not in whole


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_on_two_screens(verb: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert printed_by(*verb.split(), "--help", capsys=capsys).count("\n") <= 100


def test_the_program_alone_says_what_to_type_first(capsys) -> None:
    for arguments in ([], ["--help"]):
        assert "Start with `sightline train groceries`" in printed_by(*arguments, capsys=capsys)


def test_a_sentence_ends_with_its_point_or_question_mark() -> None:
    assert first_sentence("Does it help? It does.") == "Does it help?"
    assert first_sentence("Side in px; 0.5 is half. More.") == "Side in px; 0.5 is half."
    assert first_sentence("One alone") == "One alone"


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("verb", "known"), [("recipes", named_recipes()), ("studies", named_studies())])
def test_a_name_in_a_list_takes_one_line_and_is_shown_in_full_by_itself(
    verb: str, known: dict[str, str], capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = printed_by(verb, capsys=capsys).strip().splitlines()
    assert len(lines) == 2 + len(known) + (verb == "recipes") + 2  # the head, auto, and how to see one in full
    assert lines[-1] == f"`sightline {verb} NAME` shows one in full."
    for name, text in known.items():
        content = yaml.safe_load(text)
        shown = printed_by(verb, name, capsys=capsys)
        assert " ".join(content.pop("about").split()) in " ".join(shown.split())
        about, step = shown.index(f"name: {name}"), shown.rindex("`sightline ")
        assert yaml.safe_load(shown[about:step].rpartition("\n")[0]) == content
        (tmp_path / "mine.yaml").write_text(text, "utf-8")
        assert (
            shown[about:step]
            == (mine := printed_by(verb, str(tmp_path / "mine.yaml"), capsys=capsys))[
                mine.index("name:") : mine.rindex("`sightline ")
            ]
        )


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED = [
    ["pedict"],
    ["--foo"],
    ["find", "nothing"],
    ["cache", "--claer"],
    ["environment", "extra"],
    ["completion", "tcsh"],
    ["train", "nowhere"],
    ["train", "--fit.epochs"],
    ["train", "--fit.epochs", "x"],
    ["train", "--fit.epochs", "0"],
    ["train", "--fit.epoch", "3"],
    ["train", "--recipe", "fsat"],
    ["train", "--config", "nowhere.yaml"],
    ["train", "digits", "--resume", "yes"],
    ["train", "digits", "--optimizer", "adm"],
    ["train", "digits", "--backbone", "box", "--network", "resnet18"],
    ["tune"],
    ["plan"],
    ["compare"],
    ["compare", "nostudy"],
    ["recipes", "nope"],
    ["studies", "nope"],
    ["check"],
    ["review"],
    ["review", "nowhere"],
    ["corrections"],
    ["corrections", "nowhere.csv"],
    ["evaluate"],
    ["evaluate", "nowhere"],
    ["report", "."],
    ["predict"],
    ["predict", "a.png"],
    ["predict", "a.png", "m.pte"],
    ["predict", "a.png", "--unknown-flag"],
    ["explain", "nowhere", "a.png"],
    ["encode", "nowhere", "a.png"],
    ["export", "nowhere", "--out", "a.onnx"],
    ["generate", "nowhere", "--out", "a"],
    ["push", "nowhere"],
    ["serve", "--port", "x"],
    ["serve", "--port", "70000"],
    ["serve", "nowhere"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_every_refusal_is_one_line_and_says_what_to_type_next(
    arguments: list[str], capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("sightline: ")
    assert sentence.count("\n") == 1
    assert COMMANDS.search(sentence), sentence
    assert sentence.endswith((".\n", "?\n", "]'\n")), sentence


def test_a_refusal_of_any_length_keeps_its_next_step(capsys) -> None:
    assert main(["train", "x" * 5000]) == 2
    assert capsys.readouterr().err.endswith("See `sightline train --help`.\n")


def test_an_error_that_nobody_expected_is_shown_whole_and_says_what_to_do(capsys, monkeypatch) -> None:
    def broken(folder: Path) -> None:
        raise RuntimeError("two and two are five")

    monkeypatch.setattr("sightline.runs.folder.list_runs", broken)
    assert main(["runs"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "RuntimeError: two and two are five"
    assert "report the lines above with what `sightline environment` prints" in lines[-1]


# ── completion ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_script_of_a_shell_knows_every_verb_and_setting(shell: str, capsys) -> None:
    text = printed_by("completion", shell, capsys=capsys)
    for word in ("predict", "corrections", "completion", "optimizer.learning-rate", "fit.epochs"):
        assert word in text
    if interpreter := {"bash": "bash", "zsh": "zsh", "fish": "fish"}.get(shell, "") and shutil.which(shell):
        subprocess.run([interpreter, "-n"], input=text, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["pre"], {"predict"}),
        (["comp"], {"compare", "completion"}),
        (["find", ""], {"rate", "batch"}),
        (["train", "--fit.ep"], {"--fit.epochs"}),
        (["train", "--schedule.mon"], {"--schedule.monitor"}),
        (["train", "--evaluate", ""], {"test", "validation", "none"}),
        (["predict", "--view"], {"--views"}),
        (["completion", "f"], {"fish"}),
    ],
    ids=lambda value: " ".join(sorted(value)),  # a set has another order in each process
)
def test_bash_completes_verbs_flags_and_choices(typed: list[str], completed: set[str], bash_script: Path) -> None:
    words = " ".join(f"'{word}'" for word in ["sightline", *typed])
    code = f"source '{bash_script}'; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _sightline"
    done = subprocess.run(
        ["bash", "--norc", "-c", code + "; printf '%s\\n' \"${COMPREPLY[@]}\""], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == completed


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script that completes in bash."""
    path = tmp_path_factory.mktemp("completion") / "sightline.bash"
    done = subprocess.run([sys.executable, "-m", "sightline", "completion", "bash"], capture_output=True, check=True)
    path.write_bytes(done.stdout)
    return path
