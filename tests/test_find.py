"""Searches as a user has them: two verbs, and ``auto`` in a recipe, which leaves a number behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

import sightline
from conftest import QUICK, coloured_folder
from sightline.cli.main import main
from sightline.config.finding import BatchSearchConfig, RangeTestConfig
from sightline.config.resolving import merge, read_recipe, resolve, searches, to_mapping
from sightline.display.lines import Lines
from sightline.display.reporting import ignore
from sightline.errors import ConfigError, DataError, RunError, TrainingError
from sightline.runs import folder, writing
from sightline.training import fit, module, preparation, resume
from sightline.training.finders import auto, batch

TINY = merge(QUICK, {"data": {"size": 16}})
AUTO = merge(TINY, {"optimizer": {"learning_rate": "auto"}, "evaluation": {"on": "none"}})
SHORT = RangeTestConfig(steps=30)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter range tests, and one timed step of each batch size."""
    monkeypatch.setattr(auto, "RangeTestConfig", lambda: SHORT)
    monkeypatch.setattr(batch, "TIMED_STEPS", 1)
    monkeypatch.setattr(batch, "TIMED_SECONDS", 0)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return coloured_folder(tmp_path / "colours", images=20)


class Killed(BaseException):
    """What no code catches."""


def weights(run: Path) -> dict[str, torch.Tensor]:
    return folder.read_weights(run / "model.safetensors")[0]


def same_bits(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)


def found_in(run: Path) -> dict:
    return json.loads((run / "model.json").read_text())["found"]


def rates_of(run: Path) -> dict[str, float]:
    optimizer = to_mapping(folder.read_run_recipe(run).optimizer)
    return {name: value for name, value in optimizer.items() if name.endswith("learning_rate")}


# ── the verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_find_rate_leaves_a_picture_a_table_and_settings_that_train_takes(colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    found = sightline.find_rate(colours, recipe="small", settings=TINY, test=SHORT, out=out)
    assert sorted(path.name for path in out.iterdir()) == ["found.json", "range.csv", "range.png", "settings.yaml"]
    assert Image.open(out / "range.png").size == (800, 450)
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    assert settings == found.settings
    recipe = resolve(read_recipe("small"), TINY, read_recipe(out / "settings.yaml"))
    assert recipe.optimizer == found.optimizer
    before = resolve(read_recipe("small")).optimizer  # muon: all three by one factor, the rest as it was
    factors = [
        getattr(found.optimizer, name) / getattr(before, name)
        for name in ("learning_rate", "head_learning_rate", "bias_learning_rate")
    ]
    assert factors == pytest.approx([factors[0]] * 3, rel=0.01)
    assert recipe.optimizer.shrink == before.shrink
    kept = json.loads((out / "found.json").read_text())
    assert [row["learning_rate"] for row in kept["tried"]] == list(found.tried)
    assert kept["suggestion"] == found.suggestion
    again = sightline.find_rate(colours, recipe="small", settings=TINY, test=SHORT)
    assert (again.test.losses, again.tried) == (found.test.losses, found.tried)


def test_find_batch_tells_memory_speed_and_headroom(colours: Path, tmp_path: Path, capsys) -> None:
    console = Console(record=True, width=120)
    found = sightline.find_batch(
        colours, recipe="small", settings=TINY, out=tmp_path / "found", on_event=Lines(console)
    )
    assert [size.batch_size for size in found.search.tried] == [4, 8, 16, 32]
    assert [size.images for size in found.search.tried] == [4, 8, 13, 20]  # of 39, cut evenly
    assert found.search.bound == "images"
    assert all(0 < size.memory < found.search.limit and size.speed > 0 for size in found.search.tried)
    assert found.taken in found.search.tried
    text = console.export_text()
    assert "largest batch that fits: 32 (there are no more training images for a batch)" in text
    assert "headroom" in text
    header = "batch_size,images,memory_GB,images_per_second,fits,memory_is\n"
    assert (tmp_path / "found" / "sizes.csv").read_text().startswith(header)
    assert yaml.safe_load((tmp_path / "found" / "settings.yaml").read_text()) == found.settings


