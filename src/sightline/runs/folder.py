"""Run folders: what a training leaves behind, and how it is written so that a kill never leaves half a file.

recipe.yaml        every setting; trains the same run again
model.json         what the classifier knows of itself: classes, sizes, normalization, temperature, metrics
batch.png          the first batch as the network sees it
samples/           what a generator makes after some of its epochs, as epoch-NNN.png
range.csv, range.png   the range test, where the rate was searched for
seen.npz           hashes of the images that the weights depend on
metrics.csv        a line an epoch
last.ckpt          where to continue (until DONE)
model.safetensors  the weights, with model.json inside
evaluation.json    the measures; predictions.csv: one line a test image
logs/              what trackers write, where any are named
DONE               written last; after it only the trackers get their final numbers, and the report is written
report.html        how good, on what, where wrong, how sure, how to repeat it; of a generator how it learnt and what it
makes PRUNED             in its place where a tuning ended the training early, and why
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sightline.config.checks import shown
from sightline.config.generating import AnyRecipe
from sightline.config.generators import GeneratorConfig
from sightline.config.resolving import read_recipe, resolve, resolve_any, resolve_generator, to_yaml
from sightline.config.settings import Recipe
from sightline.errors import ConfigError, RunError
from sightline.runs.hub import on_hub
from sightline.runs.locking import LOCK
from sightline.runs.naming import FOREIGN
from sightline.runs.reading import checked, parse, read_text
from sightline.runs.schemas import Classifier, Facts, Generator, Measures
from sightline.runs.tensors import METADATA_KEY, REFERENCE_PREFIX, pack_tensors, read_tensors
from sightline.runs.writing import storage_error, to_json, write_atomically
from sightline_runtime.sentences import quoted

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BOX",
    "MODEL_FORMAT",
    "PRUNED",
    "REPORT",
    "SAMPLES",
    "RunSummary",
    "create_run",
    "generator_settings",
    "helped",
    "is_generator",
    "list_runs",
    "mark_done",
    "mark_pruned",
    "read_any_recipe",
    "read_facts",
    "read_measures",
    "read_model",
    "read_model_of_finished",
    "read_run_recipe",
    "read_weights",
    "read_weights_and_reference",
    "refuse_existing",
    "refuse_filled",
    "refuse_other_kind",
    "refuse_to_overwrite",
    "run_to_help",
    "write_recipe",
    "write_weights",
]

F = TypeVar("F", bound=Facts)

GENERATORS = ("diffusion", "edm", "acgan")
NUMBERS = ("float16", "bfloat16", "float32", "float64", "int64", "bool")  # of weights
MODEL_FORMAT = 1  # rises when an older sightline could misread model.json
RUNS = Path("runs")
PRUNED = "PRUNED"
REPORT = "report.html"
SAMPLES = "samples"
BOX = Path(__file__).parents[1] / "resources" / "box" / "cifar10-jpeg.safetensors"
"""The example classifier (CIFAR-10), which answers where no run is named; ``benchmarks/box.py`` makes it."""
HELPED_RUN = "SIGHTLINE_RUN"  # variable of the environment of processes that help with a run


@dataclass(frozen=True)
class RunSummary:
    """A line of ``sightline runs``."""

    folder: Path
    finished: bool
    data: str
    recipe: str
    accuracy: float | None
    n: int | None


# ── making and finding ───────────────────────────────────────────────────────────────────────────────────────────────


def create_run(
    name: str, wanted: str | os.PathLike[str] | None = None, *, below: Path = RUNS, flag: str = "--run"
) -> Path:
    """Make a new run folder.

    Args:
        name: what the default folder, ``runs/<name>-<n>``, is called.
        wanted: another folder, which must not exist.
        below: what the default folder lies in.
        flag: by which another one is named.
    Raises:
        RunError: the wanted folder exists.
        StorageError: the folder cannot be made.
    """
    number = 1
    while True:
        folder = Path(wanted) if wanted is not None else below / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError as error:
            if wanted is not None:
                raise RunError(f"{folder} exists; choose another {flag}.") from error
            number += 1
        except OSError as error:
            raise storage_error(folder, error) from error


def refuse_existing(wanted: str | os.PathLike[str]) -> None:
    """Refuse a run folder that is there already, unless this process was started to help with it.

    Raises:
        RunError: it is.
    """
    if os.path.exists(wanted) and run_to_help() is None:
        again = f"--resume --run {quoted(os.fspath(wanted))}"
        if os.path.isdir(wanted) and not set(os.listdir(wanted)) - {LOCK}:  # killed before its first file
            raise RunError(
                f"{wanted} exists, and nothing is in it yet; choose another --run, or begin there: name the image set,"
                f" and add {again}."
            )
        raise RunError(f"{wanted} exists; choose another --run, or continue that run with {again}.")


def refuse_to_overwrite(file: str | os.PathLike[str], *, flag: str = "--out") -> None:
    """Refuse to write over a file that someone may have edited.

    Raises:
        ConfigError: there is one of that name.
    """
    if os.path.exists(file):
        raise ConfigError(f"{flag} {file} exists; choose another name, or delete it.")


def refuse_filled(out: str | os.PathLike[str]) -> None:
    """Refuse a folder to write to that holds something already.

    Raises:
        RunError: it does, or it is a file.
    """
    path = Path(out)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{out} exists and is not an empty folder; choose another --out.")


@contextmanager
def helped(run: Path) -> Iterator[None]:
    """Tell the processes that are started meanwhile which run they help with.

    Lightning starts them with the same command as this one. What it says in the environment is taken back afterwards:
    this process's next training would take itself for one of them.
    """
    names = (HELPED_RUN, "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    before = {name: os.environ.get(name) for name in names}
    os.environ[HELPED_RUN] = str(run.absolute())
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def run_to_help() -> Path | None:
    """Return the run that another process of the same training started this one for; None elsewhere."""
    helping = HELPED_RUN in os.environ and os.environ.get("LOCAL_RANK", "0") != "0"
    return Path(os.environ[HELPED_RUN]) if helping else None


def list_runs(root: str | os.PathLike[str] = RUNS) -> list[RunSummary]:
    """List the runs below a folder, newest last."""
    runs = []
    with suppress(FileNotFoundError):
        os.stat(root)  # from Python 3.13 on glob passes over a name that no file system takes
    for recipe in sorted(Path(root).glob("*/recipe.yaml"), key=lambda path: path.stat().st_mtime):
        folder, facts, name = recipe.parent, Facts(), "?"
        with suppress(RunError):
            facts = read_facts(folder, Facts)
        with suppress(ConfigError):  # of another sightline, or not a run: one such folder does not hide the others
            name = read_any_recipe(folder).name
        accuracy, n = (facts.metrics.accuracy, facts.metrics.n) if facts.metrics else (None, None)
        data = facts.data.name if facts.data else "?"
        runs.append(RunSummary(folder, (folder / "DONE").exists(), data, name, accuracy, n))
    return runs


def mark_done(run: Path) -> None:
    """Say that a run is finished; only the last numbers of trackers and the report are written to it after this."""
    _end(run / "DONE", b"")  # before anything is deleted: a kill between the two must not cost the training


def mark_pruned(run: Path, why: str) -> None:
    """Say that a training was ended early and is not to be continued."""
    _end(run / PRUNED, f"{why}\n".encode())


def _end(mark: Path, content: bytes) -> None:
    write_atomically(mark, content)
    for leftover in ("last.ckpt", "previous.ckpt", LOCK):
        with suppress(PermissionError):  # a lock that is held, on Windows
            mark.with_name(leftover).unlink(missing_ok=True)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_model_of_finished(run: str | os.PathLike[str], *, generator: bool | None = False) -> dict[str, Any]:
    """Read ``model.json`` of a run, refusing one that is not finished, or not of a classifier.

    Args:
        run: its folder.
        generator: refuse what is not of a generator instead; None: take either.
    Raises:
        RunError: no run, not finished, of the other kind, or made by a newer sightline.
    """
    folder = Path(run)
    if on_hub(run):
        raise RunError(
            f"{str(run)!r} is a classifier of the hub, which predict, explain, encode, evaluate and serve take, and"
            " --network; for anything else name the folder of a run."
        )
    if not os.path.exists(folder):  # unlike Path.exists, takes a name that is too long for no file
        raise RunError(f"there is no run at {str(run)!r}; `sightline runs` lists those in {RUNS}/.")
    if not folder.is_dir():
        others = ", its model.safetensors or the model.onnx of an export" if str(run).lower().endswith(FOREIGN) else ""
        measured = "; `sightline export` measures what it writes (--data SET)" if others else ""
        raise RunError(f"{str(run)!r} is a file; wanted the folder of a finished run{others}{measured}.")
    if not (folder / "model.json").exists():
        raise RunError(
            f"{str(run)!r} is no run folder: it has no model.json; `sightline runs` lists the runs in {RUNS}/."
        )
    if not (folder / "DONE").exists():
        raise RunError(
            f"{str(run)!r} is not a finished run: it has no DONE file. Continue it with"
            f" `sightline train --resume --run {quoted(str(run))}`."
        )
    model = read_model(folder)
    if generator is not None or not is_generator(model):
        refuse_other_kind(model, run, generator=bool(generator))
    return _finished(model, str(folder / "model.json"))


def is_generator(model: Mapping[str, Any]) -> bool:
    """Tell whether a ``model.json`` is of a generator."""
    return model.get("kind") in GENERATORS


def refuse_other_kind(model: Mapping[str, Any], run: str | os.PathLike[str], *, generator: bool = False) -> None:
    """Refuse a generator where a classifier is wanted, or the other way round.

    Raises:
        RunError: with what the run is good for.
    """
    kind = model.get("kind", "classifier")
    if generator and kind not in GENERATORS:
        raise RunError(
            f"{str(run)!r} is a {kind}, and no generator; train one with `sightline train DATA --recipe ddpm`."
        )
    if not generator and kind in GENERATORS:
        raise RunError(
            f"{str(run)!r} is a generator ({kind}), not a classifier; `sightline generate {run} --out FOLDER` makes"
            " images with it."
        )
    if not generator and kind != "classifier":
        raise RunError(f"{str(run)!r} is a {kind}, not a classifier.")


def read_model(run: Path) -> dict[str, Any]:
    """Read ``model.json`` of a run, finished or not; what it says has the right types, and may be incomplete."""
    model = _described(read_text(run / "model.json"), str(run / "model.json"))
    checked(model, Facts, str(run / "model.json"))
    return model


def read_facts(run: str | os.PathLike[str], schema: type[F]) -> F:
    """Read ``model.json`` of a run, finished or not, as a schema has it.

    Raises:
        RunError: it is missing, damaged, or lacks what the schema requires.
    """
    return checked(read_model(Path(run)), schema, str(Path(run) / "model.json"))


def read_measures(run: Path) -> dict[str, Any]:
    """Read ``evaluation.json`` of a run.

    Raises:
        RunError: it is missing or damaged.
    """
    path = run / "evaluation.json"
    text = read_text(path)
    try:
        measured = parse(text)
    except ValueError as error:
        raise RunError(f"{path} cannot be read ({error}); copy the run again from where it was made.") from error
    checked(measured, Measures, str(path))
    return dict(measured)


def read_run_recipe(run: str | os.PathLike[str]) -> Recipe:
    """Read the complete settings of a classifier's run."""
    return resolve(read_recipe(Path(run) / "recipe.yaml"))


