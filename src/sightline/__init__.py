"""sightline: a set of images in, a classifier out that is fast to train, accurate, explained and safe to hand on.

Every verb of the command line is a function here, imported on first use, so that nothing slow loads before it is
needed: ``sightline.train("flowers/")`` is ``sightline train flowers/``.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from sightline.errors import SightlineError

# Threads of libgomp spin while they wait for each other, which takes the core of whoever shares the machine: two
# trainings of two threads on two cores took 3.6 times as long as one, and 1.5 times with this (n = 1). libgomp reads it
# once, when torch is loaded: whoever has loaded torch before sightline keeps what was set then. Every process of ours
# starts here, and those that it starts inherit it.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "0"

# What Apple's GPUs have no operator for is computed on the processor. torch reads this when it is loaded, too.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

if TYPE_CHECKING:
    from sightline.checks.check import check
    from sightline.checks.corrections import corrections
    from sightline.checks.review import review
    from sightline.evaluation.evaluate import evaluate
    from sightline.evaluation.exporting.export import export
    from sightline.explanation.explain import explain
    from sightline.generation.generate import generate
    from sightline.inference.classifier import Classifier
    from sightline.inference.encode import encode
    from sightline.inference.predict import load, predict
    from sightline.machine.environment import environment
    from sightline.reports.push import push
    from sightline.reports.report import report
    from sightline.serving.serve import serve
    from sightline.studies.compare import compare
    from sightline.studies.tune import tune
    from sightline.training.find import find_batch, find_rate
    from sightline.training.plan import plan
    from sightline.training.prepare import prepare
    from sightline.training.train import train

__all__ = [
    "Classifier",
    "SightlineError",
    "check",
    "compare",
    "corrections",
    "encode",
    "environment",
    "evaluate",
    "explain",
    "export",
    "find_batch",
    "find_rate",
    "generate",
    "load",
    "plan",
    "predict",
    "prepare",
    "push",
    "report",
    "review",
    "serve",
    "train",
    "tune",
]

_HOMES = {
    "Classifier": "sightline.inference.classifier",
    "check": "sightline.checks.check",
    "compare": "sightline.studies.compare",
    "corrections": "sightline.checks.corrections",
    "encode": "sightline.inference.encode",
    "environment": "sightline.machine.environment",
    "evaluate": "sightline.evaluation.evaluate",
    "explain": "sightline.explanation.explain",
    "export": "sightline.evaluation.exporting.export",
    "find_batch": "sightline.training.find",
    "find_rate": "sightline.training.find",
    "generate": "sightline.generation.generate",
    "load": "sightline.inference.predict",
    "plan": "sightline.training.plan",
    "predict": "sightline.inference.predict",
    "prepare": "sightline.training.prepare",
    "push": "sightline.reports.push",
    "report": "sightline.reports.report",
    "review": "sightline.checks.review",
    "serve": "sightline.serving.serve",
    "train": "sightline.training.train",
    "tune": "sightline.studies.tune",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sightline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
