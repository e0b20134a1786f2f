"""A program of somebody who checks types strictly; tests/test_typing.py checks it, and nothing runs it."""

from pathlib import Path
from typing import Any, assert_type

import lightning

import sightline
import sightline_runtime


def trained(photos: Path) -> Path:
    """Train, and write what was measured beside the run."""
    run = sightline.train(photos, recipe="small", settings={"fit": {"epochs": 5}}, on_event=print)
    assert_type(run, Path | None)
    assert run is not None  # None is the answer to dry_run
    assert_type(sightline.evaluate(run), dict[str, Any])
    assert_type(sightline.check(photos, out=run / "check").excluded, list[str])
    assert_type(sightline.explain(run, [photos / "a.jpg"], out=run / "maps").sheets, list[Path])
    return sightline.export(run, out=run / "model.onnx").path


def fitted(photos: Path) -> Path:
    """Train by a Trainer of one's own."""
    prepared = sightline.prepare(photos, recipe="small")
    assert_type(prepared.classes, list[str])
    assert_type(prepared.trainer, dict[str, Any])
    trainer = lightning.Trainer(**prepared.trainer, callbacks=prepared.callbacks)
    trainer.fit(prepared.module, prepared.datamodule)
    return prepared.finish(trainer)


def answered(run: Path, image: bytes) -> float:
    """Ask the network itself."""
    classifier = sightline.load(run)
    assert_type(classifier, sightline.Classifier)
    assert_type(classifier.predict(["a.jpg", image]), list[sightline_runtime.Prediction])
    assert_type(sightline.predict(run, "photos/").predictions[0].label, str)
    return classifier.predict("a.jpg", coverage=0.9).probability


def answered_without_torch(file: Path, image: bytes) -> tuple[str, ...]:
    """Ask its exported file."""
    answer = sightline_runtime.load(file, threads=2).predict([image], views="one")[0]
    assert_type(answer, sightline_runtime.Prediction)
    assert_type(answer.unknown, bool | None)
    return answer.within or ()


def refused() -> None:
    """What is wrong is seen: strict mypy would complain of an ignored error that is none."""
    sightline.train(3.5)  # type: ignore[arg-type]
    sightline.load("run", precision="half")  # type: ignore[arg-type]
    sightline_runtime.load()  # type: ignore[call-arg]
    print(sightline.predict("run", "a.jpg").prediction)  # type: ignore[attr-defined]
