"""The pages of commands, settings and names are the code's own list of them, complete and up to date."""

import importlib.util
import typing
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

from sightline.cli.flags import every_setting
from sightline.cli.verbs import VERBS
from sightline.config.building import Block, Kind
from sightline.config.resolving import named_recipes
from sightline.config.studies import named_studies

DOCS = Path(__file__).parent.parent / "docs"
PAGES = [DOCS / "reference" / name for name in ("commands.md", "settings.md", "names.md")]


class Fine(Kind, frozen=True, kw_only=True, tag="fine"):
    """How fine | coarse."""

    grain: float = 1e-3
    """Share of ``grain``."""


class Sieve(Kind, frozen=True, kw_only=True, tag="sieve"):
    """Sieves.

    Twice.
    """

    mesh: Fine | None = None
    """Its mesh."""
    colours: tuple[Literal["red", "blue"], ...] = ("red",)
    """Colours."""


class Kitchen(Block, frozen=True, kw_only=True):
    """All of it."""

    name: str = "kitchen"
    tool: Sieve | Fine | None = Fine()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_names", DOCS / "make_names.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(script: ModuleType) -> None:
    for name, text in script.pages().items():
        page = DOCS / "reference" / name
        assert page.read_text("utf-8") == text, f"{page} is not what the code says: run `make docs`"


def test_every_setting_verb_recipe_and_study_is_on_a_page() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    settings = {name: annotation for name, annotation, _ in every_setting()}
    for name, annotation in settings.items():
        if f"{name}.kind" in settings:  # the block in a word
            continue
        if name.endswith(".kind"):
            wanted = [f"**`{kind}`**" for kind in typing.get_args(annotation) if kind != "none"]
        else:
            wanted = [f"| `{name}` |"]
        for words in wanted:
            assert words in text, name
    for verb in VERBS:
        assert f"| `sightline {verb}` |" in text
    for name in (*named_recipes(), *named_studies()):
        assert f"| `{name}` |" in text


def test_optional_and_nested_blocks_come_out_right(script: ModuleType) -> None:
    outer, inner = script._blocks(Kitchen)
    assert outer.splitlines() == [
        "## Tool (`tool`)",
        "",
        "Unless named: `fine`. `null` in a recipe, and `none` as a flag, turn it off.",
        "",
        "| kind | setting | default | what it is |",
        "| --- | --- | --- | --- |",
        "| **`sieve`** |  |  | Sieves. |",
        "|  | `tool.colours` | `[red]` | Colours. One of: `red`, `blue`. |",
        r"| **`fine`** |  |  | How fine \| coarse. |",
        "|  | `tool.grain` | `0.001` | Share of `grain`. |",
    ]
    assert inner.splitlines()[:3] == [
        "## `tool.mesh`",
        "",
        "Unless named: none. `null` in a recipe, and `none` as a flag, turn it off.",
    ]
