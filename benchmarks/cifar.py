"""A recipe with several seeds on CIFAR-10 (JPEG): accuracy with six views and one, seconds, and cost.

python benchmarks/cifar.py ../shared/data/cifar10-jpeg.tar.xz [RECIPE [SEEDS]]

RECIPE is fast unless named, SEEDS how many seeds, from 42 on (3). Each reads the test split once.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console

import sightline
from sightline.display.lines import Lines


def main() -> None:
    archive = sys.argv[1]
    recipe = sys.argv[2] if len(sys.argv) > 2 else "fast"
    seeds = range(42, 42 + (int(sys.argv[3]) if len(sys.argv) > 3 else 3))
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            run = sightline.train(
                archive,
                recipe=recipe,
                settings={"fit": {"seed": seed}},
                run=Path(folder) / str(seed),
                on_event=Lines(Console(force_terminal=False)),
            )
            assert run is not None
            found.append(json.loads((run / "evaluation.json").read_text()))
    for seed, row in zip(seeds, found, strict=True):
        cost = row["cost"]
        seconds = cost["fit_seconds"] + cost["evaluation_seconds"]
        print(
            f"seed {seed}: accuracy {row['accuracy']:.4f} with six views, {row['accuracy_one_view']:.4f} with one,"
            f" n = {row['n']:,}; {seconds:.0f} s × {cost['probe_flops']:.3g} FLOP/s = {cost['cost']:.3g}"
        )
    mean = statistics.mean(row["accuracy"] for row in found)
    cost = statistics.mean(row["cost"]["cost"] for row in found)
    print(f"{recipe}, mean of {len(found)}: accuracy {mean:.4f}, cost {cost:.3g}; {found[0]['cost']['device']}")


if __name__ == "__main__":
    main()
