"""Events on a terminal: bars and what is running move, all else are lines."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.status import Status

from sightline.display.events import Epoch, Event, Progress, Trial
from sightline.display.lines import Lines, epoch_numbers
from sightline.display.terminal import cell, readable, screen
from sightline.display.waiting import spoken_seconds

__all__ = ["Bars", "drawer"]

WIDTH = 24  # of a bar, in letters


def drawer(*, error: bool) -> Lines:
    """Return what draws events on this process's output, or its standard error, as a terminal or a log wants it."""
    console = screen(error=error)
    return Bars(console) if console.is_terminal else Lines(console)


class Bars(Lines):
    """A listener that draws on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars: dict[str, Bar] = {}
        """By stage; that of an epoch has none."""
        self._trials: dict[int, str] = {}
        self._status: Status | None = None
        self._validation, self._between_epochs = "", False

    def __call__(self, event: Event) -> None:
        if self._between_epochs and not isinstance(event, Epoch):
            self.close()  # the last epoch may have ended, and what follows stands below it
        super().__call__(event)

    def progress(self, event: Progress) -> None:
        """Draw a bar that moves, until it is known how much there is to do; it leaves nothing behind."""
        if event.ended:
            self._bars.pop(event.stage).stop()
        else:
            bar = self._bar(event.stage, MofNCompleteColumn(), TimeRemainingColumn(), transient=True)
            bar.update(bar.task_ids[0], completed=event.done, total=event.total)

    def epoch(self, event: Epoch) -> None:
        """Draw the bar of an epoch, with the last validation behind its numbers."""
        text, self._between_epochs = epoch_numbers(event.metrics), event.ended
        if "val_loss" in event.metrics:
            self._validation = "  " + epoch_numbers(event.metrics, ("val",))
        if not event.ended:
            text += f"{self._validation}  rate {event.learning_rate:.3g}  {event.images_per_second:,.0f} images/s"
            text += f"  {spoken_seconds(event.seconds_left)} left"
        bar = self._bar("", TextColumn("{task.fields[text]}", markup=False))
        name = f"epoch {event.epoch}/{event.epochs}"
        bar.update(bar.task_ids[0], description=name, completed=event.done, total=event.total, text=text)

    def trial(self, event: Trial) -> None:
        """Print trials that have ended; what is running stands below them."""
        super().trial(event)
        self._trials.pop(event.number, None)
        if event.state == "running":
            self._trials[event.number] = f"trial {event.number}: {event.text}"
        if self._status is None:
            self._status = self.console.status("")
            self._status.start()
        self._status.update(cell("   ".join(self._trials.values())))

    def close(self) -> None:
        """Let nothing move any more."""
        while self._bars:
            self._bars.popitem()[1].stop()
        if self._status is not None:
            self._status.stop()
        self._between_epochs = False

    def _bar(self, key: str, *columns: ProgressColumn, transient: bool = False) -> Bar:
        """Return the bar of a stage, which is started where there is none."""
        if key not in self._bars:
            name, bar = TextColumn("{task.description}", markup=False), BarColumn(bar_width=WIDTH)
            self._bars[key] = Bar(name, bar, *columns, console=self.console, transient=transient)
            self._bars[key].add_task(readable(key), total=None, text="")
            self._bars[key].start()
        return self._bars[key]
