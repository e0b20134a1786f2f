"""``sightline-predict``: classify images by an exported classifier, from the command line."""

import argparse
import errno
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from sightline_runtime.batches import HELD, decoded_batches
from sightline_runtime.decoding.formats import WANTED
from sightline_runtime.errors import DataError, SightlineError, StorageError, shortened
from sightline_runtime.exported import load
from sightline_runtime.files import is_hidden, is_image_name, natural_key, read_regular
from sightline_runtime.folders import FolderTree
from sightline_runtime.predictions import Prediction, csv_header, csv_rows, lines_of
from sightline_runtime.sentences import shown
from sightline_runtime.terminal import show_rows, show_text
from sightline_runtime.views import VIEWS
from sightline_runtime.writing import is_broken_pipe, is_stream, to_bytes, write_rows, write_whole

__all__ = ["FileImages", "images_below", "main"]

REFUSED = 2  # status of a refusal
STOPPED = 130  # status after Ctrl-C, as shells have it
BEGINNING = 256  # bytes of a file that tell whether it is an image


@dataclass(frozen=True)
class FileImages:
    """Image files to ask a classifier about."""

    names: list[str]
    """Their paths."""
    left_out: Counter[str]
    """Files beside them that are no images, by what they are."""

    def read(self) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield each with its bytes, or why it cannot be read."""
        for name in self.names:
            try:
                yield name, read_regular(name)
            except OSError as error:
                yield name, error


def images_below(path: str) -> FileImages:
    """Return an image file, or those below a folder, in the order in which people look for them.

    Raises:
        DataError: nothing is there, or a folder has no images.
    """
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise DataError(f"no image or folder at {shown(path)}; check the spelling of the path.")
        return FileImages([path], Counter())
    tree = FolderTree(Path(path))
    left, names = Counter(tree.left), []
    for name in tree.files:
        if is_hidden(name):
            left["hidden files"] += 1
        elif is_image_name(name, lambda name: _beginning(os.path.join(path, name))):
            names.append(name)
        else:
            left["other files"] += 1
    if not names:
        raise DataError(f"no images in {shown(path)}; wanted {WANTED} files.")
    return FileImages([os.path.join(path.rstrip("/"), name) for name in sorted(names, key=natural_key)], left)


def _beginning(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(BEGINNING)
    except OSError:
        return b""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its status."""
    options = _parser().parse_args(arguments)
    try:
        _predict(options)
    except SightlineError as error:
        show_text(f"sightline-predict: {shortened(str(error), 1200)}", error=True)
        return REFUSED
    except KeyboardInterrupt:
        show_text("sightline-predict: stopped.", error=True)
        return STOPPED
    except OSError as error:
        if not is_broken_pipe(error):
            raise
        # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sightline-predict", description="Classify images by an exported classifier.")
    parser.add_argument("model", help="file that `sightline export` has written")
    parser.add_argument("images", nargs="+", help="image files, and folders, which are searched to the bottom")
    parser.add_argument("--out", metavar="CSV", help="file to write the table to, in place of the screen")
    parser.add_argument("--views", choices=list(VIEWS), help="views of each image to average; else those of the recipe")
    parser.add_argument("--sets", type=float, metavar="0.9", help="also give sets that hold the true class this often")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute on; else one a core")
    return parser


def _predict(options: argparse.Namespace) -> None:
    sources = [images_below(path) for path in options.images]
    classifier = load(options.model, threads=options.threads)
    if options.sets is not None:
        classifier.limit(options.views or classifier.views, options.sets)
    files: list[str] = []
    predictions: list[Prediction] = []
    unreadable: list[tuple[str, str]] = []
    for names, pixels in decoded_batches(sources, classifier.resize, HELD, unreadable, classifier.preprocessing):
        predictions.extend(classifier.answers(pixels, options.views, coverage=options.sets))
        files.extend(names)
    for reason, count in sum((source.left_out for source in sources), Counter()).items():
        show_text(f"sightline-predict: left out: {count:,} {reason}", error=True)
    for file, reason in unreadable:
        show_text(f"sightline-predict: left out {file}: {reason}", error=True)
    header, rows = csv_header(options.sets), csv_rows(files, predictions)
    if options.out is not None:
        text = StringIO(newline="")
        write_rows(text, header, rows)
        _write(Path(options.out), to_bytes(text.getvalue()))
        show_text(f"{len(files):,} predictions in {options.out}", error=is_stream(Path(options.out)))
    elif len(files) == 1:
        for line in lines_of(files[0], predictions[0], options.sets):
            show_text(line)
    else:
        show_rows(header, rows)


def _write(path: Path, content: bytes) -> None:
    """Write a table whole, or not at all.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    try:
        write_whole(path, content)
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"the disk of {path.parent} is full; free space, then run it again.") from error
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{path.parent} cannot be written ({reason}); choose another folder.") from error
