"""Seconds until help and until a refusal: medians of five, each a process of its own.

python benchmarks/start.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    ("--help",): 0.35,
    ("train", "--help"): 0.6,
    ("train", "a/wrong/path"): 1.0,
    ("predict", "a/wrong/run", "a/wrong/path"): 1.0,
}
"""And the seconds that each may take."""


def main() -> int:
    program = Path(sys.executable).with_name("sightline")
    slow = 0
    for arguments, allowed in COMMANDS.items():
        times = []
        for _ in range(6):
            start = time.perf_counter()
            subprocess.run([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            times.append(time.perf_counter() - start)
        median = statistics.median(times[1:])  # the first warms the file cache
        slow += median > allowed
        print(f"sightline {' '.join(arguments):30} {median:.2f} s (of {allowed} s allowed)")
    return slow


if __name__ == "__main__":
    raise SystemExit(main())
