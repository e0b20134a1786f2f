"""The rooms and their doors: what may import what, and what stays unloaded."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import sightline

ROOT = Path(sightline.__file__).parent

# Rooms, lowest first. A module imports from its own room and from those below.
ROOMS = (
    (
        *(
            "errors",
            "config",
            "metrics",
            "schedules",
            "optimizers",
            "phases",
            "runs",
            "writing",
            "locking",
            "terminal",
            "devices",
            "memory",
            "extras",
        ),
        *("conformal", "views", "significance", "outcomes", "fidelity", "probe"),
    ),
    ("images",),
    ("nets",),
    (
        *("features", "learners", "averaging", "finetuning", "data", "progress", "trainer", "tracking"),
        *(
            "waiting",
            "checkpoints",
            "describing",
            "estimating",
            "picturing",
            "charting",
            "pages",
            "backbones",
            "generators",
            "samples",
        ),
        *("inception", "feature_store"),
    ),
    ("predicting", "predictions", "inputs", "encoding", "diagnosing"),
    ("trusting", "explaining", "judging"),
    ("evaluating",),
    ("reporting",),
    ("misfits", "starting"),
    ("plans", "resuming", "preparing", "generator_plans"),
    ("finders", "timing"),
    ("probing", "finishing", "fitting"),
    ("training",),
    ("checking", "generating", "finding", "planning", "exporting"),
    ("comparing", "tuning", "serving"),
    ("flags",),
    ("cli",),
    ("__main__", ""),  # "": the package itself, whose verbs are imported on first use
)
HEIGHT = {module: height for height, room in enumerate(ROOMS) for module in room}
FITTING = ("learners", "averaging", "finetuning", "data", "progress", "trainer", "tracking", "samples", "fitting")

# The only modules (or folders) that may import a library.
DOORS = {
    "safetensors": ("runs.py",),
    "cyclopts": ("cli/", "flags.py"),
    "torchvision": ("nets/",),
    "sklearn": ("images/embedded.py",),
    "filelock": ("images/", "locking.py"),
    "pyarrow": ("images/tables.py",),
    "huggingface_hub": ("images/hub.py", "nets/pretrained.py"),
    "matplotlib": ("picturing.py", "charting.py"),
    "scipy": ("significance.py", "probe.py"),
    "jinja2": ("pages.py",),
    "timm": ("nets/pretrained.py",),
    "captum": ("explaining/attributing.py",),
    "cleanlab": ("checking/suspects.py",),
    "gradio": ("serving/page/",),
    "fastapi": ("serving/service.py", "serving/guarding.py"),
    "starlette": ("serving/service.py", "serving/guarding.py", "serving/forms.py"),
    "uvicorn": ("serving/__init__.py",),
    "diffusers": (),  # the tests compare our samplers with its schedulers
    "torch_fidelity": ("inception.py",),
    "pi_heif": ("images/decoding.py",),
    "wandb": ("tracking.py",),
    "optuna": ("tuning/searching.py",),
    "tensorboard": (),  # Lightning's logger loads it
    "lightning": tuple(f"{module}.py" for module in FITTING),
    "torchmetrics": (),
    "pytorch_lightning": (),
}


@cache
def files() -> dict[str, ast.Module]:
    """Every source file by its path from the package."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in sorted(ROOT.rglob("*.py"))
    }


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


def module_of(name: str) -> str:
    """``sightline.images.cache.open_images`` and ``images/cache.py`` belong to ``images``."""
    return name.removesuffix(".py").removeprefix("sightline").strip("./").replace("/", ".").split(".")[0]


def own_imports(tree: ast.AST) -> set[str]:
    """The modules of sightline that a file imports, as the names of rooms."""
    found = {name for name in imports(tree) if name == "sightline" or name.startswith("sightline.")}
    return {module_of(name) if (module_of(name) in HEIGHT) else "" for name in found}


def climbs(path: str, tree: ast.AST) -> list[str]:
    """The imports of a file that go upwards."""
    own = "" if path == "__init__.py" else module_of(path)
    return [f"{path} → {module}" for module in own_imports(tree) if HEIGHT[module] > HEIGHT[own]]


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


