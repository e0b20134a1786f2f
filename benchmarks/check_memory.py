"""Memory of a whole ``sightline check``: the most that its processes hold themselves, on a set TIMES as large.

The set is CIFAR-10 as JPEG files, packed TIMES (10) times into one archive, each copy changed a little: moved by up to 2
pixels, toned, half of them mirrored, encoded anew. Images are embedded by RUN, a finished run of CIFAR-10 such as one of
the recipe `fast`; labels are judged by heads on its features. Anonymous memory is told from file pages, which the system
drops when it needs the room, by looking every 0.2 s at the process and its children.

    python benchmarks/check_memory.py ../shared/data/cifar10-jpeg.tar.xz RUN [TIMES [FOLDER]]

FOLDER keeps the archive for another time.
"""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sightline.data.batches import derived_seed
from sightline.machine.environment import environment

TIMES = 10
CHECK = "import sys, sightline; sightline.check(sys.argv[1], labels=sys.argv[2], out=sys.argv[3], on_event=print)"


def main(packed: str, run: str, times: int, kept: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(kept or folder) / f"times{times}.tar"
        if not archive.exists():
            write_larger(packed, archive, times)
        with tarfile.open(archive) as files:
            count = sum(member.isfile() for member in files)
        start = time.perf_counter()
        arguments = [sys.executable, "-c", CHECK, str(archive), run, str(Path(folder) / "check")]
        with (Path(folder) / "events").open("w") as events:
            process = subprocess.Popen(arguments, stdout=events, stderr=subprocess.STDOUT)
            held, pages, used = watch(process)
        if process.returncode:
            sys.exit((Path(folder) / "events").read_text()[-2000:])
        findings = sum(1 for _ in (Path(folder) / "check" / "findings.csv").open()) - 1
        print(
            f"check of {count:,} images: {held:.2f} GB held at most (imports included), {pages:.2f} GB of file pages,"
            f" {time.perf_counter() - start:.0f} s, {used:.0f} s of the processor; {findings:,} findings"
        )
    print(environment(), f"load {os.getloadavg()[0]:.1f}")


def write_larger(packed: str, archive: Path, times: int) -> None:
    """Write the images of an archive so many times, all but the first time changed a little."""
    part = archive.with_suffix(".part")
    with tarfile.open(packed) as originals, tarfile.open(part, "w") as out:
        for number, member in enumerate(one for one in originals if one.isfile()):
            file = originals.extractfile(member)
            assert file is not None  # it is a file
            data = file.read()
            if not member.name.endswith((".jpg", ".jpeg")):
                continue
            pixels = np.asarray(Image.open(io.BytesIO(data)))
            random = np.random.default_rng(derived_seed(number, "larger set"))
            stem, suffix = os.path.splitext(member.name)
            for copy in range(times):
                info = tarfile.TarInfo(f"{stem}-{copy}{suffix}")
                content = changed(pixels, random) if copy else data
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))
    part.rename(archive)


def changed(pixels: np.ndarray, random: np.random.Generator) -> bytes:
    """Move, tone and perhaps mirror an image, (H, W, 3) in uint8, and encode it as JPEG."""
    moved = np.roll(pixels, tuple(random.integers(-2, 3, 2)), axis=(0, 1))
    toned = (moved * random.uniform(0.8, 1.1) + random.uniform(-15, 15)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(toned[:, ::-1] if random.random() < 0.5 else toned).save(file, "JPEG", quality=90)
    return file.getvalue()


def watch(process: subprocess.Popen) -> tuple[float, float, float]:
    """Wait for a process; the most that it and its children held and mapped, in GB, and the seconds it used."""
    held = pages = 0.0
    while process.poll() is None:
        every = [memory(pid) for pid in (process.pid, *children(process.pid))]
        held, pages = max(held, sum(one for one, _ in every)), max(pages, sum(other for _, other in every))
        time.sleep(0.2)
    used = os.times()
    return held, pages, used.children_user + used.children_system


def children(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    try:
        own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*own, *(grandchild for child in own for grandchild in children(child))]


def memory(pid: int) -> tuple[float, float]:
    """Anonymous memory and file pages of a process, in GB; nothing of one that has ended."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return tuple(int(lines[name].split()[0]) / 1e6 for name in ("RssAnon", "RssFile"))
    except (OSError, KeyError):
        return 0.0, 0.0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    packed, run, *others = sys.argv[1:]
    main(packed, run, int(others[0]) if others else TIMES, others[1] if len(others) > 1 else None)
