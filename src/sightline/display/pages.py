"""Pages of HTML in one file each that load nothing from elsewhere, made of sections; the same words in Markdown."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sightline.display.events import Table
from sightline.runs.writing import write_atomically

__all__ = [
    "Answer",
    "Chart",
    "Item",
    "Link",
    "Page",
    "Picture",
    "Section",
    "Step",
    "Table",
    "data_uri",
    "fragment",
    "render",
    "to_markdown",
    "write_markdown",
    "write_page",
]


@dataclass(frozen=True)
class Link:
    """A cell of a table that opens a panel of its section."""

    text: str
    panel: str
    """The panel's key."""
    title: str
    """What is behind it, for those who do not see the table."""
    look: str = ""
    """``right`` or ``wrong``: a colored cell of a confusion matrix."""
    shade: float = 0.0
    """Strength of that color, from 0 to 1."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Chart:
    """A chart and what it shows."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Picture:
    """A picture within a page, and what stands below it."""

    uri: str
    """Of ``data_uri``; empty where there is nothing to show."""
    alt: str
    caption: str = ""
    """One line, or a short line in bold and more below it."""


@dataclass(frozen=True)
class Item:
    """Pictures that belong together, and what is said of them."""

    pictures: Sequence[Picture]
    text: str = ""
    """One line, or a line in bold and smaller ones below it."""


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading; its parts are shown in the order of the fields."""

    title: str
    about: str = ""
    """Paragraphs, with an empty line between them."""
    table: Table | None = None
    charts: Sequence[Chart] = ()
    folded: bool = False
    """Shown when its heading is clicked; for what is long."""
    legend: Sequence[tuple[str, str]] = ()
    """As that of the page, which it takes the place of."""
    code: str = ""
    """Commands or settings, below the paragraphs."""
    items: Sequence[Item] = ()
    look: str = "cards"
    """How the items are laid out: ``cards``, ``beside`` (text beside the picture), ``pairs``, ``singles``, ``tiles`` or
    ``samples`` (the first large, the others beside it); with ``pixelated`` pixels stay squares when enlarged."""
    note: str = ""
    """A sentence below the items."""
    count: int = 0
    """Of what the section is about, shown beside its title; 0: not shown."""
    key: str = ""
    """Name by which the page refers to the section; the title serves unless given. A panel needs one."""
    panels: Sequence["Section"] = ()
    """What opens behind the links of the table."""

    @property
    def anchor(self) -> str:
        """Name by which links on the page reach the section: its key, or its title in small letters."""
        return self.key or re.sub(r"\W+", "-", self.title).strip("-").lower()


@dataclass(frozen=True)
class Answer:
    """A question that a reader has, and its answer in plain sentences; they are the first that a page says."""

    question: str
    text: str
    short: str = ""
    """The answer in a word or two, before the sentences."""


@dataclass(frozen=True)
class Step:
    """One thing to do, in a list from the top of a page on."""

    title: str
    text: str = ""
    """Why, in a sentence or two."""
    how: str = ""
    """What does it."""
    words: tuple[str, str] | None = None
    """Flag and value, as a shell reads them, which ticking the step adds to the command of the page; None: no flag."""
    ticked: bool = True
    links: Sequence[tuple[str, str]] = ()
    """(key, title) of the sections that tell more."""


@dataclass(frozen=True)
class Page:
    """All that a page says, from its top."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    about: str = ""
    verdict: Sequence[Answer] = ()
    """What a reader wants to know first, below the lead."""
    warnings: Sequence[str] = ()
    legend: Sequence[tuple[str, str]] = ()
    """(name, swatch as SVG) of all that the charts show."""
    steps: Sequence[Step] = ()
    """What to do, below the lead."""
    command: str = ""
    """What to run, below those; it may be copied by a button, and the flags of the steps come and go by their ticks."""
    plain_command: str = ""
    """The same without any of those flags."""
    closing: Sequence[str] = ()
    """Sentences below the command."""
    method: Sequence[str] = ()
    """How the numbers were made, in paragraphs."""


