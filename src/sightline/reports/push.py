"""Publish a finished classifier on the Hugging Face hub: weights, description, recipe and a model card. No pickle.

What is published names no path of the machine, and no image but by a hash of its pixels.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sightline.config.checks import shown
from sightline.config.resolving import to_mapping
from sightline.config.yaml_texts import yaml_text
from sightline.display.pages import Page, Section, to_markdown
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError, RunError
from sightline.evaluation.results import Facts
from sightline.machine.extras import DISTRIBUTION
from sightline.reports.card import known_of, model_card, summary
from sightline.runs.folder import read_model_of_finished, read_run_recipe, read_weights
from sightline.runs.hub import CARD, MODEL, ONNX, PREFIX, WEIGHTS, Commit, push_files, repository_name
from sightline.runs.tensors import METADATA_KEY, pack_tensors, read_tensors
from sightline.runs.writing import to_json

__all__ = ["Published", "card_text", "push", "without_paths"]

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")  # the hub's identifiers
CLASS_NAMES = ("classes", "merge")  # parts of model.json that are the user's words, however they look


@dataclass(frozen=True)
class Published:
    """A classifier on the hub."""

    repository: str
    url: str
    commit: str
    files: list[str]


@reporting
def push(
    run: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    onnx: str | os.PathLike[str] | None = None,
    license: str | None = None,
    on_event: Listener = ignore,
) -> Published:
    """Publish a finished classifier on the Hugging Face hub, with a model card.

    All files are published in one commit, or none is. Who may write is known by HF_TOKEN, or by `hf auth login`. The
    classifier is loaded from there as hf:OWNER/NAME.

    Args:
        run: Folder of a finished run.
        repository: OWNER/NAME of the repository, which is made if need be.
        private: Only those who may read the repository see it; for one that is made now.
        onnx: The file that `sightline export` has made of the same run, to be published with it.
        license: The hub's word for the license of the weights, such as apache-2.0; the card says so where there is
            none.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Raises:
        ConfigError: huggingface_hub is missing, nobody is logged in, a name is none, or the repository is not ours.
        RunError: no run, not finished, or of a generator.
        StorageError: the hub does not take it, or does not answer; nothing is published.
    """
    name = repository_name(repository.removeprefix(PREFIX))
    if license is not None and not LICENSE.fullmatch(license):
        raise ConfigError(
            f"--license {shown(license)} is no word of the hub for a license; wanted one such as apache-2.0, mit or"
            " cc-by-4.0."
        )
    folder, model = Path(run), read_model_of_finished(run)
    _refuse_local_code(folder, model)
    with stage(on_event, f"Pushing {name}", brief=True):
        files = _files(folder, model, name, license)
        if onnx is not None:
            files[ONNX] = _exported(Path(onnx))
        commit: Commit = push_files(name, files, f"sightline push: {summary(model)}", private=private)
    return Published(name, commit.url, commit.sha, sorted(files))


def _refuse_local_code(folder: Path, model: Mapping[str, Any]) -> None:
    """Refuse a network that only this machine can build."""
    repo = str(model["network"].get("repo") or "")
    if repo and os.path.exists(os.path.expanduser(repo)):
        raise RunError(
            f"the network of {folder} is built by the code in {shown(repo)} on this machine, so nobody else could load"
            " it; publish that repository, and train with its name."
        )


def _exported(path: Path) -> Path:
    if path.suffix.lower() != ".onnx" or not path.is_file():
        raise ConfigError(f"--onnx {path} is no .onnx file; name the one that `sightline export` has made of the run.")
    return path


# ── what is published ────────────────────────────────────────────────────────────────────────────────────────────────


def _files(folder: Path, model: dict[str, Any], name: str, license: str | None) -> dict[str, bytes | Path]:
    """Return the content of the files by name."""
    read_weights(folder / WEIGHTS)  # refuses what nobody could load
    tensors, _ = read_tensors(folder / WEIGHTS)
    public = without_paths(model)
    public["data"]["location"] = _published_place(model["data"].get("location"))
    recipe = read_run_recipe(folder)
    settings = _without_whole_paths(to_mapping(recipe)) | {"image_set": public["data"]["location"]}
    files: dict[str, bytes | Path] = {
        CARD: card_text(known_of(folder, public), recipe.fit.seed, name, license).encode("utf-8", "replace"),
        MODEL: (to_json(public, indent=2) + "\n").encode(),
        WEIGHTS: pack_tensors(tensors, {METADATA_KEY: to_json(public)}),
        "recipe.yaml": yaml_text(settings).encode(),
        "DONE": b"",
    }
    if (folder / "seen.npz").exists():
        files["seen.npz"] = folder / "seen.npz"
    return files


def _published_place(location: str | None) -> str | None:
    """Return the location of an image set that anyone can name; None of a file or folder."""
    local = location is None or _is_path(location) or os.path.exists(location)
    return None if local else location


def without_paths(value: Any) -> Any:
    """Return a part of ``model.json`` with the last part of each path only, since folders tell of a machine.

    Names of classes stay as they are.
    """
    if isinstance(value, Mapping):
        return {key: item if key in CLASS_NAMES else without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    if _is_path(value):
        return _last_part(value)
    return re.sub(r"(^|[\s'\"(])(?:~[\w.-]*|\.\.|[A-Za-z]:)?[\\/](?! ).*[\\/]", r"\1", value)  # within a sentence


def _without_whole_paths(value: Any) -> Any:
    """Return settings of a recipe with the last part of each path; sentences in it stay as they are."""
    if isinstance(value, Mapping):
        return {key: _without_whole_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_whole_paths(item) for item in value]
    return _last_part(value) if isinstance(value, str) and _is_path(value) else value


def _is_path(text: str) -> bool:
    return text.startswith(("/", "~", "..", "\\\\")) or re.match(r"[A-Za-z]:[\\/]", text) is not None


def _last_part(path: str) -> str:
    return PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name


# ── the card ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def card_text(known: Facts, seed: int, name: str, license: str | None = None) -> str:
    """Return the README.md of a repository: what the hub reads, then what people read.

    Args:
        known: of the classifier, without paths.
        seed: that it was trained by.
        name: OWNER/NAME.
        license: the hub's word for it; None: none was named.
    """
    card = model_card(known, [_use(known, name), _calls(name)])
    sections = [*card.sections, _repetition(known, seed, name), _about_files(known, license)]
    page = Page(name.partition("/")[2], card.lead, sections, verdict=card.verdict, warnings=card.warnings)
    return f"---\n{yaml_text(_front_matter(known, name, license))}---\n\n{to_markdown(page)}"


def _front_matter(known: Facts, name: str, license: str | None) -> dict[str, Any]:
    """Return what the hub reads of a card.

    Source:
        https://github.com/huggingface/hub-docs/blob/main/modelcard.md
    """
    location = known.model["data"].get("location") or ""
    published = {"datasets": ["/".join(location.removeprefix(PREFIX).split("/")[:2])]}
    return {
        **({} if license is None else {"license": license}),
        "library_name": "sightline",
        "pipeline_tag": "image-classification",
        "tags": ["sightline", "image-classification", str(known.model["network"]["kind"])],
        **(published if location.startswith(PREFIX) else {}),
        "metrics": ["accuracy"],
        **({} if known.measured is None else {"model-index": [_results(known, known.measured, name)]}),
    }


def _results(known: Facts, measured: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the measures as the hub has them, with n and interval in their names."""
    low, high = measured["accuracy_interval"]
    data = known.model["data"]["name"]
    metrics = [
        {
            "type": "accuracy",
            "value": round(measured["accuracy"], 4),
            "name": f"accuracy (n = {measured['n']:,}, 95 % interval {low:.4f} to {high:.4f})",
        }
    ]
    if measured.get("calibration_error") is not None:
        metrics.append(
            {
                "type": "calibration_error",
                "value": round(measured["calibration_error"], 4),
                "name": "expected calibration error, 15 bins",
            }
        )
    return {
        "name": name.partition("/")[2],
        "results": [
            {
                "task": {"type": "image-classification"},
                "dataset": {"name": data, "type": data, "split": known.split},
                "metrics": metrics,
            }
        ],
    }


