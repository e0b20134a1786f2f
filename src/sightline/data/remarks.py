"""Remarks on how an image set was read: another reading of its folders, and what was left out."""

from collections import Counter
from pathlib import PurePosixPath

from sightline.data.cache import CachedImages
from sightline.data.sources.entries import say_left_out
from sightline.display.terminal import natural_key

__all__ = ["LISTED", "remarks"]

LISTED = 5  # unreadable images that are named; all are in the cache's index


def remarks(images: CachedImages) -> list[str]:
    """Lines on the folders of a set, its unreadable images, and other files, by reason and suffix."""
    lines = list(images.notes)
    if images.left_out:
        reason = "unreadable images"
        suffixes = Counter(PurePosixPath(path).suffix.lower() for path, _ in images.left_out)
        lines += say_left_out({reason: len(images.left_out)}, {reason: suffixes})
        lines += [
            f"  {path}: {why}" for path, why in sorted(images.left_out, key=lambda pair: natural_key(pair[0]))[:LISTED]
        ]
        if len(images.left_out) > LISTED:
            lines.append(f"  and {len(images.left_out) - LISTED:,} more")
    return lines + say_left_out(images.ignored, images.suffixes)
