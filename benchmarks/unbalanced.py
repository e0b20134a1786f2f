"""A rare class: its recall on test with nothing done, with weighted losses, and with balanced sampling.

The embedded digits with explicit splits (a fifth of each class is test, a tenth validation), and all but a twentieth of the
eights taken out of train. The ways are compared by mean and standard deviation over seeds; nothing is chosen on test.

    python benchmarks/unbalanced.py [SEEDS [EPOCHS [none|class_weights|sampling|equal ...]]]
"""

import csv
import json
import statistics
import sys
import tempfile
from pathlib import Path

from PIL import Image

import sightline

RARE = 8
WAYS = {
    "none": {},
    "class_weights": {"fit": {"class_weights": "balanced"}},
    "sampling": {"data": {"sampling": "balanced"}},
    "equal": {"evaluation": {"prior": "equal"}},
    "class_weights_equal": {"fit": {"class_weights": "balanced"}, "evaluation": {"prior": "equal"}},
    "sampling_equal": {"data": {"sampling": "balanced"}, "evaluation": {"prior": "equal"}},
}


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    with tempfile.TemporaryDirectory() as folder:
        data = write_digits(Path(folder) / "digits")
        print(
            f"{'':20} {'recall of ' + str(RARE):>17} {'accuracy':>17}   mean ± sd over {seeds} seeds, {epochs} epochs"
        )
        for way, settings in WAYS.items():
            if sys.argv[3:] and way not in sys.argv[3:]:
                continue
            runs = [_measure(data, Path(folder) / f"{way}-{seed}", settings, seed, epochs) for seed in range(seeds)]
            print(f"{way:20} " + " ".join(f"{_spread(values):>17}" for values in zip(*runs, strict=True)), flush=True)


def write_digits(folder: Path) -> Path:
    """Write the digits of scikit-learn as images with a manifest; of the rare class a twentieth of train is left."""
    from sklearn.datasets import load_digits

    folder.mkdir()
    digits = load_digits()
    seen: dict[int, int] = {}  # images of each class so far
    rare = 0  # of them in train
    counts = {"train": 0, "val": 0, "test": 0, "rare in train": 0}
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for row, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            turn = seen[label] = seen.get(label, -1) + 1
            split = {0: "test", 1: "test", 2: "val"}.get(turn % 10, "train")
            if label == RARE and split == "train":
                rare += 1
                if rare % 20 != 1:
                    continue
                counts["rare in train"] += 1
            Image.fromarray((pixels * 255 / 16).astype("uint8")).resize((32, 32)).save(folder / f"{row}.png")
            writer.writerow([f"{row}.png", str(label), split])
            counts[split] += 1
    print(f"images: {counts}")
    return folder / "manifest.csv"


def _measure(data: Path, run: Path, settings: dict, seed: int, epochs: int) -> tuple[float, float]:
    fit = {"seed": seed, "epochs": epochs} | settings.get("fit", {})
    network = {"kind": "speednet", "widths": [32, 128, 128]}  # half of the recipe's channels: 15 trainings in minutes
    settings = settings | {"augment": {"flip": "none"}, "network": network, "fit": fit}
    sightline.train(data, recipe="small", settings=settings, run=run)
    measured = json.loads((run / "evaluation.json").read_text())
    return measured["classes"][str(RARE)]["recall"], measured["accuracy"]


def _spread(values: tuple[float, ...]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


if __name__ == "__main__":
    main()
