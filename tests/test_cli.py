"""The command line: what it prints, what it refuses, and its statuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import sightline
from conftest import Finished, coloured_folder
from sightline.cli.main import main
from sightline.cli.results import show_exported
from sightline.cli.verbs import VERBS
from sightline.config.resolving import read_recipe, resolve
from sightline.errors import ConfigError, DataError
from sightline.evaluation.exporting.export import Exported
from sightline_runtime.metadata import HeldOut, Measured, Metadata

QUICK = ["--recipe", "small", "--fit.epochs", "1", "--fit.batch-size", "16", "--network.widths", "8", "16", "16"]


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return coloured_folder(tmp_path / "colours", images=20)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The sentence with which a command line is refused."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("sightline: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err


# ── train ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_train_describes_measures_and_ends_with_the_path_of_the_run(colours: Path, capsys) -> None:
    assert main(["train", str(colours), *QUICK, "--seed", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "runs/colours-small-1"
    text = "\n".join(lines)
    for wanted in (
        "3 classes",
        "recipe: small (as asked)",
        "epoch 1/1  train loss",
        "val loss",
        "measured on 12 test",
        "Next:",
    ):
        assert wanted in text
    assert json.loads(Path("runs/colours-small-1/model.json").read_text())["seed"] == 7


def test_flags_before_and_after_a_file_of_settings_win_over_it(colours: Path, capsys) -> None:
    Path("mine.yaml").write_text("name: mine\nfit: {epochs: 3, batch_size: 8}\nnetwork: {widths: [8, 16, 16]}\n")
    arguments = ["--fit.epochs", "1", "--config", "mine.yaml", "--recipe", "small", "--evaluate", "none", "--run", "r"]
    assert main(["train", str(colours), *arguments]) == 0
    recipe = resolve(read_recipe("r/recipe.yaml"))
    assert (recipe.name, recipe.fit.epochs, recipe.fit.batch_size, recipe.evaluation.on) == ("mine", 1, 8, "none")
    assert recipe.optimizer == resolve(read_recipe("small")).optimizer


def test_a_file_of_a_few_settings_leaves_the_choice_of_the_recipe_to_auto(colours: Path, capsys) -> None:
    Path("short.yaml").write_text("fit: {epochs: 1}\nnetwork: {widths: [8, 16, 16]}\nevaluation: {on: none}\n")
    assert main(["train", str(colours), "--config", "short.yaml", "--run", "r"]) == 0
    recipe = resolve(read_recipe("r/recipe.yaml"))
    assert (recipe.name, recipe.fit.epochs, recipe.optimizer.kind) == ("small", 1, "muon")


def test_the_recipe_of_a_run_names_its_image_set(colours: Path, capsys) -> None:
    assert main(["train", str(colours), *QUICK, "--evaluate", "none", "--run", "r"]) == 0
    assert main(["train", "--config", "r/recipe.yaml", "--run", "again"]) == 0
    assert Path("r/recipe.yaml").read_text() == Path("again/recipe.yaml").read_text()


def test_a_list_of_any_length_is_written_with_spaces(colours: Path, capsys) -> None:
    arguments = ["--fit.epochs", "3", "--augment.scales", "0.5", "0.75", "1", "--evaluate", "none", "--run", "r"]
    assert main(["train", str(colours), *QUICK[:2], *QUICK[4:], *arguments]) == 0
    assert resolve(read_recipe("r/recipe.yaml")).augment.scales == (0.5, 0.75, 1)


def test_none_empties_a_list_and_takes_back_a_setting_that_may_be_absent(colours: Path, capsys) -> None:
    Path("mine.yaml").write_text("augment: {scales: [0.5, 1]}\ndata: {validation: 5, size: 24}\n")
    arguments = [*QUICK, "--config", "mine.yaml", "--augment.scales", "none", "--data.validation", "none"]
    assert main(["train", str(colours), *arguments, "--run", "r"]) == 0
    recipe = resolve(read_recipe("r/recipe.yaml"))
    assert (recipe.augment.scales, recipe.data.validation, recipe.data.size) == ((), None, 24)


def test_none_is_refused_where_a_value_is_needed(colours: Path, capsys) -> None:
    assert main(["train", str(colours), "--fit.epochs", "none"]) == 2
    assert "fit.epochs is None; wanted a whole number." in capsys.readouterr().err


def test_a_schedule_of_accumulation_is_written_as_pairs_and_a_number_as_itself(colours: Path, capsys) -> None:
    arguments = ["--fit.epochs", "3", "--fit.accumulate", "0:3", "1:1", "--evaluate", "none", "--run", "r"]
    assert main(["train", str(colours), *QUICK[:2], *QUICK[4:], *arguments]) == 0
    assert resolve(read_recipe("r/recipe.yaml")).fit.accumulate == {0: 3, 1: 1}
    text = Path("r/recipe.yaml").read_text()
    assert main(["train", str(colours), "--config", "r/recipe.yaml", "--fit.accumulate", "2", "--run", "s"]) == 0
    assert Path("s/recipe.yaml").read_text() == text.replace("accumulate:\n    0: 3\n    1: 1\n", "accumulate: 2\n")


def test_an_optional_block_is_turned_off_by_its_kind(colours: Path, capsys) -> None:
    assert main(["train", str(colours), *QUICK, "--augment.crop.kind", "none", "--evaluate", "none", "--run", "r"]) == 0
    assert "crop: null" in Path("r/recipe.yaml").read_text()


def test_a_block_is_named_in_a_word_and_its_other_settings_beside_it(colours: Path, capsys) -> None:
    words = [
        "--network",
        "speednet",
        "--network.widths",
        "8",
        "16",
        "16",
        "--optimizer",
        "adamw",
        "--augment.crop",
        "none",
    ]
    arguments = [*QUICK[:6], *words, "--schedule", "cosine", "--evaluate", "none", "--run", "r"]
    assert main(["train", str(colours), *arguments]) == 0
    recipe = resolve(read_recipe("r/recipe.yaml"))
    assert (recipe.network.kind, recipe.optimizer.kind, recipe.schedule.kind) == ("speednet", "adamw", "cosine")
    assert recipe.network.widths == (8, 16, 16)
    assert recipe.augment.crop is None


def test_a_fine_tuning_is_named_in_a_word_or_by_its_settings(finished: Finished, colours: Path, capsys) -> None:
    network = ["--network", f"run:{finished.run}", "--evaluate", "none"]
    assert main(["train", str(finished.data), *QUICK[:2], *network, "--finetune", "frozen", "--dry-run"]) == 0
    assert "fine-tuning: 48 of 10,888 parameters learn (head)\n" in capsys.readouterr().out
    flags = ["--finetune.kind", "gradual", "--finetune.phases", "2", "--finetune.growth", "3", "--fit.epochs", "8"]
    assert main(["train", str(finished.data), *QUICK[:2], *network, *flags, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "phase 1 of 2, epochs 1 to 2: 48 of 10,888 parameters learn (head)\n" in text
    assert "phase 2 of 2, epochs 3 to 8: 10,496 of 10,888 parameters learn (all)\n" in text
    assert "estimate: at most" not in text  # the phases are counted as they train


def test_a_dry_run_stops_before_the_first_step(colours: Path, capsys) -> None:
    assert main(["train", str(colours), *QUICK, "--dry-run"]) == 0
    assert "estimate: " in capsys.readouterr().out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "no image set at 'nowhere'"),
        (["digit"], "did you mean 'digits'?"),
        (["digits", "--fit.epoks", "3"], "--fit.epochs"),
        (["digits", "--fit.epochs", "many"], "--fit.epochs"),
        (["digits", "--recipe", "fats"], "there is no recipe or file 'fats'; wanted a YAML file or one of: auto, "),
        (
            ["digits", "--recipe", "fast", "--optimizer.betas", "0.9", "0.99"],
            "unknown setting 'optimizer.betas' of kind 'muon'",
        ),
        (["digits", "--recipe", "fast", "--schedule.warmup-epochs", "9"], "must be shorter than --fit.epochs (9)"),
        (["digits", "--recipe", "fast", "--augment.cutout.size", "4", "--augment.cutout.kind", "none"], "kind"),
        (
            ["digits", "--recipe", "fast", "--augment.scales", "0.5"],
            "--augment.scales ends with 0.5; the last must be 1",
        ),
        (
            ["digits", "--recipe", "fast", "--network", "timm"],
            "network is 'timm', which lacks the name; write timm:NAME",
        ),
        (["digits", "--recipe", "fast", "--network", "hub:a/b:c"], "runs the code of a/b on this machine"),
        (["digits", "--network", "run:nowhere"], "there is no run at 'nowhere'"),
        (
            ["digits", "--network", "resnet34", "--network.kind", "resnet18"],
            "--network and --network.kind both name the technique",
        ),
        (["digits", "--fit.epochs", "0", "--recipe", "fast"], "--fit.epochs is 0; it must be at least 1"),
        (["digits", "--fit.accumulate", "0:8", "4"], "--fit.accumulate is 0:8 4; wanted a whole number, or pairs"),
        (["digits", "--fit.accumulate", "0:8", "0:4"], "--fit.accumulate is 0:8 0:4; wanted a whole number, or pairs"),
        (["digits", "--fit.accumulate", "-2"], "--fit.accumulate"),
        (
            ["digits", "--evaluation.robustness", "false"],
            "--evaluation.robustness is a switch and takes no value, but 'false' follows; write"
            " --evaluation.no-robustness.",
        ),
        (["digits", "--resume", "yes"], "--resume is a switch and takes no value, but 'yes' follows; leave 'yes' out."),
        (["digits", "photos"], "'photos' is one too many for sightline train; see sightline train --help."),
        (["digits", "--finetune", "frozn"], "unknown finetune.kind 'frozn'; did you mean 'frozen'?"),
        (["digits", "--finetune", "phases"], "--finetune.kind phases needs its phases, which are written in YAML"),
        (["digits", "--finetune.layer-decay", "0.5"], "finetune names no kind; add one of: kind: frozen, upper"),
        (["digits", "--finetune.phases.1.epochs", "2"], "--finetune.phases"),
    ],
)
def test_train_refuses_in_one_sentence(arguments: list[str], sentence: str, capsys) -> None:
    assert sentence in refusal(capsys, "train", *arguments)


@pytest.mark.parametrize("name", ["net.pte", "net.PT", "net.ckpt"])
def test_weights_that_are_not_ours_are_no_images_for_the_example_classifier(name: str, tmp_path: Path, capsys) -> None:
    (tmp_path / name).write_bytes(b"weights")
    (tmp_path / "photo.png").write_bytes(b"not asked for")
    said = refusal(capsys, "predict", str(tmp_path / name), str(tmp_path / "photo.png"))
    assert "wanted the folder of a finished run, its model.safetensors or the model.onnx of an export" in said


def test_a_setting_that_the_image_set_overrules_is_refused(tmp_path: Path, capsys) -> None:
    for split in ("train", "val", "test"):
        coloured_folder(tmp_path / "set" / split, images=8)
    sentence = refusal(capsys, "train", tmp_path / "set", *QUICK, "--data.validation", 5, "--run", tmp_path / "r")
    assert "--data.validation has no effect: set brings a validation split" in sentence
    # of a recipe that names a number for other sets, it is left out
    assert main(["train", str(tmp_path / "set"), "--recipe", "fast", *QUICK[2:], "--run", str(tmp_path / "r")]) == 0
    assert "validation: null" in (tmp_path / "r" / "recipe.yaml").read_text()


def test_ctrl_c_ends_with_status_130_and_the_command_that_continues(colours: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        str(colours),
        "--fit.epochs",
        "10000",
        "--network.widths",
        "8",
        "16",
        "16",
        "--run",
        "stopped",
    ]
    process = subprocess.Popen([sys.executable, "-m", "sightline", *arguments], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not Path("stopped/last.ckpt").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == ("sightline: stopped; continue with: sightline train --resume --run stopped")
    assert "Traceback" not in errors


# ── evaluate, predict ────────────────────────────────────────────────────────────────────────────────────────────────


def test_export_prints_what_was_measured_of_the_file_and_where_it_is(capsys) -> None:
    measured = Measured(
        data="colours",
        split="validation",
        n=200,
        accuracy=0.955,
        interval=(0.917, 0.976),
        reference_accuracy=0.95,
        difference=0.005,
        difference_interval=(-0.01, 0.02),
        equal_answers=199,
        largest_difference=0.0321,
    )
    metadata = Metadata(
        format=1,
        sightline="0",
        classes=["a", "b"],
        height=32,
        width=32,
        fit="crop",
        intensity="own",
        views="one",
        temperatures={"one": 1.0},
        numbers="int8",
        fingerprint="f",
        measured=measured,
        learned=0,
        run=HeldOut(data="colours", split="test", n=100, accuracy=0.94, interval=(0.875, 0.972)),
    )
    show_exported(Exported(Path("small.onnx"), 2_040_067, metadata), run="runs/a")
    assert capsys.readouterr().out.splitlines() == [
        "int8, 2.0 MB: accuracy of the run 0.9400 (0.8750 to 0.9720; test of colours, n = 100)",
        "checked on 200 images (validation of colours): 199 answers as the run gives them, probabilities within 0.03,"
        " accuracy 0.9550 (0.9170 to 0.9760)",
        "against float32: +0.50 points (-1.00 to +2.00, paired, 95 %)",
        "small.onnx",
    ]


def test_export_refuses_in_one_sentence(finished: Finished, tmp_path: Path, capsys) -> None:
    assert "--out" in refusal(capsys, "export", finished.run)
    assert "wanted the name of an .onnx or .pte file" in refusal(
        capsys, "export", finished.run, "--out", tmp_path / "model.pt"
    )
    assert "is no run folder" in refusal(capsys, "export", tmp_path, "--out", tmp_path / "model.onnx")
    assert "name labeled ones: --data SET" in refusal(capsys, "export", "--out", tmp_path / "model.onnx")


def test_evaluate_prints_a_table(finished: Finished, tmp_path: Path, capsys) -> None:
    run = shutil.copytree(finished.run, tmp_path / "run")
    assert main(["evaluate", str(run)]) == 0
    text = capsys.readouterr().out
    for wanted in (
        "accuracy (with the mirror image)",
        "95 % interval (Wilson)",
        "calibration error",
        "precision",
        "ünder wasser",
    ):
        assert wanted in text


def test_predict_gives_a_readable_line_for_one_image(finished: Finished, capsys) -> None:
    image = finished.data / "grass" / "000.png"
    assert main(["predict", str(finished.run), str(image)]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{image}: grass ")
    assert line.count("%") == 3


def test_predict_prints_csv_for_many_and_names_what_it_could_not_read(
    finished: Finished, tmp_path: Path, capsys
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (32, 32), (0, 250, 0)).save(good)
    bad.write_bytes(b"")
    assert main(["predict", str(finished.run), str(good), str(good), str(bad)]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    ranks = ",".join(f"class_{rank},probability_{rank}" for rank in range(2, 6))
    assert lines[0] == f"file,class,probability,{ranks},none_of_these"
    assert len(lines) == 3
    assert lines[1].startswith(f"{good},grass,")
    assert f"left out {bad}: the file is empty (0 bytes)" in printed.err
    assert "1 unreadable file was left out" in printed.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "nowhere"], "there is no run at 'nowhere'"),
        (["predict", "nowhere", "a.png"], "no image, folder or archive at 'a.png'"),
        (["predict", "nowhere"], "no run, image, folder or archive at 'nowhere'"),
        (["predict"], "no images were named"),
        (["serve", "nowhere"], "there is no run at 'nowhere'"),
        (["serve", "--port", "70000"], "--port is 70000; it must be at least 0 and at most 65535"),
        (["serve", "--token", "short"], "--token has 5 letters; wanted 8 or more"),
        (["pedict", "nowhere"], "predict"),
        (["cache", "--claer"], "--clear"),
        (["plan"], "no image set was named; give a folder, an archive"),
        (["plan", "nowhere"], "no image set at 'nowhere'"),
        (
            ["plan", "digits", "--finetune", "gradual", "--finetune.phases", "1"],
            "--finetune.phases is 1; it must be at",
        ),
    ],
)
def test_the_other_verbs_refuse_in_one_sentence(arguments: list[str], sentence: str, capsys) -> None:
    assert sentence in refusal(capsys, *arguments)


def test_a_run_without_done_is_refused(finished: Finished, tmp_path: Path, capsys) -> None:
    run = Path(shutil.copytree(finished.run, tmp_path / "run"))
    (run / "DONE").unlink()
    assert "it has no DONE file. Continue it with" in refusal(capsys, "predict", run, finished.data)


def test_where_no_run_is_named_the_classifier_in_the_box_answers_and_says_so(finished: Finished, capsys) -> None:
    image = finished.data / "grass" / "000.png"
    assert main(["predict", str(image)]) == 0
    answered = capsys.readouterr()
    assert answered.out.startswith(f"{image}: ")
    assert "no run was named, so the example classifier answers: cifar10-jpeg, 10 classes (airplane," in answered.err
    assert main(["predict", str(finished.run), str(image)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("model.safetensors", "is the weights of a run and no image; name it first: `sightline predict"),
        ("small.onnx", "is an exported classifier and no image; name it first: `sightline predict"),
        ("hf:me/colours", "is a classifier of the hub and no image; name it first: `sightline predict"),
        (
            "m.pte",
            "holds weights that sightline does not open, and no image; wanted images, and before them the folder",
        ),
        (
            "m.ckpt",
            "holds weights that sightline does not open, and no image; wanted images, and before them the folder",
        ),
    ],
)
def test_weights_behind_an_image_are_called_what_they_are(name: str, sentence: str, colours: Path, capsys) -> None:
    image = colours / "grass" / "000.png"
    if ":" not in name:
        Path(name).write_bytes(b"weights")
    assert sentence in refusal(capsys, "predict", image, name)


def test_images_before_a_run_are_no_reason_to_ask_the_box(finished: Finished, capsys) -> None:
    assert f"name it first: `sightline predict {finished.run}" in refusal(
        capsys, "predict", finished.data, finished.run
    )


# ── the lists ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_runs_lists_finished_and_unfinished_ones(finished: Finished, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    shutil.copytree(finished.run, tmp_path / "runs" / "whole")
    half = shutil.copytree(finished.run, tmp_path / "runs" / "half")
    (half / "DONE").unlink()
    assert main(["runs", str(tmp_path / "runs")]) == 0
    text = capsys.readouterr().out
    assert "finished" in text
    assert "unfinished" in text
    assert "1.0000" in text
    assert main(["runs", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_cache_lists_and_clears(capsys, colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    main(["train", str(colours), *QUICK, "--dry-run"])
    capsys.readouterr()
    assert main(["cache"]) == 0
    assert "colours" in capsys.readouterr().out
    assert main(["cache", "--clear"]) == 0
    assert "freed" in capsys.readouterr().out
    assert main(["cache"]) == 0
    assert "colours" not in capsys.readouterr().out
    assert len(list(colours.glob("*/*.png"))) == 60


# ── speed of the answer ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_extra_is_refused_within_two_seconds_of_the_start_and_without_torch() -> None:
    code = (
        "import sys, time, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'wandb' else find(name, *rest)\n"
        "start = time.process_time(); from sightline.cli.main import main\n"
        "assert main(['train', 'digits', '--track.to', 'wandb']) == 2\n"
        "assert time.process_time() - start < 2; assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "run: pip install '.[track]'" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["train", "nowhere"], ["predict", "no", "where"]]
)
def test_help_and_refusals_load_no_torch(arguments: list[str]) -> None:
    code = f"import sys; from sightline.cli.main import main; main({arguments!r}); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ | {"COLUMNS": "100"})
    assert result.returncode == 0, result.stdout


def test_the_help_of_every_verb_loads_no_torch_and_explains_every_flag() -> None:
    code = """
