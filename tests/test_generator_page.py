"""The report of a generator's run: its losses and what they mean, what it made meanwhile, and what comes next."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

import sightline
from conftest import Finished, coloured_folder
from sightline.cli.main import main
from sightline.config.generators import DiffusionConfig, SamplingConfig
from sightline.display.lines import Lines
from sightline.errors import ConfigError, RunError
from sightline.reports.generator_page import EARLIER, _bounded, _next_commands
from sightline.reports.sentences import learning_charts
from sightline.runs.folder import read_model
from sightline.training import generator_plan
from test_acgan import TINY as TINY_ACGAN
from test_generate import TINY as TINY_DDPM
from test_report import change, pictures_of_self_contained

TINY_EDM = TINY_DDPM | {"generator": {"widths": [16, 16], "patch": 2}}
SETTINGS: dict[str, Mapping[str, Any]] = {"ddpm": TINY_DDPM, "edm": TINY_EDM, "acgan": TINY_ACGAN}


@pytest.fixture(scope="module", params=list(SETTINGS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, str]:
    """A training of each kind, and what it printed."""
    root = tmp_path_factory.mktemp(request.param)
    images = coloured_folder(root / "colours", images=20)
    console = Console(file=io.StringIO(), width=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(root / "cache"))
        patch.setattr("sightline.training.callbacks.cost.convolution_flops", lambda *_: 1e9)
        run = sightline.train(
            images, recipe=request.param, settings=SETTINGS[request.param], run=root / "run", on_event=Lines(console)
        )
    assert run is not None
    return Finished(run, images, root / "cache"), console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def run(made: tuple[Finished, str], tmp_path: Path) -> Path:
    """A copy of such a run."""
    return Path(shutil.copytree(made[0].run, tmp_path / "run"))


def page_of(run: Path) -> str:
    return sightline.report(run).read_text("utf-8")


def is_acgan(run: Path) -> bool:
    return bool(read_model(run)["kind"] == "acgan")


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_training_writes_the_page_names_it_and_the_command_writes_the_same(
    made: tuple[Finished, str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished, printed = made
    written = (finished.run / "report.html").read_bytes()
    assert f"{finished.run}/report.html   what it was trained on, how it learned, what it makes" in printed
    kind = read_model(run)["kind"]
    assert ("mean squared error of the noise" in printed) == (kind == "diffusion")
    assert ("weighted squared error of the image" in printed) == (kind == "edm")
    assert ("neither says how good the images are" in printed) == is_acgan(run)
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == written


def test_the_page_loads_nothing_and_runs_nothing(run: Path) -> None:
    assert pictures_of_self_contained(run / "report.html") == 1  # the samples of the only picture, after epoch 3


def test_the_page_says_what_was_trained_on_what_and_what_its_losses_are(run: Path) -> None:
    page, model = (run / "report.html").read_text("utf-8"), read_model(run)
    losses = model["losses"]
    assert "trained on colours: 39 images to learn from, 9 for validation, 12 for the test; 3 classes (=blood," in page
    assert f"{model['size'][0]} × {model['size'][1]} pixels" in page
    assert f"(parameters: {model['parameters']:,})" in page
    assert f"on the 9 validation images {losses['val_loss']:.4f}" in page
    assert f"on the training images {losses['train_loss']:.4f}" in page
    assert "No loss says how good the images are, and this run has measured nothing else" in page
    if is_acgan(run):
        assert f"of the discriminator and {losses['val_generator_loss']:.4f} of the generator" in page
        assert f"of the discriminator and {losses['train_generator_loss']:.4f} of the generator" in page
        assert "neither says that the training is done" in page
        assert "(this part is 1.39 and 0.69 where the discriminator cannot do it at all)" in page  # 2 ln 2 and ln 2
        assert "mean squared error" not in page
    else:
        edm = model["kind"] == "edm"
        assert ("It is the mean squared error with which it guesses the noise" in page) != edm
        assert ("only scales the noisy one down" in page) == edm
        assert ("(DDPM)" in page, "(EDM)" in page) == (not edm, edm)
        assert "discriminator" not in page


def test_the_page_shows_both_losses_the_settings_the_cost_and_how_to_repeat_it(run: Path) -> None:
    page, model = (run / "report.html").read_text("utf-8"), read_model(run)
    charts = ["Loss of the discriminator", "Loss of the generator"] if is_acgan(run) else ["Loss"]
    assert re.findall(r'role="img" aria-label="([^"]+)"', page) == [*charts, "Learning rate"]
    assert "seconds of calibration and test" not in page
    assert f"{(run / 'model.safetensors').stat().st_size / 1e6:.1f}" in page
    for part in (model["cost"]["device"], f"{model['cost']['fit_seconds']:,.1f}", *model["versions"].values()):
        assert part in page
    assert f"{model['kind']}: " in page
    assert "ema: start 0, decay" in page
    assert model["data"]["fingerprint"] in page
    assert "sightline train DATA --config recipe.yaml --run ANOTHER" in page
    assert "batch_size: 16" in page


def test_a_loss_that_falls_by_much_is_drawn_on_a_logarithmic_scale(tmp_path: Path) -> None:
    def caption(*losses: float) -> str:
        rows = "".join(f"{epoch},{loss}\n" for epoch, loss in enumerate(losses, 1))
        (tmp_path / "metrics.csv").write_text(f"epoch,train_loss\n{rows}")
        (chart,) = learning_charts(tmp_path, [("Loss", "loss", ("train_loss", "val_loss"))], ("Loss",))
        return chart.caption

    assert caption(0.2, 0.05, 0.01) == "Loss, by epoch, on a logarithmic scale."
    assert caption(0.2, 0.1, 0.05) == caption(0.2, 0.1, 0.0) == "Loss, by epoch."


def test_the_page_names_the_commands_that_come_next_and_they_are_ones_that_the_generator_can_do(run: Path) -> None:
    page = (run / "report.html").read_text("utf-8")
    how = "" if is_acgan(run) else "--guidance 1.8 --steps 20 "
    assert f"sightline generate . --per-class 500 {how}--out FOLDER" in page
    assert "sightline evaluate CLASSIFIER FOLDER --generated" in page
    assert "sightline train DATA --data.synthetic FOLDER" in page
    if not is_acgan(run):
        generator = DiffusionConfig(noise_steps=5, drop_labels=0, last_noise=0.2)
        assert "--guidance 0 --steps 5 " in _next_commands(generator)
        SamplingConfig(guidance=0, steps=5).refuse_conflicts(generator)


def test_what_users_wrote_is_shown_and_never_becomes_a_tag(run: Path) -> None:
    evil = "<img src=x>"
    text = (run / "model.json").read_text("utf-8")
    (run / "model.json").write_text(text.replace("grass", evil).replace('"colours"', f'"{evil}"'), "utf-8")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text("utf-8")) | {"about": "<img src=y>"}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    page = page_of(run)
    assert "<img src=x" not in page
    assert "about: &lt;img src=y&gt;" in page
    assert "<img src=y" not in page
    assert "trained on &lt;img src=x&gt;: 39 images" in page
    assert "=blood, &lt;img src=x&gt;, ünder wasser" in page
    assert pictures_of_self_contained(run / "report.html") == 1


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def epochs_shown(page: str) -> list[int]:
    return [int(epoch) for epoch in re.findall(r"<figcaption>[Aa]fter epoch (\d+)", page)]


def test_of_many_pictures_the_last_and_eight_evenly_chosen_earlier_ones_are_shown(run: Path) -> None:
    picture = (run / "samples" / "epoch-003.png").read_bytes()
    for epoch in (*range(1, 30), 1000):
        (run / "samples" / f"epoch-{epoch:03d}.png").write_bytes(picture)
    (run / "samples" / "epoch-last.png").write_bytes(b"of someone else")
    page = page_of(run)
    assert epochs_shown(page) == [1000, 1, 5, 9, 13, 17, 21, 25, 29]
    assert pictures_of_self_contained(run / "report.html") == 1 + EARLIER


def test_a_picture_has_only_so_many_letters_however_hard_it_is_to_pack() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    plain = np.full((300, 200, 3), 200, np.uint8)
    assert len(_bounded(noise, 300, 10**6)) > 20_000
    assert 1_000 < len(_bounded(noise, 300, 5_000)) <= 5_000
    assert _bounded(plain, 300, 5_000) == _bounded(plain, 1000, 10**6)  # never enlarged


def test_a_run_whose_samples_are_gone_says_so(run: Path) -> None:
    shutil.rmtree(run / "samples")
    page = page_of(run)
    assert "There are no pictures of samples in samples/, so the page shows none" in page
    assert "the samples below" not in page
    assert "<h2>Samples</h2>" not in page
    assert "<img" not in page
    assert "How it learned" in page


def test_a_picture_that_cannot_be_read_is_left_out_and_named(run: Path) -> None:
    whole = (run / "samples" / "epoch-003.png").read_bytes()
    (run / "samples" / "epoch-002.png").write_bytes(whole)
    (run / "samples" / "epoch-001.png").write_bytes(whole[: len(whole) // 2])
    (run / "samples" / "epoch-004.png").write_bytes(b"")
    page = page_of(run)
    assert epochs_shown(page) == [3, 2]
    assert "A picture of samples cannot be shown: samples/epoch-004.png, the file is empty (0 bytes)." in page
    assert "A picture of samples cannot be shown: samples/epoch-001.png, broken" in page
    for epoch in (2, 3):
        (run / "samples" / f"epoch-{epoch:03d}.png").unlink()
    assert "There are no pictures of samples in samples/ (samples/epoch-004.png, the file is empty" in page_of(run)


def test_the_page_says_how_the_samples_were_made(run: Path) -> None:
    page = (run / "report.html").read_text("utf-8")
    assert (
        "in one pass, by the averaged weights" if is_acgan(run) else "in 10 steps of dpm++ with a guidance of 1.8"
    ) in page
    change(run / "model.json", classes=[f"class {index}" for index in range(30)])
    assert "a row for each of the first 20 of 30 classes" in page_of(run)


# ── what is refused, and what it costs ───────────────────────────────────────────────────────────────────────────────


def other_recipe(run: Path) -> None:
    (run / "recipe.yaml").write_text("name: other\nnetwork: resnet18\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda run: (run / "DONE").unlink(), r"is not a finished run: it has no DONE file"),
        (lambda run: (run / "metrics.csv").unlink(), r"metrics\.csv cannot be read"),
        (lambda run: change(run / "model.json", kind="painter"), r"is a painter, not a classifier"),
        (other_recipe, r"recipe\.yaml is not the recipe of a generator; copy the run again"),
    ],
)
def test_a_damaged_run_is_refused_in_one_sentence_and_status_2(
    damage: Callable[[Path], None], told: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "report.html").unlink()
    damage(run)
    with pytest.raises(RunError, match=told):
        sightline.report(run)
    assert not (run / "report.html").exists()
    assert main(["report", str(run)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


def test_trust_code_has_no_effect_and_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="--trust-code has no effect on the report of a generator"):
        sightline.report(run, trust_code=True)
    assert main(["report", str(run), "--trust-code"]) == 2
    assert "leave it out" in capsys.readouterr().err


def test_the_command_loads_no_torch_for_a_generator(run: Path) -> None:
    program = "import sys\nfrom sightline.cli.main import main\nassert main(['report', sys.argv[1]]) == 0\nassert 'torch' not in sys.modules"
    found = subprocess.run(
        [sys.executable, "-c", program, str(run)], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr


def test_weights_and_losses_that_are_not_there_cost_no_page(run: Path) -> None:
    (run / "model.safetensors").unlink()
    losses = {name: value for name, value in read_model(run)["losses"].items() if not name.startswith("val")}
    change(run / "model.json", losses=losses)  # of a training that was validated after no last epoch
    page = page_of(run)
    assert f"on the training images {losses['train_loss']:.4f}" in page
    assert "on the 9 validation images" not in page


def test_a_report_that_fails_costs_a_line_and_no_training(
    made: tuple[Finished, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no room\nfor a page")

    monkeypatch.setenv("SIGHTLINE_CACHE", str(made[0].cache))
    monkeypatch.setattr("sightline.training.callbacks.cost.convolution_flops", lambda *_: 1e9)
    monkeypatch.setattr(generator_plan, "report", fail)
    console = Console(file=io.StringIO(), width=300)
    settings = {"fit": {"epochs": 2}}
    run = sightline.train(
        recipe=made[0].run / "recipe.yaml", settings=settings, run=tmp_path / "new", on_event=Lines(console)
    )
    assert run is not None
    assert (run / "DONE").exists()
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "no report.html: no room for a page" in printed
    assert "new/report.html " not in printed
    assert json.loads((run / "model.json").read_text())["losses"]["n"] == 9
