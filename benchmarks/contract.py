"""Requests that schemathesis makes from /openapi.json, against a real server: it finds no failure.

python benchmarks/contract.py [EXAMPLES] [SEED]
"""

import subprocess
import sys
from pathlib import Path

from serve import served


def main() -> None:
    examples, seed = [*sys.argv[1:], "200", "1"][:2]
    tool = [Path(sys.executable).with_name("schemathesis"), "run", "--max-examples", examples, "--seed", seed]
    root = Path(__file__).parents[1]  # where schemathesis.toml is
    with served(None) as (port, _):
        done = subprocess.run([*tool, f"http://127.0.0.1:{port}/openapi.json"], cwd=root)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