def test_from_the_command_line_they_say_what_to_train_with_and_end_with_the_folder(
    colours: Path, tmp_path: Path, capsys
) -> None:
    arguments = ["--recipe", "small", "--network.widths", "8", "16", "16", "--fit.batch-size", "16"]
    test = ["--steps", "40", "--spacing", "linear", "--start", "0.001", "--end", "1", "--out", str(tmp_path / "rate")]
    assert main(["find", "rate", str(colours), *arguments, "--optimizer", "sgd", *test]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Reading colours", "colours: 39 training images, recipe small (as asked)"]
    assert lines[-2].startswith("found: --optimizer.learning-rate 0.")
    assert lines[-1] == str(tmp_path / "rate")
    rows = (tmp_path / "rate" / "range.csv").read_text().splitlines()
    assert rows[1].startswith("1,0.001,")
    assert rows[2].startswith("2,0.0266")
    assert main(["find", "batch", str(colours), *arguments, "--how", "binary", "--out", str(tmp_path / "batch")]) == 0
    assert "found: --fit.batch-size " in capsys.readouterr().out
    arguments += ["--config", str(tmp_path / "batch" / "settings.yaml"), "--dry-run"]
    del arguments[arguments.index("--fit.batch-size") :][:2]
    assert main(["train", str(colours), *arguments]) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["rate", "digits", "--start", "1", "--end", "0.1"],
            "--end 0.1 is not above --start 1; the rate of a range test",
        ),
        (["rate", "digits", "--recipe", "fast", "--start", "20"], "--end 10 is not above --start 20"),
        (["rate", "digits", "--steps", "10"], "--steps is 10; it must be at least 20"),
        (["rate", "digits", "--start", "0"], "--start is 0; it must be above 0"),
        (["rate", "digits", "--how", "power"], "--how"),
        (["rate", "nowhere"], "no image set at 'nowhere'"),
        (["rate"], "no image set was named"),
        (["rate", "digits", "--recipe", "fats"], "there is no recipe or file 'fats'"),
        (["rate", "digits", "--optimizer.learning-rate", "fast"], "--optimizer.learning-rate"),
        (["batch", "digits", "--memory-limit", "0"], "--memory-limit is 0; it must be above 0"),
        (["batch", "digits", "--how", "guess"], "--how"),
        (["batch", "digits", "--steps", "50"], "--steps"),
        (["bach", "digits"], "bach"),
    ],
)
def test_what_cannot_be_found_is_refused_in_one_sentence(arguments: list[str], sentence: str, capsys) -> None:
    assert main(["find", *arguments]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert printed.startswith("sightline: ")
    assert printed.count("\n") == 1


def test_help_and_refusals_load_no_torch(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    code = (
        "import sys; from sightline.cli.main import main\n"
        "assert main(['find']) == main(['find', 'rate', '--help']) == main(['find', 'batch', '--help']) == 0\n"
        "assert main(['find', 'rate', 'digits', '--recipe', 'fast', '--start', '20']) == 2\n"
        "assert main(['find', 'batch', 'nowhere']) == 2\n"
        f"assert main(['find', 'batch', 'digits', '--out', {str(tmp_path / 'full')!r}]) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "--memory-limit" in ended.stdout
    assert "full exists and is not an empty folder" in ended.stderr


def test_a_folder_that_holds_something_is_refused_before_the_work_and_an_empty_one_is_taken(
    colours: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "range.png").write_text("mine")
    for find in (sightline.find_rate, sightline.find_batch):
        with pytest.raises(RunError, match="full exists and is not an empty folder; choose another --out"):
            find("nowhere", out=tmp_path / "full")
        with pytest.raises(RunError, match="exists and is not an empty folder"):
            find("nowhere", out=tmp_path / "full" / "range.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image set"):
        sightline.find_batch("nowhere", out=tmp_path / "empty")
    sightline.find_batch(colours, recipe="small", settings=TINY, out=tmp_path / "empty")
    assert (tmp_path / "empty" / "settings.yaml").exists()


def test_memory_below_what_the_smallest_batch_takes_is_refused(colours: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"a batch of 4 images, the smallest, takes \d\.\d\d GB, and the limit is 0\.01 GB"
    ):
        sightline.find_batch(colours, recipe="small", settings=TINY, search=BatchSearchConfig(memory_limit=0.01))


# ── auto ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_auto_is_laid_over_a_number_to_start_from_and_a_number_over_auto() -> None:
    auto, number = {"optimizer": {"learning_rate": "auto"}}, {"optimizer": {"learning_rate": 0.3}}
    fast = read_recipe("fast")
    assert searches(fast, auto) == ("optimizer.learning_rate",)
    assert resolve(fast, auto) == resolve(fast)
    assert searches(fast, auto, number) == searches(fast) == ()
    assert searches(auto, {"fit": {"batch_size": "auto"}}) == ("fit.batch_size", "optimizer.learning_rate")
    assert searches(auto, {"optimizer": {"kind": "adam"}}) == ()  # another technique: nothing of the old one's applies
    assert resolve({"optimizer": {"kind": "adam", "learning_rate": "auto"}}).optimizer.learning_rate == 1e-3
    with pytest.raises(ConfigError, match=r"optimizer.learning_rate is 'best'; wanted a number or auto"):
        resolve({"optimizer": {"learning_rate": "best"}})
    with pytest.raises(ConfigError, match=r"optimizer.momentum is 'auto'; wanted a number\."):
        resolve({"optimizer": {"momentum": "auto"}})


def test_a_training_with_auto_is_the_training_with_the_number_that_it_found_to_the_bit(
    colours: Path, tmp_path: Path
) -> None:
    run = sightline.train(colours, recipe="small", settings=AUTO, run=tmp_path / "auto")
    assert run is not None
    found = found_in(run)["optimizer.learning_rate"]
    assert found["settings"]["optimizer"] == {"kind": "muon", **rates_of(run)}
    assert found["from"]["optimizer.bias_learning_rate"] == 3.4  # of the recipe small
    assert found["suggestion"] == found["tried"][0]["learning_rate"]
    assert found["seconds"] > 0
    assert (run / "range.png").exists()
    assert (run / "range.csv").exists()
    written = {"optimizer": rates_of(run), "evaluation": {"on": "none"}}
    by_number = sightline.train(colours, recipe="small", settings=merge(TINY, written), run=tmp_path / "number")
    again = sightline.train(recipe=run / "recipe.yaml", run=tmp_path / "again")
    assert by_number is not None
    assert again is not None
    assert same_bits(run, by_number)
    assert same_bits(run, again)
    assert (run / "metrics.csv").read_text().splitlines()[0] == (again / "metrics.csv").read_text().splitlines()[0]
    assert (run / "recipe.yaml").read_text() == (by_number / "recipe.yaml").read_text()
    assert "found" not in json.loads((again / "model.json").read_text())


def test_a_killed_training_with_auto_goes_on_with_what_it_found_to_the_same_bits(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = merge(AUTO, {"fit": {"checkpoint_seconds": 0}})
    whole = sightline.train(colours, recipe="small", settings=settings, run=tmp_path / "whole")
    steps = []
    step = module.ClassifierLearner.training_step

    def dying(self, *arguments):
        steps.append(0)
        if len(steps) == 8:
            raise Killed
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module.ClassifierLearner, "training_step", dying)
        with pytest.raises(Killed):
            sightline.train(colours, recipe="small", settings=settings, run="runs/stopped")
    with monkeypatch.context() as patch:
        patch.setattr(auto, "search_rate", None)  # nothing is searched for again
        resumed = sightline.train(colours, recipe="small", settings=settings, resume=True)  # the newest such run
    assert whole is not None
    assert resumed == Path("runs/stopped")
    assert same_bits(whole, resumed)
    assert rates_of(whole) == rates_of(resumed)
    assert found_in(whole)["optimizer.learning_rate"]["tried"] == found_in(resumed)["optimizer.learning_rate"]["tried"]


def test_a_run_goes_on_only_with_a_search_that_it_began_with(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_, **__):
        raise Killed

    monkeypatch.setattr(fit, "fit", die)
    for name, settings in (("searched", AUTO), ("plain", TINY)):
        with pytest.raises(Killed):
            sightline.train(colours, recipe="small", settings=settings, run=tmp_path / name)

    def resumed(name: str, **settings) -> None:
        sightline.train(
            colours, recipe="small", settings=merge(TINY, settings), run=tmp_path / name, resume=True, dry_run=True
        )

    auto = {"learning_rate": "auto"}
    resumed("searched", **AUTO)
    with pytest.raises(
        ConfigError,
        match=r"plain cannot be continued with other settings: optimizer.learning_rate was 0.1 and is auto;",
    ):
        resumed("plain", optimizer=auto)
    with pytest.raises(
        ConfigError, match=r"optimizer.learning_rate was [\d.]+ and is auto; .*optimizer.head_learning_rate was"
    ):
        resumed("searched", **merge(AUTO, {"optimizer": {"head_learning_rate": 0.5}}))  # another start
    with pytest.raises(ConfigError, match=r"optimizer.learning_rate was [\d.]+ and is 0.7;"):
        resumed("searched", **merge(AUTO, {"optimizer": {"learning_rate": 0.7}}))
    with pytest.raises(
        ConfigError, match=r"searched cannot be continued with other settings: fit.epochs was 4 and is 5;"
    ):
        resumed("searched", **merge(AUTO, {"fit": {"epochs": 5}}))


def test_a_search_that_fails_or_is_stopped_leaves_no_run(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (KeyboardInterrupt, TrainingError):

        def stop(*_, error=error):
            raise error

        monkeypatch.setattr(auto, "search_rate", stop)
        with pytest.raises(error):
            sightline.train(colours, recipe="small", settings=AUTO, run=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_batch_size_that_was_found_is_a_number_and_the_rate_is_found_for_it(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    search = auto.search_rate

    def noted(plan, *rest):
        seen.append(plan.recipe.fit.batch_size)
        return search(plan, *rest)

    monkeypatch.setattr(auto, "search_rate", noted)
    settings = merge(AUTO, {"fit": {"batch_size": "auto", "epochs": 1}})
    run = sightline.train(colours, recipe="small", settings=settings, run=tmp_path / "run")
    assert run is not None
    size = folder.read_run_recipe(run).fit.batch_size
    found = found_in(run)["fit.batch_size"]
    assert found["settings"] == {"fit": {"batch_size": size}}
    assert size in [row["batch_size"] for row in found["tried"]]
    assert seen == [size]


def test_a_dry_run_says_what_it_would_search_for_and_makes_nothing(colours: Path, tmp_path: Path, capsys) -> None:
    words = ["--optimizer.learning-rate", "auto", "--fit.batch-size", "auto", "--run", str(tmp_path / "run")]
    assert (
        main(["train", str(colours), "--recipe", "small", "--network.widths", "8", "8", "8", "--dry-run", *words]) == 0
    )
    text = capsys.readouterr().out
    assert "fit.batch_size: auto, to be found before the first step" in text
    assert "optimizer.learning_rate: auto, to be found before the first step" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"fit": {"accumulate": {0: 2, 1: 1}}},
            r"--optimizer.learning-rate auto looks for one rate, and --fit.accumulate 0:2 1:1 changes the images of a step",
        ),
        (
            {"data": {"fraction": 0.3}},
            r"auto needs 20 training images or more, of which a fifth is held out .*there are 12",
        ),
        (
            {"fit": {"batch_size": "auto", "accumulate": 11}},
            r"begins with 4 images, and there are 39 training images in 11",
        ),
    ],
)
def test_what_auto_cannot_serve_is_refused_before_anything_is_made(
    colours: Path, tmp_path: Path, settings, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sightline.train(colours, recipe="small", settings=merge(AUTO, settings), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rate_is_found_for_one_batch_size_only(colours: Path) -> None:
    with pytest.raises(ConfigError, match=r"--fit.batch-size is auto; find that first \(sightline find batch\)"):
        sightline.find_rate(colours, recipe="small", settings=merge(TINY, {"fit": {"batch_size": "auto"}}))
    with pytest.raises(ConfigError, match=r"a range test looks for one rate, and --fit.accumulate 0:2 1:1"):
        sightline.find_rate(colours, recipe="small", settings=merge(TINY, {"fit": {"accumulate": {0: 2, 1: 1}}}))


# ── several processes ────────────────────────────────────────────────────────────────────────────────────────────────


PROGRAM = """
import json, sys
import sightline
from sightline.training.finders import auto as finders
from sightline.config.finding import RangeTestConfig

finders.RangeTestConfig = lambda: RangeTestConfig(steps=30)
print(sightline.train(sys.argv[1], recipe="small", settings=json.loads(sys.argv[2]), run=sys.argv[3]))
"""


def test_of_two_processes_the_first_searches_and_both_train_with_what_it_found(colours: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    two = merge(AUTO, {"fit": {"processes": 2, "epochs": 2, "batch_size": "auto"}})

    def trained(settings: dict, name: str) -> Path:
        command = [sys.executable, str(program), str(colours), json.dumps(settings), str(tmp_path / name)]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return tmp_path / name

    auto = trained(two, "auto")
    assert list(found_in(auto)) == ["fit.batch_size", "optimizer.learning_rate"]
    size = folder.read_run_recipe(auto).fit.batch_size
    assert size == found_in(auto)["fit.batch_size"]["settings"]["fit"]["batch_size"]
    number = trained(merge(two, {"optimizer": rates_of(auto), "fit": {"batch_size": size}}), "number")
    assert same_bits(auto, number)
    assert (auto / "recipe.yaml").read_text() == (number / "recipe.yaml").read_text()


def test_a_helper_that_means_another_search_is_refused(colours: Path, tmp_path: Path, monkeypatch) -> None:
    plan = preparation.prepare_training(colours, "small", AUTO, ignore)
    run = tmp_path / "run"
    run.mkdir()
    folder.write_recipe(run, resolve(to_mapping(plan.recipe), {"optimizer": {"learning_rate": 0.05}}))
    writing.write_json(run / "model.json", {"format": 1})
    with pytest.raises(
        ConfigError, match=r"is trained with other settings: optimizer.learning_rate was 0.05 and is auto"
    ):
        fit.help_fit(plan, run)
    settled = {"settings": {"optimizer": {"learning_rate": 0.05}}, "from": {"optimizer.learning_rate": 0.1}}
    writing.write_json(run / "model.json", {"format": 1, "found": {"optimizer.learning_rate": settled}})
    assert resume.changes_since(run, plan) == []
    assert resume.as_found(plan, run).recipe.optimizer.learning_rate == 0.05
