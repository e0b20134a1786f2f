"""The verbs that list what there is."""

import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from sightline.cli.helping import first_sentence
from sightline.config.resolving import named_recipes, read_recipe, resolve_any
from sightline.config.studies import named_studies, read_study
from sightline.config.yaml_texts import parse_yaml, read_text
from sightline.display.events import Table
from sightline.display.lines import Lines
from sightline.display.terminal import show
from sightline_runtime.sentences import quoted

__all__ = ["AUTOMATIC", "cache", "completion", "environment", "recipes", "runs", "studies"]

AUTOMATIC = "Chooses a recipe by the images, and says which."
ABOUT = re.compile(r"^about:.*\n(?:[ \t]+.*\n)*", re.MULTILINE)


def studies(name: str | None = None, /) -> None:
    """List the studies and what each asks, a line each; or show one in full.

    Args:
        name: The study to show: its name, or a YAML file.
    """
    if name is None:
        return _list("study", "what it asks", named_studies())
    read_study(name)
    _show_whole(name, named_studies(), f"Train and compare: `sightline compare {quoted(name)}`.")


def recipes(name: str | None = None, /) -> None:
    """List the recipes and what each is for, a line each; or show one in full, with what it reached and sets.

    Args:
        name: The recipe to show: its name, or a YAML file.
    """
    automatic = {"auto": f"about: {AUTOMATIC}"}
    if name is None:
        return _list("recipe", "what it is for", automatic | named_recipes())
    step = f"Train with it: `sightline train DATA --recipe {quoted(name)}`."
    if name in automatic:
        show(AUTOMATIC, wrapped=True)
        return show(step)
    resolve_any(read_recipe(name))
    return _show_whole(name, named_recipes(), step)


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
    if not rows:
        show(f"no decoded image sets in {cache_folder()}; `sightline train DATA` makes one.")
        return
    Lines()(Table(("image set", "from", "images", "MB"), rows, texts=2, title=str(cache_folder())))


def completion(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> None:
    """Print a script by which a shell completes the commands, flags and names of sightline.

    Args:
        shell: Where the script is kept: bash, in ~/.local/share/bash-completion/completions/sightline; zsh, as
            _sightline in a folder of $fpath; fish, in ~/.config/fish/completions/sightline.fish; powershell, in
            $PROFILE. It holds from the next start of the shell.
    """
    from sightline.cli.parser import application
    from sightline.cli.verbs import VERBS

    show(application(VERBS, [], whole=True).generate_completion(shell=shell), lines=True)


def environment() -> None:
    """Describe this machine and what is installed, for a bug report."""
    from sightline.machine.environment import environment as work

    facts = work()  # pasted into a report, their table is one there too
    width = max(map(len, facts))
    show(f"| {'what':<{width}} | found |")
    show(f"|{'-' * (width + 2)}|-------|")
    for what, found in facts.items():
        show(f"| {what:<{width}} | {found} |")


def _list(what: str, about: str, texts: dict[str, str]) -> None:
    """Print the names of YAML texts, with the first sentence that each says of itself."""
    rows = [(name, first_sentence(_about(text))) for name, text in texts.items()]
    Lines()(Table((what, about), rows, texts=2))
    show(f"`sightline {'recipes' if what == 'recipe' else 'studies'} NAME` shows one in full.")


def _show_whole(name: str, known: dict[str, str], step: str) -> None:
    """Print what a YAML text says of itself, what else it holds, and what to do with it."""
    text = known[name] if name in known else read_text(name)
    show(_about(text), wrapped=True)
    show("\n" + ABOUT.sub("", text).strip() + "\n", lines=True)
    show(step)


def _about(text: str) -> str:
    return " ".join(str(parse_yaml(text, "").get("about", "")).split())
