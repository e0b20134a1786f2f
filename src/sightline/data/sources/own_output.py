"""Folders inside an image set that sightline itself has written: runs, checks, studies, generated images.

They are known by the files that the commands leave in them, never by a folder's name alone: a class may be called
``runs``. Nothing here reads an image.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["GENERATED", "OUTPUT_FOLDERS", "OwnOutput", "find_own_output"]

GENERATED = "generated images"
OUTPUT_FOLDERS = frozenset(("runs", "checks", "studies", "tunings"))  # what commands make where no folder is named
MANIFEST = "manifest.csv"
MARKS: tuple[tuple[str, frozenset[str], frozenset[str]], ...] = (
    # what the folder is, files that it must have, files of which it must have one
    ("a run", frozenset(("recipe.yaml",)), frozenset(("model.json", "seen.npz", "metrics.csv", "DONE", "PRUNED"))),
    ("a check", frozenset(("findings.csv",)), frozenset(("check.html", "exclude.csv"))),
    ("a check", frozenset(("chosen.csv",)), frozenset(("check.html", "manifest.csv"))),
    ("a study", frozenset(("study.yaml",)), frozenset(("study.html", "trials.csv", "tuning.db", ".lock"))),
    ("a comparison", frozenset(("runs.csv", "settings.csv", "curves.csv")), frozenset()),
    ("a search", frozenset(("found.json", "settings.yaml")), frozenset()),
    ("an evaluation", frozenset(("evaluation.json", "predictions.csv")), frozenset()),
    ("a cache", frozenset(("index.json", "pixels.u8", "labels.npy")), frozenset()),
)
SHEETS = "explanations.csv"  # beside the sheets that `sightline explain` draws, which are images
_GENERATED_COLUMNS = b"path,label,generator,weights,seed,"
_MARKING = frozenset((MANIFEST, SHEETS)).union(*(needed | one_of for _, needed, one_of in MARKS))


@dataclass(frozen=True)
class OwnOutput:
    """The folders that sightline has written inside a set."""

    folders: dict[str, str]
    """What each is, by its name; none of them lies in another."""

    def holds(self, name: str) -> bool:
        """Return whether a file or folder is one of these folders, or lies in one."""
        return bool(self.folders) and any(part in self.folders for part in _above(name))


def find_own_output(
    files: Sequence[str],
    folders: Sequence[str],
    is_image: Callable[[str], bool],
    begin: Callable[[str], bytes] | None = None,
) -> OwnOutput:
    """Find the folders that sightline has written, below the top of a set.

    Args:
        files: names with forward slashes.
        folders: names of folders.
        is_image: whether a file counts as an image.
        begin: reads the first bytes of a file, by which generated images are known; None where that cannot be done.
    """
    inside: dict[str, set[str]] = defaultdict(set)
    for name in files:
        folder, _, file = name.rpartition("/")
        if file in _MARKING and folder:
            inside[folder].add(file)
    kinds = {folder: _kind(folder, names, begin) for folder, names in inside.items()}
    outputs = {folder: kind for folder, kind in kinds.items() if kind is not None}
    if not outputs and not any(name.strip("/").rpartition("/")[2] in OUTPUT_FOLDERS for name in folders):
        return OwnOutput({})
    holding = {name.rpartition("/")[0] for name in files}
    images = {name.rpartition("/")[0] for name in files if is_image(name)}
    outputs = _with_containers(outputs, {above for name in {*holding, *folders} for above in _above(name)}, images)
    return OwnOutput(
        {
            name: kind
            for name, kind in outputs.items()
            if not any(above in outputs for above in _above(name) if above != name)
        }
    )


def _kind(folder: str, names: set[str], begin: Callable[[str], bytes] | None) -> str | None:
    """Name the kind of output that a folder is, by the names of the files in it that are no images."""
    for kind, needed, one_of in MARKS:
        if needed <= names and (not one_of or one_of & names):
            return kind
    if SHEETS in names and begin is not None and begin(f"{folder}/{SHEETS}").startswith(b"file,sheet"):
        return "explanations"
    if MANIFEST in names and begin is not None and begin(f"{folder}/{MANIFEST}").startswith(_GENERATED_COLUMNS):
        return GENERATED
    return None


def _with_containers(known: dict[str, str], everything: set[str], images: set[str]) -> dict[str, str]:
    """Also the folders that hold nothing but output (``runs/``), and those made for it that hold no image yet."""
    below: dict[str, set[str]] = defaultdict(set)
    for name in everything:
        if "/" in name:
            below[name.rpartition("/")[0]].add(name)
    result = dict(known)
    for name in sorted(everything, key=lambda name: -name.count("/")):  # the innermost first
        if name in result or name in images:
            continue
        within = below[name]
        holding = {folder for folder in within if folder not in result and _holds_images(folder, below, images, result)}
        outputs = within & result.keys()
        made_for_it = name.rpartition("/")[2] in OUTPUT_FOLDERS
        if not holding and (outputs or made_for_it):
            result[name] = result[min(outputs)] if outputs else "an empty folder for output"
    return result


def _holds_images(name: str, below: dict[str, set[str]], images: set[str], outputs: dict[str, str]) -> bool:
    pending = [name]
    while pending:
        folder = pending.pop()
        if folder in outputs:
            continue
        if folder in images:
            return True
        pending += below[folder]
    return False


def _above(name: str) -> list[str]:
    """Return a name and all folders that it lies in, the outermost first."""
    parts = name.strip("/").split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)] if parts[0] else []
