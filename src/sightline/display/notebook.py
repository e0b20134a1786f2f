"""Events, and what a verb returned, in the cell of a notebook: bars and one table of epochs that change in place.

IPython's own display is enough: Jupyter, Colab and editors show it without an extension, and what is kept with the
notebook is how each ended.
"""

import html
import io
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from sightline.display.events import Epoch, Event, Measured, Progress, Serving, Table
from sightline.display.lines import Lines, drawn_table, epoch_numbers, tables_of_measures
from sightline.display.terminal import show
from sightline.display.waiting import spoken_seconds

__all__ = ["Notebook", "show_in_cell"]

WIDTH = 110  # letters of a line
LETS_PASS = 0.5  # seconds that a stage which mostly ends at once goes undrawn
REDRAW = 0.2  # seconds between two states of a bar
LARGE = 100_000  # bytes of a picture
MOST_ROWS = 20  # of the table of epochs; with more of them it shows every n-th
NUMBERS = (("train_loss", ".3f"), ("train_acc", ".3f"), ("val_loss", ".3f"), ("val_acc", ".3f"))
PICTURES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg"}


def show_in_cell(*parts: str | Table | Path) -> None:
    """Show parts of a result below each other: sentences, tables, and the files of pictures."""
    for part in parts:
        if isinstance(part, str):
            show(part, _console())
        elif isinstance(part, Table):
            _Place().draw(_html_of(part), _text_of(part))
        else:
            kind, content = _picture(part)
            _display({kind: content, "text/plain": f"<{part}>"})


def _picture(path: Path) -> tuple[str, bytes]:
    """Return the kind and the bytes of a picture; of a large one a JPEG, since all that is shown is in the notebook."""
    content = path.read_bytes()
    if path.suffix.lower() == ".png" and len(content) > LARGE:
        file = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(file, "JPEG", quality=85)
        return "image/jpeg", file.getvalue()
    return PICTURES[path.suffix.lower()], content


