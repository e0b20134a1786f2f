"""10,000 JPEG files from a folder to CSV with a classifier of the recipe ``fast``: seconds of a cold process, warm speed.

Trains an untuned classifier first (one epoch of a hundredth of the set): speed does not depend on what it has learnt.

    python benchmarks/predict.py ../shared/data/cifar10-jpeg.tar.xz
"""

import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import sightline

COUNT = 10_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        with tarfile.open(sys.argv[1]) as packed:
            members = [member for member in packed if member.isfile() and member.name.startswith("test/")]
            packed.extractall(images, members[:COUNT], filter="data")
        settings = {"fit": {"epochs": 1}, "data": {"fraction": 0.01}, "evaluation": {"on": "none"}}
        run = sightline.train(sys.argv[1], recipe="fast", settings=settings, run=Path(folder) / "run")
        assert run is not None
        program = Path(sys.executable).with_name("sightline")
        for views in ("six", "one"):
            start = time.perf_counter()
            command = [program, "predict", run, images, "--out", Path(folder) / f"{views}.csv", "--views", views]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            cold = time.perf_counter() - start
            start = time.perf_counter()
            found = sightline.predict(run, [images], views=views)
            warm = time.perf_counter() - start
            assert len(found.files) == COUNT
            print(
                f"{views:4} views: {cold:.1f} s cold, {COUNT / warm:,.0f} images/s warm (decoding included)", flush=True
            )


if __name__ == "__main__":
    main()
