"""Features of a frozen backbone kept or computed anew: seconds an epoch, and whether the head ends the same.

A backbone is trained on a part of the set, then a graph-attention head on it, frozen, with flips alone: once with its
features kept, once without, from the same seed, in float32 (the claim is equality to float32 rounding).

    python benchmarks/features.py ../shared/data/cifar10-jpeg.tar.xz [FRACTION [EPOCHS]]
"""

import csv
import statistics
import sys
import tempfile
from pathlib import Path

import torch

import sightline
from sightline.display.reporting import ignore
from sightline.runs.folder import read_weights

BACKBONE = {
    "network": {"kind": "speednet", "widths": [32, 128, 128]},
    "fit": {"epochs": 2, "batch_size": 250},
    "augment": {"scales": []},
    "evaluation": {"on": "none", "views": "one"},
}
HEAD = {
    "augment": {"crop": None, "flip": "random", "scales": []},
    "head": {"kind": "graph_attention", "layer": "groups.1"},
    "optimizer": {"kind": "sgd", "learning_rate": 0.005},  # at 0.05 it diverges on a tenth
    "evaluation": {"on": "validation", "views": "one"},
}


def main() -> None:
    archive = sys.argv[1]
    fraction = float(sys.argv[2]) if len(sys.argv) > 2 else 0.1
    epochs = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    data = {"fraction": fraction, "validation": 1000}
    fit = {"epochs": epochs, "batch_size": 250, "precision": "float32", "validate_every": 1}
    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder) / "backbone"
        sightline.train(archive, recipe="fast", settings=BACKBONE | {"data": data}, run=backbone, on_event=ignore)
        found = {}
        for way in ("keep", "recompute"):
            settings = HEAD | {
                "data": data,
                "fit": fit,
                "network": {"kind": "run", "folder": str(backbone)},
                "finetune": {"kind": "frozen", "features": way},
            }
            run = sightline.train(archive, recipe="fast", settings=settings, run=Path(folder) / way, on_event=ignore)
            assert run is not None
            with (run / "metrics.csv").open() as file:
                rows = list(csv.DictReader(file))
            seconds = [float(row["seconds"]) for row in rows]
            found[way] = read_weights(run / "model.safetensors")[0], statistics.median(seconds[1:])
            print(
                f"{way}: first epoch {seconds[0]:.1f} s, the others {found[way][1]:.2f} s each (median of"
                f" {len(seconds) - 1}); validation accuracy {float(rows[-1]['val_acc']):.4f}",
                flush=True,
            )
    (kept, one), (anew, other) = found["keep"], found["recompute"]
    difference = max(float((kept[name] - anew[name]).abs().max()) for name in kept)
    largest = max(float(tensor.abs().max()) for name, tensor in kept.items() if name.startswith(("neck.", "head.")))
    print(f"{other / one:.0f} times as fast; weights differ by at most {difference:.2g} (the largest is {largest:.2g})")
    print(f"fraction {fraction:g}, torch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
