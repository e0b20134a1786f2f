"""A training that is settled and not begun: what it consists of, in words and for ``model.json``."""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from sightline.config import FrozenConfig, GeneratorRecipe, Recipe
from sightline.config.backbones import BOX
from sightline.data.batches import Normalization
from sightline.data.cache import CachedImages
from sightline.data.excluding import excluded_fingerprint
from sightline.data.sources.source import ImageSource
from sightline.data.splits import RULE, Splits
from sightline.data.synthetic import generated_fingerprint
from sightline.machine.devices import choose_device
from sightline.machine.extras import own_version
from sightline.models.acgan import ACGAN
from sightline.models.base import Network
from sightline.models.heads import HeadedNetwork
from sightline.models.unet import UNet
from sightline.runs.folder import MODEL_FORMAT
from sightline.training.network import Built, describe_network
from sightline.training.phases import layers_of, phases_of
from sightline.training.summary import describe_phase

__all__ = ["AnyPlan", "GeneratorPlan", "Plan", "describe_classifier", "describe_origin", "notes"]

SEARCHES = {
    "fit.epochs": "as many as the time allows, if any; settled after the probe",
    "fit.batch_size": "to be found before the first step, by steps with ever larger batches",
    "optimizer.learning_rate": "to be found before the first step, by a range test and short trainings",
}
"""What a dry run says of each setting that may be searched for."""


@dataclass(frozen=True)
class Plan:
    """Everything that is settled before the first step."""

    source: ImageSource
    recipe: Recipe
    why: str
    images: CachedImages
    splits: Splits
    normalization: Normalization
    built: Built
    kept: str = ""
    """Whether the features of a frozen backbone are kept, in words."""
    searches: tuple[str, ...] = ()
    """Settings of which the recipe has only a number to start from: they are searched for before the training."""
    rival: str = ""
    """Recipe that is tried besides, where ``auto`` chose this one; empty: none."""
    replaced: str = ""
    """Which optimizer takes the place of the recipe's, in words."""

    @property
    def network(self) -> Network:
        return self.built.network


@dataclass(frozen=True)
class GeneratorPlan:
    """Everything that is settled before the first step of a generator's training."""

    source: ImageSource
    recipe: GeneratorRecipe
    why: str
    images: CachedImages
    splits: Splits
    normalization: Normalization
    network: UNet | ACGAN
    searches: tuple[str, ...] = ()


AnyPlan = Plan | GeneratorPlan


def notes(plan: Plan) -> list[str]:
    """What a user should know of an optimizer that was replaced, of the numbers that are searched for, of the weights that
    the training starts from, and of which of them learn."""
    lines = [plan.replaced] if plan.replaced else []
    lines += [f"{name}: auto, {SEARCHES[name]}" for name in plan.searches]
    if plan.built.weights is None:
        return lines + _notes_of_phases(plan)
    mean, std = (
        " ".join(f"{value:.3f}" for value in part) for part in (plan.normalization.mean, plan.normalization.std)
    )
    head = plan.recipe.head
    on_gpu = choose_device().type == "cuda" and getattr(plan.recipe.network, "weights", None) == BOX
    larger = ["  there is a GPU: a larger backbone, from a hub, may reach more: --backbone base"] if on_gpu else []
    return [
        *lines,
        *plan.built.weights.lines(),
        *larger,
        *([] if head is None else [f"  a fresh head, as asked: {head.kind}"]),
        f"  normalised by the statistics these weights were trained with: mean {mean}, deviation {std}",
        *_notes_of_phases(plan),
    ]


def _notes_of_phases(plan: Plan) -> list[str]:
    """A line for each phase of a fine-tuning, and a warning where what is frozen at first has learnt nothing yet."""
    if plan.recipe.finetune is None:
        return []
    phases = phases_of(plan.recipe, plan.network)
    lines = [describe_phase(phases, index, plan.network) for index in range(len(phases))]
    lines += [plan.kept] if plan.kept else []
    if isinstance(plan.recipe.finetune, FrozenConfig):
        lines.append(
            "  a head that learns alone may want another rate than the recipe's: `sightline find rate` looks for one"
        )
    layers = [layer for layer in layers_of(plan.network) if not phases[0].trained.issuperset(layer.parameters)]
    if plan.built.weights is None and layers:
        lines.append(
            "  warning: what is frozen has random weights; start from some that have learnt: --network run:FOLDER"
        )
        return lines
    for layer in layers:
        fresh = _fresh(plan).intersection(layer.parameters) - phases[0].trained
        if fresh:
            until = "at first" if any(fresh & phase.trained for phase in phases) else "throughout"
            lines.append(
                f"  warning: {' and '.join(layer.names)} begins with random weights and is frozen {until}; `sightline plan`"
                " writes a schedule to edit, in which it may learn from the start"
            )
    return lines


def _fresh(plan: Plan) -> set[str]:
    """Parameters below the head that the weights a training starts from did not have."""
    weights = plan.built.weights
    if weights is None:
        return set()
    network = plan.network.backbone if isinstance(plan.network, HeadedNetwork) else plan.network
    place = "" if network is plan.network else "backbone."
    stem = network.exchanged if weights.fresh_stem else ()
    names = [name for name, _ in network.named_parameters() if name.startswith(stem)]
    found = (*names, *weights.missing, *weights.misshapen)
    return {f"{place}{name}" for name in found if not name.startswith("head.")}


def describe_classifier(plan: Plan) -> dict[str, Any]:
    """``model.json`` as far as it is known before training."""
    recipe, images = plan.recipe, plan.images
    return {
        "format": MODEL_FORMAT,
        "kind": "classifier",
        "classes": images.classes,
        **describe_network(plan.built),
        "parameters": sum(parameter.numel() for parameter in plan.network.parameters()),
        "size": list(images.size),
        "resize": list(images.pixels.shape[1:3]),
        **images.preprocessing.kept(),
        "normalization": {"mean": plan.normalization.mean, "std": plan.normalization.std},
        "views": recipe.evaluation.views,
        "precision": recipe.fit.precision,
        "temperatures": {},
        "test_readings": 0,
        **describe_origin(plan),
    }


def describe_origin(plan: AnyPlan) -> dict[str, Any]:
    """What any run knows of where it comes from."""
    images, recipe = plan.images, plan.recipe
    return {
        "data": {
            "name": images.name,
            "location": images.location,
            "fingerprint": images.fingerprint,
            **({} if recipe.data.classes is None else {"classes": recipe.data.classes}),
            "counts": plan.splits.counts(),
            "split_rule": RULE,
            "shared_with_test": plan.splits.shared_with_test,
            "left_out": len(images.left_out),
            "excluded": excluded_fingerprint(images, plan.splits),
            "generated": generated_fingerprint(images, plan.splits),
        },
        "recipe": recipe.name,
        "seed": recipe.fit.seed,
        "versions": {"python": platform.python_version(), "sightline": own_version()}
        | {name: version(name) for name in ("torch", "lightning")},
    }
