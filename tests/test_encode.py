"""Features of images as a file for use elsewhere."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sightline
from conftest import Finished
from sightline.cli.main import main
from sightline.errors import ConfigError, DataError
from sightline.inference.encoder import Encoder
from sightline_runtime.decoding.decode import decode


def test_the_head_makes_the_logits_out_of_the_features(finished: Finished) -> None:
    classifier = sightline.load(finished.run, device="cpu")
    pixels_BHWC = np.stack([decode((finished.data / "grass" / f"00{index}.png").read_bytes()) for index in range(3)])
    features_BD = Encoder(classifier).encode(pixels_BHWC)
    assert (features_BD.shape, features_BD.dtype) == ((3, 16), np.float32)
    with torch.inference_mode():
        logits_BK = classifier.network.head(torch.from_numpy(features_BD)).numpy()
    assert np.allclose(logits_BK, classifier.view_logits(pixels_BHWC, "one")[0], atol=0.05)  # bfloat16


def test_rows_of_a_cache_are_encoded_in_the_order_that_is_asked_for(finished: Finished) -> None:
    encoder = Encoder(sightline.load(finished.run, device="cpu"))
    pixels_NHWC = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), np.uint8)
    reports: list[tuple[int, int]] = []
    found = encoder.encode_rows(pixels_NHWC, np.arange(299, -1, -1), lambda *done: reports.append(done))
    assert found.shape == (300, 16)
    assert np.allclose(found[:2], encoder.encode(pixels_NHWC[[299, 298]]), atol=0.05)  # bfloat16
    assert reports == [(256, 300), (300, 300)]


def test_the_maps_of_a_layer_are_averaged(finished: Finished) -> None:
    classifier = sightline.load(finished.run, device="cpu")
    classifier.dtype = torch.float32
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    maps: list[torch.Tensor] = []
    hook = classifier.network.cam_layers[1].register_forward_hook(lambda module, _, output: maps.append(output))
    features_BD = Encoder(classifier, "groups.1").encode(pixels)
    hook.remove()
    assert np.allclose(features_BD, maps[0].mean((2, 3)).numpy(), atol=1e-5)


def test_an_image_set_is_written_with_its_classes_and_read_back_without_pickles(
    finished: Finished, tmp_path: Path
) -> None:
    found = sightline.encode(finished.run, [finished.data], out=tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        assert sorted(file) == ["classes", "features", "files", "fingerprint", "labels", "layer"]
        assert file["features"].shape == (90, 16)
        assert file["features"].dtype == np.float32
        assert np.array_equal(file["features"], found.features)
        assert file["classes"].tolist() == ["=blood", "grass", "ünder wasser"]
        assert [Path(name).parent.name for name in file["files"]] == [file["classes"][row] for row in file["labels"]]
        assert all(Path(name).exists() for name in file["files"])
        assert str(file["layer"]) == "features"
        assert len(str(file["fingerprint"])) == 16


def test_an_archive_and_a_manifest_give_the_same_features_and_labels(finished: Finished, tmp_path: Path) -> None:
    folder = sightline.encode(finished.run, [finished.data])
    packed = sightline.encode(finished.run, [shutil.make_archive(str(tmp_path / "a"), "zip", finished.data)])
    data = Path(shutil.copytree(finished.data, tmp_path / "copy"))
    names = [Path(name).relative_to(finished.data).as_posix() for name in folder.files]
    (data / "set.csv").write_text("path,label\n" + "\n".join(f"{name},{name.split('/')[0]}" for name in names), "utf-8")
    listed = sightline.encode(finished.run, [data / "set.csv"])
    assert packed.classes == folder.classes == listed.classes
    rows = [
        {
            Path(name).name + str(label): row
            for name, label, row in zip(found.files, found.labels, found.features, strict=True)
        }
        for found in (folder, packed, listed)
    ]  # type: ignore[arg-type]
    assert rows[0].keys() == rows[1].keys() == rows[2].keys()
    for name, row in rows[0].items():
        assert np.allclose(row, rows[1][name], atol=0.05)
        assert np.allclose(row, rows[2][name], atol=0.05)


def test_images_without_classes_have_no_labels_and_broken_ones_are_named(
    finished: Finished, tmp_path: Path, capsys
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (40, 30)).save(photos / "a.png")
    (photos / "b.png").write_bytes(b"no image")
    assert (
        main(["encode", str(finished.run), str(photos), "--out", str(tmp_path / "f.npz"), "--layer", "groups.2"]) == 0
    )
    printed = capsys.readouterr()
    assert printed.out == f"1 × 16 features in {tmp_path}/f.npz\n"
    assert f"left out {photos}/b.png: no image in any known format" in printed.err
    with np.load(tmp_path / "f.npz") as file:
        assert sorted(file) == ["features", "files", "fingerprint", "layer"]
        assert str(file["layer"]) == "groups.2"


def test_images_beside_the_class_folders_are_not_forgotten(finished: Finished, tmp_path: Path) -> None:
    data = Path(shutil.copytree(finished.data, tmp_path / "copy"))
    Image.new("RGB", (40, 30)).save(data / "stray.png")
    found = sightline.encode(finished.run, [data])
    assert len(found.files) == 91
    assert found.labels is None


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("group.1", "there is no such layer; did you mean 'groups.1'?"),
        (
            "zzz",
            "there is no such layer; there are features, whiten, activation, groups, maximum, head, and the layers within",
        ),
    ],
)
def test_an_unknown_layer_is_refused_with_the_nearest(finished: Finished, layer: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sightline.encode(finished.run, [finished.data], layer=layer)
    assert message in str(caught.value)


def test_what_cannot_be_encoded_is_refused(finished: Finished, tmp_path: Path, capsys) -> None:
    with pytest.raises(DataError, match="no image, folder or archive at"):
        sightline.encode(finished.run, [tmp_path / "nowhere"])
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 1 images can be read \(the first, .*a.png: the file is empty"):
        sightline.encode(finished.run, [tmp_path / "a.png"])
    assert main(["encode", str(finished.run), "a.png", "--out", "a.csv"]) == 2
    assert "--out a.csv must end in .npz" in capsys.readouterr().err
    assert main(["encode", "nowhere", "--out", "a.npz"]) == 2
    assert "no images were named" in capsys.readouterr().err
