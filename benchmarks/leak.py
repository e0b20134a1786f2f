"""What validation on the backbone's own images is worth, as the attention survey very likely validated.

    python benchmarks/leak.py ARCHIVE [STUDY]

ARCHIVE is CIFAR-10, STUDY the folder of the finished study `attention` of it (studies/attention-cifar10-jpeg-0.5). For each of
its seeds the head of "frozen + graph" is trained again on the same backbone and with the same settings, once with nine tenths
of the images that the backbone was trained on, validated on the last tenth, and tested on the same test images. sightline
refuses that where it knows of it, so the backbone is a copy that has forgotten its images. The gap between validation and test
is compared with that of the study's own runs, in pairs of one seed.
"""

import csv
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

import sightline
from sightline.config.resolving import to_mapping
from sightline.config.studies import read_study
from sightline.data.cache import open_images
from sightline.data.seen import number_of, read_seen, write_seen_file
from sightline.data.sources.find_source import find_source
from sightline.measures.significance import mean_interval
from sightline.runs.outcomes import read_outcome
from sightline.studies.runner import jobs

BACKBONE, HEAD = "plain", "frozen + graph"
A_TENTH = 10  # of the backbone's own images, every tenth validates


def main(archive: Path, folder: Path) -> None:
    study = read_study(folder / "study.yaml")
    pairs: list[tuple[float, float, float, float]] = []
    print(
        "| seed | validation, apart | test | validation, the backbone's own | test |\n| --: | --: | --: | --: | --: |"
    )
    with tempfile.TemporaryDirectory() as place:
        images = Path(place) / "images"
        data = listed(archive, images, folder / "runs" / f"{BACKBONE}-{study.seeds[0]}")
        for job in jobs(study, folder):
            if job.variant.name != HEAD or not job.finished:
                continue
            assert job.backbone is not None
            forgotten = without_memory(job.backbone, Path(place))
            recipe = study.recipe_of(job.variant, job.seed, str(forgotten))
            settings = {"data": {"fraction": 1.0}, "evaluation": {"on": "test"}}
            run = sightline.train(
                data, recipe=to_mapping(recipe), settings=settings, run=Path(place) / f"leak-{job.seed}"
            )
            assert run is not None
            accuracies = [
                one.accuracy
                for path in (job.run, run)
                for outcome in [read_outcome(path)]
                for one in (outcome.validation, outcome.test)
                if one is not None
            ]
            apart, apart_test, own, own_test = accuracies
            pairs.append((apart, apart_test, own, own_test))
            print(f"| {job.seed} | " + " | ".join(f"{one:.4f}" for one in accuracies) + " |", flush=True)
    values = 100 * np.array(pairs)
    said("validation above test, apart", values[:, 0] - values[:, 1])
    said("validation above test, the backbone's own", values[:, 2] - values[:, 3])
    said("what the leak alone is worth", (values[:, 2] - values[:, 3]) - (values[:, 0] - values[:, 1]))


def listed(archive: Path, folder: Path, backbone: Path) -> Path:
    """Unpack the archive, and write a manifest of the test images and of those that the backbone was trained on."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    images = open_images(find_source(str(folder)), 32)
    trained = set(read_seen(backbone).trained.tolist())
    rows = []
    for path, label, split, hashed in zip(images.paths, images.labels, images.splits, images.hashes, strict=True):
        if split == "test":
            rows.append((path, images.classes[label], "test"))
        elif number_of(hashed) in trained:
            rows.append((path, images.classes[label], "train"))
    own = [index for index, row in enumerate(rows) if row[2] == "train"]
    for index in np.random.default_rng(0).permutation(own)[::A_TENTH].tolist():
        rows[index] = (*rows[index][:2], "val")
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    counts = {split: sum(row[2] == split for row in rows) for split in ("train", "val", "test")}
    print(f"{counts['train']:,} images train, {counts['val']:,} validate, {counts['test']:,} test\n")
    return manifest


def without_memory(run: Path, place: Path) -> Path:
    """Copy a run as if it did not know which images it has seen."""
    copy = place / run.name
    shutil.copytree(run, copy)
    nothing = np.array([], np.uint64)
    write_seen_file(copy, {"trained": nothing, "validated": nothing, "tested": nothing}, None)
    return copy


def said(what: str, values: np.ndarray) -> None:
    interval = mean_interval(values)
    spread = "" if interval is None else f" ({interval[0]:+.2f} to {interval[1]:+.2f}, n = {len(values)} seeds)"
    print(f"{what}: {values.mean():+.2f} points{spread}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "studies/attention-cifar10-jpeg-0.5"))
