"""The folders of this machine that are ours to fill."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return where caches lie: ``SIGHTLINE_CACHE``, or ``sightline`` in the user's cache folder."""
    named = os.environ.get("SIGHTLINE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sightline"
