"""Review the suspects of a check: look at each image, and decide which label it should have."""

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from sightline.checks.advice import EXCLUDED
from sightline.checks.opening import open_set
from sightline.checks.suspects import read_suspects
from sightline.config.serving import AddressConfig
from sightline.data.cache import CachedImages
from sightline.data.corrections import CORRECTIONS
from sightline.data.sources.find_source import find_source
from sightline.data.sources.layout import Classes
from sightline.data.sources.listing import listed_once
from sightline.display.reporting import Listener, ignore, reporting, stage
from sightline.errors import ConfigError
from sightline.machine.extras import require
from sightline.serving.reviewing.items import Answer, Corrections, Item, Review
from sightline_runtime.sentences import quoted

__all__ = ["address_of_review", "open_review", "review", "serve_items"]


@reporting
@listed_once()
def review(
    folder: str | os.PathLike[str],
    *,
    address: AddressConfig | None = None,
    on_event: Listener = ignore,
) -> None:
    """Decide on the labels that a check suspects, on a page in a browser, until Ctrl-C.

    Each decision is written to corrections.csv in the folder of the check at once, never into the images; a review that
    was stopped goes on at the first image that is undecided.

    Args:
        folder: That sightline check wrote, such as checks/flowers-1.
        address: Where to listen, and whom to answer.
        on_event: Called with each event (``display/events.py``), such as the address as soon as callers are let in;
            unless named, only a notebook shows them.
    Raises:
        ConfigError: the address cannot be listened at, or is open to other machines without a token; or a library is
            missing.
        DataError: the image set is gone.
        RunError: the folder is not that of a check.
    """
    address = address or AddressConfig()
    _require_page(address, "sightline review")
    kept = read_suspects(Path(folder))
    with stage(on_event, "Opening", brief=True) as progress:
        images, _, _ = open_set(find_source(kept.location, kept.layout), progress)
    items = kept.items(images)
    if gone := len(kept.suspects) - len(items):
        on_event(f"{gone:,} of {len(kept.suspects):,} suspects are gone: their images or labels are others today")
    serve_items(Path(folder), images, items, address, on_event, kept.layout, kept.corrections)


def address_of_review(wanted: bool, address: AddressConfig | None) -> AddressConfig | None:
    """Return where ``check --review`` shows its page; None where none is wanted.

    Raises:
        ConfigError: an address without a review, which would have no effect; or the page cannot be shown there.
    """
    if not wanted:
        if address is not None:
            raise ConfigError("--host, --port and --token have no effect without --review; add it, or leave them out.")
        return None
    address = address or AddressConfig()
    _require_page(address, "sightline check --review")
    return address


def _require_page(address: AddressConfig, feature: str) -> None:
    """Refuse a review whose page cannot be shown, before anything is looked at."""
    require("fastapi", "app", feature)
    from sightline.serving.reviewing.server import refuse_to_review_at

    refuse_to_review_at(address)


def open_review(
    folder: Path,
    images: CachedImages,
    items: list[Item],
    corrections: str | None = None,
    layout: Classes | None = None,
) -> Review:
    """Return the review of the suspects of a check, whose decisions go to its folder, or to the file that it read."""
    path = (folder / CORRECTIONS if corrections is None else Path(corrections).expanduser()).absolute()
    notes = ["The images are shown in the order in which their labels are likely to be wrong."]
    in_test = sum(item.split == "test" for item in items)
    if in_test:
        notes.append(f"Of them {in_test:,} are test images: what is decided on those changes no training.")

    def command(decided: Mapping[str, Answer]) -> str:
        """Train with what is decided so far, and without what is listed to be left out."""
        words = ["sightline", "train", images.location, *(("--data.classes", layout) if layout else ())]
        if _lists_images(folder / EXCLUDED):
            words += ["--data.exclude", str((folder / EXCLUDED).absolute())]
        return quoted(*words, *(("--data.corrections", str(path)) if decided else ()))

    return Review(f"Review of {images.name}", images, items, Corrections(path), command, notes)


def _lists_images(path: Path) -> bool:
    """Tell whether a list names an image below its first line; people may have edited it."""
    try:
        with path.open("rb") as file:
            return any(line.strip() for line in islice(file, 1, None))
    except OSError:
        return False


def serve_items(
    folder: Path,
    images: CachedImages,
    items: list[Item],
    address: AddressConfig,
    on_event: Listener,
    layout: Classes | None = None,
    corrections: str | None = None,
) -> set[str]:
    """Show the suspects of a check, until Ctrl-C; say how to go on.

    Args:
        folder: of the check.
        images: the set.
        items: the suspects.
        address: where to listen, and whom to answer.
        on_event: is told the address.
        layout: which folders are the classes, as the check was told.
        corrections: file of decisions that the check read, to which more go; None: that of the folder.
    Returns:
        Hashes of the suspects that are decided by then.
    """
    from sightline.serving.reviewing.server import serve_review

    if not items:
        on_event("No label is suspected, so there is nothing to review.")
        return set()
    shown = open_review(folder, images.as_labeled, items, corrections, layout)
    on_event(f"It can be ended by Ctrl-C at any time; go on later with: sightline review {quoted(str(folder))}")
    serve_review(shown, address, on_event)
    answers = shown.sink.read()
    decided = answers.keys() & {item.digest for item in items}
    done = f"{len(decided):,} of {len(items):,} are decided"
    on_event(f"{done}; train with them: {shown.command(answers)}" if decided else done)
    return set(decided)
