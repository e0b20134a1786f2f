"""One pass: what precedes the first step of a training is read, cut and decoded once."""

import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import sightline
from conftest import QUICK, Finished, coloured_folder
from sightline.training import fit, module
from test_photos import photographs

STEPS = {
    "find_source": "sightline.data.sources.find_source",
    "open_images": "sightline.data.cache",
    "build": "sightline.data.building",  # decodes a set into its cache
    "split": "sightline.data.splits",
    "resolve": "sightline.config.resolving",
    "resolve_any": "sightline.config.resolving",
    "resolve_generator": "sightline.config.resolving",
}
TINY_GENERATOR = {
    "generator": {"widths": [16], "patch": 4},
    "fit": {"epochs": 2, "batch_size": 8},
    "data": {"size": 16},
}


class FirstStep(BaseException):
    """Ends a training where its first step would begin."""


class Killed(BaseException):
    """Ends a training as a kill would."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each step of the preparation has been called by name, anywhere in the package."""
    assert fit  # all that a training may load is loaded, and so patched
    counts: Counter[str] = Counter()
    for name, home in STEPS.items():
        original = getattr(import_module(home), name)

        def counted(*arguments: Any, name: str = name, original: Callable[..., Any] = original, **named: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **named)

        for key, loaded in list(sys.modules.items()):
            if key == "sightline.config.resolving":
                continue  # its own calls: ``refuse_hopeless`` tries the recipes that might be chosen
            if key.startswith("sightline") and getattr(loaded, name, None) is original:
                monkeypatch.setattr(loaded, name, counted)
    return counts


def stop_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise FirstStep

    monkeypatch.setattr(module.Learner, "begin_step", stop)
    monkeypatch.setattr("sightline.training.probe.solve_head", stop)
    monkeypatch.setattr("sightline.training.probe.choose_head", stop)


def refuse_repetitions(calls: Counter[str], *, decoded: int = 1) -> None:
    assert calls["find_source"] == 1
    assert calls["open_images"] == 1
    assert calls["build"] == decoded
    assert calls["split"] == 1
    assert 1 <= calls["resolve"] + calls["resolve_any"] + calls["resolve_generator"] <= 2


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        pytest.param("small", QUICK, id="by steps"),
        pytest.param("auto", QUICK, id="by steps, the recipe chosen"),
        pytest.param("ddpm", TINY_GENERATOR, id="a generator"),
    ],
)
def test_a_training_reads_cuts_and_decodes_its_images_once(
    recipe: str, settings: dict[str, Any], tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = coloured_folder(tmp_path / "colors")
    stop_before_the_first_step(monkeypatch)
    with pytest.raises(FirstStep):
        sightline.train(data, recipe=recipe, settings=settings, run=tmp_path / "run")
    assert (tmp_path / "run" / "model.json").exists()
    refuse_repetitions(calls)


@pytest.mark.parametrize("then", ["auto", "nothing"])
def test_a_probe_reads_cuts_and_decodes_its_images_once(
    then: str, tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = photographs(tmp_path / "pets", 4, ("train", "val", "test"))
    stop_before_the_first_step(monkeypatch)
    settings = {"data": {"size": 32}, "probe": {"then": then}}
    with pytest.raises(FirstStep):
        sightline.train(data, recipe="photos", settings=settings, run=tmp_path / "run")
    refuse_repetitions(calls)


@pytest.mark.parametrize(("recipe", "settings"), [("small", QUICK), ("ddpm", TINY_GENERATOR)])
def test_a_dry_run_does_no_more(
    recipe: str, settings: dict[str, Any], finished: Finished, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    sightline.train(finished.data, recipe=recipe, settings=settings, dry_run=True)
    refuse_repetitions(calls, decoded=calls["build"])


def test_a_training_that_is_resumed_does_no_more(
    finished: Finished, tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))

    def kill(epoch: int, _: dict[str, float]) -> None:
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        sightline.train(finished.data, recipe="small", settings=QUICK, run=tmp_path / "run", after_epoch=kill)
    calls.clear()
    stop_before_the_first_step(monkeypatch)
    with pytest.raises(FirstStep):
        sightline.train(run=tmp_path / "run", resume=True)
    refuse_repetitions(calls, decoded=0)
