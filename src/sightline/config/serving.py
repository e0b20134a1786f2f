"""The settings of a server: where it listens, whom it answers, and how much it takes at once."""

from dataclasses import dataclass

from sightline.config.checks import INFINITY, within
from sightline.errors import ConfigError

__all__ = ["AddressConfig", "ServeConfig"]

SHORTEST_TOKEN = 8  # letters


@dataclass(frozen=True, kw_only=True)
class AddressConfig:
    """Settings of any server: where it listens, and whom it answers."""

    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 answers other machines too."""
    port: int = 7860
    """Port to listen at; 0 takes a free one."""
    token: str | None = None
    """What a caller must know: in the header "Authorization: Bearer TOKEN" of the service, once as ?token=TOKEN in a
    browser. At least 8 letters; null answers everyone who reaches the address."""

    def __post_init__(self) -> None:
        within("port", self.port, 0, 65535)
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise ConfigError(f"--token has {len(self.token)} letters; wanted {SHORTEST_TOKEN} or more.")


@dataclass(frozen=True, kw_only=True)
class ServeConfig(AddressConfig):
    """Settings of a server: where it listens, whom it answers, and how much it takes at once."""

    max_megabytes: float = 20.0
    """Megabytes of a request, at most."""
    max_megapixels: float = 50.0
    """Megapixels of an image, at most."""
    max_images: int = 100
    """Images of a request, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("max-megabytes", self.max_megabytes, 0, INFINITY, open_low=True)
        within("max-megapixels", self.max_megapixels, 0, 100)
        within("max-images", self.max_images, 1, INFINITY)
