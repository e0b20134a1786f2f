"""A schedule of fine-tuning, written out to be edited: what it holds, and that it trains what it says."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import sightline
from conftest import Finished
from sightline.cli.main import main
from sightline.config.finetuning import PhaseConfig, PhasesConfig
from sightline.config.resolving import read_recipe, resolve
from sightline.errors import ConfigError
from test_train import epochs_of, same_bits

FIT = {"epochs": 3, "batch_size": 16}


@pytest.fixture(autouse=True)
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.training.callbacks.cost.convolution_flops", lambda *_: 1.0)


def planned(finished: Finished, **settings: Any) -> str:
    network = {"network": f"run:{finished.run}"}
    return sightline.plan(finished.data, recipe="small", settings=network | {"fit": FIT} | settings)


def test_a_plan_names_the_layers_of_the_network_and_counts_what_learns_in_each(finished: Finished) -> None:
    text = planned(finished)
    assert "#   sightline train " + str(finished.data) + " --recipe small --config plan.yaml\n" in text
    head, _, phases = text.partition("finetune:\n")
    assert yaml.safe_load(head) == {
        "network": {"kind": "run", "folder": str(finished.run), "trust_code": False},
        "fit": FIT,
    }
    assert phases == (
        "  kind: phases\n"
        "  layer_decay: null\n"
        "  restore_best: none\n"
        "  phases: # of a network of 10,888 parameters\n"
        "    - epochs: 1 # epoch 1; 48 parameters learn\n"
        "      rate: 1.0\n"
        "      train:\n"
        "        - head # 48\n"
        "    - epochs: 1 # epoch 2; 8,176 parameters learn\n"
        "      rate: 1.0\n"
        "      train:\n"
        "        - head # 48\n"
        "        - groups.2 # 4,640\n"
        "        - groups.1 # 3,488\n"
        "    - epochs: 1 # epoch 3; 10,496 parameters learn\n"
        "      rate: 1.0\n"
        "      train:\n"
        "        - head # 48\n"
        "        - groups.2 # 4,640\n"
        "        - groups.1 # 3,488\n"
        "        - groups.0 # 2,320\n"
    )


def test_a_plan_that_is_not_edited_trains_the_same_weights_as_what_it_was_made_of(
    finished: Finished, tmp_path: Path
) -> None:
    finetune = {"kind": "gradual", "layer_decay": 0.5, "growth": 2.0}
    fit = FIT | {"epochs": 4}
    settings = {"network": f"run:{finished.run}", "fit": fit, "optimizer": "adam", "finetune": finetune}
    sightline.plan(finished.data, recipe="small", settings=settings, out=tmp_path / "plan.yaml")
    direct = sightline.train(finished.data, recipe="small", settings=settings, run=tmp_path / "direct")
    again = sightline.train(
        finished.data, recipe="small", settings=read_recipe(tmp_path / "plan.yaml"), run=tmp_path / "planned"
    )
    assert direct is not None
    assert again is not None
    assert same_bits(direct, again)
    assert epochs_of(direct) == epochs_of(again)
    assert isinstance(resolve(read_recipe(again / "recipe.yaml")).finetune, PhasesConfig)


@pytest.mark.parametrize(
    ("finetune", "wanted"),
    [
        ("frozen", [PhaseConfig(epochs=3, train=("head",))]),
        (
            {"kind": "discriminative", "layer_decay": 0.25},
            [PhaseConfig(epochs=3, train=("head", "groups.2", "groups.1", "groups.0"))],
        ),
        (
            {"kind": "gradual", "phases": 2, "growth": 2.0, "restore_best": "val_acc"},
            [
                PhaseConfig(epochs=2, train=("head",)),
                PhaseConfig(epochs=4, train=("head", "groups.2", "groups.1", "groups.0")),
            ],
        ),
        (
            {
                "kind": "phases",
                "phases": [{"epochs": 1, "train": ["groups.1"], "rate": 0.5}, {"epochs": 2, "train": ["head"]}],
            },
            [PhaseConfig(epochs=1, train=("groups.1",), rate=0.5), PhaseConfig(epochs=2, train=("head",))],
        ),
    ],
)
def test_every_kind_of_fine_tuning_can_be_written_out(finished: Finished, finetune: Any, wanted: list[Any]) -> None:
    epochs = sum(phase.epochs for phase in wanted)
    recipe = resolve(yaml.safe_load(planned(finished, finetune=finetune, fit=FIT | {"epochs": epochs})))
    assert isinstance(recipe.finetune, PhasesConfig)
    assert recipe.finetune.phases == tuple(wanted)
    given = resolve({"finetune": finetune, "fit": {"epochs": epochs}}).finetune
    for name in ("layer_decay", "restore_best"):
        assert getattr(recipe.finetune, name) == (
            getattr(given, name, None) or getattr(PhasesConfig(phases=tuple(wanted)), name)
        )


def test_what_else_was_set_travels_in_the_plan(finished: Finished) -> None:
    settings = yaml.safe_load(planned(finished, optimizer="adamw", fit={"epochs": 3, "batch_size": 8}))
    assert settings["optimizer"] == {"kind": "adamw"}
    assert settings["fit"] == {"epochs": 3, "batch_size": 8}


def test_a_whitening_bias_is_in_the_phases_in_which_it_learns(finished: Finished) -> None:
    network = {"kind": "speednet", "widths": [8, 16, 16], "whiten_bias_epochs": 2.5}
    settings = yaml.safe_load(planned(finished, network=network))
    trained = [phase["train"] for phase in settings["finetune"]["phases"]]
    assert ["whiten" in names for names in trained] == [False, False, True]
    network["whiten_bias_epochs"] = 2.0
    trained = [phase["train"] for phase in yaml.safe_load(planned(finished, network=network))["finetune"]["phases"]]
    assert not any("whiten" in names for names in trained)


# ── on the command line ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_is_printed_or_written_and_never_over_another_file(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["plan", str(finished.data), "--network", f"run:{finished.run}", "--fit.epochs", "3"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# A schedule of fine-tuning for colours, made for the recipe small. Edit it, then:\n")
    assert main([*arguments, "--out", "mine.yaml"]) == 0
    assert capsys.readouterr().out == "mine.yaml\n"
    text = Path("mine.yaml").read_text()
    assert text == printed.replace("plan.yaml", "mine.yaml")
    assert f"#   sightline train {finished.data} --config mine.yaml\n" in text
    Path("mine.yaml").write_text(text.replace("rate: 1.0", "rate: 0.5"))
    assert main([*arguments, "--out", "mine.yaml"]) == 2
    assert "--out mine.yaml exists; choose another name" in capsys.readouterr().err
    assert "rate: 0.5" in Path("mine.yaml").read_text()
    with pytest.raises(ConfigError, match=r"--out mine.yaml exists"):
        sightline.plan(finished.data, out="mine.yaml")


def test_a_plan_is_trained_by_its_file(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(planned(finished))
    assert main(["train", str(finished.data), "--config", "plan.yaml", "--run", "r", "--evaluate", "none"]) == 0
    assert "phase 2 of 3, epoch 2: 8,176 of 10,888 parameters learn (head, groups.2, groups.1)" in (
        capsys.readouterr().out
    )
    assert [row["phase"] for row in epochs_of(Path("r"))] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("- groups.1 ", "- groups.7 ", "phase 2 of finetune trains 'groups.7', and the network has no such layer; did you"),
        ("epochs: 3", "epochs: 4", "the phases of finetune take 1 + 1 + 1 = 3 epochs, and --fit.epochs is 4; let them be"),
        ("rate: 1.0", "rates: 1.0", "unknown setting 'finetune.phases.1.rates'; did you mean 'rate'?"),
        ("rate: 1.0", "rate: fast", "finetune.phases.1.rate is 'fast'; wanted a number."),
        ("rate: 1.0", "rate: 0", "finetune.phases.1.rate is 0; it must be above 0."),
        ("epochs: 1 ", "epochs: 0 ", "finetune.phases.1.epochs is 0; it must be at least 1."),
        ("        - groups.2 # 4,640\n        - groups.1 # 3,488\n    -", "    -", "phase 2 of finetune trains the same as phase 1"),
        ("layer_decay: null", "layer_decay: 1", "--finetune.layer-decay 1 has no effect: all layers learn at the same"),
    ],
)  # fmt: skip
def test_a_plan_that_was_edited_wrongly_is_refused_with_status_2(
    finished: Finished, tmp_path: Path, capsys, old: str, new: str, sentence: str
) -> None:
    text = planned(finished)
    assert old in text
    (tmp_path / "plan.yaml").write_text(text.replace(old, new))
    run = tmp_path / "run"
    assert main(["train", str(finished.data), "--recipe", "small", "--config", str(tmp_path / "plan.yaml"), "--run", str(run)]) == 2  # fmt: skip
    assert capsys.readouterr().err.startswith(f"sightline: {sentence}")
    assert not run.exists()


def test_a_plan_of_phases_that_do_not_fit_is_refused_without_torch(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("finetune: {kind: phases, phases: [{epochs: 3, train: [head]}]}\nfit: {epochs: 4}\n")
    code = (
        "import sys; from sightline.cli.main import main\n"
        f"status = main(['train', 'digits', '--config', {str(plan)!r}]); sys.exit(status != 2 or 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "the phases of finetune take 3 epochs, and --fit.epochs is 4" in result.stderr
