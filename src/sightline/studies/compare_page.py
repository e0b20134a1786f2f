"""A comparison as tables, charts and rows of CSV. Texts only; what is written where is decided in ``comparing``."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sightline.config.studies import Study
from sightline.display.charts import Curve, Interval, Point, draw_curves, draw_intervals, draw_points, draw_swatch
from sightline.display.pages import Chart, Page, Section, Table
from sightline.measures.significance import CONFIDENCE, POWER
from sightline.runs.outcomes import MISSING, Measured, Outcome, settings_that_differ
from sightline.studies.findings import SPLITS, Findings, Summary, points, verdict

__all__ = [
    "OF_SEEDS",
    "Group",
    "ranking_table",
    "runs_page",
    "runs_table",
    "study_page",
]

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


def study_page(study: Study, found: Findings, outcomes: Sequence[Outcome]) -> Page:
    """The page of a study.

    Args:
        outcomes: of all finished runs, for the table of runs.
    """
    styles = {variant.name: style for style, variant in enumerate(study.variants)}
    groups = [Group(row.name, styles[row.name], row.outcomes) for row in found.ranked if row.outcomes]
    sections = [
        Section("Ranking, by validation", table=ranking_table(study, found)),
        Section("Differences", _about_differences(study, found), charts=_difference_charts(study, found, styles)),
        Section("What it cost", table=_cost_table(study, found)),
        Section("Accuracy against cost", charts=_cost_charts(groups)),
        Section("Learning curves", _about_curves(groups), charts=_curve_charts(groups)),
        Section("The recipes in words", table=_words(study)),
        _settings_section([group.outcomes[0] for group in groups], *OF_SEEDS),
        Section("Every run", table=_every_run(outcomes), folded=len(outcomes) > LONG),
    ]
    return Page(
        title=f"Study: {study.name}",
        about=study.about,
        lead=found.lead,
        warnings=found.warnings,
        legend=[(group.name, draw_swatch(group.style)) for group in groups],
        sections=[section for section in sections if section.table or section.charts],
        method=[*_method(study, found), _COUNTED, _TIMED, *_trained_on(outcomes)],
    )


def runs_page(outcomes: Sequence[Outcome], lead: Sequence[str], warnings: Sequence[str]) -> Page:
    """The page of runs side by side, in their order."""
    groups = [Group(outcome.name, style, [outcome]) for style, outcome in enumerate(outcomes)]
    sections = [
        Section("Results", table=runs_table(outcomes)),
        _settings_section(outcomes),
        Section("Learning curves", _about_curves(groups), charts=_curve_charts(groups)),
        Section("Accuracy against cost", charts=_cost_charts(groups)),
    ]
    return Page(
        title=f"{len(outcomes)} runs side by side",
        about="",
        lead=lead,
        warnings=warnings,
        legend=[(group.name, draw_swatch(group.style)) for group in groups],
        sections=[section for section in sections if section.table or section.charts],
        method=(_COUNTED, _TIMED, *_trained_on(outcomes)),
    )


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def ranking_table(study: Study, found: Findings, *, brief: bool = False) -> Table:
    """Recipes by their mean on validation, each with its difference to the baseline on both splits; brief in lines of 80."""
    against = f"against {study.baseline}, points"
    cells = _brief_cells if brief else _ranked_cells
    rows = [
        [row.name, *(cell for split in SPLITS for cell in cells(getattr(row, split), row.name == study.baseline))]
        for row in found.ranked
    ]
    return Table(("recipe", "validation", against, "test", against), rows)


def runs_table(outcomes: Sequence[Outcome], *, brief: bool = False) -> Table:
    """A line a run; brief without intervals and images."""
    unit, power = _unit([outcome.all_flops for outcome in outcomes])
    columns = ["run", "test", "n", "validation", "n", "seconds", "parameters"]
    rows = []
    for outcome in outcomes:
        accuracies = [*_measured_cells(outcome.test), *_measured_cells(outcome.validation)]
        costs = [
            _number(outcome.seconds, "{:,.1f}"),
            _number(outcome.parameters, "{:,}"),
        ]
        if brief:
            rows.append([outcome.name, *(cell.split("\n")[0] for cell in accuracies), *costs])
            continue
        images = f"{outcome.image_set}\nseed {outcome.recipe.fit.seed}"
        rows.append([outcome.name, *accuracies, *costs, _number(outcome.all_flops, "{:,.2f}", unit), images])
    return Table(columns if brief else [*columns, f"training FLOPs, {power}", "images"], rows)


def _brief_cells(summary: Summary | None, baseline: bool) -> list[str]:
    if summary is None:
        return [MISSING, MISSING]
    difference = summary.difference
    if difference is None:
        return [f"{summary.mean:.4f}", "baseline" if baseline else MISSING]
    spread = f"{points(difference.low)} to {points(difference.high)}"
    return [f"{summary.mean:.4f}", f"{points(difference.estimate)}\n{spread}"]


def _ranked_cells(summary: Summary | None, baseline: bool) -> list[str]:
    if summary is None:
        return [MISSING, MISSING]
    mean = f"{summary.mean:.4f}"
    if summary.deviation is not None:
        mean += f" ± {summary.deviation:.4f}"
    if summary.interval is not None:
        mean += f"\n{summary.interval[0]:.4f} to {summary.interval[1]:.4f}"
    difference = summary.difference
    if difference is None:
        return [mean, "baseline" if baseline else MISSING]
    spread = f"{points(difference.low)} to {points(difference.high)}"
    return [mean, f"{points(difference.estimate)}\n{spread}\n{verdict(difference)}"]


def _measured_cells(measured: Measured | None) -> list[str]:
    if measured is None:
        return [MISSING, MISSING]
    low, high = measured.interval
    return [f"{measured.accuracy:.4f}\n{low:.4f} to {high:.4f}", f"{measured.n:,}"]


def _cost_table(study: Study, found: Findings) -> Table:
    unit, power = _unit([row.flops for row in found.ranked])
    base = next((row.flops for row in found.ranked if row.name == study.baseline), None)
    rows = []
    for row in found.ranked:
        with_backbone = row.flops is not None and row.own_flops is not None and row.flops > row.own_flops
        rows.append(
            [
                row.name,
                _number(row.flops, "{:,.2f}", unit) + ("\nwith its backbone" if with_backbone else ""),
                f"{row.flops / base:.2f} ×" if row.flops and base else MISSING,
                _number(row.seconds, "{:,.1f}"),
                _number(row.outcomes[0].parameters if row.outcomes else None, "{:,}"),
            ]
        )
    columns = ("recipe", f"training FLOPs, {power}", f"of {study.baseline}'s", "seconds", "parameters")
    return Table(columns, rows)


def _every_run(outcomes: Sequence[Outcome]) -> Table:
    columns = ("run", "seed", "validation", "n", "test", "n", "seconds")
    rows = [
        [
            outcome.run.name,
            str(outcome.recipe.fit.seed),
            *(cell.split("\n")[0] for cell in _measured_cells(outcome.validation)),
            *(cell.split("\n")[0] for cell in _measured_cells(outcome.test)),
            _number(outcome.seconds, "{:,.1f}"),
        ]
        for outcome in outcomes
    ]
    return Table(columns, rows)


def _words(study: Study) -> Table | None:
    """What the study says of its recipes, and what they start from; None where it says nothing."""
    rows = []
    for variant in (*study.backbones, *study.variants):
        start = "" if variant.backbone is None else f"Starts from the run of {variant.backbone} with the same seed."
        told = " ".join(filter(None, (variant.about, start)))
        rows += [(variant.name, told)] if told else []
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
    """The largest unit of which the largest value is one or more."""
    top = max((value for value in values if value is not None), default=1.0)
    return next((unit, name) for unit, name in UNITS if top >= unit or unit == 1)


# ── charts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _difference_charts(study: Study, found: Findings, styles: dict[str, int]) -> list[Chart]:
    charts = []
    for split in SPLITS:
        lines = []
        for row in found.ranked:
            summary: Summary | None = getattr(row, split)
            if summary is not None and summary.difference is not None:
                one = summary.difference
                lines.append(Interval(styles[row.name], row.name, 100 * one.estimate, 100 * one.low, 100 * one.high))
        if lines:
            svg = draw_intervals(f"Differences on {split}", f"points above {study.baseline}, {split}", lines)
            charts.append(Chart(svg, f"Accuracy on {split} minus that of {study.baseline}, with {_sure()} intervals."))
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
        found = []
        for group in groups:
            pairs = [(cost(one), getattr(one, split)) for one in group.outcomes]
            runs = [(x, measured.accuracy) for x, measured in pairs if x is not None and measured is not None]
            if runs:
                x, y = np.mean(runs, axis=0).tolist()
                found.append(Point(group.style, x, y, runs))
        if found:
            small = " Small: the runs; large: their means." if any(len(point.runs) > 1 for point in found) else ""
            svg = draw_points(f"Accuracy against {name}", label, f"accuracy, {split}", found)
            charts.append(Chart(svg, f"Accuracy on {split} against {name}.{small}"))
    return charts


def _curve_charts(groups: Sequence[Group]) -> list[Chart]:
    charts = []
    bands = " Bands: from the lowest seed to the highest." if any(len(group.outcomes) > 1 for group in groups) else ""
    for column, told in (("val_acc", "Accuracy on validation"), ("train_loss", "Loss on train")):
        curves = [curve for group in groups if (curve := _curve(group, column)) is not None]
        if curves:
            svg = draw_curves(told, told.lower(), curves)
            charts.append(Chart(svg, f"{told}, by epoch.{bands}"))
    return charts


def _curve(group: Group, column: str) -> Curve | None:
    """Mean, lowest and highest of a measure over the runs, at every epoch that any of them was measured at."""
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

_COUNTED = (
    "Training FLOPs are counted, not timed: the floating-point operations of all convolutions and matrix products of the"
    " forward and backward passes: less where images are shown smaller, where layers are frozen, or where what they make of"
    " an image is kept; and with those of the runs that the weights come from. Not counted: the optimizer, augmentation,"
    " validation and test."
)
_TIMED = (
    "Seconds are those of training, calibration and test on the machine as it was; but for the tables of runs, with those of the"
    " runs that the weights come from."
)


def _sure() -> str:
    return f"{CONFIDENCE * 100:g}\N{NO-BREAK SPACE}%"


def _about_differences(study: Study, found: Findings) -> str:
    if not any(found.comparisons.values()):
        return ""
    return (
        f"All intervals of a chart hold at once with a probability of {_sure()}. Where one holds zero, no difference to"
        f" {study.baseline} is shown, which does not mean that there is none."
    )


def _about_curves(groups: Sequence[Group]) -> str:
    if any(outcome.recipe.selects for group in groups for outcome in group.outcomes):
        return (
            "During a training one view of an image is classified. Where validation chooses, the curve is of the half that"
            " does, and flatters."
        )
    return "During a training one view of an image is classified."


def _method(study: Study, found: Findings) -> list[str]:
    paragraphs = [
        "The recipes are ranked by their mean accuracy on those validation images that chose nothing while training. After ±"
        f" stands the standard deviation of one seed, then the {_sure()} interval of the mean (Student's, from the seeds"
        " of this recipe alone). The seed decides first weights, order and augmentation; all runs have the same images."
    ]
    for split, comparison in found.comparisons.items():
        if comparison is not None:
            paragraphs.append(
                f"Differences on {split}: paired by seed. An accuracy is taken as recipe + seed + noise, the noise with one"
                f" deviation for all recipes: {points(comparison.deviation, '')} points ({comparison.degrees} degrees of"
                f" freedom). The intervals are Dunnett's for {len(comparison.differences) - 1} comparisons with one baseline"
                f" (critical value {comparison.critical:.3f}): they hold together, so trying more recipes finds no more by"
                f" chance. The smallest difference that would be shown with a probability of {POWER * 100:g}\N{NO-BREAK SPACE}% is"
                f" {points(comparison.detectable, '')} points."
            )
    tested = [row for row in found.ranked if row.test is not None and row.outcomes and row.outcomes[0].test is not None]
    if tested:
        measured = tested[0].outcomes[0].test
        assert measured is not None
        low, high = measured.interval
        paragraphs.append(
            f"The seeds say what other seeds would bring on these very images, not what other images would: by its"
            f" {measured.n:,} test images alone, a single accuracy such as {measured.accuracy:.4f} is known to"
            f" ±{points((high - low) / 2, '')} points ({_sure()}, Wilson's)."
        )
    return paragraphs


def _trained_on(outcomes: Sequence[Outcome]) -> list[str]:
    """Which runs were trained on what, with which versions; nothing where no run wrote it down."""
    runs = Counter((one.device, _libraries(one)) for one in outcomes if one.device is not None)
    if not runs:
        return []
    told = [
        f"{count} run{'s' if count > 1 else ''} on {device}{f', with {libraries}' if libraries else ''}"
        for (device, libraries), count in runs.items()
    ]
    other = " Seconds of one are not those of another." if len({device for device, _ in runs}) > 1 else ""
    return [f"Trained: {'; '.join(told)}.{other}"]


def _libraries(outcome: Outcome) -> str:
    return " and ".join(f"{name} {outcome.versions[key]}" for key, name in LIBRARIES if key in outcome.versions)
