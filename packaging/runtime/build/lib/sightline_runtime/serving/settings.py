"""The settings of a server: where it listens, whom it answers, and how much it takes at once."""

from dataclasses import dataclass
from typing import Protocol

from sightline_runtime.errors import ConfigError

__all__ = ["Address", "ServeSettings", "ServiceLimits"]

SHORTEST_TOKEN = 8  # letters


class Address(Protocol):
    """Where any server listens, and whom it answers."""

    @property
    def host(self) -> str:
        """Address to listen at."""

    @property
    def port(self) -> int:
        """Port to listen at; 0 takes a free one."""

    @property
    def token(self) -> str | None:
        """What a caller must know; None answers everyone."""


class ServiceLimits(Address, Protocol):
    """How much a service takes at once."""

    @property
    def max_megabytes(self) -> float:
        """Of a request."""

    @property
    def max_megapixels(self) -> float:
        """Of an image."""

    @property
    def max_images(self) -> int:
        """Of a request."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of the service of an exported classifier, with the defaults of ``sightline serve``."""

    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    max_megabytes: float = 20.0
    max_megapixels: float = 50.0
    max_images: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port is {self.port}; it must be at least 0 and at most 65535.")
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise ConfigError(f"--token has {len(self.token)} letters; wanted {SHORTEST_TOKEN} or more.")
