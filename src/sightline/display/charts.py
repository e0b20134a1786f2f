"""Charts for pages, drawn by matplotlib as SVG within HTML: narrow enough for a phone, with text that stays text."""

import html
import io
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Bins",
    "Curve",
    "Interval",
    "Point",
    "draw_curves",
    "draw_intervals",
    "draw_points",
    "draw_reliability",
    "draw_swatch",
]

WIDTH = 360  # CSS pixels: of a phone, where letters are shown at their size; elsewhere a page may enlarge all of it
DPI = 96  # CSS pixels an inch
LETTERS = 8.5  # points
LETTERS_A_LINE = 20  # of a name beside a chart
MARGINS = {"left": 74, "right": 8, "bottom": 42, "top": 8}  # CSS pixels around a chart whose numbers are short
INK, GRID, BACK = "#1a1a1a", "#d8d8d8", "#ffffff"
# Okabe and Ito's colors, which people tell apart however they see colors, but for the yellow, too pale on white
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1a1a1a")
# A page may draw in other colors, for the dark: of the names in look.css; where it names none, in these
NAMED = {color: f"--chart-{place}" for place, color in enumerate(COLORS)}
NAMED |= {INK: "--chart-ink", GRID: "--chart-grid", BACK: "--chart-back"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
LINES = ("-", "--", ":")
STYLE: dict[Any, Any] = {
    "font.size": LETTERS,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True)
class Curve:
    """A measure over epochs, with the spread over seeds."""

    style: int
    epochs: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] = ()
    """Empty, as ``high``, where there is no spread."""
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval, on a line of its own."""

    style: int
    name: str
    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A recipe at its cost and its accuracy, and each of its runs."""

    style: int
    x: float
    y: float
    runs: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bins:
    """Answers by their confidence: how sure they were, how many of them were right, with an interval."""

    style: int
    confidence: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def draw_curves(
    title: str, unit: str, curves: Sequence[Curve], over: str = "epoch", *, logarithmic: bool = False
) -> str:
    """Draw measures over epochs: lines, and where there are several seeds bands from the lowest to the highest.

    Args:
        title: what is shown, for those who do not see it; also makes the names within the SVG unlike others'.
        unit: of the values.
        over: what is counted along the axis where it is not epochs.
        logarithmic: equal factors of the values are equally far apart; for those that fall by much, and are above 0.
    Returns:
        An ``<svg>`` element.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    def draw(axes: "Axes") -> None:
        for curve in curves:
            look = _look(curve.style)
            alone = len(curve.epochs) == 1
            axes.plot(curve.epochs, curve.values, **look | ({} if alone else {"marker": "", "linewidth": 1.6}))
            if any(low < high for low, high in zip(curve.low, curve.high, strict=True)):
                if alone:
                    axes.vlines(curve.epochs, curve.low, curve.high, colors=look["color"], linewidth=1.2)
                else:
                    axes.fill_between(curve.epochs, curve.low, curve.high, color=look["color"], alpha=0.14, linewidth=0)
        axes.set_xlabel(over)
        axes.set_ylabel(unit)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return _drawn(title, 240, draw, MARGINS)


def draw_intervals(title: str, unit: str, intervals: Sequence[Interval]) -> str:
    """Draw estimates with their intervals, a line each from the top, and a line at zero.

    Returns:
        An ``<svg>`` element.
    """

    def draw(axes: "Axes") -> None:
        axes.axvline(0, color=INK, linewidth=0.9)
        for line, one in enumerate(intervals):
            look = _look(one.style)
            axes.hlines(line, one.low, one.high, colors=look["color"], linewidth=1.8)
            axes.plot([one.estimate], [line], **look)
        axes.set_ylim(len(intervals) - 0.4, -0.6)
        axes.set_yticks(range(len(intervals)), [_lines(one.name) for one in intervals], parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(unit)

    return _drawn(title, 70 + 30 * len(intervals), draw)


def draw_points(title: str, x_unit: str, y_unit: str, points: Sequence[Point]) -> str:
    """Draw accuracy against a cost: each recipe's mean, and small its runs.

    Returns:
        An ``<svg>`` element.
    """

    def draw(axes: "Axes") -> None:
        for point in points:
            look = _look(point.style)
            if len(point.runs) > 1:
                axes.plot(*zip(*point.runs, strict=True), **look | {"markersize": 3, "alpha": 0.4, "linestyle": ""})
        for point in points:
            axes.plot([point.x], [point.y], **_look(point.style) | {"markersize": 8, "markeredgecolor": BACK})
        axes.set_xlim(left=0, right=1.06 * max(max([x for x, _ in point.runs] + [point.x]) for point in points))
        axes.set_xlabel(x_unit)
        axes.set_ylabel(y_unit)

    return _drawn(title, 240, draw)


def draw_reliability(title: str, answers: Sequence[Bins]) -> str:
    """Draw how often answers of a confidence are right, with intervals, and the line on which both are the same.

    Returns:
        An ``<svg>`` element.
    """

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.9)
        for bins in reversed(answers):  # the first above the others
            look = _look(bins.style)
            axes.vlines(bins.confidence, bins.low, bins.high, colors=look["color"], linewidth=1.2)
            axes.plot(bins.confidence, bins.accuracy, **look | {"linestyle": "", "markersize": 5})
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("confidence: probability of the answer")
        axes.set_ylabel("share of right answers")

    return _drawn(title, 320, draw, MARGINS)


@cache
def draw_swatch(style: int, legend: str = "") -> str:
    """Draw the line and the marker of a recipe, for a legend.

    Args:
        style: of both.
        legend: which of several on a page, so that names within the SVG are unlike another's.
    Returns:
        An ``<svg>`` element of 34 × 14 pixels.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(34 / DPI, 14 / DPI), dpi=DPI)
    figure.patch.set_visible(False)
    figure.add_artist(Line2D([0, 0.5, 1], [0.5] * 3, **_look(style) | {"markevery": [1], "linewidth": 1.6}))
    return _svg(figure, f"swatch-{legend}{style}", "")


