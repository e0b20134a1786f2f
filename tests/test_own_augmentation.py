"""An augmentation of one's own: run where it is trusted, repeated to the bit, noted, and not needed to predict."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import sightline
from conftest import QUICK, coloured_folder
from sightline.cli.main import main
from sightline.config.augmentation import AugmentConfig, OwnAugmentConfig
from sightline.data.augment.own import OwnAugmentation, settle_own
from sightline.errors import ConfigError, TrainingError
from sightline.runs.folder import read_weights
from sightline.training import module

CODE = """
import torch
from torchvision.transforms import v2

calls = []

def dim(images):
    calls.append(images.shape)
    return images * (0.5 + torch.rand(len(images), 1, 1, 1, device=images.device))

jitter = v2.ColorJitter(hue=0.3)
limit = 3

def fails(images):
    return images[None, 3]

def halves(images):
    return images[:, :, ::2]

def counts(images):
    return (255 * images).to(torch.uint8)

def nothing(images):
    return images / 0 * 0
"""


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_folder(tmp_path_factory.mktemp("images") / "colours", images=20)


TRUSTED = {"augment": {"own": {"trust_code": True}}}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    file = tmp_path / "warp.py"
    file.write_text(CODE)
    return file


def own(file: Path, name: str = "dim", **other: Any) -> OwnAugmentConfig:
    return OwnAugmentConfig(file=str(file), name=name, trust_code=True, **other)


def settings(file: Path, name: str = "dim", trust: bool = True) -> dict[str, Any]:
    block = {"kind": "file", "file": str(file), "name": name, "trust_code": trust}
    return QUICK | {"fit": {"epochs": 2, "batch_size": 16}, "augment": {"own": block}}


def stop_at(patch: pytest.MonkeyPatch, occasion: int) -> None:
    step, calls = module.ClassifierLearner.training_step, []

    def dying(self: Any, batch: Any, index: int) -> Any:
        calls.append(index)
        if len(calls) > occasion:
            raise SystemError("killed")
        return step(self, batch, index)

    patch.setattr(module.ClassifierLearner, "training_step", dying)


def test_the_same_seed_draws_the_same_numbers_and_the_process_keeps_its_own(code: Path) -> None:
    function, levels_BHWC = OwnAugmentation(own(code)), torch.full((4, 6, 5, 3), 100.0)
    before = torch.get_rng_state()
    one, other, again = (function(levels_BHWC, seed) for seed in (1, 2, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.equal(again)
    assert not one.equal(other)
    factors = one[:, 0, 0, 0] / 100
    assert one.shape == levels_BHWC.shape
    assert ((factors >= 0.5) & (factors < 1.5)).all()
    assert factors.unique().numel() == 4  # each image its own


def test_a_transform_of_torchvision_is_such_a_function(code: Path) -> None:
    levels_BHWC = torch.rand(4, 6, 5, 3) * 255
    changed = OwnAugmentation(own(code, "jitter"))(levels_BHWC, 3)
    assert not changed.allclose(levels_BHWC)


def test_a_run_is_repeated_to_the_bit_notes_the_file_and_answers_without_it(
    colours: Path, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sightline.train(colours, recipe="small", settings=settings(code), run=tmp_path / "whole")
    plain = sightline.train(
        colours, recipe="small", settings=settings(code) | {"augment": {"own": None}}, run=tmp_path / "plain"
    )
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(SystemError):
            sightline.train(colours, recipe="small", settings=settings(code), run=tmp_path / "resumed")
    resumed = sightline.train(resume=True, run=tmp_path / "resumed", settings=TRUSTED)
    assert whole and plain and resumed  # noqa: PT018
    weights = [read_weights(run / "model.safetensors")[0] for run in (whole, resumed, plain)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert not all(weights[0][name].equal(weights[2][name]) for name in weights[0])

    noted = yaml.safe_load((whole / "recipe.yaml").read_text())["augment"]["own"]
    assert (noted["file"], noted["name"], len(noted["sha256"])) == (str(code), "dim", 64)
    code.unlink()
    image = next(colours.rglob("*.png"))
    assert sightline.load(whole).predict(image).label in [folder.name for folder in colours.iterdir()]
    with pytest.raises(ConfigError, match=r"--augment.own needs .*warp.py, which cannot be read \(No such file"):
        sightline.train(recipe=whole / "recipe.yaml", settings=TRUSTED, run=tmp_path / "again")


def test_a_run_does_not_go_on_with_other_code(
    colours: Path, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(SystemError):
            sightline.train(colours, recipe="small", settings=settings(code), run=tmp_path / "run")
    code.write_text(CODE.replace("0.5 +", "0.6 +"))
    with pytest.raises(ConfigError, match=r"warp.py is not the file that the settings note \(its SHA-256 begins with"):
        sightline.train(resume=True, run=tmp_path / "run", settings=TRUSTED)
    with pytest.raises(ConfigError, match=r"cannot be continued with other settings: augment.own.sha256 was"):
        sightline.train(colours, recipe="small", settings=settings(code), resume=True, run=tmp_path / "run")
    code.write_text(CODE)
    with pytest.raises(ConfigError, match=r"then add --augment.own.trust-code"):
        sightline.train(resume=True, run=tmp_path / "run")
    assert sightline.train(resume=True, run=tmp_path / "run", settings=TRUSTED) == tmp_path / "run"


def test_code_that_is_not_trusted_is_not_run(colours: Path, tmp_path: Path, capsys: Any) -> None:
    file, trace = tmp_path / "warp.py", tmp_path / "was here"
    file.write_text(f"open({str(trace)!r}, 'w')\n" + CODE)
    command = ["train", str(colours), "--recipe", "small", "--augment.own", f"file:{file}:dim", "--dry-run"]
    assert main(command) == 2
    assert f"--augment.own runs the code of {file} on this machine; read it, then add --augment.own.trust-code" in (
        capsys.readouterr().err
    )
    assert not trace.exists()
    assert main([*command, "--augment.own.trust-code"]) == 0
    assert trace.exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fails", r"fails of .*warp.py failed on images of shape \(2, 3, 8, 6\) \(IndexError"),
        ("halves", r"returned torch.float32 of \(2, 3, 4, 6\) for images of shape \(2, 3, 8, 6\); it must return as"),
        ("counts", r"returned torch.uint8 of"),
        ("nothing", r"makes numbers of gray images that are not finite"),
        ("limit", r"warp.py has no function limit; it has dim, "),
        ("absent", r"warp.py has no function absent; it has dim, "),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_before_the_training(code: Path, name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        settle_own(own(code, name), (8, 6), torch.device("cpu"))


def test_a_file_that_is_no_python_or_fails_is_refused(tmp_path: Path) -> None:
    for file, text, sentence in (
        ("warp.txt", CODE, r"warp.txt is no Python file"),
        ("warp.py", "import nowhere", r"warp.py fails when it is loaded \(ModuleNotFoundError: No module named"),
    ):
        (tmp_path / file).write_text(text)
        with pytest.raises(ConfigError, match=sentence):
            OwnAugmentation(own(tmp_path / file))


def test_a_function_that_fails_in_the_middle_says_whose_it_is(tmp_path: Path) -> None:
    file = tmp_path / "warp.py"
    file.write_text("def late(images):\n    return images if len(images) == 2 else 1 / 0\n")
    function = OwnAugmentation(settle_own(own(file, "late"), (8, 6), torch.device("cpu")))
    with pytest.raises(TrainingError, match=r"late of .*warp.py failed on images of shape \(5, 3, 8, 6\) \(ZeroDiv"):
        function(torch.zeros(5, 8, 6, 3), 0)


def test_what_is_kept_of_frozen_layers_does_not_go_with_it(code: Path) -> None:
    from sightline.config.resolving import resolve

    with pytest.raises(ConfigError, match=r"features keep has no effect with --augment.own, which shows an image in"):
        resolve(
            {"finetune": {"kind": "frozen", "features": "keep"}, "augment": {"flip": "none", "own": None}},
            {"augment": {"own": {"file": str(code), "name": "dim", "trust_code": True}}},
        )
    assert AugmentConfig().own is None
