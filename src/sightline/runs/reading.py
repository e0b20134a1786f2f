"""JSON that is read: parsed as it is specified, and checked against a schema."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sightline.config.checks import shown
from sightline.errors import RunError

__all__ = ["checked", "parse", "read_text"]

T = TypeVar("T")


def read_text(path: Path) -> str:
    """Read a file of a run as text.

    Raises:
        RunError: it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read ({error}); copy the run again from where it was made.") from error


def parse(text: str) -> Any:
    """Read JSON as it is specified: every number finite, no key twice.

    Raises:
        ValueError: it is none.
    """
    # msgspec's own parser refuses halves of characters, as which bytes of names that are no UTF-8 are written
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def checked(content: Mapping[str, Any], schema: type[T], where: str) -> T:
    """Check what a file of a run says against a schema.

    Args:
        content: of the file.
        schema: one of the files above.
        where: the file, for the sentence.
    Returns:
        What was read, typed.
    Raises:
        RunError: a key is missing or wrong.
    """
    try:
        return msgspec.convert(content, schema)
    except ValueError as error:  # a half of a character in a key, too
        raise RunError(f"{where}: {_explained(error, content)}; copy the run again from where it was made.") from error


def _explained(error: ValueError, content: Any) -> str:
    """Name the key, what was found there and what was expected."""
    if not (match := re.fullmatch(r"(.*?)(?: - at (?:`key` in )?`\$\.?(.*)`)?", str(error), re.DOTALL)):
        return shown(str(error))
    problem = re.sub("Invalid enum value .*", "none of the words that are known", match[1])
    path = (match[2] or "").partition("[...]")[0]  # msgspec does not say which key of a mapping
    if missing := re.fullmatch("Object missing required field `(.+)`", problem):
        return f"{'.'.join(filter(None, (match[2], missing[1])))} is missing"
    problem = problem.replace("Expected", "wanted").replace("`", "")
    for part in re.findall(r"[^.\[\]]+", path):
        content = content[int(part) if isinstance(content, list) else part]
    return f"{path} is {shown(content)} ({problem})" if path else problem


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is no finite number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice in it")
    return content
