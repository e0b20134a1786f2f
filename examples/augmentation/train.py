"""Train with an augmentation of your own.

    python examples/augmentation/train.py photos/ runs/lit

On the command line: `sightline train photos/ --augment.own file:examples/augmentation/light.py:light
--augment.own.trust-code`. `batch.png` in the run shows a batch as the network sees it. `recipe.yaml` notes the file and
its SHA-256; whoever uses the classifier does not need it.
"""

import sys
from pathlib import Path

import sightline

OWN = {"kind": "file", "file": str(Path(__file__).with_name("light.py")), "name": "light", "trust_code": True}


def train(data: Path, run: Path, epochs: int = 20) -> float:
    """Train, and return the accuracy on the test split."""
    settings = {"augment": {"own": OWN}, "fit": {"epochs": epochs}}
    sightline.train(data, recipe="small", settings=settings, run=run)
    return sightline.evaluate(run)["accuracy"]


if __name__ == "__main__":
    print(f"{train(Path(sys.argv[1]), Path(sys.argv[2])):.1%}")
