"""What Windows and macOS do otherwise, simulated here: each test stands in for one thing that only such a system does.

Windows renames and deletes nothing that is open or mapped into memory, lists folders without their numbers, has no
``resource``, no ``fcntl`` and no SIGINT for one process, and keeps names such as CON for itself; Apple's GPUs have no
float64.
"""

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sightline
from conftest import Finished, coloured_folder
from sightline.cli.main import main
from sightline.config.studies import Study, Variant
from sightline.data import cache
from sightline.data.building import new_cache
from sightline.data.cache import open_images
from sightline.data.sources.entries import class_folder, file_name
from sightline.data.sources.find_source import find_source
from sightline.errors import ConfigError, StorageError
from sightline.inference.feature_store import FeatureStore
from sightline.machine import memory
from sightline.runs import writing
from sightline.studies import runner
from sightline_runtime import folders, sentences
from sightline_runtime import writing as runtime_writing
from sightline_runtime.folders import CIRCLES, FolderTree
from sightline_runtime.serving import connections, listening
from sightline_runtime.serving.settings import ServeSettings

LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="what is mapped is read from /proc")
REPLACE = os.replace
SMALL = {
    "network": {"widths": [8, 16, 16]},
    "fit": {"epochs": 1, "batch_size": 16},
    "evaluation": {"robustness": False},
}


