"""Compare recipes: finished runs side by side, or a study of recipes × seeds. A page of HTML, Markdown, CSV, and a console."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sightline.config.checks import nearest, within
from sightline.config.studies import Study, named_studies, read_study
from sightline.data.sources.find_source import find_source
from sightline.display.pages import Page, print_table, write_markdown, write_page
from sightline.display.terminal import reporting_console, show
from sightline.errors import ConfigError, DataError, RunError
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

__all__ = ["compare"]

STUDIES = Path("studies")
STUDY = "study.yaml"  # in the folder of a study


def compare(
    *what: str | os.PathLike[str],
    data: str | None = None,
    seeds: int | None = None,
    fraction: float | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> Path:
    """Compare finished runs, or the recipes of a study, which is trained first as far as it is not.

    Args:
        what: folders of two or more finished runs; or one study: its name, its YAML file, or the folder of one that has
            begun, which is continued.
        data: the image set of a study, in place of its own.
        seeds: how many seeds a study has, counted from 0, in place of its own.
        fraction: share of the training images that a study uses, in place of its own.
        out: folder to write to; None for ``studies/<study>-<data>[-<fraction>]``, or ``studies/runs-<n>``.
        workers: runs of a study that are trained side by side, each with its share of the threads and of the GPUs; None: one
            after the other.
        console: where to report; None reports nothing.
    Returns:
        The page, ``study.html`` or ``runs.html``, among its words in Markdown and tables in CSV.
    Raises:
        SightlineError: one of its kinds, with a sentence that says what to do; runs of a study that failed are raised
            after the page on the others is written.
        Interrupted: Ctrl-C; a study can be continued.
    """
    console = reporting_console(console)
    names = [os.fspath(one) for one in what]
    if any(map(_is_study, names)):
        side_by_side = 1 if workers is None else workers
        within("workers", side_by_side, 1, os.cpu_count() or 1)
        study, folder = _find_study(names, {"data": data, "seeds": seeds, "fraction": fraction}, out)
        return _compare_study(study, folder, side_by_side, console)
    for flag, value in (("data", data), ("seeds", seeds), ("fraction", fraction), ("workers", workers)):
        if value is not None and names:
            raise ConfigError(f"--{flag} has no effect on runs that are finished; leave it out, or name a study.")
    return _compare_runs(_read_runs(names), out, console)


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
        read_outcome(folder, str(folder) if short.count(folder.name) > 1 else folder.name) for folder in folders
    ]
    if len(outcomes) == 1:
        raise ConfigError(f"{names[0]} is one run alone; name two or more to compare.")
    return outcomes


def _compare_runs(outcomes: list[Outcome], out: str | os.PathLike[str] | None, console: Console) -> Path:
    folder = _numbered(STUDIES, "runs") if out is None else Path(out)
    if (folder / STUDY).exists():
        raise RunError(f"{folder} holds a study; choose another --out.")
    create_folder(folder)
    lead = [
        f"{len(outcomes)} finished runs. Each is one training with one seed: a difference between two may be that of another"
        " seed. The intervals are those of the images (95 %, Wilson's). A study, which trains every recipe with several"
        " seeds, tells recipes apart."
    ]
    warnings = unlike_images(outcomes)
    page = runs_page(outcomes, lead, warnings)
    show("", console)
    print_table(console, "results", runs_table(outcomes, brief=True))
    tables = {
        "runs.csv": (RUN_COLUMNS, run_rows(outcomes)),
        "settings.csv": (("setting", *(one.name for one in outcomes)), settings_rows(outcomes)),
        "curves.csv": (CURVE_COLUMNS, curve_rows(outcomes)),
    }
    return _write(folder / "runs.html", page, tables, warnings, console)


# ── studies ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_study(name: str) -> bool:
    return name in named_studies() or name.endswith((".yaml", ".yml")) or os.path.exists(os.path.join(name, STUDY))


def _find_study(
    names: Sequence[str], given: Mapping[str, Any], out: str | os.PathLike[str] | None
) -> tuple[Study, Path]:
    """The study that is named, and its folder."""
    if len(names) > 1:
        first = next(filter(_is_study, names))
        raise ConfigError(f"{first} is a study, which is compared by itself; name one study, or only finished runs.")
    (name,) = names
    if name not in named_studies() and (Path(name) / STUDY).exists():
        for flag, value in (*given.items(), ("out", out)):
            if value is not None:
                raise ConfigError(
                    f"--{flag} cannot be changed: {name} has begun with its own; leave it out, or name the study's file."
                )
        return read_study(Path(name) / STUDY), Path(name)
    study = read_study(name, **given)
    if study.data is None:
        raise DataError(f"study {study.name!r} names no image set; add --data with a folder, an archive, or a name.")
    parts = [study.name, find_source(study.data).name, *([] if study.fraction is None else [f"{study.fraction:g}"])]
    return study, STUDIES / "-".join(parts) if out is None else Path(out)


def _compare_study(study: Study, folder: Path, workers: int, console: Console) -> Path:
    from sightline.studies.runner import jobs, open_study, train_study  # loads torch

    study = open_study(folder, study)
    failures = train_study(study, folder, console, workers=workers)
    compared = {variant.name for variant in study.variants}
    runs = {
        (job.variant.name, job.seed): read_outcome(job.run, job.variant.name)
        for job in jobs(study, folder)
        if job.variant.name in compared and job.finished
    }
    if not runs:
        raise RunError(f"no run of {folder} was finished: {next(iter(failures.values()))}")
    found, outcomes = study_findings(study, runs, failures), list(runs.values())
    show("", console)
    for sentence in found.lead:
        show(sentence, console)
    print_table(console, f"{study.name}, ranked by validation", ranking_table(study, found, brief=True))
    first = [row.outcomes[0] for row in found.ranked if row.outcomes]
    tables = {
        "study.csv": (STUDY_COLUMNS, study_rows(found)),
        "runs.csv": (RUN_COLUMNS, run_rows(outcomes)),
        "settings.csv": (("setting", *(one.name for one in first)), settings_rows(first, *OF_SEEDS)),
        "curves.csv": (CURVE_COLUMNS, curve_rows(outcomes)),
    }
    page = _write(folder / "study.html", study_page(study, found, outcomes), tables, found.warnings, console)
    if failures:
        raise RunError(
            f"{len(failures)} of {len(jobs(study, folder))} runs are not finished (the first: {next(iter(failures.values()))});"
            f" {page} tells what the others say. Try them again: sightline compare {shlex.quote(str(folder))}"
        )
    return page


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(
    path: Path, page: Page, tables: Mapping[str, tuple[Sequence[str], Any]], warnings: Sequence[str], console: Console
) -> Path:
    for name, (header, rows) in tables.items():
        write_csv(path.parent / name, header, rows)
    write_markdown(path.with_suffix(".md"), page)
    write_page(path, page)
    for sentence in warnings:
        show(f"warning: {sentence}", console)
    return path


def _numbered(root: Path, name: str) -> Path:
    """The first of ``<root>/<name>-1``, ``-2``, ... that is not there."""
    number = 1
    while (root / f"{name}-{number}").exists():
        number += 1
    return root / f"{name}-{number}"
