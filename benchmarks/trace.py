"""The way from `sightline train` to the loss: which files and functions a reader opens, counted in a real training.

    PYTHONPATH=src python benchmarks/trace.py [IMAGE SET]

A small training of ``digits``, or of another image set, runs under ``sys.setprofile`` up to its first step. On the way are
the functions of this package that are being executed, so stand on the stack, at three moments:

- where the network is built (the call of ``training.network.build``, which itself does not count): what is trained;
- where the first batch is made (``TrainingBatches.make`` within the fit): on what;
- where the loss of the first step is computed (``classification_loss``): what is computed.

A frame counts once, however often it is met; frames of libraries do not count. Of each function the lines of its body count,
without blanks, comments and docstrings. Files are those that the functions stand in. Marks: 8 files, 500 lines.
"""

import ast
import io
import sys
import tempfile
import tokenize
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import sightline
from sightline.cli.main import main as command

ROOT = Path(sightline.__file__).parent
SETTINGS = (
    *("--recipe", "small", "--network.widths", "8", "16", "16", "--fit.epochs", "2"),
    *(
        "--optimizer.kind",
        "sgd",
        "--optimizer.learning-rate",
        "0.1",
    ),  # one of torch's: Muon's step calls the loss itself
)
MOST_FILES, MOST_LINES = 8, 500

MOMENTS = {
    ("build", "network.py"): "network",
    ("TrainingBatches.make", "batches.py"): "batch",
    ("classification_loss", "module.py"): "loss",
}


class LossSeen(BaseException):
    """Ends the training at its first loss."""


class Way:
    """Notes the functions on the stack at each of the moments, and ends the training at the last."""

    def __init__(self) -> None:
        self.moments: dict[str, list[CodeType]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Look at a call, as ``sys.setprofile`` tells it."""
        code = frame.f_code
        moment = MOMENTS.get((code.co_qualname, code.co_filename.rpartition("/")[2])) if event == "call" else None
        if moment is None:
            return
        stack = _stack(frame)
        if moment == "batch" and any(code.co_name == "_picture" for code in stack):
            return  # of batch.png
        self.moments.setdefault(moment, stack[:-1] if moment == "network" else stack)
        if moment == "loss":
            sys.setprofile(None)
            raise LossSeen


def _stack(frame: FrameType | None) -> list[CodeType]:
    """Return the functions of this package on the stack, the outermost first."""
    found: list[CodeType] = []
    while frame is not None:
        if Path(frame.f_code.co_filename).is_relative_to(ROOT) and not frame.f_code.co_name.startswith("<"):
            found.append(frame.f_code)
        frame = frame.f_back
    return found[::-1]


def lines_of(code: CodeType) -> int:
    """Count the lines of a function, without blanks, comments and docstrings."""
    text = Path(code.co_filename).read_text("utf-8")
    functions = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
        and min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) == code.co_firstlineno
    )
    node = next(functions)
    words: set[int] = set()
    for part in ast.walk(node):
        body = getattr(part, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            words.update(range(body[0].lineno, (body[0].end_lineno or 0) + 1))
    lines: set[int] = set()
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped and node.lineno <= token.start[0] <= (node.end_lineno or 0):
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - words)


def main() -> None:
    """Trace a training, and print the way."""
    data = sys.argv[1] if len(sys.argv) > 1 else "digits"
    way = Way()
    with tempfile.TemporaryDirectory() as folder:
        sys.setprofile(way)
        with suppress(LossSeen):
            command(["train", data, *SETTINGS, "--run", f"{folder}/run"])
        sys.setprofile(None)
    if set(way.moments) != {"network", "batch", "loss"}:
        raise SystemExit(f"the training ended before its first loss; seen: {', '.join(way.moments) or 'nothing'}")
    counted: dict[tuple[str, str], int] = {}
    for moment, stack in way.moments.items():
        print(f"\n{moment}")
        for code in stack:
            place = Path(code.co_filename).relative_to(ROOT).as_posix()
            counted[place, code.co_qualname] = lines_of(code)
            print(f"  {counted[place, code.co_qualname]:4} {place:32} {code.co_qualname}")
    files = {place for place, _ in counted}
    print(
        f"\n{len(files)} files (mark {MOST_FILES}), {len(counted)} functions, {sum(counted.values())} lines (mark {MOST_LINES})"
    )


if __name__ == "__main__":
    main()
