"""Pages and their charts: one file, nothing from elsewhere, names that do not clash, and text that stays text."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from sightline.display.charts import Curve, Interval, Point, draw_curves, draw_intervals, draw_points, draw_swatch
from sightline.display.lines import Lines
from sightline.display.pages import Chart, Page, Section, Table, write_markdown, write_page

EMPTY = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Reader(HTMLParser):
    """Collects what a page holds, and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, set[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        classes = {dict(attrs).get("class") or ""}
        self.inside.setdefault(tag, set()).update(self.open)
        if tag not in EMPTY:
            self.open.append(f"{tag}.{classes.pop()}".rstrip("."))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().split(".")[0] == tag


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def curves() -> list[Curve]:
    return [Curve(0, [1, 2], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7]), Curve(1, [2], [0.7], [0.7], [0.7])]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    charts = [
        Chart(draw_curves("Accuracy on validation", "accuracy", curves()), "Curves."),
        Chart(draw_intervals("Differences on test", "points", [Interval(1, "a <b> & $c$", 1, -1, 3)]), "Intervals."),
        Chart(
            draw_points("Accuracy against seconds", "seconds", "accuracy", [Point(0, 2, 0.5, [(1, 0.4)])]), "Points."
        ),
    ]
    whole = Page(
        title="Study: <tiny>",
        about="What & why?",
        lead=["All is well."],
        warnings=["Not quite."],
        legend=[("plain", draw_swatch(0)), ("a <b>", draw_swatch(1))],
        sections=[
            Section("Ranking", table=Table(("recipe", "n"), [("<script>alert(1)</script>", "0.9\n0.8 to 1.0")])),
            Section("Charts", charts=charts),
        ],
        method=["By hand."],
    )
    write_page(tmp_path / "page.html", whole)
    return tmp_path / "page.html"


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_page_is_whole_html_that_loads_nothing_and_runs_nothing(page: Path) -> None:
    reader = read(page)
    tags = {tag for tag, _ in reader.tags}
    assert {"h1", "h2", "table", "svg", "figcaption"} <= tags
    assert not tags & {"script", "link", "iframe", "img", "object", "embed"}
    for _, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith("#")
    assert not re.search(r"url\((?!#)", page.read_text("utf-8"))


def test_what_users_wrote_is_shown_and_never_becomes_a_tag(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &lt;b&gt; &amp; $c$" in text  # within a chart: no formula
    assert "<title>Study: &lt;tiny&gt;</title>" in text


def test_every_table_scrolls_within_its_own_box_and_the_page_fits_a_phone(page: Path) -> None:
    assert "div.scroll" in read(page).inside["table"]
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in page.read_text("utf-8")


def test_no_two_things_on_a_page_have_one_name_and_every_reference_finds_its_own(page: Path) -> None:
    text = page.read_text("utf-8")
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(names)


def test_a_cell_of_two_lines_has_the_second_smaller(page: Path) -> None:
    assert "<td>0.9<br><small>0.8 to 1.0</small></td>" in page.read_text("utf-8")


def test_a_table_on_a_console_is_text_without_markup() -> None:
    console = Console(file=io.StringIO(), width=60)
    Lines(console)(Table(("recipe", "n"), [("[red]a", "1\n2")], title="all [bold]"))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for wanted in ("all [bold]", "[red]a", "recipe"):
        assert wanted in printed


STRANGE = r"a|b_c _d_ __e__ *f* `g` <b> [h](i) ![j](k) ~~l~~ &lt; m\n\| $o$ 1. p"


def test_markdown_says_what_was_said_and_takes_no_name_for_a_mark(tmp_path: Path) -> None:
    said = ["# no heading", "- no item", STRANGE, "+0.5 points"]
    table = Table(("recipe", STRANGE), [(STRANGE, "0.9\n0.8 to 1.0\nshown"), ("none", "-")])
    sections = [Section("Ranking", said[1], table), Section("Every run", table=table, folded=True)]
    whole = Page("Study: _tiny_", said[2:], sections, about=said[0], warnings=["Not *quite*."], method=["By hand."])
    write_markdown(tmp_path / "page.md", whole)
    tokens = MarkdownIt().enable(["table", "strikethrough"]).parse((tmp_path / "page.md").read_text("utf-8"))
    tags = [token.tag for token in tokens if token.nesting == 1]
    assert set(tags) == {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    texts = ["".join(part.content for part in token.children or ()) for token in tokens if token.type == "inline"]
    assert texts == [
        "Study: _tiny_", said[0], STRANGE, said[3], "Warning: Not *quite*.", "Ranking", said[1],
        "recipe", STRANGE, STRANGE, "0.9 (0.8 to 1.0, shown)", "none", "-", "How this was computed", "By hand.",
    ]  # fmt: skip
    kinds = {part.type for token in tokens for part in token.children or ()}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close"}


# ── charts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_chart_is_an_svg_with_text_a_description_and_the_width_of_a_phone() -> None:
    svg = draw_curves("Accuracy on validation", "accuracy", curves())
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert root.attrib["aria-label"] == "Accuracy on validation"
    assert root.attrib["width"] == "360"
    texts = [element.text for element in root.iter("text")]
    assert {"epoch", "accuracy"} <= set(texts)
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg)]
    scale = 360 / float(root.attrib["viewBox"].split()[2])
    assert min(sizes) * scale >= 11  # CSS pixels on a phone


def test_charts_are_the_same_whenever_they_are_drawn() -> None:
    assert draw_curves("a", "b", curves()) == draw_curves("a", "b", curves())


def test_a_band_is_drawn_only_where_there_is_a_spread() -> None:
    alone = [Curve(0, [1, 2], [0.5, 0.6], [0.5, 0.6], [0.5, 0.6])]
    assert "FillBetween" in draw_curves("a", "b", curves())
    assert "FillBetween" not in draw_curves("a", "b", alone)


def test_the_first_seventy_recipes_all_look_different() -> None:
    from sightline.display.charts import _look

    looks = {(look["color"], look["marker"]) for look in map(_look, range(70))}
    assert len(looks) == 70
    assert len({_look(style)["marker"] for style in range(10)}) == 10
