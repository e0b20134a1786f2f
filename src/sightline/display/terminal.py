"""Text for a terminal or a log: every line and table that sightline prints goes through ``show``.

Names of files and classes are anybody's: no UTF-8, emoji where the terminal has none, what rich takes for markup, or
what moves the cursor. They are shown, escaped where they must be, and never end in an error.
"""

import sys
from collections.abc import Iterable

import rich.table
from rich.console import Console
from rich.text import Text

from sightline_runtime.files import natural_key
from sightline_runtime.terminal import readable, show_rows, show_text, tolerant

__all__ = [
    "NARROW",
    "cell",
    "in_notebook",
    "natural_key",
    "natural_order",
    "prepare_output",
    "readable",
    "screen",
    "show",
    "show_rows",
]


NARROW = 60  # letters a line, below which texts beside each other are too narrow to read


def show(
    content: str | rich.table.Table,
    console: Console | None = None,
    *,
    error: bool = False,
    lines: bool = False,
    wrapped: bool = False,
) -> None:
    """Print a line or a table.

    Args:
        content: a line, which is printed as it is, however long, or a table.
        console: where to; None for this process's own output.
        error: print to standard error, where no console is named.
        lines: the text is several lines; else a line feed is part of a name, and escaped.
        wrapped: it is prose, and broken between words at the width of the terminal.
    """
    if isinstance(content, str) and not lines:
        content = content.replace("\n", "\\n")
    if isinstance(content, str) and console is None and not wrapped:
        return show_text(content, error=error)
    console = screen(error=error) if console is None else console
    tolerant(console.file)
    if isinstance(content, str):
        line = Text(readable(content, console.encoding))
        console.print(line, soft_wrap=not wrapped)
    else:
        console.print(content)


def screen(*, error: bool = False) -> Console:
    """Open a console of this process's output, or of its standard error."""
    console = Console(stderr=error)
    tolerant(console.file)
    return console


def prepare_output() -> None:
    """Let this process's output escape what it cannot encode, for what others print to it, such as help."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        tolerant(stream)


def cell(content: object) -> Text:
    """Make a text for a table or a bar of rich, of which nothing is taken for markup."""
    return Text(readable(str(content)))


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names in the order that people expect: 2 before 10."""
    return sorted(names, key=natural_key)


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and (hasattr(shell, "kernel") or type(shell).__name__ == "ZMQInteractiveShell")
