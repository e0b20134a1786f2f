"""Tables of results say of how many images a figure is, and how sure it is."""

import re
from pathlib import Path

import pytest

RESULTS = sorted((Path(__file__).parent.parent / "docs" / "results").glob("*.md"))
NO_SAMPLE = "<!-- no sample: "  # and why, above a table of what was not drawn, such as licenses


def headless(text: str) -> list[str]:
    """The headers of the tables of a text that lack a column for n or for the interval."""
    lines, lacking = text.splitlines(), []
    for place, line in enumerate(lines[1:], 1):
        header = lines[place - 1]
        if not re.fullmatch(r"\|[ :|-]+\|", line) or not header.startswith("|"):
            continue
        above = next((one for one in reversed(lines[: place - 1]) if one.strip()), "")
        columns = header.strip("|").split("|")
        told = any(re.search(r"\bn\b", one) for one in columns) and any("interval" in one for one in columns)
        if not told and not above.startswith(NO_SAMPLE):
            lacking.append(header)
    return lacking


def test_a_table_without_n_or_an_interval_would_be_noticed() -> None:
    assert headless("| a | accuracy |\n|---|---|\n| b | 0.9 |") == ["| a | accuracy |"]
    assert headless("| a | n | accuracy |\n|---|---|--:|\n") != []
    assert headless("| a | n | accuracy | 95 % interval |\n|---|---|--:|---|\n") == []
    assert headless(f"{NO_SAMPLE}a list -->\n\n| a |\n|---|\n") == []


@pytest.mark.parametrize("page", [one for one in RESULTS if one.name != "README.md"], ids=lambda one: one.name)
def test_every_table_of_results_has_columns_for_n_and_the_interval(page: Path) -> None:
    assert headless(page.read_text("utf-8")) == []
