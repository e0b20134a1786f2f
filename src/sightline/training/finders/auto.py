"""Find the settings of a plan that are ``auto``, before its first step. What is trained meanwhile is a copy.

Of several processes the first searches alone, with whole batches; the others read what it found in the run
(``resume.as_found``).
"""

import time
from dataclasses import replace
from typing import Any

from sightline.config.building import SEARCHED
from sightline.config.finding import BatchSearchConfig, RangeTestConfig
from sightline.config.resolving import resolve, to_mapping
from sightline.display.reporting import Listener
from sightline.training.classifier_plan import ClassifierPlan
from sightline.training.finders.batch import FoundBatch, search_batch
from sightline.training.finders.rate import FoundRate, search_rate

__all__ = ["find_auto_settings"]


def find_auto_settings(
    plan: ClassifierPlan, on_event: Listener
) -> tuple[ClassifierPlan, dict[str, Any], FoundRate | None]:
    """Search for every number that a plan leaves to it.

    Returns:
        The plan with the numbers; where they come from, by setting, for ``model.json``; and the rate, if one was found.
    Raises:
        ConfigError: the memory cannot be measured, or holds no batch.
        TrainingError: no rate lowers the loss.
    """
    facts: dict[str, Any] = {}
    rate = None
    for name in plan.searches:
        if name not in SEARCHED:
            continue  # settled after the probe
        start = time.perf_counter()
        outcome: FoundRate | FoundBatch
        if name == "optimizer.learning_rate":
            outcome = rate = search_rate(plan, RangeTestConfig(), on_event)
        else:
            outcome = search_batch(plan, BatchSearchConfig(), on_event, for_speed=True)
        for line in outcome.lines():
            on_event(line)
        facts[name] = outcome.to_json() | {"seconds": round(time.perf_counter() - start, 1)}  # no part of the fit's
        plan = replace(plan, recipe=resolve(to_mapping(plan.recipe), outcome.settings))
    return replace(plan, searches=()), facts, rate
