"""What the general path adds to a step: a tiny network on 16 px at batch 32, 2,000 steps, a bare loop and ours in turn.

Both make the same batches and run the same network, loss, optimizer and schedule in float32; ours adds Lightning, the
callbacks, the checks, and the log and checkpoint between two epochs. From the first step to the last, in wall time and
processor time; the probe of the machine's speed before the first and the validation after the last are outside.

    python benchmarks/overhead.py ../shared/data/cifar10-jpeg.tar.xz [ROUNDS] [waiting]

With ``waiting``, each round is measured twice in processes of their own: with threads that sleep while they wait for each
other, as sightline sets it, and with threads that spin.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from sightline.data.batches import TrainingBatches
from sightline.display.reporting import ignore
from sightline.machine.devices import keep_freed_memory
from sightline.models.build import build_network
from sightline.training import fit, module, preparation
from sightline.training.optimizers import build_optimizer
from sightline.training.schedules import Steps, schedule

WAYS = {"sleeping": "0", "spinning": "300000"}  # GOMP_SPINCOUNT; the second is libgomp's own
SETTINGS = {
    "fit": {"epochs": 2, "batch_size": 32, "precision": "float32", "validate_every": 0},
    "data": {"size": 16, "fraction": 0.6737, "validation": 2500},  # 32,000 images: a thousand batches an epoch
    "augment": {"scales": []},
    "network": {"widths": [8, 8, 8], "whiten_bias_epochs": 2},
    "optimizer": {"kind": "sgd", "learning_rate": 0.01},
    "evaluation": {"views": "one"},
}


def main() -> None:
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    if "waiting" in sys.argv[3:]:
        compare_waiting(sys.argv[1], rounds)
    else:
        measure(sys.argv[1], rounds)


def compare_waiting(data: str, rounds: int) -> None:
    """The same in turns with both ways of waiting, which libgomp reads when torch is loaded: a process for each."""
    columns: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, count in WAYS.items():
            variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
            command = [sys.executable, __file__, data, "1"]
            done = subprocess.run(
                command, env=variables | {"GOMP_SPINCOUNT": count}, stdout=subprocess.PIPE, text=True, check=True
            )
            line = done.stdout.splitlines()[0]
            print(f"{way}: {line}", flush=True)
            columns[way].append([float(number) for number in re.findall(r"\d+\.\d+", line)])
    for way, rows in columns.items():
        bare, ours, bare_processor, our_processor = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"{way}, medians of {rounds}: bare {bare:.2f} ms, ours {ours:.2f} ms a step; processor"
            f" {bare_processor:.2f} and {our_processor:.2f} ms"
        )


def measure(data: str, rounds: int) -> None:
    keep_freed_memory()  # as ``sightline train`` does; the bare loop in the same process has it, too
    plan = preparation.prepare_training(data, "fast", SETTINGS, ignore)
    extra = []
    for number in range(rounds):
        pair = (bare(plan), ours(plan)) if number % 2 else (ours(plan), bare(plan))[::-1]
        (steps, wall, processor), (_, our_wall, our_processor) = pair
        extra.append(((our_wall - wall) / steps * 1e3, (our_processor - processor) / steps * 1e3))
        print(
            f"{steps} steps: bare {wall / steps * 1e3:.2f} ms, ours {our_wall / steps * 1e3:.2f} ms a step;"
            f" processor {processor / steps * 1e3:.2f} and {our_processor / steps * 1e3:.2f} ms",
            flush=True,
        )
    wall, processor = (statistics.median(column) for column in zip(*extra, strict=True))
    print(f"median of {rounds}: {wall:+.2f} ms wall, {processor:+.2f} ms processor time a step")


def bare(plan) -> tuple[int, float, float]:
    recipe = plan.recipe
    network = build_network(recipe.network, len(plan.images.classes), plan.images.size).train()
    network.to(memory_format=torch.channels_last)
    batches = TrainingBatches(
        plan.images,
        plan.splits.train,
        plan.normalization,
        recipe.augment,
        batch_size=recipe.fit.batch_size,
        epochs=recipe.fit.epochs,
        seed=0,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    optimizer = build_optimizer(recipe.optimizer, network)
    curve = schedule(recipe.schedule, Steps(recipe.fit, len(batches)))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, curve)
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(recipe.fit.epochs):
        for batch in batches:
            loss, _ = module.classification_loss(network, batch, recipe.fit.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    return recipe.fit.epochs * len(batches), time.perf_counter() - start, time.process_time() - processor


def ours(plan) -> tuple[int, float, float]:
    times = []

    class Timed(module.ClassifierLearner):
        def on_train_epoch_start(self) -> None:  # after the callbacks' own
            times.append((time.perf_counter(), time.process_time()))

        def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
            super().on_train_batch_end(outputs, batch, batch_idx)
            if self.trainer.is_last_batch:
                times.append((time.perf_counter(), time.process_time()))

    module.ClassifierLearner = Timed
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit.fit(plan, Path(folder), [], ignore)
    (start, processor), (end, processor_end) = times[0], times[-1]
    return fitted.steps, end - start, processor_end - processor


if __name__ == "__main__":
    main()
