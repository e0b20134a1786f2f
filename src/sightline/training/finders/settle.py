"""Finders: which learning rate and which batch size a training should have. What is trained meanwhile is a copy.

Of several processes the first searches alone, with whole batches; the others read what it found in the run
(``resuming.as_found``).
"""

import time
from dataclasses import replace
from typing import Any

from rich.console import Console

from sightline.config import BatchSearchConfig, RangeTestConfig, resolve
from sightline.config.building import SEARCHED
from sightline.config.resolving import to_mapping
from sightline.display.terminal import show
from sightline.training.finders.batch import FoundBatch, search_batch
from sightline.training.finders.rate import FoundRate, search_rate, write_range
from sightline.training.job import Plan

__all__ = ["FoundBatch", "FoundRate", "search_batch", "search_rate", "settle", "write_range"]


def settle(plan: Plan, console: Console) -> tuple[Plan, dict[str, Any], FoundRate | None]:
    """Search for every number that a plan leaves to it.

    Returns:
        The plan with the numbers; where they come from, by setting, for ``model.json``; and the rate, if one was found.
    Raises:
        ConfigError: the memory cannot be measured, or holds no batch.
        TrainingError: no rate lowers the loss.
    """
    found: dict[str, Any] = {}
    rate = None
    for name in plan.searches:
        if name not in SEARCHED:
            continue  # settled after the probe
        start = time.perf_counter()
        outcome: FoundRate | FoundBatch
        if name == "optimizer.learning_rate":
            outcome = rate = search_rate(plan, RangeTestConfig(), console)
        else:
            outcome = search_batch(plan, BatchSearchConfig(), console, for_speed=True)
        for line in outcome.lines():
            show(line, console)
        found[name] = outcome.to_json() | {"seconds": round(time.perf_counter() - start, 1)}  # no part of the fit's
        plan = replace(plan, recipe=resolve(to_mapping(plan.recipe), outcome.settings))
    return replace(plan, searches=()), found, rate
