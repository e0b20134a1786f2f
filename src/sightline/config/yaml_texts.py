"""YAML that people write: read with bounds, so that a few bytes cannot become millions of values."""

import os
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sightline.config.checks import shown
from sightline.config.trust import without_trust
from sightline.errors import ConfigError

__all__ = ["named_texts", "parse_yaml", "read_named", "read_text", "yaml_text"]

LARGEST = 1_000_000  # bytes of a file of settings; PyYAML reads about a hundred thousand a second
VALUES = 100_000  # that a text may hold, with what its aliases repeat; nine lines of ten aliases each are a billion
LONGEST_NUMBER = (
    13_000  # bits of a whole number; Python refuses to write one of 4,300 digits, and hexadecimal ones may be longer
)
DEPTH = 50  # blocks within blocks; PyYAML calls itself for each


class _Loader(yaml.SafeLoader):
    """YAML whose only switches are true and false, as in YAML 1.2: ``on: test`` names the setting ``on``."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own name for it
        letter: [resolver for resolver in resolvers if not resolver[0].endswith(":bool") or letter in "tTfF"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEPTH:
            raise yaml.YAMLError(f"blocks lie deeper within each other than {DEPTH}")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_number(self, node: Any) -> int:
        value = int(self.construct_yaml_int(node))
        if value.bit_length() > LONGEST_NUMBER:
            raise yaml.YAMLError("a whole number of more than four thousand digits")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)


def named_texts(folder: str) -> dict[str, str]:
    """Return the names of the YAML files that come with sightline in a folder of its resources, with the text of
    each.
    """
    entries = (resources.files("sightline") / "resources" / folder).iterdir()
    files = sorted((entry for entry in entries if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    return {entry.name.removesuffix(".yaml"): entry.read_text("utf-8") for entry in files}


def read_named(kind: str, known: dict[str, str], name_or_path: str | os.PathLike[str], *words: str) -> dict[str, Any]:
    """Read the mapping in a file, or in one of the texts that come with sightline.

    Args:
        kind: recipe or study, for messages.
        known: the texts that come with sightline, by their names.
        name_or_path: the name of one of them, or a file.
        words: other names that are taken elsewhere, for messages.
    Raises:
        ConfigError: there is no such text or file, or it is not a YAML mapping.
    """
    name = str(name_or_path)
    if name in known:
        return parse_yaml(known[name], f"{kind} {shown(name)}")
    if not os.path.isfile(name_or_path):  # unlike Path.is_file, takes a name that is too long for no file
        names = ", ".join([*words, *known])
        raise ConfigError(f"there is no {kind} or file {shown(name)}; wanted a YAML file or one of: {names}.")
    return parse_yaml(read_text(name_or_path), name)


def yaml_text(content: Any) -> str:
    """Write settings as YAML, without what they say of trust."""
    return str(yaml.safe_dump(without_trust(content), sort_keys=False, allow_unicode=True, width=110))


def read_text(path: str | os.PathLike[str], where: str = "") -> str:
    """Read the text of a YAML file.

    Args:
        path: of the file.
        where: what a sentence calls it; empty for its path.
    Raises:
        ConfigError: it cannot be read, is no text, or is larger than any such file.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"{where or path} is larger than {LARGEST / 1e6:g} MB; wanted a YAML file of settings.")
        return data.decode("utf-8")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a name that no file can have
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{where or path} cannot be read ({reason}); wanted a YAML file of settings.") from error


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Return the mapping that a YAML text holds, without what it says of trust.

    Raises:
        ConfigError: it is not YAML, no mapping, or its aliases repeat more than any settings hold.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _refuse_large(node, where)
            mapping = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except ConfigError:
        raise
    except (
        Exception
    ) as error:  # PyYAML raises whatever Python does: a date that no calendar has, !!bool x, !!timestamp x
        raise ConfigError(f"{where} is not YAML ({' '.join(str(error).split())}); correct the line named.") from error
    if mapping is None:  # an empty file
        return {}
    if not isinstance(mapping, dict):
        raise ConfigError(f"{where} holds a {type(mapping).__name__}; wanted settings as 'block: {{name: value}}'.")
    return dict(without_trust(mapping))


def _refuse_large(root: yaml.Node, where: str) -> None:
    """Refuse what would be too large or deep when each alias is the values that it stands for, before any are made."""
    known: dict[int, tuple[int, int]] = {}  # by node: values, and blocks within blocks
    begun: set[int] = set()

    def extent(node: Any) -> tuple[int, int]:
        if id(node) in known:
            return known[id(node)]
        if id(node) in begun:
            raise ConfigError(f"{where} has an alias within the very values that it stands for; write them out.")
        begun.add(id(node))
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        parts = [extent(part) for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(values for values, _ in parts), 1 + max((depth for _, depth in parts), default=0)
        return known[id(node)]

    values, depth = extent(root)
    if values > VALUES:
        raise ConfigError(
            f"{where} stands for more than {VALUES:,} values, as its aliases (*name) repeat them; write out what is"
            " meant."
        )
    if depth > DEPTH:
        raise ConfigError(f"{where} holds blocks deeper within each other than {DEPTH}; write out what is meant.")
