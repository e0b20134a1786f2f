"""Is what has a direction recognized, and are photographs still mirrored?

    python benchmarks/mirrored.py OUT [arrows] [power] [test SET...]

``arrows``: draws sets (``arrows.py``; 80 images a class, 96 px) of arrows to the left and right, up and down, in four
directions, and of left and right hands, trains each, and the embedded digits, by plain ``sightline train FOLDER``, seeds as they come, and once more
with ``--augment.flip random --evaluation.views flip``; the test accuracy with its 95 % interval. ``test``: the statistics of
the test of mirroring beside their thresholds, and its seconds, for each SET (of train images alone; nothing is trained).
``power``: in how many drawn sets of 10 to 80 images a class, of 16 to 300 px, mirroring is left out.
"""

import itertools
import json
import sys
import time
from pathlib import Path

from arrows import KINDS, draw_set
from sightline import train
from sightline.data.cache import open_images
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.measures.metrics import wilson_interval
from sightline.training.mirroring import SWAPPED, UNLIKE, measure_mirroring

EACH, SIDE = 80, 96


def main(out: Path, what: list[str]) -> None:
    if "test" in what:
        sets = what[what.index("test") + 1 :]
        drawn = [str(draw_set(out / "sets" / kind, kind, EACH, SIDE)) for kind in KINDS]
        report_tests([*drawn, *sets])
    if "power" in what:
        report_power(out)
    if "arrows" in what:
        report_trainings(out)


def report_tests(sets: list[str]) -> None:
    print(
        "| set | n | seconds | as they are | mirrored | 95 % interval | share lost (limit"
        f" {UNLIKE:g}) | swapped, worst pair (limit {SWAPPED:g}, and by chance) | largest by chance | mirrored? |"
    )
    print("| --- | --: | --: | --: | --: | --- | --: | --: | --: | --- |")
    for name in sets:
        images = open_images(find_source(name), None)
        rows = split(images).train
        start = time.perf_counter()
        measured = measure_mirroring(images, rows)
        seconds = time.perf_counter() - start
        low, high = wilson_interval(round(measured.mirrored * measured.images), measured.images)
        print(
            f"| {Path(name).name} | {measured.images} | {seconds:.1f} | {measured.accuracy:.3f} | {measured.mirrored:.3f} |"
            f" {low:.3f} to {high:.3f} |"
            f" {measured.lost:.2f} | {measured.swapped:.2f} | {measured.chance:.2f} |"
            f" {'yes' if measured.harmless else 'no: ' + measured.reason(images.classes)} |",
            flush=True,
        )


def report_power(out: Path) -> None:
    print("| kind | images a class | sets in which mirroring is left out | of (4 sides, 3 seeds) |")
    print("| --- | --: | --: | --: |")
    for kind, each in itertools.product(("left_right", "hands", "up_down"), (10, 20, 40, 80)):
        alarms = []
        for side, seed in itertools.product((16, 32, 96, 300), range(3)):
            folder = draw_set(out / "power" / f"{kind}-{each}-{side}-{seed}", kind, each, side, seed)
            images = open_images(find_source(folder), None)
            alarms.append(not measure_mirroring(images, images.readable).harmless)
        print(f"| {kind} | {each} | {sum(alarms)} | {len(alarms)} |", flush=True)


def report_trainings(out: Path) -> None:
    print("| set | flips | recipe that was kept | test accuracy | n | 95 % interval |")
    print("| --- | --- | --- | --: | --: | --: |")
    for kind in (*KINDS, "digits"):
        data = kind if kind == "digits" else draw_set(out / "sets" / kind, kind, EACH, SIDE)
        for name, settings in (("as it decides", {}), ("random, by hand", {"augment": {"flip": "random"}})):
            run = out / f"{kind}-{name.split()[0]}"
            if not (run / "DONE").exists():
                train(data, settings=settings, run=run)
            model = json.loads((run / "model.json").read_text())
            measured = model["metrics"]
            accuracy, n, (low, high) = measured["accuracy"], measured["n"], measured["accuracy_interval"]
            print(
                f"| {kind} | {name} | {model['recipe']} | {accuracy:.3f} | {n} | {low:.3f} to {high:.3f} |", flush=True
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
