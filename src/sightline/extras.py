"""Libraries that are not installed with sightline itself: each one missing is named with its pip line."""

import importlib.util

from sightline.errors import ConfigError

__all__ = ["require"]


def require(library: str, extra: str, wanted_by: str) -> None:
    """Refuse what needs a library that is not installed, without loading it.

    Args:
        library: the module to import.
        extra: what installs it, as in ``sightline[extra]``.
        wanted_by: what the user asked for.
    Raises:
        ConfigError: it is missing.
    """
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f"{wanted_by} needs the library {library}, which is not installed; run: pip install 'sightline[{extra}]'"
        )
