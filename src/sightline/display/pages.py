"""Pages of HTML in one file each, that load nothing from elsewhere: sentences, tables and charts, by a template; the same in Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from sightline.display.terminal import Table as Lines
from sightline.display.terminal import show
from sightline.runs.writing import write_atomically

__all__ = [
    "Chart",
    "Page",
    "Section",
    "Table",
    "fragment",
    "print_table",
    "render_html",
    "write_html",
    "write_markdown",
    "write_page",
]


@dataclass(frozen=True)
class Table:
    """A table of texts; a cell of two lines has its main thing in the first."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    """How many of the first columns are words; the others are numbers."""


@dataclass(frozen=True)
class Chart:
    """A chart and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading."""

    title: str
    about: str = ""
    table: Table | None = None
    charts: Sequence[Chart] = ()
    folded: bool = False
    """Shown when its heading is clicked; for what is long."""
    legend: Sequence[tuple[str, str]] = ()
    """As that of the page, which it takes the place of."""


@dataclass(frozen=True)
class Page:
    """All that a page says, from its top."""

    title: str
    about: str
    lead: Sequence[str]
    warnings: Sequence[str]
    legend: Sequence[tuple[str, str]]
    """(name, swatch as SVG) of all that the charts show."""
    sections: Sequence[Section]
    method: Sequence[str] = field(default=())
    """How the numbers were made, in paragraphs."""


def write_page(path: Path, page: Page) -> None:
    """Write a page as one file of HTML.

    Raises:
        StorageError: it cannot be written.
    """
    write_html(path, "page.html", page=page)


def write_markdown(path: Path, page: Page) -> None:
    """Write the words and tables of a page as Markdown, to be pasted elsewhere; charts and what is folded are left out.

    Raises:
        StorageError: it cannot be written.
    """
    parts = [f"# {_plain(page.title)}", *map(_paragraph, filter(None, (page.about, *page.lead)))]
    parts += [f"**Warning:** {_plain(sentence)}" for sentence in page.warnings]
    for section in page.sections:
        if section.table is not None and not section.folded:
            parts += [
                f"## {_plain(section.title)}",
                *map(_paragraph, filter(None, [section.about])),
                _lines(section.table),
            ]
    if page.method:
        parts += ["## How this was computed", *map(_paragraph, page.method)]
    write_atomically(path, ("\n\n".join(parts) + "\n").encode("utf-8", "replace"))


def _lines(table: Table) -> str:
    """A table in Markdown; what follows the first line of a cell stands in brackets behind it."""
    ruler = ["---" if index < table.texts else "--:" for index in range(len(table.columns))]
    rows = [list(map(_plain, table.columns)), ruler]
    for row in table.rows:
        cells = [cell.split("\n") for cell in row]
        rows.append([_plain(main + (f" ({', '.join(more)})" if more else "")) for main, *more in cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _paragraph(text: str) -> str:
    """A paragraph that Markdown takes for no heading, list or quotation."""
    return re.sub(r"^([#>+-])", r"\\\1", _plain(text))


def _plain(text: str) -> str:
    """A text on one line, of which Markdown takes nothing as a mark."""
    return re.sub(r"([\\`*<\[|~]|&(?=#?\w+;)|_(?![^\W_])|(?<![^\W_])_)", r"\\\1", " ".join(text.split()))


def write_html(path: Path, template: str, **content: Any) -> None:
    """Write one file of HTML by a template of ``templates/``; texts are escaped.

    Args:
        path: of the file.
        template: its name; it extends ``base.html``, which has the look of every page.
        content: what it shows, by the names that it uses.
    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(path, render_html(template, **content).encode("utf-8", "replace"))


def render_html(template: str, **content: Any) -> str:
    """The text of such a file."""
    text: str = _templates().get_template(template).render(**content)
    return text


def fragment(template: str, name: str, /, **content: Any) -> str:
    """A piece of a page: a macro of a template of ``templates/``; texts are escaped.

    Args:
        template: its name.
        name: of the macro.
        content: its arguments.
    """
    return str(getattr(_templates().get_template(template).module, name)(**content))


@cache
def _templates() -> Any:
    """The templates, compiled once a process."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("sightline", "resources/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def print_table(console: Console, title: str, table: Table) -> None:
    """Print a table on a console."""
    from rich import box

    apart = any("\n" in cell for row in table.rows for cell in row)
    lines = Lines(title, box=box.SIMPLE_HEAD, padding=(0, 1, int(apart), 0))
    for index, name in enumerate(table.columns):
        lines.add_column(name, justify="left" if index < table.texts else "right", overflow="fold")
    for row in table.rows:
        lines.add_row(*row)
    show(lines, console)