def read_any_recipe(run: str | os.PathLike[str]) -> AnyRecipe:
    """Read the complete settings of a run of a classifier or of a generator."""
    return resolve_any(read_recipe(Path(run) / "recipe.yaml"))


def generator_settings(model: Mapping[str, Any]) -> GeneratorConfig:
    """Return the settings of the generator in a ``model.json``."""
    return resolve_generator({"generator": model["generator"]}).generator


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Read a weights file: the network's tensors by name, and what the classifier knows of itself.

    Raises:
        RunError: no such file, not written by sightline, or damaged.
    """
    tensors, _, model = read_weights_and_reference(path)
    return tensors, model


def read_weights_and_reference(
    path: str | os.PathLike[str],
) -> tuple[dict[str, "Tensor"], dict[str, "Tensor"], dict[str, Any]]:
    """Read a weights file as ``read_weights`` does, with the tensors that out-of-distribution images are told by."""
    tensors, metadata = read_tensors(path)
    if METADATA_KEY not in metadata:
        raise RunError(f"{str(path)!r} was not written by sightline: its metadata has no {METADATA_KEY!r}.")
    for name, tensor in tensors.items():
        known = str(tensor.dtype).removeprefix("torch.") in NUMBERS
        if not known or not bool(tensor.isfinite().all()):
            why = "values that are not finite" if known else f"numbers of {tensor.dtype}"
            raise RunError(f"the weights {str(path)!r} have {why} in {shown(name)}; copy the run again.")
    reference = {name: tensors.pop(name) for name in list(tensors) if name.startswith(REFERENCE_PREFIX)}
    return tensors, reference, _finished(_described(metadata[METADATA_KEY], str(path)), str(path))


def _described(text: str, where: str) -> dict[str, Any]:
    """Parse a description of a run, in a format that this version knows."""
    try:
        model = parse(text)
        version = int(model["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{where} is no description of a sightline classifier; copy the run again.") from error
    if version > MODEL_FORMAT:
        raise RunError(
            f"{where} has format {version}, and this sightline reads up to {MODEL_FORMAT}; upgrade sightline to"
            " read it."
        )
    return dict(model)


def _finished(model: dict[str, Any], where: str) -> dict[str, Any]:
    """Check that a description is complete; returns it."""
    kind = checked(model, Facts, where).kind
    schemas: dict[str, type[Facts]] = {"classifier": Classifier, **dict.fromkeys(GENERATORS, Generator)}
    checked(model, schemas.get(kind, Facts), where)
    return model


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_recipe(run: Path, recipe: AnyRecipe) -> None:
    """Write the complete settings of a run."""
    write_atomically(run / "recipe.yaml", to_yaml(recipe).encode())


def write_weights(path: Path, tensors: "Mapping[str, Tensor]", model: Mapping[str, Any]) -> None:
    """Write the tensors with the classifier's description, so that this file alone is a classifier."""
    write_atomically(path, pack_tensors(tensors, {METADATA_KEY: to_json(model)}))
