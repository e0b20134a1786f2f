"""Events as the lines and tables of a log or of a notebook."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import rich.table
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding

from sightline.display.events import Epoch, Event, Measured, Progress, Serving, Table, Trial
from sightline.display.terminal import NARROW, cell, natural_order, screen, show
from sightline.display.waiting import Waiting, spoken_seconds

__all__ = ["Lines", "drawn_table", "epoch_numbers", "tables_of_measures"]

PATIENCE = 10.0  # seconds before a log hears of a verb that mostly answers, or refuses, at once
VIEWS = {"one": "one view", "flip": "with the mirror image", "six": "six views", "adaptive": "adaptive views"}
SHOWN_CLASSES = 30
WIDEST = 10_000  # letters a line, in which every table is as wide as it likes


class Lines:
    """A listener that prints events on a console, where nothing moves."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            console: where to; None for this process's own output.
            clock: the time in seconds.
        """
        self.console, self._clock = console or screen(), clock
        self._stages: dict[str, Waiting] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case str():
                show(event, self.console)
            case Progress():
                self.progress(event)
            case Epoch():
                self.epoch(event)
            case Measured(measures):
                for table in tables_of_measures(measures):
                    show(drawn_table(table, self.console), self.console)
            case Table():
                show(drawn_table(event, self.console), self.console)
            case Trial():
                self.trial(event)
            case Serving(address, about, service):
                show(about, self.console)
                programs = f"the service: {address.partition('?')[0]}api; " if service else ""
                show(f"{address}  ({programs}Ctrl-C ends it)", self.console)

    def progress(self, event: Progress) -> None:
        """Print a line when a stage begins, and at times how far it is."""
        if event.ended:
            self._stages.pop(event.stage).end()
        elif event.stage not in self._stages:
            say, patience = partial(show, console=self.console), PATIENCE if event.brief else 0.0
            self._stages[event.stage] = Waiting(event.stage, say, patience=patience, clock=self._clock)
        elif event.total is not None:
            self._stages[event.stage].note(event.done, event.total)

    def epoch(self, event: Epoch) -> None:
        """Print the line of an epoch that has ended."""
        if event.ended:
            show(
                f"epoch {event.epoch}/{event.epochs}  {epoch_numbers(event.metrics)}  rate {event.learning_rate:.3g}"
                f"  {event.images_per_second:,.0f} images/s  {spoken_seconds(event.seconds_left)} left",
                self.console,
            )

    def trial(self, event: Trial) -> None:
        """Print the line of a trial that has ended."""
        if event.state != "running":
            show(f"trial {event.number}/{event.trials}  {event.text}", self.console)

    def close(self) -> None:
        """End whatever is drawn still."""
        while self._stages:
            self._stages.popitem()[1].end()


def drawn_table(table: Table, console: Console | None = None) -> rich.table.Table:
    """Return a table as it is printed on a console; where that is too narrow for it, with its columns one a line."""
    apart = any("\n" in str(content) for row in table.rows for content in row)
    title = cell(table.title) if table.title else None
    drawn = rich.table.Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, int(apart), 0))
    for index, name in enumerate(table.columns):
        drawn.add_column(cell(name), justify="left" if index < table.texts else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(cell, row))
    if console is None or console.width >= NARROW:
        return drawn
    whole = Measurement.get(console, console.options.update(max_width=WIDEST), drawn)
    return drawn if whole.maximum <= console.width else _below_each_other(table)


def _below_each_other(table: Table) -> rich.table.Table:
    """Return a table for a narrow terminal: a row is its first cell, and below it the others with their columns."""
    title = cell(table.title) if table.title else None
    drawn = rich.table.Table(title=title, title_justify="left", box=None, show_header=False, padding=0)
    drawn.add_column(overflow="fold")
    for first, *others in table.rows:
        drawn.add_row(cell(first))
        for name, content in zip(table.columns[1:], others, strict=True):
            text = content if len(others) == 1 else f"{name}: {content}"
            if content != "":
                drawn.add_row(Padding(cell(text), (0, 0, 0, 2)))
    return drawn


def epoch_numbers(metrics: Mapping[str, float], splits: Sequence[str] = ("train", "val")) -> str:
    """Return the losses and accuracies of an epoch, of the splits that were measured."""
    return "  ".join(
        f"{split} loss {metrics[f'{split}_loss']:.3f}"
        + (f" acc {metrics[f'{split}_acc']:.3f}" if f"{split}_acc" in metrics else "")
        for split in splits
        if f"{split}_loss" in metrics
    )


def tables_of_measures(measured: Mapping[str, Any]) -> tuple[Table, Table]:
    """Return the measures of an evaluation as a table, and those of its classes as another."""
    low, high = measured["accuracy_interval"]
    where = f" {measured['split']}" if "split" in measured else ""
    title, rule = f"measured on {measured['n']:,}{where} images", "Wilson"
    if "groups" in measured:
        rule = f"cluster bootstrap, {measured['groups']:,} groups"
    if "folds" in measured:
        title = (
            f"cross-validated on {measured['n']:,} images ({measured['folds']} folds, {measured['repeats']} repeats)"
        )
        rule = "corrected for the overlap of the folds"
    rows = [
        (f"accuracy ({VIEWS[measured['views']]})", f"{measured['accuracy']:.4f}"),
        (f"  95 % interval ({rule})", f"{low:.4f} to {high:.4f}"),
    ]
    if "as_labeled" in measured:
        rows += _as_labeled(measured["as_labeled"])
    if measured["views"] != "one":
        rows.append(("accuracy with one view", f"{measured['accuracy_one_view']:.4f}"))
    if "passes" in measured:
        rows.append(("views of an image, on average", f"{measured['passes']:.2f}"))
    if "top_5_accuracy" in measured:
        rows.append(("top-5 accuracy", f"{measured['top_5_accuracy']:.4f}"))
    rows.append(("loss", f"{measured['loss']:.4f}"))
    rows.append(("calibration error (15 bins)", f"{measured['calibration_error']:.4f}"))
    if "classwise_calibration_error" in measured:
        rows.append(("  over all classes", f"{measured['classwise_calibration_error']:.4f}"))
    rows.append(("  before temperature scaling", f"{measured['calibration_error_unscaled']:.4f}"))
    for coverage, sets in measured.get("sets", {}).items():
        held = f"{sets['coverage']:.4f}, with {sets['mean_size']:.2f} classes"
        rows.append((f"prediction sets for {float(coverage):.0%}: hold the true class", held))
    if "unknown_share" in measured:
        rows.append(("called none of the classes", f"{measured['unknown_share']:.4f}"))
    if "arithmetic" in measured:
        rows.append(("number format of the answers", measured["arithmetic"]))
    if "cost" in measured:
        seconds = measured["cost"]["fit_seconds"] + measured["cost"]["evaluation_seconds"]
        rows.append(("seconds of training and test", f"{seconds:.1f}"))
    classes = [
        (name, row["n"], *("–" if row[key] is None else f"{row[key]:.3f}" for key in ("precision", "recall", "f1")))
        for name in natural_order(measured["classes"])[:SHOWN_CLASSES]
        for row in [measured["classes"][name]]
    ]
    by_class = Table(("class", "n", "precision", "recall", "F1"), classes, title="by class")
    return Table(("measure", "value"), rows, title=title), by_class


def _as_labeled(beside: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the accuracy by the labels that the set came with, below the one by corrected labels."""
    low, high = beside["accuracy_interval"]
    return [
        (f"accuracy as labeled ({beside['n']:,} images)", f"{beside['accuracy']:.4f}"),
        ("  95 % interval", f"{low:.4f} to {high:.4f}"),
        ("labels corrected, images left out", f"{beside['corrected']:,}, {beside['left_out']:,}"),
    ]
