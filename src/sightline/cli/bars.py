"""Events on a terminal: bars and what is running now move, all else are lines."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.status import Status

from sightline.display.events import Epoch, Event, Progress, TrainingEnded, Trial
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
    """A listener that draws on a terminal; one thing moves at a time."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars: dict[str, Bar] = {}
        self._epochs: Bar | None = None
        self._status: Status | None = None
        self._validation = ""
        self._running: dict[int, str] = {}

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, TrainingEnded):
            self.close()

    def progress(self, event: Progress) -> None:
        """Draw a bar that moves, until it is known how much there is to do; it leaves nothing behind."""
        if event.ended:
            self._bars.pop(event.stage).stop()
            return
        if event.stage not in self._bars:
            text = TextColumn("{task.description}", markup=False)
            columns = text, BarColumn(bar_width=WIDTH), MofNCompleteColumn(), TimeRemainingColumn()
            bar = self._bars[event.stage] = Bar(*columns, console=self.console, transient=True)
            bar.add_task(readable(event.stage), total=None)
            bar.start()
        self._bars[event.stage].update(self._bars[event.stage].task_ids[0], completed=event.done, total=event.total)

    def epoch(self, event: Epoch) -> None:
        """Draw the bar of an epoch, with the last validation behind its numbers."""
        if self._epochs is None:
            name, numbers = (TextColumn(f"{{task.{what}}}", markup=False) for what in ("description", "fields[text]"))
            self._epochs = Bar(name, BarColumn(bar_width=WIDTH), numbers, console=self.console)
            self._epochs.add_task("", text="")
            self._epochs.start()
        text = epoch_numbers(event.metrics)
        if "val_loss" in event.metrics:
            self._validation = "  " + epoch_numbers(event.metrics, ("val",))
        if not event.ended:
            text += f"{self._validation}  rate {event.learning_rate:.3g}  {event.images_per_second:,.0f} images/s"
            text += f"  {spoken_seconds(event.seconds_left)} left"
        self._epochs.update(
            self._epochs.task_ids[0],
            description=f"epoch {event.epoch}/{event.epochs}",
            completed=event.done,
            total=event.total,
            text=text,
        )

    def trial(self, event: Trial) -> None:
        """Print trials that have ended; what is running stands below them."""
        super().trial(event)
        if event.state == "running":
            self._running[event.number] = f"trial {event.number}: {event.text}"
        else:
            self._running.pop(event.number, None)
        if not self._running:
            self.close()
            return
        if self._status is None:
            self._status = self.console.status("")
            self._status.start()
        self._status.update(cell("   ".join(self._running.values())))

    def close(self) -> None:
        """Let nothing move any more."""
        for bar in (*self._bars.values(), self._epochs, self._status):
            if bar is not None:
                bar.stop()
        self._bars, self._epochs, self._status = {}, None, None