def _use(known: Facts, name: str) -> Section:
    classes, data = known.classes, known.model["data"]["name"]
    return Section(
        "What it is for",
        f"It tells apart the {len(classes)} classes named above in images like those of {data}: it gives each class a"
        f" calibrated probability. Look at its mistakes below before {name.partition('/')[2]} decides anything.",
    )


def _calls(name: str) -> Section:
    about = (
        f"With sightline (pip calls it {DISTRIBUTION}) and its extra hf. No code of this repository is run; its weights"
        " are tensors (safetensors). A commit behind an @ stays the same classifier."
    )
    code = (
        f"sightline predict {PREFIX}{name} photo.jpg\n"
        f"sightline serve {PREFIX}{name}\n"
        f"python -c \"import sightline; print(sightline.load('{PREFIX}{name}').predict('photo.jpg'))\"\n"
        f"sightline train DATA --network {PREFIX}{name}    # start from its weights"
    )
    return Section("How to use it", about, code=code)


def _repetition(known: Facts, seed: int, name: str) -> Section:
    data = known.model["data"]
    place = "" if data.get("location") else " DATA"
    about = (
        f"The seed is {seed}. The image set{' DATA' if place else ''} must have the fingerprint"
        f" {data['fingerprint']}, which changes with its pixels and labels, not with its place or name; its files must"
        " have the same names, too, which settle the order of the images. With the same versions on the same machine,"
        " and the same number of threads, the weights come out the same, elsewhere close to these. Every setting is in"
        " recipe.yaml."
    )
    code = f"hf download {name} recipe.yaml --local-dir .\nsightline train{place} --config recipe.yaml"
    return Section("How to repeat it", about, code=code)


def _about_files(known: Facts, license: str | None) -> Section:
    terms = f"The license is {license}." if license else "No license was named: ask its owner before you use it."
    weights = known.model.get("weights") or {}
    if weights.get("source"):
        their_license = f", whose license is {weights['license']}" if weights.get("license") else ""
        terms += f" It started from {weights['source']}{their_license}."
    return Section(
        "Files and license",
        f"{terms} seen.npz holds the first 8 bytes of a hash of the pixels of each image that it has seen, so that a"
        " network that starts from it is never tested on them; who has an image can tell by it whether it was among"
        " them. recipe.yaml and model.json name files and folders of the machine by their last part only.",
    )
