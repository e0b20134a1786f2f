"""Train a network of your own, measure it, explain an answer and export it.

    python examples/network/train.py photos/ runs/mine

On the command line: `sightline train photos/ --recipe small --network hub:examples/network:little
--network.trust-code`. Whoever loads the run needs `hubconf.py` too, and says `trust_code`; the exported file needs
neither.
"""

import sys
from pathlib import Path

import sightline

HERE = Path(__file__).parent
NETWORK = {"kind": "hub", "repo": str(HERE), "name": "little", "trust_code": True}


def train(data: Path, run: Path, epochs: int = 20) -> Path:
    """Train, and return the exported file; everything lies in the folder of the run."""
    settings = {"network": NETWORK, "fit": {"epochs": epochs}, "optimizer": "adamw"}
    sightline.train(data, recipe="small", settings=settings, run=run)
    image = sorted(path for path in data.rglob("*") if path.suffix in (".jpg", ".png"))[0]
    answer = sightline.load(run, trust_code=True).predict(image)
    print(f"{image}: {answer.label} ({answer.probability:.0%})")
    sightline.explain(run, [image], out=run / "maps", methods=["grad_cam"], trust_code=True)
    return sightline.export(run, out=run / "model.onnx", trust_code=True).path


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), Path(sys.argv[2])))
