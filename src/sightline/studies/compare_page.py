"""A comparison as a page of tables, charts and sentences. What is written where is decided in ``compare``."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sightline.config.studies import Study
from sightline.display.charts import Curve, Interval, Point, draw_curves, draw_intervals, draw_points, draw_swatch
from sightline.display.pages import Chart, Page, Section, Table
from sightline.measures.significance import CONFIDENCE, POWER
from sightline.runs.outcomes import MISSING, Measured, Outcome, settings_that_differ
from sightline.studies.findings import SPLITS, Findings, Summary, points, verdict

__all__ = ["OF_SEEDS", "ranking_table", "runs_page", "runs_table", "study_page"]

UNITS = ((1e15, "10¹⁵"), (1e12, "10¹²"), (1e9, "10⁹"), (1.0, "1"))
LIBRARIES = (("sightline", "sightline"), ("torch", "PyTorch"))
LONG = 15  # rows, from which on a table of runs is folded
OF_SEEDS = ("fit.seed", "network.folder")  # settings in which the runs of one recipe differ


@dataclass(frozen=True)
class Group:
    """Runs that are shown as one: those of a recipe, or a single one."""

    name: str
    style: int
    """Of its lines and markers."""
    outcomes: Sequence[Outcome]


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def study_page(study: Study, findings: Findings, outcomes: Sequence[Outcome]) -> Page:
    """Return the page of a study.

    Args:
        study: what was compared.
        findings: what it says.
        outcomes: all finished runs, for the table of runs.
    """
    styles = {variant.name: style for style, variant in enumerate(study.variants)}
    groups = [Group(row.name, styles[row.name], row.outcomes) for row in findings.ranked if row.outcomes]
    sections = [
        Section("Ranking, by validation", table=ranking_table(study, findings)),
        Section("Differences", _about_differences(study, findings), charts=_difference_charts(study, findings, styles)),
        Section("What it cost", table=_cost_table(study, findings)),
        *_charts_of(groups)[::-1],
        Section("The recipes in words", table=_words(study)),
        _settings_section([group.outcomes[0] for group in groups], *OF_SEEDS),
        Section("Every run", table=_every_run(outcomes), folded=len(outcomes) > LONG),
    ]
    page = _page(f"Study: {study.name}", groups, sections, [*_method(study, findings), *_how_counted(outcomes)])
    return replace(page, about=study.about, lead=findings.lead, warnings=findings.warnings)


def runs_page(
    outcomes: Sequence[Outcome], lead: Sequence[str], warnings: Sequence[str], paired: Sequence[Section] = ()
) -> Page:
    """Return the page of runs side by side, in their order.

    Args:
        outcomes: the runs.
        lead, warnings: in sentences.
        paired: what is said of them image by image.
    """
    groups = [Group(outcome.name, style, [outcome]) for style, outcome in enumerate(outcomes)]
    sections = [Section("Results", table=runs_table(outcomes)), *paired, _settings_section(outcomes)]
    sections += _charts_of(groups)
    page = _page(f"{len(outcomes)} runs side by side", groups, sections, _how_counted(outcomes))
    return replace(page, lead=lead, warnings=warnings)


def _page(title: str, groups: Sequence[Group], sections: Sequence[Section], method: Sequence[str]) -> Page:
    legend = [(group.name, draw_swatch(group.style)) for group in groups]
    filled = [section for section in sections if section.table or section.charts]
    return Page(title=title, about="", lead=(), warnings=(), legend=legend, sections=filled, method=method)


def _charts_of(groups: Sequence[Group]) -> list[Section]:
    return [
        Section("Learning curves", _about_curves(groups), charts=_curve_charts(groups)),
        Section("Accuracy against cost", charts=_cost_charts(groups)),
    ]


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def ranking_table(study: Study, findings: Findings, *, brief: bool = False) -> Table:
    """Rank recipes by their mean on validation, with their differences to the baseline; brief in lines of 80."""
    against = f"against {study.baseline}, points"
    rows = [
        [
            row.name,
            *(cell for split in SPLITS for cell in _ranked_cells(row.on(split), row.name == study.baseline, brief)),
        ]
        for row in findings.ranked
    ]
    return Table(("recipe", "validation", against, "test", against), rows)


def runs_table(outcomes: Sequence[Outcome], *, brief: bool = False) -> Table:
    """Return a line for each run; brief without intervals and images."""
    unit, power = _unit([outcome.all_flops for outcome in outcomes])
    columns = ["run", "test", "n", "validation", "n", "seconds", "parameters"]
    rows = []
    for one in outcomes:
        row = [one.name, *_measured_cells(one.test, brief), *_measured_cells(one.validation, brief)]
        row += [_number(one.seconds, "{:,.1f}"), _number(one.parameters, "{:,}")]
        images = f"{one.image_set}\nseed {one.recipe.fit.seed}"
        rows.append(row if brief else [*row, _number(one.all_flops, "{:,.2f}", unit), images])
    return Table(columns if brief else [*columns, f"training FLOPs, {power}", "images"], rows)


def _ranked_cells(summary: Summary | None, baseline: bool, brief: bool) -> list[str]:
    if summary is None:
        return [MISSING, MISSING]
    mean, one = f"{summary.mean:.4f}", summary.difference
    if not brief and summary.deviation is not None:
        mean += f" ± {summary.deviation:.4f}"
    if not brief and summary.interval is not None:
        mean += "\n{:.4f} to {:.4f}".format(*summary.interval)
    if one is None:
        return [mean, "baseline" if baseline else MISSING]
    difference = f"{points(one.estimate)}\n{points(one.low)} to {points(one.high)}"
    return [mean, difference if brief else f"{difference}\n{verdict(one)}"]


def _measured_cells(measured: Measured | None, brief: bool) -> list[str]:
    if measured is None:
        return [MISSING, MISSING]
    interval = "" if brief else "\n{:.4f} to {:.4f}".format(*measured.interval)
    return [f"{measured.accuracy:.4f}{interval}", f"{measured.n:,}"]


def _cost_table(study: Study, findings: Findings) -> Table:
    unit, power = _unit([row.flops for row in findings.ranked])
    base = next((row.flops for row in findings.ranked if row.name == study.baseline), None)
    columns = ("recipe", f"training FLOPs, {power}", f"of {study.baseline}'s", "seconds", "parameters")
    rows = []
    for row in findings.ranked:
        with_backbone = row.flops is not None and row.own_flops is not None and row.flops > row.own_flops
        flops = _number(row.flops, "{:,.2f}", unit) + ("\nwith its backbone" if with_backbone else "")
        share = f"{row.flops / base:.2f} ×" if row.flops and base else MISSING
        parameters = _number(row.outcomes[0].parameters if row.outcomes else None, "{:,}")
        rows.append([row.name, flops, share, _number(row.seconds, "{:,.1f}"), parameters])
    return Table(columns, rows)


def _every_run(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for one in outcomes:
        accuracies = [*_measured_cells(one.validation, True), *_measured_cells(one.test, True)]
        rows.append([one.run.name, str(one.recipe.fit.seed), *accuracies, _number(one.seconds, "{:,.1f}")])
    return Table(("run", "seed", "validation", "n", "test", "n", "seconds"), rows)


def _words(study: Study) -> Table | None:
    """Return what the study says of its recipes, and what they start from; None where it says nothing."""
    rows = []
    for variant in (*study.backbones, *study.variants):
        start = "" if variant.backbone is None else f"Starts from the run of {variant.backbone} with the same seed."
        about = " ".join(filter(None, (variant.about, start)))
        rows += [(variant.name, about)] if about else []
    return Table(("recipe", "what it is"), rows, texts=2) if rows else None


def _settings_section(outcomes: Sequence[Outcome], *left_out: str) -> Section:
    differing = settings_that_differ(outcomes, *left_out)
    title = "The settings that differ"
    if not differing:
        return Section(title, table=Table(("setting",), [("none: the recipes are the same",)]))
    columns = ("setting", *(outcome.name for outcome in outcomes))
    about = f"{MISSING}: the recipe has no such setting. All that is not listed is the same."
    return Section(title, about, table=Table(columns, [(name, *values) for name, values in differing], len(columns)))


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return MISSING if value is None else form.format(value if unit == 1 else value / unit)


def _unit(values: Sequence[float | None]) -> tuple[float, str]:
    """Return the largest unit of which the largest value is one or more."""
    top = max((value for value in values if value is not None), default=1.0)
    return next((unit, name) for unit, name in UNITS if top >= unit or unit == 1)


# ── charts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _difference_charts(study: Study, findings: Findings, styles: dict[str, int]) -> list[Chart]:
    charts = []
    for split in SPLITS:
        summaries = [(row.name, summary) for row in findings.ranked if (summary := row.on(split)) is not None]
        lines = [
            Interval(styles[name], name, 100 * one.estimate, 100 * one.low, 100 * one.high)
            for name, summary in summaries
            if (one := summary.difference) is not None
        ]
        if lines:
            svg = draw_intervals(f"Differences on {split}", f"points above {study.baseline}, {split}", lines)
            charts.append(Chart(svg, f"Accuracy on {split} minus that of {study.baseline}, with {_SURE} intervals."))
    return charts


def _cost_charts(groups: Sequence[Group]) -> list[Chart]:
    split = "test" if all(outcome.test for group in groups for outcome in group.outcomes) else "validation"
    unit, power = _unit([outcome.all_flops for group in groups for outcome in group.outcomes])
    costs: list[tuple[str, str, Callable[[Outcome], float | None]]] = [
        ("training FLOPs", f"training FLOPs, {power}", lambda one: one.all_flops and one.all_flops / unit),
        ("seconds", "seconds of training and test", lambda one: one.all_seconds),
    ]
    charts = []
    for name, label, cost in costs:
        means = []
        for group in groups:
            pairs = [(cost(one), getattr(one, split)) for one in group.outcomes]
            runs = [(x, measured.accuracy) for x, measured in pairs if x is not None and measured is not None]
            if runs:
                x, y = np.mean(runs, axis=0).tolist()
                means.append(Point(group.style, x, y, runs))
        if means:
            small = " Small: the runs; large: their means." if any(len(point.runs) > 1 for point in means) else ""
            svg = draw_points(f"Accuracy against {name}", label, f"accuracy, {split}", means)
            charts.append(Chart(svg, f"Accuracy on {split} against {name}.{small}"))
    return charts


def _curve_charts(groups: Sequence[Group]) -> list[Chart]:
    charts = []
    bands = " Bands: from the lowest seed to the highest." if any(len(group.outcomes) > 1 for group in groups) else ""
    for column, title in (("val_acc", "Accuracy on validation"), ("train_loss", "Loss on train")):
        curves = [curve for group in groups if (curve := _curve(group, column)) is not None]
        if curves:
            svg = draw_curves(title, title.lower(), curves)
            charts.append(Chart(svg, f"{title}, by epoch.{bands}"))
    return charts


def _curve(group: Group, column: str) -> Curve | None:
    """Return mean, lowest and highest of a measure over the runs, at every epoch that any of them was measured at."""
    values: dict[int, list[float]] = {}
    for outcome in group.outcomes:
        for epoch, value in outcome.curves[column]:
            values.setdefault(epoch, []).append(value)
    if not values:
        return None
    epochs = sorted(values)
    means, low, high = ([float(of(values[epoch])) for epoch in epochs] for of in (np.mean, np.min, np.max))
    return Curve(group.style, epochs, means, low, high)


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────

_SURE = f"{CONFIDENCE * 100:g}\N{NO-BREAK SPACE}%"
_COUNTED = (
    "Training FLOPs are counted, not timed: the floating-point operations of all convolutions and matrix products of"
    " the forward and backward passes: less where images are shown smaller, where layers are frozen, or where what"
    " they make of an image is kept; and with those of the runs that the weights come from. Not counted: the"
    " optimizer, augmentation, validation and test."
)
_TIMED = (
    "Seconds are those of training, calibration and test on the machine as it was; but for the tables of runs, with"
    " those of the runs that the weights come from."
)


def _about_differences(study: Study, findings: Findings) -> str:
    if not any(findings.comparisons.values()):
        return ""
    return (
        f"All intervals of a chart hold at once with a probability of {_SURE}. Where one holds zero, no difference to"
        f" {study.baseline} is shown, which does not mean that there is none."
    )


def _about_curves(groups: Sequence[Group]) -> str:
    about = "During a training one view of an image is classified."
    if any(outcome.recipe.selects for group in groups for outcome in group.outcomes):
        about += " Where validation chooses, the curve is of the half that does, and flatters."
    return about


def _method(study: Study, findings: Findings) -> list[str]:
    paragraphs = [
        "The recipes are ranked by their mean accuracy on those validation images that chose nothing while training."
        f" After ± stands the standard deviation of one seed, then the {_SURE} interval of the mean (Student's, from"
        " the seeds of this recipe alone). The seed decides first weights, order and augmentation; all runs have the"
        " same images."
    ]
    for split, comparison in findings.comparisons.items():
        if comparison is not None:
            paragraphs.append(
                f"Differences on {split}: paired by seed. An accuracy is taken as recipe + seed + noise, the noise with"
                f" one deviation for all recipes: {points(comparison.deviation, '')} points ({comparison.degrees}"
                f" degrees of freedom). The intervals are Dunnett's for {len(comparison.differences) - 1} comparisons"
                f" with one baseline (critical value {comparison.critical:.3f}): they hold together, so trying more"
                " recipes finds no more by chance. The smallest difference that would be shown with a probability of"
                f" {POWER * 100:g}\N{NO-BREAK SPACE}% is {points(comparison.detectable, '')} points."
            )
    measured = next((row.outcomes[0].test for row in findings.ranked if row.test is not None and row.outcomes), None)
    if measured is not None:
        low, high = measured.interval
        rule = "Wilson's" if measured.groups is None else f"over {measured.groups:,} groups"
        paragraphs.append(
            f"The seeds say what other seeds would bring on these very images, not what other images would: by its"
            f" {measured.n:,} test images alone, a single accuracy such as {measured.accuracy:.4f} is known to"
            f" ±{points((high - low) / 2, '')} points ({_SURE}, {rule})."
        )
    return paragraphs


def _how_counted(outcomes: Sequence[Outcome]) -> list[str]:
    """Return how costs are counted, and which runs were trained on what, as far as they wrote it down."""
    runs = Counter((one.device, _libraries(one)) for one in outcomes if one.device is not None)
    counts = [
        f"{count} run{'s' if count > 1 else ''} on {device}{f', with {libraries}' if libraries else ''}"
        for (device, libraries), count in runs.items()
    ]
    other = " Seconds of one are not those of another." if len({device for device, _ in runs}) > 1 else ""
    return [_COUNTED, _TIMED, *([f"Trained: {'; '.join(counts)}.{other}"] if counts else [])]


def _libraries(outcome: Outcome) -> str:
    return " and ".join(f"{name} {outcome.versions[key]}" for key, name in LIBRARIES if key in outcome.versions)
