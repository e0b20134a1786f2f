"""Compare finished runs side by side, or the recipes of a study over its seeds: a page, Markdown and CSV."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from sightline.config.checks import nearest, within
from sightline.config.studies import Study, named_studies, read_study
from sightline.data.sources.find_source import find_source
from sightline.display.pages import Page, write_markdown, write_page
from sightline.display.reporting import Listener, ignore, reporting
from sightline.errors import ConfigError, DataError, RunError
from sightline.runs.folder import create_run
from sightline.runs.outcomes import (
    CURVE_COLUMNS,
    RUN_COLUMNS,
    Outcome,
    curve_rows,
    read_outcome,
    run_rows,
    settings_rows,
    unlike_images,
)
from sightline.runs.writing import create_folder, write_csv
from sightline.studies.compare_page import OF_SEEDS, ranking_table, runs_page, runs_table, study_page
from sightline.studies.findings import STUDY_COLUMNS, study_findings, study_rows
from sightline.studies.pairs import pair_section, pair_table, paired_runs, same_weights
from sightline_runtime.sentences import quoted

if TYPE_CHECKING:
    from sightline.studies.runner import Job

__all__ = ["compare"]

STUDIES = Path("studies")
STUDY = "study.yaml"  # in the folder of a study


@reporting
def compare(
    *what: str | os.PathLike[str],
    data: str | None = None,
    seeds: int | None = None,
    fraction: float | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    without: str | None = None,
    trust_code: bool = False,
    on_event: Listener = ignore,
) -> Path:
    """Compare finished runs, or the recipes of a study, with each other: tables, curves and a page.

    Args:
        what: Folders of finished runs; or one study, which is trained first: a name (see sightline studies), a YAML
            file, or the folder of one that has begun, to continue it.
        data: The image set of a study, in place of its own.
        seeds: Number of seeds of a study, counted from 0, in place of its own.
        fraction: Share of the training images that a study uses, in place of its own.
        out: Folder to write to; studies/STUDY-DATA[-FRACTION] unless named, or studies/runs-N.
        workers: Runs of a study that are trained side by side, each with its share of the threads and of the GPUs; 1
            unless named. Its seconds are then those of a busy machine.
        without: Show a study that has begun once more without this recipe, as study-without-<recipe>.html beside its
            page, marked as a second look; nothing is trained.
        trust_code: Run the code of the repositories and files that the recipes of a study name.
        on_event: Called with each event (``display/events.py``); unless named, only a notebook shows them.
    Returns:
        The page, ``study.html`` or ``runs.html``, among its words in Markdown and tables in CSV.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do; runs of a study that failed are raised
            after the page on the others is written.
        Interrupted: Ctrl-C; a study can be continued.
    """
    names = [os.fspath(one) for one in what]
    if any(map(_is_study, names)):
        side_by_side = 1 if workers is None else workers
        within("workers", side_by_side, 1, os.cpu_count() or 1)
        study, folder = _find_study(names, {"data": data, "seeds": seeds, "fraction": fraction}, out)
        if without is not None:
            return _look_again(study, folder, without, workers, on_event)
        return _compare_study(study, folder, side_by_side, trust_code, on_event)
    options = {"data": data, "seeds": seeds, "fraction": fraction, "workers": workers, "without": without}
    for flag, value in (options | {"trust-code": trust_code or None}).items():
        if value is not None and names:
            raise ConfigError(f"--{flag} has no effect on runs that are finished; leave it out, or name a study.")
    return _compare_runs(_read_runs(names), out, on_event)


# ── finished runs ────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_runs(names: Sequence[str]) -> list[Outcome]:
    if not names:
        known = ", ".join(named_studies())
        raise ConfigError(f"nothing was named to compare; give two or more finished runs, or a study: {known}.")
    folders = [Path(os.path.normpath(name)) for name in names]
    for name, folder in zip(names, folders, strict=True):
        if not folder.exists():
            raise RunError(f"there is no run or study {name!r}; {nearest(name, named_studies())}")
        if folders.count(folder) > 1:
            raise ConfigError(f"{name} is named twice; a run compared with itself shows nothing.")
    short = [folder.name for folder in folders]
    outcomes = [
        read_outcome(folder, name if short.count(name) == 1 else str(folder))
        for folder, name in zip(folders, short, strict=True)
    ]
    if len(outcomes) == 1:
        raise ConfigError(f"{names[0]} is one run alone; name two or more to compare.")
    return outcomes


def _compare_runs(outcomes: list[Outcome], out: str | os.PathLike[str] | None, on_event: Listener) -> Path:
    if out is not None and (Path(out) / STUDY).exists():
        raise RunError(f"{out} holds a study; choose another --out.")
    folder = create_run("runs", below=STUDIES) if out is None else Path(out)
    create_folder(folder)
    lead = [
        f"{len(outcomes)} finished runs. Each is one training with one seed: a difference between two may be that of"
        " another seed. The intervals are those of the images (95 %, Wilson's, or over groups). A study, which trains"
        " every recipe with several seeds, tells recipes apart."
    ]
    identical = same_weights(outcomes)
    if identical:
        lead.append(f"{identical}.")
    pairs = paired_runs(outcomes)
    page = runs_page(outcomes, lead, unlike_images(outcomes), [pair_section(pairs)] if pairs else [])
    on_event("")
    on_event(replace(runs_table(outcomes, brief=True), title="results"))
    if identical:
        on_event(identical)
    if pairs:
        on_event(replace(pair_table(pairs), title="paired, image by image"))
    return _write(folder / "runs.html", page, outcomes, outcomes, on_event)


# ── studies ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_study(name: str) -> bool:
    return name in named_studies() or name.endswith((".yaml", ".yml")) or os.path.exists(os.path.join(name, STUDY))


def _find_study(
    names: Sequence[str], changed: Mapping[str, Any], out: str | os.PathLike[str] | None
) -> tuple[Study, Path]:
    """Read the study that is named; returns it, and its folder."""
    if len(names) > 1:
        first = next(filter(_is_study, names))
        raise ConfigError(f"{first} is a study, which is compared by itself; name one study, or only finished runs.")
    (name,) = names
    if name not in named_studies() and (Path(name) / STUDY).exists():
        for flag, value in (*changed.items(), ("out", out)):
            if value is not None:
                raise ConfigError(
                    f"--{flag} cannot be changed: {name} has begun with its own, and its runs are compared as they were"
                    " planned; leave it out, or name the study's file and another --out."
                )
        return read_study(Path(name) / STUDY), Path(name)
    study = read_study(name, **changed)
    if study.data is None:
        raise DataError(f"study {study.name!r} names no image set; add --data with a folder, an archive, or a name.")
    parts = [study.name, find_source(study.data).name, *([] if study.fraction is None else [f"{study.fraction:g}"])]
    return study, STUDIES / "-".join(parts) if out is None else Path(out)


def _compare_study(study: Study, folder: Path, workers: int, trust_code: bool, on_event: Listener) -> Path:
    from sightline.studies.runner import jobs, open_study, refuse_code_of, train_study  # loads torch

    if not trust_code:
        refuse_code_of(study)
    study = open_study(folder, study)
    failures = train_study(study, folder, on_event, workers=workers, trust_code=trust_code)
    runs = _finished(study, jobs(study, folder))
    if not runs:
        raise RunError(f"no run of {folder} was finished: {next(iter(failures.values()))}")
    findings, outcomes = study_findings(study, runs, failures), list(runs.values())
    on_event("")
    for sentence in findings.lead:
        on_event(sentence)
    on_event(replace(ranking_table(study, findings, brief=True), title=f"{study.name}, ranked by validation"))
    write_csv(folder / "study.csv", STUDY_COLUMNS, study_rows(findings))
    first = [row.outcomes[0] for row in findings.ranked if row.outcomes]
    page = _write(folder / "study.html", study_page(study, findings, outcomes), outcomes, first, on_event, *OF_SEEDS)
    if failures:
        raise RunError(
            f"{len(failures)} of {len(jobs(study, folder))} runs are not finished (the first:"
            f" {next(iter(failures.values()))}); {page} tells what the others say. Try them again: sightline compare"
            f" {quoted(str(folder))}"
        )
    return page


def _finished(study: Study, planned: "Sequence[Job]") -> dict[tuple[str, int], Outcome]:
    """Read the finished runs of the recipes of a study, by recipe and seed."""
    compared = {variant.name for variant in study.variants}
    return {
        (job.variant.name, job.seed): read_outcome(job.run, job.variant.name)
        for job in planned
        if job.variant.name in compared and job.finished
    }


def _look_again(study: Study, folder: Path, without: str, workers: int | None, on_event: Listener) -> Path:
    """Show a study without one of its recipes, from the runs that are finished."""
    from sightline.studies.runner import jobs  # loads torch

    names = [variant.name for variant in study.variants]
    if without not in names:
        raise ConfigError(f"--without {without}: {study.name} has no such recipe; {nearest(without, names)}")
    if without == study.baseline:
        raise ConfigError(f"--without {without}: it is the baseline, which the others are compared with; name another.")
    if len(names) < 3:
        raise ConfigError(f"--without {without} leaves one recipe of {study.name}, and nothing to compare it with.")
    if workers is not None:
        raise ConfigError("--workers has no effect with --without, which trains nothing; leave it out.")
    if not (folder / STUDY).exists():
        raise RunError(f"{folder} has not begun; train the study first: leave --without out.")
    left_out = [variant for variant in study.variants if variant.name == without]
    others = tuple(variant for variant in study.variants if variant.name != without)
    started_from = any(variant.backbone == without for variant in others)
    backbones = (*study.backbones, *left_out) if started_from else study.backbones
    study = structs.replace(study, variants=others, backbones=backbones)
    runs = _finished(study, jobs(study, folder))
    if not runs:
        raise RunError(f"no run of {folder} is finished; train the study first: leave --without out.")
    findings, outcomes = study_findings(study, runs, {}), list(runs.values())
    caution = (
        f"A second look: {without} was left out after the results were known, which can make a difference look surer"
        f" than it is. The study as it was planned is {folder / 'study.html'}."
    )
    findings = replace(findings, warnings=(caution, *findings.warnings))
    page = study_page(study, findings, outcomes)
    path = folder / f"study-without-{without}.html"
    write_markdown(path.with_suffix(".md"), page)
    write_page(path, page)
    for sentence in (*page.warnings[:1], *findings.lead, *page.warnings[1:]):
        on_event(sentence)
    on_event(replace(ranking_table(study, findings, brief=True), title=f"{study.name} without {without}"))
    return path


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(
    path: Path,
    page: Page,
    outcomes: Sequence[Outcome],
    first: Sequence[Outcome],
    on_event: Listener,
    *left_out: str,
) -> Path:
    """Write a page, its words in Markdown and its tables in CSV.

    Args:
        path: of the page.
        page: what it says.
        outcomes: all runs.
        first: those whose settings are compared.
        on_event: where warnings are printed.
        left_out: settings that are not compared.
    """
    names = [one.name for one in first]
    write_csv(path.parent / "runs.csv", RUN_COLUMNS, run_rows(outcomes))
    write_csv(path.parent / "settings.csv", ("setting", *names), settings_rows(first, *left_out))
    write_csv(path.parent / "curves.csv", CURVE_COLUMNS, curve_rows(outcomes))
    write_markdown(path.with_suffix(".md"), page)
    write_page(path, page)
    for sentence in page.warnings:
        on_event(f"warning: {sentence}")
    return path
