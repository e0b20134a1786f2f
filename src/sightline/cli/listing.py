"""The verbs that list what there is."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sightline.config.resolving import named_recipes
from sightline.config.studies import named_studies
from sightline.display.events import Table
from sightline.display.lines import Lines
from sightline.display.terminal import show

__all__ = ["cache", "environment", "recipes", "runs", "studies"]


def studies() -> None:
    """List the studies: what each asks."""
    _list_named("study", "what it asks", named_studies())


def recipes() -> None:
    """List the recipes: what each is for, and what it reached."""
    automatic = {"auto": "about: Chooses one of these by the size and number of the images, and says which."}
    _list_named("recipe", "what it is for, and what it reached", automatic | named_recipes())


def runs(folder: Path = Path("runs"), /) -> None:
    """List the runs in a folder, newest last.

    Args:
        folder: Where to look.
    """
    from sightline.runs.folder import PRUNED, list_runs

    listed = list_runs(folder)
    if not listed:
        show(f"no runs in {folder}; make one with `sightline train DATA`.")
        return
    rows = []
    for run in listed:
        accuracy = "" if run.accuracy is None else f"{run.accuracy:.4f}"
        pruned = (run.folder / PRUNED).exists()
        state = "finished" if run.finished else "ended early" if pruned else "unfinished"
        rows.append((run.folder, state, run.data, run.recipe, accuracy, "" if run.n is None else f"{run.n:,}"))
    Lines()(Table(("run", "state", "data", "recipe", "accuracy", "n"), rows, texts=4))


def cache(*, clear: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the decoded image sets in the cache, or delete them; the sets themselves and downloads/ are never touched.

    Args:
        clear: Delete every decoded set.
    """
    from sightline.data import cache as decoded
    from sightline.machine.folders import cache_folder

    if clear:
        show(f"freed {decoded.clear() / 1e6:,.0f} MB in {cache_folder()}")
        return
    rows = [
        (row["name"], row["location"], f"{row['images']:,}", f"{row['bytes'] / 1e6:,.1f}") for row in decoded.cached()
    ]
    Lines()(Table(("image set", "from", "images", "MB"), rows, texts=2, title=str(cache_folder())))


def environment() -> None:
    """Describe this machine and what is installed, for a bug report."""
    from sightline.machine.environment import environment as work

    facts = work()  # pasted into a report, their table is one there too
    width = max(map(len, facts))
    show(f"| {'what':<{width}} | found |")
    show(f"|{'-' * (width + 2)}|-------|")
    for what, found in facts.items():
        show(f"| {what:<{width}} | {found} |")


def _list_named(what: str, about: str, texts: dict[str, str]) -> None:
    """Print the names of YAML texts, with what each says of itself."""
    import yaml

    rows = [(name, yaml.safe_load(text)["about"]) for name, text in texts.items()]
    Lines()(Table((what, about), rows, texts=2))
