"""The table of verbs: where each is, and how its result is shown."""

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sightline.cli import results

__all__ = ["VERBS", "Verb"]


@dataclass(frozen=True)
class Verb:
    """A verb of the command line."""

    home: str
    """``module:function``; imported when it is called."""
    show: Callable[..., None] = results.show_path
    """Prints the result, given as the first argument, the others as the command line named them."""
    reports_on_error: bool = True
    """It reports on standard error, since standard output gets the result alone."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Flags by another name than the parameter's, or the setting's of a parameter that is a block of them."""
    required: tuple[str, ...] = ()
    """Flags that must be given, though the function does without."""
    short: Mapping[str, str] = field(default_factory=dict)
    """Short names of settings, which stand among the verb's own flags."""

    @property
    def function(self) -> Callable[..., Any]:
        """The function, imported now."""
        module, _, name = self.home.partition(":")
        return cast(Callable[..., Any], getattr(importlib.import_module(module), name))

    @property
    def summary(self) -> str:
        """The first paragraph of its docstring, read from the source: a list of verbs imports none."""
        module, _, name = self.home.partition(":")
        spec = importlib.util.find_spec(module)
        source = spec.loader.get_source(module) if spec and spec.loader else ""  # type: ignore[attr-defined]
        match = re.search(rf'^def {name}\(.*?"""(.*?)(?:\n\n|""")', source, re.MULTILINE | re.DOTALL)
        return " ".join(match[1].split()) if match else ""


VERBS = {
    "train": Verb(
        "sightline.training.train:train",
        reports_on_error=False,
        short={
            "minutes": "probe.minutes",
            "seed": "fit.seed",
            "evaluate": "evaluation.on",
            "deterministic": "fit.deterministic",
        },
    ),
    "plan": Verb("sightline.training.plan:plan", results.show_plan),
    "find rate": Verb("sightline.training.find:find_rate", reports_on_error=False),
    "find batch": Verb("sightline.training.find:find_batch", reports_on_error=False),
    "evaluate": Verb(
        "sightline.evaluation.evaluate:evaluate",
        results.show_evaluation,
        names={"corrections": "data.corrections"},
    ),
    "report": Verb("sightline.reports.report:report"),
    "predict": Verb("sightline.inference.predict:predict", results.show_predictions),
    "explain": Verb(
        "sightline.explanation.explain:explain",
        results.show_explanations,
        names={"methods": "method"},
    ),
    "encode": Verb("sightline.inference.encode:encode", results.show_features, required=("out",)),
    "export": Verb("sightline.evaluation.exporting.export:export", results.show_exported, required=("out",)),
    "generate": Verb(
        "sightline.generation.generate:generate",
        results.show_generated,
        names={"keep.run": "keep-if", **{f"keep.{name}": f"keep-{name}" for name in ("least", "most", "copies")}},
    ),
    "push": Verb("sightline.reports.push:push", results.show_pushed),
    "serve": Verb("sightline.serving.serve:serve", reports_on_error=False),
    "check": Verb(
        "sightline.checks.check:check",
        results.show_check,
        names={"classes": "data.classes", "corrections": "data.corrections"},
    ),
    "corrections": Verb(
        "sightline.checks.corrections:corrections",
        results.show_corrections,
        names={"form": "as", "take": "import"},
    ),
    "review": Verb("sightline.checks.review:review", reports_on_error=False),
    "compare": Verb("sightline.studies.compare:compare", reports_on_error=False),
    "studies": Verb("sightline.cli.listing:studies"),
    "tune": Verb("sightline.studies.tune:tune", reports_on_error=False),
    "recipes": Verb("sightline.cli.listing:recipes"),
    "runs": Verb("sightline.cli.listing:runs"),
    "cache": Verb("sightline.cli.listing:cache"),
    "completion": Verb("sightline.cli.listing:completion"),
    "environment": Verb("sightline.cli.listing:environment"),
}