def test_every_module_is_in_a_room() -> None:
    unknown = {path for path in files() if path != "__init__.py" and module_of(path) not in HEIGHT}
    assert not unknown, "say in tests/test_architecture.py (and docs/architecture.md) in which room these are"


def test_no_module_imports_from_a_room_above_it() -> None:
    assert [climb for path, tree in files().items() for climb in climbs(path, tree)] == []


def test_no_two_modules_import_each_other_even_by_way_of_others() -> None:
    below: dict[str, set[str]] = {}
    for path, tree in files().items():
        if path != "__init__.py":
            below.setdefault(module_of(path), set()).update(own_imports(tree) - {module_of(path), ""})
    while below:
        free = {module for module, needed in below.items() if not needed & set(below)}
        assert free, f"a circle among {sorted(below)}"
        below = {module: needed for module, needed in below.items() if module not in free}


def test_each_big_library_has_one_door() -> None:
    assert [stranger for path, tree in files().items() for stranger in strangers(path, tree)] == []


def test_networks_touch_no_files() -> None:
    for path, tree in files().items():
        if path.startswith("nets/") and path != "nets/pretrained.py":
            libraries = {name.split(".")[0] for name in imports(tree)}
            assert not libraries & {"os", "io", "pathlib", "shutil", "tempfile", "urllib", "PIL", "pickle"}, path
            assert not calls(tree) & {"open", "torch.load", "torch.save", "torch.hub.load"}, path


def test_nothing_is_unpickled_and_no_code_is_run_from_a_file() -> None:
    for path, tree in files().items():
        assert not {name.split(".")[0] for name in imports(tree)} & {"pickle", "dill", "cloudpickle"}, path
        assert not calls(tree) & {"eval", "exec", "yaml.unsafe_load", "yaml.full_load"}, path
        assert "torch.hub.load" not in calls(tree) or path == "nets/pretrained.py"  # where the user said trust_code
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
        if path != "terminal.py":
            printing = {call for call in calls(tree) if call == "print" or call.endswith((".print", "stdout.write"))}
            assert not printing, f"{path} prints by itself; call sightline.terminal.show"


@pytest.mark.parametrize(
    ("path", "text", "upwards", "foreign"),
    [
        ("images/cache.py", "from sightline.nets import Network", 1, 0),
        ("metrics.py", "def f():\n    import sightline.predicting", 1, 0),
        ("runs.py", "from sightline import train", 1, 0),
        ("config/settings.py", "from sightline.runs import RUNS", 0, 0),
        ("nets/resnet.py", "import lightning.pytorch as pl", 0, 1),
        ("predicting.py", "from safetensors.torch import load", 0, 1),
        ("fitting.py", "if TYPE_CHECKING:\n    from sightline.cli import main\nimport lightning", 0, 0),
    ],
)
def test_these_tests_see_what_goes_upwards_and_what_has_its_door_elsewhere(
    path: str, text: str, upwards: int, foreign: int
) -> None:
    tree = ast.parse(text)
    assert (len(climbs(path, tree)), len(strangers(path, tree))) == (upwards, foreign)


# ── what really loads ────────────────────────────────────────────────────────────────────────────────────────────────


def test_help_settings_and_the_cache_load_no_torch() -> None:
    run(
        "import sightline, sightline.cli, sightline.config, sightline.images.cache, sightline.runs, sys\n"
        "import sightline.config.studies, sightline.reporting\n"
        "slow = {'torch', 'lightning', 'torchvision', 'torchmetrics', 'sklearn', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not slow, slow"
    )


def test_inference_and_what_precedes_the_first_step_load_neither_lightning_nor_torchmetrics() -> None:
    run(
        "import sightline.predicting, sightline.encoding, sightline.evaluating, sightline.describing, sightline.runs, sys\n"
        "import sightline.explaining\n"
        "import sightline.preparing, sightline.generating\n"
        "import safetensors.torch\n"
        "slow = {'lightning', 'torchmetrics', 'pytorch_lightning', 'torchvision', 'sklearn'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
