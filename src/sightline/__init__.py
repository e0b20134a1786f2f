"""sightline: a set of images in, a classifier out that is fast to train, accurate, explained and safe to hand on.

Every verb of the command line is a function here, imported on first use, so that nothing slow loads before it is
needed: ``sightline.train("flowers/")`` is ``sightline train flowers/``.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from sightline.errors import SightlineError

# Threads of libgomp spin while they wait for each other, which takes the core of whoever shares the machine: two trainings
# of two threads on two cores took 3.6 times as long as one, and 1.5 times with this (n = 1). libgomp reads it once, when
# torch is loaded: whoever has loaded torch before sightline keeps what was set then. Every process of ours starts here,
# and those that it starts inherit it.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "0"

if TYPE_CHECKING:
    from sightline.checking import check
    from sightline.comparing import compare
    from sightline.diagnosing import environment
    from sightline.encoding import encode
    from sightline.evaluating import evaluate
    from sightline.explaining import explain
    from sightline.finding import find_batch, find_rate
    from sightline.generating import generate
    from sightline.planning import plan
    from sightline.predicting import Classifier, load, predict
    from sightline.reporting import report
    from sightline.serving import serve
    from sightline.training import train
    from sightline.tuning import tune

__all__ = [
    "Classifier",
    "SightlineError",
    "check",
    "compare",
    "encode",
    "environment",
    "evaluate",
    "explain",
    "find_batch",
    "find_rate",
    "generate",
    "load",
    "plan",
    "predict",
    "report",
    "serve",
    "train",
    "tune",
]

_HOMES = {
    "Classifier": "sightline.predicting",
    "check": "sightline.checking",
    "compare": "sightline.comparing",
    "encode": "sightline.encoding",
    "environment": "sightline.diagnosing",
    "evaluate": "sightline.evaluating",
    "explain": "sightline.explaining",
    "find_batch": "sightline.finding",
    "find_rate": "sightline.finding",
    "generate": "sightline.generating",
    "load": "sightline.predicting",
    "plan": "sightline.planning",
    "predict": "sightline.predicting",
    "report": "sightline.reporting",
    "serve": "sightline.serving",
    "train": "sightline.training",
    "tune": "sightline.tuning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sightline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