class Notebook(Lines):
    """A listener that draws in the cell that is running."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(_console(), clock)
        # tqdm, which other libraries load, misses widgets for bars that are never drawn here
        warnings.filterwarnings("ignore", "IProgress not found")
        self._bars: dict[str, _Bar] = {}
        self._epochs: _Epochs | None = None

    def __call__(self, event: Event) -> None:
        if self._epochs is not None and not isinstance(event, Epoch):
            self._epochs.rest()  # the last epoch may have ended
        match event:
            case Measured(measures):
                show_in_cell(*tables_of_measures(measures))
            case Table():
                show_in_cell(event)
            case Serving(address, about):
                show(about, self.console)
                show(f"{address}  (interrupting the cell ends it)", self.console)
            case _:
                super().__call__(event)

    def progress(self, event: Progress) -> None:
        """Draw a bar, which becomes a line once the stage has ended."""
        if event.ended:
            self._bars.pop(event.stage).end()
        elif event.stage not in self._bars:
            self._bars[event.stage] = _Bar(event.stage, event.brief, self._clock)
        else:
            self._bars[event.stage].note(event.done, event.total)

    def epoch(self, event: Epoch) -> None:
        """Draw the table of the epochs so far, with a bar for the one that is running."""
        if self._epochs is None or not self._epochs.goes_on(event):
            self._epochs = _Epochs()
        self._epochs.note(event)

    def close(self) -> None:
        """Let nothing move any more."""
        while self._bars:
            self._bars.popitem()[1].end()
        if self._epochs is not None:
            self._epochs.rest()


class _Bar:
    """Shows how far a stage of work is."""

    def __init__(self, stage: str, brief: bool, clock: Callable[[], float]) -> None:
        self._stage, self._clock, self._started = stage, clock, clock()
        self._place = _Place()
        self._drawn: float | None = None  # when
        if not brief:
            self._draw("<progress></progress>", "")

    def note(self, done: int, total: int | None) -> None:
        """Draw how much is done, unless that was drawn just now."""
        now = self._clock()
        if now < (self._started + LETS_PASS if self._drawn is None else self._drawn + REDRAW):
            return
        if total is None:
            return self._draw("<progress></progress>", "")
        left = (now - self._started) / done * (total - done) if done else 0.0
        after = f"{done:,} of {total:,}" + (f", {spoken_seconds(left)} left" if done else "")
        self._draw(f'<progress value="{done}" max="{total}"></progress>', after)

    def end(self) -> None:
        """Leave how long it took, where there was a bar."""
        if self._drawn is not None:
            self._draw("", spoken_seconds(self._clock() - self._started))

    def _draw(self, bar: str, after: str) -> None:
        self._drawn = self._clock()
        text = ": ".join(filter(None, (self._stage, after)))
        self._place.draw(f"<div>{bar} {html.escape(text)}</div>", text)


class _Epochs:
    """The epochs of one training, as a table that grows."""

    def __init__(self) -> None:
        self._place = _Place()
        self._ended: list[Epoch] = []
        self._running: Epoch | None = None

    def goes_on(self, event: Epoch) -> bool:
        """Tell whether an event is of the same training."""
        last = self._running or self._ended[-1]
        return event.epochs == last.epochs and event.epoch >= last.epoch and event.epoch > self._last_ended

    @property
    def _last_ended(self) -> int:
        return self._ended[-1].epoch if self._ended else 0

    def note(self, event: Epoch) -> None:
        """Add an epoch that has ended, or show how far it is."""
        self._running = None if event.ended else event
        if event.ended:
            self._ended.append(event)
        self._draw()

    def rest(self) -> None:
        """Take the bar away."""
        if self._running is not None:
            self._running = None
            self._draw()

    def _draw(self) -> None:
        running, parts, texts = self._running, [], []
        if self._ended:
            table = self._table()
            parts, texts = [_html_of(table)], [_text_of(table)]
        if running is not None:
            texts.append(
                f"epoch {running.epoch}/{running.epochs}  {epoch_numbers(running.metrics)}"
                f"  {running.images_per_second:,.0f} images/s  {spoken_seconds(running.seconds_left)} left"
            )
            bar = f'<progress value="{running.done}" max="{running.total}"></progress>'
            parts.append(f"<div>{bar} {html.escape(texts[-1])}</div>")
        self._place.draw("".join(parts) or "<div></div>", "\n".join(texts))

    def _table(self) -> Table:
        """Return the epochs that have ended, the last always, and of many every n-th."""
        every = -(-self._ended[-1].epochs // MOST_ROWS)
        shown = [one for one in self._ended if one.epoch % every == 0 or one is self._ended[-1]]
        measures = [(key, form) for key, form in NUMBERS if any(key in one.metrics for one in shown)]
        rows = [
            [
                f"{one.epoch}/{one.epochs}",
                *(format(one.metrics[key], form) if key in one.metrics else "" for key, form in measures),
                f"{one.learning_rate:.3g}",
                f"{one.images_per_second:,.0f}",
            ]
            for one in shown
        ]
        columns = ["epoch", *(key.replace("_", " ") for key, _ in measures), "rate", "images/s"]
        return Table(columns, rows, title="" if every == 1 else f"every {every}th epoch; all stand in metrics.csv")


class _Place:
    """An output of a cell that is drawn anew in its place."""

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, markup: str, text: str) -> None:
        """Draw, or draw anew; the text is for who shows no HTML."""
        bundle = {"text/html": markup, "text/plain": text}
        if self._handle is None:
            self._handle = _display(bundle, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _display(bundle: dict[str, Any], **options: Any) -> Any:
    from IPython.display import display

    return display(bundle, raw=True, **options)  # type: ignore[no-untyped-call]


def _console(file: io.StringIO | None = None) -> Console:
    """Open a console that prints plain lines; the bars of rich need a package of their own in a notebook."""
    return Console(file=file, force_terminal=False, force_jupyter=False, width=WIDTH)


def _text_of(table: Table) -> str:
    file = io.StringIO()
    show(drawn_table(table), _console(file))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")


def _html_of(table: Table) -> str:
    """Write a table; words stand left and numbers right, and what follows the first line of a cell is small."""
    sides = ["left" if index < table.texts else "right" for index in range(len(table.columns))]

    def row(cells: Iterable[object], tag: str) -> str:
        filled = "".join(
            f'<{tag} style="text-align:{side};vertical-align:top">{_cell(str(content))}</{tag}>'
            for content, side in zip(cells, sides, strict=True)
        )
        return f"<tr>{filled}</tr>"

    head = f"<thead>{row(table.columns, 'th')}</thead>" if any(table.columns) else ""
    body = "".join(row(cells, "td") for cells in table.rows)
    title = f"<div><b>{html.escape(table.title)}</b></div>" if table.title else ""
    return f"<div>{title}<table>{head}<tbody>{body}</tbody></table></div>"


def _cell(content: str) -> str:
    indent = len(content) - len(content.lstrip(" "))
    first, *others = html.escape(content.lstrip(" ")).split("\n")
    return "&nbsp;" * indent + first + "".join(f"<br><small>{line}</small>" for line in others)
