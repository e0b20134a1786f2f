"""Count the lines of code of each room, without blank lines, comments and docstrings; name what is larger than it should be.

    python benchmarks/code.py [FOLDER]

Larger than it should be: a file of more than 400 lines, a function whose body has more than 60 (its docstring not counted),
one of more than 9 parameters whose docstring gives no reason.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "sightline"
FILE, BODY, PARAMETERS = 400, 60, 9
REASON = "parameters because"  # in the docstring of a function that has more
SILENT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE
    counts: Counter[str] = Counter()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        counts[parts[0] if len(parts) > 1 else "(top)"] += code_lines(path.read_text("utf-8"))
    for room, lines in counts.most_common():
        print(f"{lines:6,} {room}")
    print(f"{counts.total():6,} in all")
    for line in too_large(root):
        print(line)


def code_lines(text: str) -> int:
    """Count the lines of a source text that hold code."""
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        for statement in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            if _is_text(statement):
                held.difference_update(range(statement.lineno, statement.end_lineno + 1))
    return len(held)


def too_large(root: Path = SOURCE) -> Iterator[str]:
    """Yield a line for each file, function body and list of parameters that is larger than it should be."""
    for path in sorted(root.rglob("*.py")):
        text, name = path.read_text("utf-8"), path.relative_to(root).as_posix()
        if (lines := text.count("\n")) > FILE:
            yield f"{name}: {lines} lines"
        tree = ast.parse(text)
        # what __init__ takes is said by its class
        within = {
            part: node
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for part in node.body
            if getattr(part, "name", "") == "__init__"
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = [statement for index, statement in enumerate(node.body) if index or not _is_text(statement)]
            if body and (lines := (body[-1].end_lineno or 0) - body[0].lineno + 1) > BODY:
                yield f"{name}: {node.name} has a body of {lines} lines"
            arguments = node.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            if count > PARAMETERS and REASON not in " ".join((ast.get_docstring(within.get(node, node)) or "").split()):
                yield f"{name}: {node.name} has {count} parameters, and its docstring no '{REASON} ...'"


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


if __name__ == "__main__":
    main()