def mapped_or_open(path: str | os.PathLike[str]) -> bool:
    """Whether this process has a file, or one in a folder, open or mapped into memory."""
    real = os.path.realpath(path)
    within = {real, *(os.path.join(at, name) for at, _, names in os.walk(real) for name in names)}
    maps = {line.split(maxsplit=5)[5] for line in Path("/proc/self/maps").read_text().splitlines() if line.count("/")}
    handles = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            handles.add(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:  # that of the list itself
            continue
    return bool(within & (maps | handles))


@pytest.fixture
def like_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to rename, to replace and to delete what this process has open, as Windows does."""

    def refuse(path: Any) -> None:
        if mapped_or_open(path):
            raise PermissionError(errno.EACCES, "Access is denied", str(path))

    def refusing(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any) -> Any:
            refuse(source)
            refuse(target)
            return work(source, target)

        return call

    delete = shutil.rmtree

    def rmtree(path: Any, ignore_errors: bool = False) -> None:
        try:
            refuse(path)
        except PermissionError:
            if not ignore_errors:
                raise
        else:
            delete(path, ignore_errors)

    monkeypatch.setattr(os, "replace", refusing(os.replace))
    monkeypatch.setattr(os, "rename", refusing(os.rename))
    monkeypatch.setattr(shutil, "rmtree", rmtree)


# ── files that are open ──────────────────────────────────────────────────────────────────────────────────────────────


@LINUX
def test_a_set_is_decoded_where_nothing_mapped_can_be_renamed(tmp_path: Path, like_windows: None, monkeypatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    images = open_images(find_source(coloured_folder(tmp_path / "set", images=3)), 16)
    assert images.pixels.shape == (9, 16, 16, 3)
    with pytest.raises(PermissionError):  # the stand-in refuses what it should
        os.replace(images.folder, tmp_path / "elsewhere")


@LINUX
def test_the_stand_in_refuses_a_cache_whose_pixels_someone_keeps(tmp_path: Path, like_windows: None) -> None:
    kept = []
    with pytest.raises(PermissionError):
        new_cache(tmp_path / "made", "made", (1, 2, 2, 3), lambda _, pixels: kept.append(pixels))


@LINUX
def test_features_are_kept_and_added_to_where_no_mapped_file_can_be_deleted(
    tmp_path: Path, like_windows: None, monkeypatch
) -> None:
    from sightline.config.networks import SpeednetConfig
    from sightline.data.batches import Normalization
    from sightline.models.build import build_network

    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    images = open_images(find_source(coloured_folder(tmp_path / "set", images=3)), 16)
    network = build_network(SpeednetConfig(widths=(8, 8, 8)), 3, (16, 16))
    store = FeatureStore(network, images, Normalization([0.5] * 3, [0.5] * 3), "float32")
    first = store.features(np.arange(4)).clone()
    assert store.note == ""
    every = store.features(np.arange(9))
    assert store.note == ""
    assert torch.equal(every[:4], first)
    again = FeatureStore(network, images, Normalization([0.5] * 3, [0.5] * 3), "float32")
    assert len(again.missing(np.arange(9))) == 0


def test_a_file_that_a_scanner_has_open_is_replaced_when_it_lets_go(tmp_path: Path, monkeypatch) -> None:
    path, refusals = tmp_path / "model.json", [0]

    def busy(source: Any, target: Any) -> None:
        refusals[0] += 1
        if refusals[0] < 4:
            raise PermissionError(errno.EACCES, "Access is denied", str(source))
        REPLACE(source, target)

    monkeypatch.setattr(os, "replace", busy)
    with pytest.raises(StorageError, match="cannot be written"):  # elsewhere it is a matter of permissions
        writing.write_json(path, {"a": 1})
    refusals[0] = 0
    monkeypatch.setattr(sys, "platform", "win32")
    writing.write_json(path, {"a": 1})
    assert path.read_text("utf-8") == '{\n  "a": 1\n}\n'
    monkeypatch.setattr(runtime_writing, "BUSY", 0.1)
    refusals[0] = -1000
    with pytest.raises(StorageError, match="as where another program has a file in it open"):
        writing.write_json(path, {"a": 2})
    assert path.read_text("utf-8") == '{\n  "a": 1\n}\n'
    assert [item.name for item in tmp_path.iterdir()] == ["model.json"]


@LINUX
def test_the_cache_is_cleared_but_for_what_is_in_use_and_says_so(
    tmp_path: Path, like_windows: None, monkeypatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    one = open_images(find_source(coloured_folder(tmp_path / "one", images=3)), 16)
    two = open_images(find_source(coloured_folder(tmp_path / "two", images=3)), 16)
    gone, held = one.folder, two.folder
    del one
    with pytest.raises(StorageError, match=f"1 of what is in .* cannot be deleted, {held.name} for one"):
        cache.clear()
    assert not gone.exists()
    assert two.pixels[0].any()


@pytest.mark.parametrize("platform", ["win32", "linux"])
def test_the_reader_of_a_pipe_is_gone_in_the_words_of_each_system(platform: str, monkeypatch, capsys) -> None:
    error = OSError(errno.EINVAL, "Invalid argument") if platform == "win32" else BrokenPipeError(errno.EPIPE, "")

    def gone(folder: Path) -> None:
        raise error

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("sightline.runs.folder.list_runs", gone)
    monkeypatch.setattr("sightline.cli.main._drop_output", lambda: None)
    assert main(["runs"]) == 0
    assert capsys.readouterr().err == ""


# ── folders and names ────────────────────────────────────────────────────────────────────────────────────────────────


def test_folders_are_told_apart_where_a_listing_does_not_number_them(tmp_path: Path, monkeypatch) -> None:
    for name in ("set/a/x", "set/b", "elsewhere/c/d"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").touch()
    os.symlink(tmp_path / "elsewhere", tmp_path / "set" / "link", target_is_directory=True)
    assert sorted(FolderTree(tmp_path / "set").files) == ["a/x/0.png", "b/0.png", "link/c/d/0.png"]
    scan = os.scandir

    class Listed:
        """An item as Windows lists it: without its device and number."""

        def __init__(self, item: "os.DirEntry[str]") -> None:
            self.name, self.path, self.item = item.name, item.path, item

        def stat(self, *, follow_symlinks: bool = True) -> Any:
            return SimpleNamespace(st_dev=0, st_ino=0, st_reparse_tag=0, st_mode=self.item.stat().st_mode)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.item, name)

    class Scan:
        def __init__(self, path: Any) -> None:
            self.items = scan(path)

        def __enter__(self) -> Any:
            return map(Listed, self.items)

        def __exit__(self, *_: object) -> None:
            self.items.close()

    monkeypatch.setattr(folders.os, "scandir", Scan)
    tree = FolderTree(tmp_path / "set")
    assert sorted(tree.files) == ["a/x/0.png", "b/0.png", "link/c/d/0.png"]
    assert not +tree.left


def test_a_junction_that_leads_up_is_a_link_and_no_folder(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").touch()
    os.symlink(tmp_path, tmp_path / "a" / "up", target_is_directory=True)
    before = os.DirEntry

    class Junction:
        """What Windows calls a folder that is no link, and marks by a tag."""

        def __init__(self, item: "before[str]") -> None:
            self.name, self.path, self.item = item.name, item.path, item

        def is_dir(self, *, follow_symlinks: bool = True) -> bool:
            return True

        def stat(self, *, follow_symlinks: bool = True) -> Any:
            return SimpleNamespace(st_dev=0, st_ino=0, st_reparse_tag=folders.JUNCTION)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.item, name)

    scan = os.scandir

    class Scan:
        def __init__(self, path: Any) -> None:
            self.items = scan(path)

        def __enter__(self) -> Any:
            return (Junction(item) if item.is_symlink() else item for item in self.items)

        def __exit__(self, *_: object) -> None:
            self.items.close()

    monkeypatch.setattr(folders.os, "scandir", Scan)
    tree = FolderTree(tmp_path)
    assert tree.files == ["a/0.png"]
    assert tree.left == {CIRCLES: 1}


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("apple", "apple"),
        ("ünder wasser", "ünder wasser"),
        ("a/b", "a%2Fb"),
        ("a:b", "a%3Ab"),
        ("CON", "%43ON"),
        ("nul.txt", "%6Eul.txt"),
        ("com1", "%63om1"),
        ("console", "console"),
        ("end.", "end%2E"),
        ("end ", "end%20"),
        ("train", "%74rain"),
        (os.fsdecode(b"caf\xe9"), "caf%ED%B3%A9"),
    ],
)
def test_a_class_has_a_folder_that_every_file_system_takes(name: str, folder: str) -> None:
    assert class_folder(name) == folder
    assert (file_name(name) == name) == (folder == name or name == "train")


def test_a_long_name_of_a_sheet_is_cut_between_letters(tmp_path: Path) -> None:
    from sightline.explanation import explain

    sheets = explain._Writer.__new__(explain._Writer)
    sheets.taken = set()
    for name in ("日" * 100 + ".jpg", "x" + "日" * 100 + ".jpg", "CON.jpg", "a:b.png"):
        sheet = sheets._free_name(name)
        sheet.encode("utf-8")  # no half of a letter
        assert len(sheet.encode()) <= explain.LONGEST
        assert not set(sheet) & set('\\/:*?"<>|')
        assert sheet.upper() != "CON"


@pytest.mark.parametrize("name", ["a:b", "what?", "end.", "a/b", ".", "a|b"])
def test_a_study_names_its_runs_as_every_system_can(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a folder on every system"):
        Study(name="s", recipe={}, variants=(Variant(name="a"), Variant(name=name)), baseline="a")


def test_recipes_of_a_study_that_differ_in_case_alone_would_share_a_folder_on_some_systems() -> None:
    with pytest.raises(ConfigError, match="two recipes are called"):
        Study(name="s", recipe={}, variants=(Variant(name="EMA"), Variant(name="ema")), baseline="ema")


def test_a_command_is_quoted_for_the_shell_that_it_is_pasted_into(monkeypatch) -> None:
    assert sentences.quoted("sightline", "my run", "plain") == "sightline 'my run' plain"
    monkeypatch.setattr(sys, "platform", "win32")
    assert sentences.quoted("sightline", r"C:\my run", "plain") == r'sightline "C:\my run" plain'


# ── processes, sockets, memory ───────────────────────────────────────────────────────────────────────────────────────


def test_connections_are_counted_where_nothing_limits_open_files(monkeypatch) -> None:
    assert 0 < connections.most_connections() <= connections.MOST
    resource = ModuleType("resource")
    resource.RLIMIT_NOFILE, resource.RLIM_INFINITY = 7, -1  # type: ignore[attr-defined]
    for limit, most in ((-1, connections.MOST), (256, 128), (1 << 20, connections.MOST)):
        resource.getrlimit = lambda _, limit=limit: (limit, limit)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "resource", resource)
        monkeypatch.setattr(connections.importlib.util, "find_spec", lambda name: object())
        assert connections.most_connections() == most
    monkeypatch.setattr(connections.importlib.util, "find_spec", lambda name: None)
    assert connections.most_connections() == connections.MOST


def test_no_module_of_ours_needs_one_that_windows_does_not_have() -> None:
    code = f"""
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty"): sys.modules[name] = None
sys.path.insert(0, {str(Path(sightline.__file__).parents[1])!r})
import asyncio, importlib, pathlib
root = pathlib.Path({str(Path(sightline.__file__).parents[1])!r})
for path in sorted([*root.glob("sightline/**/*.py"), *root.glob("sightline_runtime/**/*.py")]):
    text = path.read_text("utf-8")
    for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty"):
        for line in text.splitlines():
            assert not line.startswith(f"import {{name}}"), (path, line)
            assert not line.startswith(f"from {{name}} "), (path, line)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_second_server_is_refused_the_port_where_windows_would_share_it(monkeypatch) -> None:
    asked = []

    class Socket(socket.socket):
        def setsockopt(self, level: int, name: int, value: Any) -> None:  # type: ignore[override]
            asked.append(name)

    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    monkeypatch.setattr(socket, "socket", Socket)
    with listening.listening(ServeSettings(port=0)):
        assert asked == [-5]


def test_a_training_that_does_not_end_is_ended_without_a_signal_that_windows_lacks(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(runner, "GRACE", 0.05)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(child, "send_signal", lambda _: pytest.fail("Unsupported signal: 2"))
    kill = subprocess.Popen.kill
    monkeypatch.setattr(child, "kill", lambda: os.kill(child.pid, 9))
    runner._stop(child)
    assert child.poll() is not None
    assert kill is subprocess.Popen.kill


def test_free_memory_is_known_where_no_file_tells_it(monkeypatch, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil", reason="installed on other systems alone")
    by_file = memory.free_memory(torch.device("cpu"))
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "none")
    monkeypatch.setattr(memory, "CONTAINER", tmp_path / "none")
    assert 0 < memory.free_memory(torch.device("cpu")) <= psutil.virtual_memory().total
    assert by_file > 0


def test_workers_that_make_images_start_anew_and_share_nothing(tmp_path: Path) -> None:
    from sightline.generation import workers

    assert workers.SPAWN.get_start_method() == "spawn"


# ── Apple's GPUs ─────────────────────────────────────────────────────────────────────────────────────────────────────


class NoFloat64(TorchDispatchMode):
    """Refuse every tensor in float64 that the device would hold; NumPy and Python compute on the processor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                raise TypeError(f"{func}: Cannot convert a MPS Tensor to float64 dtype as the MPS framework")
        return result


@pytest.fixture
def like_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor stands in for a device without float64."""
    for room in ("explanation.attribution", "training.module", "data.augment.color"):
        monkeypatch.setattr(f"sightline.{room}.exact_dtype", lambda device: torch.float32)


def test_apples_gpus_are_asked_for_no_float64_by_explanations(like_mps: None, finished: Finished) -> None:
    from sightline.explanation.attribution import completeness_gaps

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    images, classes = torch.rand(2, 3, 2, 2), torch.tensor([0, 2])
    with NoFloat64():
        gaps = completeness_gaps(network, images, classes, torch.rand(2, 2, 2))  # type: ignore[arg-type]
    assert gaps.dtype == torch.float32
    with pytest.raises(TypeError, match="float64"), NoFloat64():
        images.double()


def test_apples_gpus_are_asked_for_no_float64_by_augmentation(like_mps: None) -> None:
    from sightline.data.augment.color import brightness, contrast, saturation

    levels = torch.rand(2, 4, 4, 3) * 255
    with NoFloat64():
        for change in (brightness, contrast, saturation):
            assert change(levels, torch.tensor([0.5, 1.5])).dtype == torch.float32


def test_apples_gpus_are_asked_for_no_float64_by_the_steps_of_a_training(
    like_mps: None, tmp_path: Path, monkeypatch
) -> None:
    from sightline.training.module import ClassifierLearner

    guarded = []

    def guard(name: str) -> None:
        step = getattr(ClassifierLearner, name)

        def call(self: Any, *arguments: Any) -> Any:
            guarded.append(name)
            with NoFloat64():
                return step(self, *arguments)

        monkeypatch.setattr(ClassifierLearner, name, call)

    for name in ("training_step", "validation_step"):
        guard(name)
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    sightline.train(coloured_folder(tmp_path / "set", images=10), recipe="small", settings=SMALL, run=tmp_path / "run")
    assert set(guarded) == {"training_step", "validation_step"}


def test_operators_that_apples_gpus_lack_are_computed_on_the_processor() -> None:
    code = "import os, sightline; print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'])"
    environment = {key: value for key, value in os.environ.items() if key != "PYTORCH_ENABLE_MPS_FALLBACK"}
    for given, wanted in ((None, "1"), ("0", "0")):
        more = {} if given is None else {"PYTORCH_ENABLE_MPS_FALLBACK": given}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | more, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == wanted


# ── warnings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_warning_points_at_the_line_that_called_sightline(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    data = coloured_folder(tmp_path / "set", images=10)
    with pytest.warns(UserWarning, match="say too little to calibrate") as caught:
        sightline.train(data, recipe="small", settings=SMALL, run=tmp_path / "run")
    (one,) = (warning for warning in caught if "say too little" in str(warning.message))
    assert one.filename == __file__
    assert "sightline.train(" in Path(__file__).read_text("utf-8").splitlines()[one.lineno - 1]