def _look(style: int) -> dict[str, Any]:
    """Choose color, marker and line of a style; the first ten differ in marker, all of 70 in marker or color."""
    return {
        "color": COLORS[style % len(COLORS)],
        "marker": MARKERS[style % len(MARKERS)],
        "linestyle": LINES[style // len(COLORS) % len(LINES)],
        "markersize": 6,
    }


def _drawn(title: str, height: int, draw: Callable[["Axes"], None], margins: Mapping[str, int] | None = None) -> str:
    """Draw a chart; without margins those are measured, which takes as long as drawing it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, layout="constrained" if margins is None else None)
        if margins is not None:
            left, bottom = margins["left"] / WIDTH, margins["bottom"] / height
            figure.subplots_adjust(left, bottom, 1 - margins["right"] / WIDTH, 1 - margins["top"] / height)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        return _svg(figure, re.sub(r"\W+", "-", title).strip("-").lower(), title)


def _svg(figure: "Figure", name: str, title: str) -> str:
    """Write a figure as an element for HTML, with names of its own, and the page's letters and colors."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(file)  # type: ignore[no-untyped-call]
    text = file.getvalue()
    text = text[text.index(">", text.index("<svg")) + 1 :]  # its own head names files and has a size in points
    text = re.sub(
        r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*|font-family: [^;\"]*;? ?", "", text, flags=re.DOTALL
    )
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda color: f"var({NAMED[color[0]]}, {color[0]})", text)
    width, height = figure.get_size_inches()
    role = f'role="img" aria-label="{html.escape(title)}"' if title else 'aria-hidden="true"'
    return f'<svg {role} width="{width * DPI:.0f}" viewBox="0 0 {width * 72:g} {height * 72:g}">{text}'


def _lines(name: str) -> str:
    """Break a name into two lines at most."""
    lines = textwrap.wrap(name, LETTERS_A_LINE) or [name]
    if len(lines) > 2:
        lines = [lines[0], f"{lines[1][: LETTERS_A_LINE - 1]}…"]
    return "\n".join(lines)
