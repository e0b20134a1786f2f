"""Text for a terminal or a log, in which nothing moves the cursor and no name ends in an error.

Names of files and classes are anybody's: no UTF-8, emoji where the terminal has none, or what moves the cursor.
"""

import codecs
import io
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from sightline_runtime.writing import to_bytes, write_rows

__all__ = ["readable", "show_rows", "show_text", "tolerant"]

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of the text that follows
    "\ud800-\udfff]"  # bytes of a name that is no UTF-8, and other halves of characters
)


def show_text(text: str, *, error: bool = False) -> None:
    """Print a text to this process's output, or to its standard error."""
    stream = sys.stderr if error else sys.stdout
    if stream is not None:  # as in a program without a terminal, on Windows
        print(readable(text, stream.encoding), file=tolerant(stream), flush=True)


def show_rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table as CSV: on a terminal for people; to a program in UTF-8, odd bytes of names as they are."""
    text = io.StringIO(newline="")
    write_rows(text, header, rows)
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None or sys.stdout.isatty():
        show_text(text.getvalue().removesuffix("\n"))
        return
    sys.stdout.flush()
    raw.write(to_bytes(text.getvalue()))
    raw.flush()


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


def tolerant(stream: Any) -> Any:
    """Let a stream escape what it cannot encode: a name in a log is no reason to end a training."""
    if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    return stream