import sys
from sightline.cli.main import main
from sightline.cli.parser import application
from sightline.cli.verbs import VERBS
for name in VERBS:
    assert main([*name.split(), "--help"]) == 0
    command = application(VERBS, name.split())
    for part in name.split():
        command = command[part]
    unexplained = [one.name for one in command.assemble_argument_collection(parse_docstring=True) if not one.parameter.help]
    assert not unexplained, (name, unexplained)
slow = {"torch", "lightning", "gradio", "matplotlib", "sklearn"} & set(sys.modules)
assert not slow, slow
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_first_line_of_a_verb_in_the_list_is_that_of_its_function() -> None:
    for verb in VERBS.values():
        assert verb.summary == " ".join((verb.function.__doc__ or "").split("\n\n")[0].split())
        assert len(verb.summary) > 10


def test_the_function_of_python_takes_what_the_command_takes(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--unknown measures an image set of other things"):
        sightline.evaluate(finished.run, unknown=True)
    with pytest.raises(ConfigError, match="--fid measures generated images: say --generated as well"):
        sightline.evaluate(finished.run, finished.data, fid=True)
    with pytest.raises(ConfigError, match=r"--out .*features.csv must end in .npz"):
        sightline.encode(finished.run, [finished.data], out=tmp_path / "features.csv")
    with pytest.raises(DataError, match="no images were named"):
        sightline.predict(finished.run, [])


def test_the_whole_help_of_train_explains_every_setting(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["train", "--help-all"]) == 0
    text = capsys.readouterr().out
    for wanted in (
        "--recipe",
        "--fit.epochs",
        "--optimizer.learning-rate",
        "Peak learning rate",
        "--augment.crop.kind",
    ):
        assert wanted in text
