"""Write docs/reference: commands.md, settings.md and names.md, from the code itself. ``make docs`` runs it; a test
compares.
"""

import inspect
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from msgspec import NODEFAULT
from msgspec.structs import FieldInfo, fields

from sightline.checks.problems import KINDS
from sightline.cli.flags import SETTINGS
from sightline.cli.listing import AUTOMATIC
from sightline.cli.parser import application
from sightline.cli.verbs import VERBS
from sightline.config.backbones import BACKBONES
from sightline.config.building import blocks_in, fields_of, listed_block, members
from sightline.config.explaining import METHODS
from sightline.config.fitting import TrackConfig
from sightline.config.generating import GeneratorRecipe
from sightline.config.resolving import field_texts, named_recipes
from sightline.config.settings import Recipe
from sightline.config.spaces import NOTATION
from sightline.config.studies import named_studies
from sightline.data.sources import archive, folder, manifest
from sightline.data.sources.cifar_mnist import NAMED, NamedSource
from sightline.data.sources.embedded import DIGITS, GROCERIES, DigitsSource, GroceriesSource
from sightline.data.sources.huggingface import PREFIX, HubSource
from sightline.data.sources.parquet import ParquetSource
from sightline.explanation import attribution
from sightline.training.trackers import TRACKERS

ROOT = Path(__file__).parent.parent
WRITTEN = "Written by `make docs` from the code; do not edit."
TITLES = {
    "data": "The image set",
    "augment": "Augmentation",
    "network": "Networks",
    "probe": "Probe",
    "head": "Heads",
    "optimizer": "Optimizers",
    "schedule": "Schedules",
    "finetune": "Fine-tuning",
    "fit": "Fitting",
    "evaluation": "Evaluation",
    "track": "Tracking",
    "generator": "Generators",
}
"""Headings of the blocks of a recipe; one that is not listed is called by its own name."""


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (ROOT / "docs" / "reference" / name).write_text(text, "utf-8")


def pages() -> dict[str, str]:
    """Return the pages by their names."""
    return {
        "commands.md": "\n".join(_commands()),
        "settings.md": "\n".join(_settings()),
        "names.md": "\n".join(_names()),
    }


def _commands() -> Iterator[str]:
    yield (
        f"# Commands\n\n{WRITTEN} The parameters of a command are those of the function of the same name"
        " [in Python](api.md). Beside them `train`, `plan`, `find rate`, `find batch` and `tune` take a flag for each"
        " [setting](settings.md).\n"
    )
    yield _section(
        "Verbs", ("verb", "what it does"), ((f"`sightline {name}`", verb.summary) for name, verb in VERBS.items())
    )
    for name in VERBS:
        flags = list(_flags(name))
        if flags:
            yield _section(name, ("flag", "what it is"), flags)


def _settings() -> Iterator[str]:
    yield (
        f"# Settings\n\n{WRITTEN} A setting is a flag of `sightline train` (`--fit.batch-size 64`) and a line of a"
        " recipe (`fit: {batch_size: 64}`).\n"
    )
    yield from _blocks(Recipe)
    yield from _blocks(GeneratorRecipe, known=Recipe)
    yield _section(
        "Trackers", ("`track.to`", "what it is"), ((f"`{name}`", _first(TRACKERS[name])) for name in _choices())
    )
    yield _section(
        "Spaces",
        ("in a space file", "what is drawn"),
        ((f"`{how}`", what) for how, what in NOTATION.items()),
        "What `sightline tune DATA --space SPACE.yaml` varies: the blocks and settings of a recipe, each with how it is drawn.",
    )


def _names() -> Iterator[str]:
    yield f"# Names\n\n{WRITTEN}\n"
    yield _section("Image sets", ("name", "what it is"), _image_sets())
    yield _section("Recipes", ("recipe", "what it is for, and what it reached"), _recipes())
    yield _section(
        "Backbones",
        ("`--backbone`", "network of timm", "weights", "px", "license of the weights", "why this one"),
        (
            (f"`{word}`", f"`{it.name}`", f"`{it.weights}`", str(it.side), it.license, it.reason)
            for word, it in BACKBONES.items()
        ),
        "Short for a network of timm and its weights; any name of timm stands for that network with its published"
        " weights. [Backbones](backbones.md) says more.",
    )
    yield _section("Studies", ("study", "what it asks"), _studies())
    yield _section(
        "Explanations",
        ("`explain --method`", "what its map shows"),
        ((f"`{method}`", _first(getattr(attribution, method))) for method in METHODS),
    )
    yield _section(
        "Findings",
        ("of `sightline check`", "what it is", "what it means"),
        ((f"`{name}`", kind.title, kind.about) for name, kind in KINDS.items()),
    )
    yield _section("Extras", ("extra", "libraries", "how"), _extras())


def _section(title: str, header: tuple[str, ...], rows: Iterable[tuple[str, ...]], about: str = "") -> str:
    lines = [header, ("---",) * len(header), *rows]
    table = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
    return f"## {title}\n\n" + (f"{about}\n\n" if about else "") + f"{table}\n"


