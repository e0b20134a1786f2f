"""How help looks: which settings a verb's ``--help`` shows, its layout, and what to type next."""

import math
import re

from cyclopts.help import DefaultFormatter, HelpEntry
from cyclopts.help.specs import (
    ColumnSpec,
    DescriptionRenderer,
    NameRenderer,
    get_default_command_columns,
    get_default_parameter_columns,
)
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding

from sightline.display.terminal import NARROW

__all__ = ["ALL", "FIRST_STEPS", "FORMATTER", "HELP", "OFTEN", "all_settings", "first_sentence"]

HELP, ALL = "--help", "--help-all"
OFTEN = (
    "backbone",
    "network",
    "head",
    "data.validation",
    "data.size",
    "data.sampling",
    "data.corrections",
    "augment.flip",
    "optimizer.learning_rate",
    "fit.epochs",
    "fit.batch_size",
    "track.to",
)
"""The settings that people change; ``--help`` shows these, and ``--help-all`` every one."""

FIRST_STEPS = (
    "Start with `sightline train groceries`, photographs that come along, or with a folder of yours that has a folder"
    " of images for each class: `sightline train FOLDER`. `sightline COMMAND --help` explains a command."
)
SENTENCE = re.compile(r"(?<=[.?]) ")  # what parts sentences
NAMES = 0.35  # of the width that cyclopts gives the names at most


def all_settings(verb: str, count: int) -> str:
    """Say below a verb's help how to see all of its settings."""
    return f"`sightline {verb} {ALL}` shows all {count} settings and says more of each."


def first_sentence(text: str) -> str:
    """Return the first sentence of a help text."""
    return SENTENCE.split(text, maxsplit=1)[0]


def _columns(console: Console, options: ConsoleOptions, entries: list[HelpEntry]) -> tuple[ColumnSpec, ...]:
    """Return the columns of a panel: names and texts side by side, or below each other where that cuts a name."""
    labels = [label for entry in entries for label in entry.display_labels]
    if console.width < NARROW or max(map(len, labels), default=0) > math.ceil(console.width * NAMES):
        return (ColumnSpec(renderer=_stacked, overflow="fold"),)
    commands = not any(label.startswith("--") or label.isupper() for label in labels)
    return (get_default_command_columns if commands else get_default_parameter_columns)(console, options, entries)


def _stacked(entry: HelpEntry) -> RenderableType:
    return Group(NameRenderer()(entry), Padding(DescriptionRenderer()(entry), (0, 0, 0, 2)))


FORMATTER = DefaultFormatter(column_specs=_columns)
