"""Find a learning rate or a batch size for a training, without training: an image set in, a folder with the settings
out.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sightline.config.finding import BatchSearchConfig, RangeTestConfig, refuse_range_test
from sightline.display.events import Table
from sightline.display.reporting import Listener, ignore, reporting
from sightline.errors import ConfigError
from sightline.runs.folder import refuse_filled
from sightline.runs.writing import create_folder, write_atomically, write_csv, write_json
from sightline.training.request import Request, read_request

if TYPE_CHECKING:
    from sightline.training.classifier_plan import ClassifierPlan
    from sightline.training.finders.batch import FoundBatch
    from sightline.training.finders.rate import FoundRate

__all__ = ["find_batch", "find_rate"]


@reporting
def find_rate(
    data: str | os.PathLike[str] | None = None,
    *,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    test: RangeTestConfig | None = None,
    out: str | os.PathLike[str] | None = None,
    on_event: Listener = ignore,
) -> "FoundRate":
    """Find the learning rate of a training by a range test, and check it by short trainings.

    One process takes the steps, with whole batches, whatever ``fit.processes`` is; batch-norm then sees a whole batch,
    too.

    Args:
        data: An image set, as for sightline train; so are the recipe and the settings of the training.
        recipe: A recipe's name, a YAML file of one, or auto to choose by the images.
        settings: What to set over the recipe, nested as in its YAML.
        test: Range and steps of the test.
        out: Folder to make: range.png, range.csv, found.json, and settings.yaml for sightline train --config.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Returns:
        The rate, the range test, and the ``settings`` to train with.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do.
    """
    test = test or RangeTestConfig()
    if out is not None:
        refuse_filled(out)
    request = read_request(data, recipe, settings, say=on_event)
    if request.recipe is not None:
        test.rates(request.recipe.optimizer.kind)  # refuses an end below the start
    plan = _begin(request, out, on_event)
    from sightline.training.finders.rate import search_rate, write_range

    if "fit.batch_size" in plan.searches:
        raise ConfigError(
            "a rate is found for one batch size, and --fit.batch-size is auto; find that first (sightline find batch),"
            " and name it."
        )
    refuse_range_test(plan.recipe.fit, plan.recipe.finetune, len(plan.splits.train), "a range test")
    found = search_rate(plan, test, on_event)
    _say(on_event, found.lines())
    if out is not None:
        write_range(_finish(Path(out), found), found)
    return found


@reporting
def find_batch(
    data: str | os.PathLike[str] | None = None,
    *,
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "auto",
    settings: Mapping[str, Any] | None = None,
    search: BatchSearchConfig | None = None,
    out: str | os.PathLike[str] | None = None,
    on_event: Listener = ignore,
) -> "FoundBatch":
    """Find how large a batch of a training fits into memory, and which size is fastest.

    Args:
        data: An image set, as for sightline train; so are the recipe and the settings of the training.
        recipe: A recipe's name, a YAML file of one, or auto to choose by the images.
        settings: What to set over the recipe, nested as in its YAML.
        search: How, and within which memory.
        out: Folder to make: sizes.csv, found.json, and settings.yaml for sightline train --config.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Returns:
        The sizes that were tried, the largest that fits, and the ``settings`` to train with.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do.
    """
    if out is not None:
        refuse_filled(out)
    plan = _begin(read_request(data, recipe, settings, say=on_event), out, on_event)
    from sightline.training.finders.batch import search_batch

    found = search_batch(plan, search or BatchSearchConfig(), on_event)
    columns, rows = found.rows()
    on_event(Table([column.replace("_", " ") for column in columns], rows, texts=0))
    _say(on_event, found.lines())
    if out is not None:
        write_csv(_finish(Path(out), found) / "sizes.csv", *found.rows())
    return found


def _begin(
    request: Request,
    out: str | os.PathLike[str] | None,
    on_event: Listener,
) -> "ClassifierPlan":
    from sightline.machine.devices import keep_freed_memory
    from sightline.training.preparation import prepare_classifier

    keep_freed_memory()
    plan = prepare_classifier(request, on_event)
    if out is not None:
        create_folder(Path(out))  # before the work: one that cannot be made costs nothing
    _say(
        on_event,
        [
            f"{plan.source.name}: {len(plan.splits.train):,} training images, recipe {plan.recipe.name} ({plan.why})",
            *([plan.replaced] if plan.replaced else []),
        ],
    )
    return plan


def _finish(folder: Path, found: "FoundRate | FoundBatch") -> Path:
    write_json(folder / "found.json", found.to_json())
    write_atomically(folder / "settings.yaml", yaml.safe_dump(found.settings, sort_keys=False).encode())
    return folder


def _say(on_event: Listener, lines: Sequence[str]) -> None:
    for line in lines:
        on_event(line)
