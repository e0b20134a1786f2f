"""Kill a training at 20 moments and resume it: the weights must be the same bits as those of a training left alone.

Eleven moments are times drawn at random over the whole process; three each lie inside of the writing of a checkpoint,
inside of a validation, and inside of the final evaluation. Two fifths of digits, a small speednet, a checkpoint after every step.

    python benchmarks/resume.py [MOMENTS [plain|swa|ema|accumulation|stopping|mixup|finetune|ddp]]
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARGUMENTS = [
    *("digits", "--recipe", "small", "--fit.epochs", "16", "--network.widths", "16", "32", "32"),
    *("--fit.checkpoint-seconds", "0", "--augment.cutout.size", "6", "--data.fraction", "0.4"),
]
VARIANTS = {
    "plain": [],
    "swa": ["--averaging.kind", "swa"],
    "ema": ["--averaging.kind", "ema", "--averaging.decay", "0.98", "--optimizer.kind", "adam"],
    "accumulation": ["--fit.accumulate", "0:8", "4:4", "8:1", "--clip.kind", "norm"],
    "stopping": [
        *("--early-stopping", "patience", "--early-stopping.monitor", "val_loss", "--early-stopping.min-delta", "0.2"),
        *("--schedule.kind", "plateau", "--schedule.patience", "1", "--data.sampling", "balanced"),
    ],
    "mixup": ["--augment.mix", "mixup", "--augment.rotation", "rotation", "--augment.rotation.degrees", "10"],
    "finetune": [
        *("--finetune", "gradual", "--finetune.phases", "4", "--finetune.layer-decay", "0.7"),
        *("--finetune.restore-best", "val_loss", "--averaging.kind", "ema", "--averaging.decay", "0.9"),
    ],
    "ddp": ["--fit.processes", "2"],
}
INSIDE = ("checkpoint", "validation", "evaluation")


def main() -> int:
    moments = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    variant = sys.argv[2] if len(sys.argv) > 2 else "plain"
    ARGUMENTS.extend(VARIANTS[variant])
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        _train(Path(folder) / "first")  # fills the cache and the system's memory of the libraries
        start = time.perf_counter()
        whole = Path(folder) / "whole"
        _train(whole)
        seconds = time.perf_counter() - start
        print(f"{variant}, left alone: {seconds:.1f} s", flush=True)
        same = 0
        for number in range(moments):
            run = Path(folder) / f"killed-{number}"
            kind = INSIDE[number % 3] if number < 9 else "time"
            killed = _kill_inside(run, kind, number // 3) if number < 9 else _kill_at_random(run, seconds)
            _train(run, "--resume")
            equal = _same(whole, run)
            same += equal
            print(f"{number + 1:2}  {killed:45}  {'same bits' if equal else 'DIFFERENT'}", flush=True)
        print(f"{same} of {moments} bit-identical")
        return 0 if same == moments else 1


def _train(run: Path, *more: str) -> None:
    subprocess.run(_command(run, *more), check=True, stdout=subprocess.DEVNULL)


def _command(run: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "sightline", "train", *ARGUMENTS, "--run", str(run), *more]


def _kill_at_random(run: Path, whole: float) -> str:
    """Kill at a random time of the process; one that was done by then is started anew and killed at another."""
    while True:
        moment = random.uniform(0.5, 1) * whole  # before half of it the libraries load
        killed = _kill_after(run, moment)
        if killed:
            return killed
        shutil.rmtree(run)


def _kill_after(run: Path, seconds: float) -> str | None:
    process = subprocess.Popen(_command(run), stdout=subprocess.DEVNULL)
    try:
        process.wait(seconds)
        return None
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if (run / "DONE").exists():
        return None
    state = "with a checkpoint" if (run / "last.ckpt").exists() else "before the first checkpoint"
    return f"killed after {seconds:.1f} s, {state}"


def _kill_inside(run: Path, kind: str, number: int) -> str:
    """Run the training in a process that kills itself inside of the ``number``-th of some events."""
    occasion = {"checkpoint": 20 + 15 * number, "validation": 1 + number, "evaluation": 2 * number}[kind]
    process = subprocess.run(
        [sys.executable, __file__, "--inside", kind, str(occasion), *_command(run)[3:]], stdout=subprocess.DEVNULL
    )
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"the process should have killed itself inside of {kind} {occasion}")
    return f"killed inside of {kind} {occasion}"


def _die_inside(kind: str, occasion: int) -> None:
    """Make this process kill itself when an event comes round for the ``occasion``-th time, counted from 0."""
    from sightline.evaluation import evaluate
    from sightline.inference import classifier
    from sightline.training import checkpoints, module

    count = -1

    def die_or(call):
        def wrapped(*arguments, **named):
            nonlocal count
            count += 1
            if count == occasion:
                if kind == "checkpoint":  # half of the file is written
                    arguments[1].write(b"PK" * 5000)
                    arguments[1].flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return wrapped

    if kind == "checkpoint":
        checkpoints.torch.save = die_or(checkpoints.torch.save)
    elif kind == "validation":
        module.ClassifierLearner.validation_step = die_or(module.ClassifierLearner.validation_step)
    else:
        classifier.logits_of_views = die_or(classifier.logits_of_views)
        assert evaluate


def _same(one: Path, other: Path) -> bool:
    from sightline.runs.folder import read_weights

    left, right = (read_weights(run / "model.safetensors")[0] for run in (one, other))
    weights = left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)
    return weights and (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        from sightline.cli.main import main as sightline

        _die_inside(sys.argv[2], int(sys.argv[3]))
        raise SystemExit(sightline(sys.argv[4:]))
    raise SystemExit(main())
