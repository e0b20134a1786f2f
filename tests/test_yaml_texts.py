"""YAML that people write: bounded in values, depth and bytes, and echoed in short sentences."""

import time
from pathlib import Path

import pytest

from sightline.cli.main import main
from sightline.config.checks import nearest, shown
from sightline.config.resolving import read_recipe, resolve
from sightline.config.space_files import build_space, read_space
from sightline.config.studies import read_study
from sightline.config.yaml_texts import DEPTH, parse_yaml
from sightline.errors import ConfigError, DataError, SightlineError, shortened

SHORT = 1300  # letters of a sentence, at most


def laughs(levels: int, width: int = 9) -> str:
    """Aliases of aliases: a few bytes that stand for width ** levels values."""
    lines = ["a0: &a0 [" + ",".join(["1"] * width) + "]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"fit: {{epochs: *a{levels - 1}}}"])


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(parse_yaml(text, "mine.yaml"))
    return str(caught.value)


@pytest.mark.parametrize("levels", [6, 9, 30])
def test_aliases_of_aliases_are_refused_at_once_in_a_short_sentence(levels: int) -> None:
    started = time.process_time()
    sentence = refused(laughs(levels))
    assert sentence.startswith("mine.yaml stands for more than 100,000 values, as its aliases")
    assert time.process_time() - started < 1


def test_287_bytes_make_no_sentence_of_megabytes() -> None:
    text = laughs(5, 9)
    assert len(text) < 300
    assert len(refused(text)) < SHORT


def test_merged_aliases_count_too() -> None:
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)]
    assert "more than 100,000 values" in refused("\n".join(lines))


def test_an_alias_within_itself_and_what_lies_too_deep_are_refused() -> None:
    assert "an alias within the very values" in refused("fit: &a {epochs: *a}")
    assert f"blocks lie deeper within each other than {DEPTH}" in refused("[" * 5000 + "]" * 5000)
    assert f"blocks lie deeper within each other than {DEPTH}" in refused("fit: " + "{a: " * 200 + "1" + "}" * 200)
    chain = "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))])
    assert f"deeper within each other than {DEPTH}" in refused(chain)


def test_an_alias_that_repeats_little_is_what_it_stands_for() -> None:
    text = "x: &w [8, 16, 16]\nnetwork: {kind: speednet, widths: *w}"
    assert parse_yaml(text, "mine.yaml")["network"]["widths"] == [8, 16, 16]


@pytest.mark.parametrize(
    "value",
    [
        "0x" + "F" * 9000,
        "9" * 5000,
        "'" + "x" * 100_000 + "'",
        "[" + ",".join(["1"] * 50_000) + "]",
        "{" + ",".join(f"k{n}: 1" for n in range(10_000)) + "}",
    ],
)
@pytest.mark.parametrize("place", ["fit: {epochs: [VALUE]}", "fit: VALUE", "VALUE: 1", "network: {kind: VALUE}"])
def test_no_value_makes_a_long_sentence(value: str, place: str) -> None:
    assert len(refused(place.replace("VALUE", value))) < SHORT


@pytest.mark.parametrize(
    "text",
    [
        "a: !!timestamp x",
        "a: !!bool x",
        "a: !!int x",
        "a: !!float []",
        "? [1, 2]\n: 3",
        "a: 2001-02-30",
        "a: *b",
        "a: \0",
    ],
)
def test_what_no_value_can_be_made_of_is_no_yaml(text: str) -> None:
    assert refused(text).startswith("mine.yaml is not YAML (")


def test_a_file_larger_than_any_settings_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text("#" * 1_100_000)
    for read in (read_recipe, read_study, read_space):
        with pytest.raises(ConfigError, match=r"large.yaml'? is larger than 1 MB; wanted a YAML file of settings"):
            read(tmp_path / "large.yaml")


def test_studies_and_spaces_echo_values_in_short(tmp_path: Path) -> None:
    long = "0x" + "F" * 9000
    for text in (f"name: x\nvariants: {long}", f"name: x\nvariants: [{long}]", f"name: {long}\nvariants: 3"):
        (tmp_path / "study.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_study(tmp_path / "study.yaml")
        assert len(str(caught.value)) < SHORT
    for text in (f"fit: {{epochs: {long}}}", f"optimizer: [{long}]", f"{'a' * 90_000}: 1"):
        (tmp_path / "space.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            build_space(read_space(tmp_path / "space.yaml"), resolve({}), {})
        assert len(str(caught.value)) < SHORT


def test_a_long_word_on_the_command_line_makes_a_short_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 100_000
    for words in (
        ["train", long],
        ["predict", long],
        ["train", "digits", "--recipe", long],
        ["train", "digits", f"--fit.epochs={long}"],
        ["train", "digits", f"--{long}", "1"],
        ["train", "digits", "--fit.epochs", "9" * 4000],
        ["train", "digits", "--fit.batch-size", "9" * 5000],
        ["train", "digits", "--fit.accumulate", "0:" + "9" * 5000],
        ["train", "digits", "--fit.accumulate", "9" * 5000],
        ["runs", long],
        [long],
        ["compare", long],
        ["train", "digits", "--data.exclude", long],
        ["check", long],
    ):
        assert main(words) == 2
        assert len(capsys.readouterr().err) < SHORT


def test_a_shortened_text_keeps_its_ends_and_says_how_long_it_was() -> None:
    assert shortened("short", 100) == "short"
    text = shortened("a" * 500 + "b" * 500, 100)
    assert len(text) <= 100
    assert text.startswith("aaa")
    assert text.endswith("bbb")
    assert "(1,000 letters)" in text
    assert str(DataError("x" * 10_000 + "; do this")).endswith("; do this")
    assert len(str(SightlineError("x" * 10_000_000))) < SHORT
    assert shown("daisy") == "'daisy'"
    assert shown([8, 16, 16]) == "[8, 16, 16]"
    assert nearest("epoch" + "s" * 100_000, ["epochs"]).endswith(".")
