"""An archive of images into the cache: seconds and peak memory, then the seconds of a second start.

python benchmarks/decode.py ../shared/data/cifar10-jpeg.tar.xz
"""

import os
import resource
import subprocess
import sys
import tempfile
import time

CODE = "--one"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for title in ("first start", "second start"):
            print(f"{title}: ", end="", flush=True)
            environment = os.environ | {"SIGHTLINE_CACHE": folder}
            subprocess.run([sys.executable, __file__, CODE, sys.argv[1]], check=True, env=environment)


def one(data: str) -> None:
    from sightline.data.cache import open_images
    from sightline.data.sources.find_source import find_source

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    images = open_images(find_source(data))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{len(images.readable):,} images in {seconds:.2f} s; peak memory {peak / 1e3:,.0f} MB, {before / 1e3:,.0f} MB of"
        f" it before (the cache's own pages, {images.pixels.nbytes / 1e6:,.0f} MB, are counted by the system, too)"
    )


if __name__ == "__main__":
    one(sys.argv[2]) if sys.argv[1] == CODE else main()
