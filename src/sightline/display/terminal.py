"""Text for a terminal or a log: every line and table that sightline prints goes through ``show``.

Names of files and classes are anybody's: no UTF-8, emoji where the terminal has none, what rich takes for markup, or
what moves the cursor. They are shown, escaped where they must be, and never end in an error.
"""

import codecs
import io
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import rich.table
from rich.console import Console
from rich.text import Text

from sightline.runs.writing import to_bytes, write_rows
from sightline_runtime.files import natural_key

__all__ = [
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

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of the text that follows
    "\ud800-\udfff]"  # bytes of a name that is no UTF-8, and other halves of characters
)


def show(
    content: str | rich.table.Table, console: Console | None = None, *, error: bool = False, lines: bool = False
) -> None:
    """Print a line or a table.

    Args:
        content: a line, which is printed as it is, however long, or a table.
        console: where to; None for this process's own output.
        error: print to standard error, where no console is named.
        lines: the text is several lines; else a line feed is part of a name, and escaped.
    """
    if isinstance(content, str) and not lines:
        content = content.replace("\n", "\\n")
    if isinstance(content, str) and console is None:
        stream = sys.stderr if error else sys.stdout
        if stream is not None:  # as in a program without a terminal, on Windows
            print(readable(content, stream.encoding), file=_tolerant(stream), flush=True)
        return
    console = screen(error=error) if console is None else console
    _tolerant(console.file)
    if isinstance(content, str):
        line = Text(readable(content, console.encoding))
        console.print(line, soft_wrap=True)
    else:
        console.print(content)


def screen(*, error: bool = False) -> Console:
    """Open a console of this process's output, or of its standard error."""
    console = Console(stderr=error)
    _tolerant(console.file)
    return console


def prepare_output() -> None:
    """Let this process's output escape what it cannot encode, for what others print to it, such as help."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        _tolerant(stream)


def readable(text: str, encoding: str | None = "utf-8") -> str:
    """Escape in a text what cannot be printed: what is no character, moves the cursor, or is not in an encoding."""
    text = _INVISIBLE.sub(_escaped, text)
    try:
        codecs.lookup(encoding or "utf-8")
    except LookupError:
        encoding = "ascii"
    return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8", "replace")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # how Python keeps a byte that is no UTF-8
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{byte:04x}"


def cell(content: object) -> Text:
    """Make a text for a table or a bar of rich, of which nothing is taken for markup."""
    return Text(readable(str(content)))


def _tolerant(stream: Any) -> Any:
    """Let a stream escape what it cannot encode: a name in a log is no reason to end a training."""
    if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream


def show_rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table as CSV: on a terminal for people; to a program in UTF-8, odd bytes of names as they are."""
    text = io.StringIO(newline="")
    write_rows(text, header, rows)
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None or sys.stdout.isatty():
        show(text.getvalue().removesuffix("\n"), lines=True)
        return
    sys.stdout.flush()
    raw.write(to_bytes(text.getvalue()))
    raw.flush()


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names in the order that people expect: 2 before 10."""
    return sorted(names, key=natural_key)


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and (hasattr(shell, "kernel") or type(shell).__name__ == "ZMQInteractiveShell")
