"""The report of a finished run: one page that says how good it is, on what, where wrong, how sure, how to repeat it.

A generator's is made in ``generator_page``. Nothing here loads Lightning; torch is loaded where there are mistakes to
explain.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sightline.data.thumbnails import Thumbnails, open_own
from sightline.display.pages import Page, Section, write_page
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError, DataError, StorageError
from sightline.evaluation.answers import Answers, read_answers, read_measures
from sightline.evaluation.results import about_classes, about_cost, about_views, warnings
from sightline.evaluation.uncertainty import about_doubt
from sightline.reports import sentences
from sightline.reports.generator_page import generator_page
from sightline.reports.mistakes import confusion_section, mistake_sections
from sightline.reports.probe_section import about_learning_curve, about_probe
from sightline.reports.verdict import verdict
from sightline.runs.folder import REPORT, is_generator, read_model_of_finished
from sightline.runs.outcomes import read_outcome
from sightline.runs.writing import plain_text

__all__ = ["report"]

COMMANDS = """\
sightline train DATA --config recipe.yaml --run ANOTHER    # train the same again, on your copy of the images
sightline evaluate . DATA                                  # how good it is on another image set
sightline predict . IMAGES...                              # what it sees in other images"""
"""Commands that repeat and use a run, from within its folder."""


@reporting
def report(
    run: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    trust_code: bool = False,
    on_event: Listener = ignore,
) -> Path:
    """Write a finished run's report: how good, on what, where wrong, how sure, how to repeat it.

    Of a generator's run it says how the generator learned and what it makes.

    Args:
        run: Folder of a finished run.
        out: File to write (.html), one page that holds all it shows; report.html in the run unless named.
        trust_code: Run the code of the repository that a network of torch.hub is built by, to explain its mistakes.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Returns:
        The page.
    Raises:
        ConfigError: ``out`` is no page, or the network needs a library that is missing, or code that is not trusted; or
            ``trust_code`` for a generator.
        RunError: no run, not finished, or damaged.
        StorageError: the page cannot be written.
    """
    path = Path(run) / REPORT if out is None else Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {path} must end in .html, the format of the report.")
    folder, model = Path(run), read_model_of_finished(run, generator=None)
    with stage(on_event, "Writing the report", brief=True) as progress:
        if not is_generator(model):
            write_page(path, _classifier_page(folder, model, trust_code, progress))
        elif trust_code:
            raise ConfigError(
                "--trust-code has no effect on the report of a generator, which runs no code; leave it out."
            )
        else:
            write_page(path, generator_page(folder, model))
        return path


def _classifier_page(
    folder: Path, model: dict[str, Any], trust_code: bool, progress: Callable[[int, int], None] | None
) -> Page:
    measured = read_measures(folder) if model.get("metrics") else None
    answers = None if measured is None else read_answers(folder, model["classes"], measured)
    facts = sentences.RunFacts(model, measured, answers, read_outcome(folder))
    cautions, sections = warnings(facts), [Section("In figures", "\n\n".join(sentences.in_figures(facts)))]
    if answers is not None:
        thumbnails, unopened = _images_of(folder, model, answers, progress)
        mistakes, unexplained = mistake_sections(facts, answers, thumbnails, trust_code)
        sections += [confusion_section(facts, answers, thumbnails), about_classes(facts), *mistakes]
        cautions += filter(None, (unopened, unexplained))
    sections += [
        *about_probe(model),
        *about_learning_curve(model),
        *about_doubt(facts),
        *about_views(facts),
        *sentences.about_learning(facts),
        sentences.about_settings(facts),
        about_cost(facts, facts.outcome.backbone_flops),
        *sentences.repeat_sections(model, facts.outcome.recipe, COMMANDS),
    ]
    return Page(f"Report: {folder.resolve().name}", (), sections, verdict=verdict(facts), warnings=cautions)


def _images_of(
    run: Path, model: dict[str, Any], answers: Answers, progress: Callable[[int, int], None] | None
) -> tuple[Thumbnails | None, str]:
    """Open the images of the answers; where they cannot be shown None, and a sentence that says why."""
    without = "so the page is without pictures."
    try:
        thumbnails = open_own(run, model, progress)
    except (DataError, StorageError) as error:
        return None, f"The image set cannot be opened, {without} {str(error)[:1].upper()}{str(error)[1:]}"
    if thumbnails is None:
        return None, f"The image set is not what the run was trained on any more, {without}"
    missing = next((file for file in answers.files if file not in thumbnails), None)
    if missing is None:
        return thumbnails, ""
    return None, f"The image set has other names than when the run was measured (no {plain_text(missing)}), {without}"