def _cell(text: str) -> str:
    """Return a text that stays in its cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _first(documented: Any) -> str:
    """Return the first paragraph of a docstring, in Markdown."""
    return (inspect.getdoc(documented) or "").split("\n\n")[0].replace("``", "`")


def _flags(name: str) -> Iterator[tuple[str, str]]:
    """Yield the flags of a verb but those of the settings of a recipe."""
    command = application(VERBS, name.split())
    for part in name.split():
        command = command[part]
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if SETTINGS not in (argument.parameter.group or ()):
            yield f"`{argument.name}`", str(argument.parameter.help).replace("<", "&lt;")


def _image_sets() -> Iterator[tuple[str, str]]:
    yield f"`{GROCERIES}`", _first(GroceriesSource)
    yield f"`{DIGITS}`", _first(DigitsSource)
    for name in NAMED:
        yield f"`{name}`", _first(NamedSource)
    yield "FOLDER", _first(folder.FolderSource)
    yield (
        ", ".join(f"`{suffix}`" for suffix in archive.ARCHIVE_SUFFIXES),
        "A folder packed in one file, read in place.",
    )
    yield "`.csv`", _first(manifest.ManifestSource)
    yield "`.parquet`", _first(ParquetSource)
    yield f"`{PREFIX}OWNER/NAME`", _first(HubSource)


def _recipes() -> Iterator[tuple[str, str]]:
    yield "`auto`", AUTOMATIC
    for name, text in named_recipes().items():
        yield f"`{name}`", yaml.safe_load(text)["about"]


def _studies() -> Iterator[tuple[str, str]]:
    for name, text in named_studies().items():
        yield f"`{name}`", yaml.safe_load(text)["about"]


def _extras() -> Iterator[tuple[str, str, str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, libraries in project["optional-dependencies"].items():
        plain = ", ".join(f"`{library}`" for library in libraries if not library.startswith("sightline"))
        yield (
            f"`{extra}`",
            plain
            or (
                "nothing: the name is kept for those who type it"
                if extra in ("timm", "check")
                else "all of these but `mlflow`, `mobile`, `docs` and `dev`"
            ),
            f"`pip install '.[{extra}]'`",
        )


def _choices() -> tuple[str, ...]:
    """Return the trackers that a setting may name."""
    (literal, _) = typing.get_args(typing.get_type_hints(TrackConfig)["to"])
    return typing.get_args(literal)


# ── the blocks of a recipe ───────────────────────────────────────────────────────────────────────────────────────────


def _blocks(block: Any, prefix: str = "", known: Any = None) -> Iterator[str]:
    """Yield a table for every block of settings in a block, each before those of the blocks within it; not of those in another."""
    for item in fields(block):
        if known is not None and item.name in fields_of(known):
            continue
        kinds = blocks_in(item.type)
        if kinds:
            yield _table(f"{prefix}{item.name}", item.type, _default(item))
            for kind in kinds:
                yield from _blocks(kind, f"{prefix}{item.name}.")
        elif listed_block(item.type) is not None:
            yield _table(f"{prefix}{item.name}", listed_block(item.type), None)


def _table(name: str, annotation: Any, default: Any) -> str:
    """Return the table of one block: each kind of it, and below the kind its settings."""
    kinds = blocks_in(annotation)
    chosen = bool(kinds[0].kind)  # by its kind, or there always
    rows = []
    for kind in kinds:
        if chosen:
            rows.append((f"**`{kind.kind}`**", "", "", _first(kind)))
        hints, texts = fields_of(kind), field_texts(kind)
        for item in fields(kind):
            if blocks_in(item.type):
                continue
            text = texts.get(item.name, "").replace("``", "`") + _choice(hints[item.name])
            shown = "must be given" if item.required else f"`{_plain(_default(item))}`"
            rows.append(("", f"`{name}.{item.name}`", shown, text))
    if chosen:
        about = f"Unless named: {'none' if default is None else f'`{default.kind}`'}."
        if type(None) in members(annotation):
            about += " `null` in a recipe, and `none` as a flag, turn it off."
        header = ("kind", "setting", "default", "what it is")
    else:
        about, rows, header = _first(kinds[0]), [row[1:] for row in rows], ("setting", "default", "what it is")
    title = f"{TITLES.get(name, name.capitalize())} (`{name}`)" if "." not in name else f"`{name}`"
    return _section(title, header, rows, about)


def _choice(annotation: Any) -> str:
    """Return the words that a setting may be, as the end of its text."""
    for part in (*members(annotation), *typing.get_args(annotation)):
        if typing.get_origin(part) is typing.Literal:
            return " One of: " + ", ".join(f"`{word}`" for word in typing.get_args(part)) + "."
    return ""


def _default(item: FieldInfo) -> Any:
    """Return the default of a setting."""
    return item.default if item.default_factory is NODEFAULT else item.default_factory()


def _plain(value: Any) -> str:
    """Write a value as YAML has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    main()
