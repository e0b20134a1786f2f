"""Code of others, which is run where whoever runs it says so in the call or on the command line, never as a file says.

A recipe, a study, a space or a run's own record comes from anywhere: trust that is written in it is ignored when it is
read, and is not written.
"""

from collections.abc import Mapping
from typing import Any

from sightline.errors import ConfigError

__all__ = ["TRUST", "foreign_code", "refuse_untrusted", "trusting", "untrusted", "without_trust"]

TRUST = "trust_code"
PLACES = (("network", "hub"), ("augment.own", "file"))  # blocks whose kind runs code that is not ours


def without_trust(content: Any) -> Any:
    """Return what a YAML text holds without trust; a class that is called so has text beside its name, and stays."""
    if isinstance(content, Mapping):
        kept = {name: value for name, value in content.items() if name != TRUST or not isinstance(value, bool)}
        return {name: without_trust(value) for name, value in kept.items()}
    return [without_trust(item) for item in content] if isinstance(content, list) else content


def foreign_code(settings: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """Return whose code settings run, and whether they say that it is trusted, by the block that names it.

    Args:
        settings: nested as in a recipe's YAML, each technique spelled out as a block.
    """
    named: dict[str, tuple[str, bool]] = {}
    for place, kind in PLACES:
        block: Any = settings
        for part in place.split("."):
            block = block.get(part) if isinstance(block, Mapping) else None
        whose = block.get("repo", block.get("file")) if isinstance(block, Mapping) else None
        if whose is not None and block.get("kind") == kind:
            named[place] = str(whose), block.get(TRUST) is True
    return named


def refuse_untrusted(settings: Mapping[str, Any]) -> None:
    """Refuse settings that run code which is not trusted.

    Args:
        settings: as ``foreign_code`` has them.
    Raises:
        ConfigError: with whose code it is, and the flag.
    """
    for place, (whose, trusted) in foreign_code(settings).items():
        if not trusted:
            raise untrusted(place, whose)


def untrusted(place: str, whose: str) -> ConfigError:
    """Return the refusal of a block's code."""
    python = "".join(f"{part!r}: {{" for part in place.split(".")) + f"{TRUST!r}: True" + "}" * len(place.split("."))
    downloads = " (torch.hub downloads and executes it)" if place == "network" else ""
    return ConfigError(
        f"--{place} runs the code of {whose} on this machine{downloads}; read it, then add --{place}.trust-code (in"
        f" Python: settings={{{python}}}). What a file says of trust is not taken."
    )


def trusting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that say of the code which ``settings`` run that it is trusted, to lay over them."""
    trusted: dict[str, Any] = {}
    for place in foreign_code(settings):
        inner: Any = {TRUST: True}
        for part in reversed(place.split(".")):
            inner = {part: inner}
        trusted |= inner
    return trusted