def write_page(path: Path, page: Page) -> None:
    """Write a page as one file of HTML; texts are escaped.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(path, render("page.html", page=page).encode("utf-8", "replace"))


def write_markdown(path: Path, page: Page) -> None:
    """Write the words and tables of a page as Markdown, to be pasted elsewhere; charts, what is folded and sections
    without a table are left out.

    Raises:
        StorageError: it cannot be written.
    """
    tables = [section for section in page.sections if section.table is not None]
    write_atomically(path, to_markdown(replace(page, sections=tables)).encode("utf-8", "replace"))


def to_markdown(page: Page) -> str:
    """Return the words, tables and code of a page as Markdown; charts and what is folded are left out."""
    parts = [f"# {_plain(page.title)}", *map(_paragraph, filter(None, (page.about, *page.lead)))]
    for answer in page.verdict:
        parts += [f"**{_plain(answer.question)}** {_plain(f'{answer.short} {answer.text}')}"]
    parts += [f"**Warning:** {_plain(sentence)}" for sentence in page.warnings]
    for section in page.sections:
        if not section.folded:
            parts += [f"## {_plain(section.title)}", *map(_paragraph, filter(None, section.about.split("\n\n")))]
            parts += [_lines(section.table)] if section.table is not None else []
            parts += [_fenced(section.code)] if section.code else []
    if page.method:
        parts += ["## How this was computed", *map(_paragraph, page.method)]
    return "\n\n".join(parts) + "\n"


def _fenced(code: str) -> str:
    """Put code between fences that are longer than any in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}\n{code.rstrip()}\n{fence}"


def _lines(table: Table) -> str:
    """Write a table in Markdown; what follows the first line of a cell stands in brackets behind it."""
    ruler = ["---" if index < table.texts else "--:" for index in range(len(table.columns))]
    rows = [list(map(_plain, table.columns)), ruler]
    for row in table.rows:
        cells = [str(cell).split("\n") for cell in row]
        rows.append([_plain(main + (f" ({', '.join(more)})" if more else "")) for main, *more in cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _paragraph(text: str) -> str:
    """Escape a paragraph, so that Markdown takes it for no heading, list or quotation."""
    return re.sub(r"^([#>+-])", r"\\\1", _plain(text))


def _plain(text: str) -> str:
    """Put a text on one line and escape it, so that Markdown takes nothing in it as a mark."""
    return re.sub(r"([\\`*<\[|~]|&(?=#?\w+;)|_(?![^\W_])|(?<![^\W_])_)", r"\\\1", " ".join(text.split()))


def render(template: str, **content: Any) -> str:
    """Render a template of ``templates/``; texts are escaped.

    Args:
        template: its name; a page's extends ``base.html``, which includes ``look.css``, the look of every page.
        content: what it shows, by the names that it uses.
    """
    text: str = _templates().get_template(template).render(**content)
    return text


def fragment(template: str, name: str, /, **content: Any) -> str:
    """Render a piece of a page: a macro of a template of ``templates/``; texts are escaped.

    Args:
        template: its name.
        name: of the macro.
        content: its arguments.
    """
    return str(getattr(_templates().get_template(template).module, name)(**content))


@cache
def _templates() -> Any:
    """Compile the templates, once a process."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("sightline", "resources/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(pixels_HWC: "np.ndarray[Any, Any]", side: int, *, lossless: bool = False) -> str:
    """Encode a picture as a data URI (WebP), its longer side no longer than ``side`` pixels.

    Args:
        pixels_HWC: uint8, (H, W, 3), or with opacity (H, W, 4).
        side: pixels.
        lossless: keep every pixel as it is.
    """
    image = Image.fromarray(np.asarray(pixels_HWC))
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    # method 2: 403 bytes an image of CIFAR-10, a JPEG file 622
    image.save(file, "WEBP", quality=80, method=2, lossless=lossless)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
