"""Blocks of code in a page of Markdown, the commands in them, and whether one printed what the page shows."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    title: str
    """The name of a file that holds it, or nothing."""
    code: str


def blocks(text: str, language: str | None = None) -> list[Block]:
    """Return the blocks of a page, in order; all or those of one language."""
    fences = re.findall(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", text, flags=re.M | re.S)
    return [block for block in (Block(*fence) for fence in fences) if language in (None, block.language)]


def commands(code: str) -> list[tuple[str, list[str]]]:
    """(command line, lines shown below it) of the code of a console block."""
    shown: list[tuple[str, list[str]]] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            shown.append((line[2:], []))
        else:
            shown[-1][1].append(line)
    return shown


def not_printed(shown: list[str], printed: str) -> list[str]:
    """Return the lines of a page that were not printed; "..." is anything, and decimals may be others."""
    lacking = []
    for line in shown:
        pattern = ".*".join(map(re.escape, line.split("...")))
        pattern = re.sub(r"\d+\\\.\d+", r"[0-9.]+", pattern)
        if not re.search(pattern, printed):
            lacking.append(line)
    return lacking
