"""The standard FID: what is measured, and what is refused. The real weights are not here, so random ones stand in for them."""

import hashlib
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import sightline
from conftest import Finished, coloured_folder
from sightline.cli.main import main
from sightline.data.cache import open_images
from sightline.data.sources.downloads import PublishedFile
from sightline.data.sources.find_source import find_source
from sightline.data.splits import split
from sightline.errors import ConfigError, DataError
from sightline.evaluation import inception
from sightline.measures.fidelity import frechet_distance
from sightline.runs.folder import read_run_recipe

with_library = pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed"
)


class Colours(nn.Module):
    """Stands in for the library's network: the mean colour of an image, as its first three features."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: Any) -> None:
        super().__init__()
        torch.load(feature_extractor_weights_path, weights_only=True)
        assert features_list == ["2048"]

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor]:
        assert pixels_BCHW.dtype == torch.uint8
        means_BC = pixels_BCHW.float().mean((2, 3))
        return (nn.functional.pad(means_BC, (0, 2048 - 3)),)


@pytest.fixture
def in_colours(monkeypatch: pytest.MonkeyPatch, finished: Finished, tmp_path: Path) -> Path:
    """A library whose features a person can check, weights that are taken for the published ones, and the cache of a run."""
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Colours  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(inception, "require", lambda *_: None)
    monkeypatch.setenv("SIGHTLINE_CACHE", str(finished.cache))
    file = finished.cache / "downloads" / "inception" / "stand-in.pth"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"none": torch.zeros(1)}, file)
    published(file, monkeypatch)
    return file


def published(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    address = f"https://weights.invalid/{file.name}"
    monkeypatch.setattr(inception, "WEIGHTS", PublishedFile(file.name, len(data), digest, (address,)))


@pytest.fixture
def nowhere(no_network: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and a network on which nobody answers."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_all_made_and_all_training_images_at_the_size_of_the_made_ones(
    in_colours: Path, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every pixel of a plain image is its mean, whatever its size: the distance is that of the colours."""
    made = tmp_path / "made"
    colours = np.random.default_rng(0).integers(0, 256, (30, 3), np.uint8)
    for number, colour in enumerate(colours):
        folder = made / ("grass", "=blood")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.broadcast_to(colour, (20, 24, 3)).copy()).save(folder / f"{number:04d}.png")
    assert main(["evaluate", str(finished.run), str(made), "--generated", "--fid", "--out", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["fidelity"]
    own = open_images(find_source(finished.data), exactly=((20, 24), (20, 24)))
    settings = read_run_recipe(finished.run).data
    train = split(own, validation=settings.validation, fraction=settings.fraction, seed=settings.split_seed).train
    means = own.pixels[train].reshape(len(train), -1, 3).mean(1)
    standard = found["standard_fid"]
    assert standard["fid"] == pytest.approx(frechet_distance(colours, means), rel=1e-4)
    assert (standard["made"], standard["real"], standard["size"]) == (30, len(train), [20, 24])
    assert standard["weights"] == "stand-in.pth"
    assert found["real"] == 30 < len(train)  # in its own features: as many of each
    assert f"30 made and {len(train)} real images of 20×24 px: standard FID {standard['fid']:.4g}" in said


def test_made_images_of_several_sizes_are_refused(in_colours: Path, finished: Finished, tmp_path: Path) -> None:
    made = coloured_folder(tmp_path / "made", images=5)
    Image.new("RGB", (40, 32)).save(made / "grass" / "wide.png")
    with pytest.raises(DataError, match=r"grass/wide\.png of made is not 32×32 px as the first image is; --fid wants"):
        sightline.evaluate(finished.run, made, generated=True, fid=True)


@with_library
def test_it_is_what_the_library_measures_of_the_same_folders(random_weights: Path, tmp_path: Path) -> None:
    from torch_fidelity import calculate_metrics

    folders = [coloured_folder(tmp_path / "real", images=4), tmp_path / "made"]
    for number in range(9):
        random = np.random.default_rng(number)
        folder = folders[1] / ("odd" if number % 2 else "even")
        folder.mkdir(parents=True, exist_ok=True)
        blocks = random.integers(0, 256, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(blocks).save(folder / f"{number}.png")
    wanted = calculate_metrics(
        input1=str(folders[1]),
        input2=str(folders[0]),
        fid=True,
        samples_find_deep=True,
        feature_extractor_weights_path=str(random_weights),
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )["frechet_inception_distance"]
    real, made = (open_images(find_source(folder), exactly=((32, 32), (32, 32))) for folder in folders)
    found = inception.standard_fid(made, made.readable, real, real.readable, inception.Inception(random_weights))
    assert (found.made, found.real, found.size) == (9, 12, [32, 32])
    assert found.fid > 0.1
    assert found.fid == pytest.approx(wanted, rel=1e-3)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the right names and shapes, in the old format that the published file has."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Fresh(FeatureExtractorInceptionV3):  # type: ignore[misc, unused-ignore]
        def load_state_dict(self, *_: Any, **__: Any) -> None:  # type: ignore[override]
            """It is never without weights otherwise."""

    folder = tmp_path_factory.mktemp("weights")
    torch.save({}, folder / "none.pth")
    torch.manual_seed(5)
    network = Fresh("fresh", ["2048"], feature_extractor_weights_path=folder / "none.pth")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), folder / "random.pth", _use_new_zipfile_serialization=False)
    return folder / "random.pth"


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_goes_with_generated_images_only(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(finished.run), str(finished.data), "--fid"]) == 2
    assert "--fid measures generated images: say --generated as well." in capsys.readouterr().err
    with pytest.raises(ConfigError, match="say --generated as well"):
        sightline.evaluate(finished.run, finished.data, fid=True)


def test_without_the_library_the_pip_line_is_told(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["evaluate", str(finished.run), str(finished.data), "--generated", "--fid"]) == 2
    assert "--fid needs torch_fidelity, which is not installed; run: pip install '.[fid]'" in " ".join(
        capsys.readouterr().err.split()
    )


def test_without_a_network_it_is_told_within_two_seconds_what_to_fetch_and_where_to_put_it(
    nowhere: None,
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(inception, "require", lambda *_: None)
    begun = time.perf_counter()
    assert main(["evaluate", str(finished.run), str(finished.data), "--generated", "--fid"]) == 2
    assert time.perf_counter() - begun < 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert (
        "--fid needs the Inception weights of the literature (96 MB), which are not on this machine, and github.com"
        in said
    )
    assert f"download {inception.WEIGHTS.urls[0]} and put it into {tmp_path / 'cache'}/downloads/inception" in said


def test_another_file_in_the_place_of_the_published_one_is_refused(
    in_colours: Path, finished: Finished, tmp_path: Path
) -> None:
    in_colours.write_bytes(b"others")
    with pytest.raises(DataError, match=r"stand-in\.pth is not the published file: its SHA-256 is"):
        sightline.evaluate(finished.run, coloured_folder(tmp_path / "made", images=5), generated=True, fid=True)


def test_no_code_in_a_file_of_weights_is_run(in_colours: Path, tmp_path: Path) -> None:
    class Mischief:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"weight": Mischief()}, tmp_path / "mischief.pth")
    with pytest.raises(DataError, match="holds more than tensors"):
        inception.Inception(tmp_path / "mischief.pth")
    assert not (tmp_path / "touched").exists()


@with_library
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth holds the weights of another network; wanted"):
        inception.Inception(tmp_path / "other.pth")
