"""The rooms and their doors: what may import what, and what stays unloaded."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sightline
import sightline_runtime

ROOT = Path(sightline.__file__).parent
RUNTIME = Path(sightline_runtime.__file__).parent

# The only modules (or folders) that may import a library.
DOORS = {
    "safetensors": ("runs/tensors.py",),
    "cyclopts": ("cli/",),
    "torchvision": ("models/",),
    "sklearn": ("data/sources/embedded.py",),
    "filelock": ("data/", "runs/locking.py", "machine/cores.py"),
    "pyarrow": ("data/sources/parquet.py",),
    "huggingface_hub": ("data/sources/huggingface.py", "models/pretrained.py", "runs/hub.py"),
    "matplotlib": ("display/pictures.py", "display/charts.py"),
    "scipy": ("measures/significance.py", "inference/logistic_regression.py"),
    "threadpoolctl": ("inference/logistic_regression.py", "measures/threads.py"),
    "jinja2": ("display/pages.py", "serving/wall.py"),
    "IPython": ("display/notebook.py",),
    "timm": ("models/libraries.py",),
    "captum": ("explanation/attribution.py",),
    "cleanlab": (),
    "gradio": ("serving/page/",),
    "fastapi": ("serving/", "sightline_runtime/serving/"),
    "starlette": ("serving/", "sightline_runtime/serving/"),
    "uvicorn": ("sightline_runtime/serving/listening.py", "sightline_runtime/serving/connections.py"),
    "diffusers": (),  # the tests compare our samplers with its schedulers
    "onnx": ("evaluation/exporting/",),
    "onnxscript": (),  # torch's exporter loads it
    "executorch": ("evaluation/exporting/program.py",),
    "openvino": (),  # the tests read an exported file with it
    "torch_fidelity": ("evaluation/inception.py",),
    "pi_heif": ("sightline_runtime/decoding/decode.py",),
    "onnxruntime": ("sightline_runtime/exported.py", "evaluation/"),
    "wandb": ("training/trackers.py",),
    "mlflow": ("training/trackers.py",),
    "optuna": ("studies/search.py",),
    "tensorboard": (),  # Lightning's logger loads it
    "lightning": ("training/",),
    "torchmetrics": (),
    "pytorch_lightning": (),
}


@cache
def files() -> dict[str, ast.Module]:
    """Every source file by its path from the package; those of the runtime by theirs from beside it."""
    paths = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
    paths |= {path.relative_to(RUNTIME.parent).as_posix(): path for path in sorted(RUNTIME.rglob("*.py"))}
    return {name: ast.parse(path.read_text("utf-8")) for name, path in paths.items()}


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of all that a file imports, within functions too, but not only for types."""
    for node in ast.iter_child_nodes(tree):
        if only_for_types(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def strangers(path: str, tree: ast.AST) -> list[str]:
    """The libraries of a file that have their door elsewhere."""
    libraries = {name.split(".")[0] for name in imports(tree)} & set(DOORS)
    return [f"{path} → {library}" for library in libraries if not path.startswith(tuple(DOORS[library]))]


def calls(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def run(program: str) -> None:
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr


# ── the plan on paper ────────────────────────────────────────────────────────────────────────────────────────────────


def test_rooms_are_few_and_empty_at_the_door() -> None:
    entries = [path.name for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert len(entries) <= 20, sorted(entries)
    filled = {path for path, tree in files().items() if path.endswith("/__init__.py") and tree.body}
    assert filled == {"sightline_runtime/__init__.py"}  # the door of a package of its own


def test_files_functions_and_lists_of_parameters_are_of_a_size_to_read() -> None:
    spec = importlib.util.spec_from_file_location("code_size", ROOT.parents[1] / "benchmarks" / "code.py")
    assert spec is not None
    assert spec.loader is not None
    measuring = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measuring)
    assert [*measuring.too_large(ROOT), *measuring.too_large(RUNTIME)] == []
    long = "def f():\n" + "    x = 1\n" * 61
    assert measuring.code_lines(f'"""Text."""\n# comment\n\n{long}') == 62


def test_each_big_library_has_one_door() -> None:
    assert [stranger for path, tree in files().items() for stranger in strangers(path, tree)] == []


def test_the_runtime_imports_only_what_it_is_installed_with() -> None:
    own = {"numpy", "PIL", "msgspec", "onnxruntime", "pi_heif", "sightline_runtime"}
    service = {"fastapi", "starlette", "uvicorn", "pydantic"}  # of the extra serve
    for path, tree in files().items():
        if path.startswith("sightline_runtime/"):
            known = own | service if path.startswith("sightline_runtime/serving/") else own
            strange = {name.split(".")[0] for name in imports(tree)} - known - sys.stdlib_module_names
            assert not strange, path


def test_networks_touch_no_files() -> None:
    for path, tree in files().items():
        if path.startswith("models/") and path not in ("models/pretrained.py", "models/libraries.py"):
            libraries = {name.split(".")[0] for name in imports(tree)}
            assert not libraries & {"os", "io", "pathlib", "shutil", "tempfile", "urllib", "PIL", "pickle"}, path
            assert not calls(tree) & {"open", "torch.load", "torch.save", "torch.hub.load"}, path


def test_nothing_is_unpickled_and_no_code_is_run_from_a_file() -> None:
    for path, tree in files().items():
        assert not {name.split(".")[0] for name in imports(tree)} & {"pickle", "dill", "cloudpickle"}, path
        assert not calls(tree) & {"eval", "exec", "yaml.unsafe_load", "yaml.full_load"}, path
        assert "torch.hub.load" not in calls(tree) or path == "models/libraries.py"  # where the user said trust_code
        if path != "data/augment/own.py":  # where the user said trust_code
            assert not {name for name in calls(tree) if name.endswith(("exec_module", "spec_from_file_location"))}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path


def test_settings_are_plain_python() -> None:
    for path, tree in files().items():
        libraries = {name.split(".")[0] for name in imports(tree)}
        if path.startswith("config/"):
            assert not libraries & {"torch", "numpy", "PIL", "rich"}, path


def test_one_function_prints() -> None:
    for path, tree in files().items():
        if path not in ("display/terminal.py", "sightline_runtime/terminal.py"):
            printing = {call for call in calls(tree) if call == "print" or call.endswith((".print", "stdout.write"))}
            assert not printing, f"{path} prints by itself; call sightline.display.terminal.show"


@pytest.mark.parametrize(
    ("path", "text", "foreign"),
    [
        ("models/resnet.py", "import lightning.pytorch as pl", 1),
        ("inference/predict.py", "def f():\n    from safetensors.torch import load", 1),
        ("inference/predict.py", "if TYPE_CHECKING:\n    import lightning", 0),
        ("training/fit.py", "import lightning", 0),
    ],
)
def test_these_tests_see_what_has_its_door_elsewhere(path: str, text: str, foreign: int) -> None:
    assert len(strangers(path, ast.parse(text))) == foreign


# ── what really loads ────────────────────────────────────────────────────────────────────────────────────────────────


def test_help_settings_and_the_cache_load_no_torch() -> None:
    run(
        "import sightline, sightline.cli.main, sightline.config, sightline.data.cache, sightline.runs.folder, sys\n"
        "import sightline.config.studies, sightline.reports.report\n"
        "slow = {'torch', 'lightning', 'torchvision', 'torchmetrics', 'sklearn', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not slow, slow"
    )


def test_the_runtime_loads_neither_torch_nor_sightline() -> None:
    run(
        "import sightline_runtime.inputs, sightline_runtime.conformal, sightline_runtime.predictions, sys\n"
        "loaded = {'torch', 'sightline', 'onnxruntime'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )


def test_inference_and_what_precedes_the_first_step_load_neither_lightning_nor_torchmetrics() -> None:
    run(
        "import sightline.inference.predict, sightline.inference.encode, sightline.evaluation.evaluate, sightline.training.summary, sightline.runs.folder, sys\n"
        "import sightline.explanation.explain\n"
        "import sightline.training.preparation, sightline.generation.generate\n"
        "import safetensors.torch\n"
        "slow = {'lightning', 'torchmetrics', 'pytorch_lightning', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not slow, slow"
    )


def test_a_classifier_is_loaded_without_the_room_of_training_and_without_what_finds_pretrained_weights() -> None:
    run(
        "import sightline, sys\n"
        "sightline.load(device='cpu')\n"
        "loaded = [name for name in sys.modules if name.startswith(('sightline.training', 'lightning', 'timm'))]\n"
        "assert not loaded and 'sightline.models.pretrained' not in sys.modules, loaded\n"
    )
