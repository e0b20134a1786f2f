"""Do generated images help a classifier? The study `generated`, on a part of an image set.

    python benchmarks/generated.py DATA FOLDER [FRACTION [SEEDS [RECIPE [EPOCHS]]]]

Everything is made of the very same training images: the generator (RECIPE, ddpm unless named), the classifier that filters what
it makes, and the classifiers that are compared. All rows take the same number of optimizer steps: with a quarter of the images
generated an epoch is a third longer, and there are a quarter fewer of them. The hardest classes are those with the lowest recall of
the filtering classifier on validation. FOLDER is gone on with where it was stopped; the comparison is in FOLDER/study.
"""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

EPOCHS = 16  # of the row without generated images; a multiple of four
SHARE = 0.25  # of the training images, in the other rows
HARDEST = 3  # classes
CANDIDATES = 2  # made for each image that is needed, for the filter to choose from
GUIDANCE = 0.5  # more of it makes images more alike
ROWS = {"generated": "made", "filtered": "kept", "hardest": "hard"}  # and the folders of their images
CLASSIFIER = {
    "network": {"kind": "speednet", "widths": [32, 128, 128]},
    "augment": {"flip": "random", "crop": {"kind": "pad_crop", "padding": 4}},
    "evaluation": {"views": "one", "robustness": False},
}


def sightline(*arguments: object) -> None:
    """Run a command of ours; what it prints is shown."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "sightline", *map(str, arguments)], check=True)
    print(f"  {arguments[0]}: {time.perf_counter() - start:.0f} s\n", flush=True)


def train(run: Path, *arguments: object) -> None:
    """Train, or go on with a training; nothing where it is finished."""
    if not (run / "DONE").exists():
        sightline("train", *arguments, "--run", run, "--resume")


def flags(settings: dict, begin: str = "--") -> list[str]:
    """Nested settings as they are typed."""
    found: list[str] = []
    for name, value in settings.items():
        flag = f"{begin}{name.replace('_', '-')}"
        if isinstance(value, dict):
            found += flags(value, f"{flag}.")
        elif isinstance(value, bool):
            found.append(flag if value else f"{begin}no-{name.replace('_', '-')}")
        else:
            found += [flag, *map(str, value if isinstance(value, list) else [value])]
    return found


def hardest(judge: Path) -> list[str]:
    """The classes with the lowest recall on validation."""
    classes = json.loads((judge / "evaluation.json").read_text())["classes"]
    return sorted(classes, key=lambda name: classes[name]["recall"])[:HARDEST]


def beside(name: str, folder: Path, share: float) -> dict:
    """A row of the study with generated images beside the real ones, at the steps of the real ones alone."""
    synthetic = {"synthetic": str(folder), "synthetic_share": int(share * 1000) / 1000}
    return {
        "name": f"real + {name}",
        "settings": {"data": synthetic, "fit": {"epochs": round(EPOCHS * (1 - share))}},
    }


def main() -> None:
    data, root = sys.argv[1], Path(sys.argv[2]).absolute()
    fraction, seeds, recipe, epochs = (*sys.argv[3:7], *("0.1", "5", "ddpm", "")[len(sys.argv) - 3 :])
    root.mkdir(parents=True, exist_ok=True)
    generator, judge = root / "generator", root / "judge"
    more = ["--fit.epochs", epochs] if epochs else []
    mirrored = [] if data == "digits" else ["--augment.flip", "random"]
    train(generator, data, "--recipe", recipe, "--data.fraction", fraction, *mirrored, *more)
    common = ["--recipe", "small", "--data.fraction", fraction, *flags(CLASSIFIER)]
    train(judge, data, *common, "--fit.epochs", EPOCHS, "--evaluate", "validation", "--seed", 1000)
    model = json.loads((generator / "model.json").read_text())
    needed = model["data"]["counts"]["train"] * SHARE / (1 - SHARE)
    hard = hardest(judge)
    each = int(CANDIDATES * needed / len(model["classes"])) + 1
    how = ["--guidance", GUIDANCE] if model["kind"] != "acgan" else []
    sightline("generate", generator, "--per-class", each, "--out", root / "made", *how)
    sightline("generate", generator, "--per-class", each, "--out", root / "kept", "--keep-if", judge, *how)
    for_hard = int(1.1 * needed / len(hard)) + 1
    sightline("generate", generator, "--per-class", for_hard, "--out", root / "hard", "--classes", *hard, *how)
    for name in ("made", "kept"):
        sightline("evaluate", judge, root / name, "--generated")
    real = model["data"]["counts"]["train"]
    kept = sum(1 for _ in csv.DictReader((root / "kept" / "manifest.csv").open(encoding="utf-8")))
    shares = {"made": SHARE, "kept": min(SHARE, kept / (kept + real)), "hard": SHARE}
    study = {
        "name": "generated",
        "about": f"Real images, and a quarter generated beside them ({recipe}), at equal steps; hardest: {', '.join(hard)}.",
        "data": data if data == "digits" else str(Path(data).absolute()),
        "fraction": float(fraction),
        "recipe": "small",
        "settings": {**CLASSIFIER, "fit": {"epochs": EPOCHS}},
        "seeds": int(seeds),
        "baseline": "real",
        "variants": [
            {"name": "real"},
            *(beside(name, root / folder, shares[folder]) for name, folder in ROWS.items()),
        ],
    }
    # on no real image at all: no row of the study, since its seeds scatter far more than those of the others
    alone = flags({"data": {"synthetic": str(root / "made"), "synthetic_share": 1.0}})
    rounds = round(EPOCHS * real / (each * len(model["classes"])))
    train(root / "alone", data, *common, *alone, "--fit.epochs", rounds)
    (root / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    workers = min(2, os.cpu_count() or 1)  # two trainings of one thread make a fifth more images than one of two
    sightline("compare", root / "study.yaml", "--out", root / "study", "--workers", workers)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main()
