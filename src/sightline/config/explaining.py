"""The settings of explanations: which methods there are, and how each computes its map."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, get_args

from msgspec import Meta

from sightline.config.building import Block
from sightline.config.checks import LARGEST, AboveZero, Count, nearest
from sightline.errors import ConfigError

__all__ = [
    "ALL",
    "COMPLETE",
    "FAITHFUL",
    "METHODS",
    "OWN_ARITHMETIC",
    "SIGNED",
    "AttributionConfig",
    "Method",
    "index_of_class",
    "methods_of",
    "refuse_unknown_class",
]

Method = Literal[
    "saliency",
    "integrated_gradients",
    "integrated_gradients_smoothgrad",
    "deeplift",
    "occlusion",
    "gradient_shap",
    "grad_cam",
    "attention",
]
METHODS: tuple[Method, ...] = get_args(Method)
FAITHFUL: tuple[Method, ...] = (
    "deeplift",
    "integrated_gradients",
    "gradient_shap",
    "integrated_gradients_smoothgrad",
    "occlusion",
    "saliency",
    "attention",
    "grad_cam",
)
"""Methods, the most faithful first (docs/results/explanations.md); of the first four, which are close, DeepLift takes
one pass and the others dozens."""
ALL = "all"  # in place of their names: every method that the network has what it takes for

SIGNED: frozenset[Method] = frozenset({"integrated_gradients", "deeplift", "occlusion", "gradient_shap"})
"""Methods whose map also says what speaks against the class; the others begin at zero."""
COMPLETE: frozenset[Method] = frozenset({"integrated_gradients", "deeplift"})
"""Methods whose map should add up to the difference that the image makes to the logit."""
OWN_ARITHMETIC: frozenset[Method] = frozenset({"grad_cam", "attention"})
"""Methods that need no captum."""


class AttributionConfig(Block, frozen=True, kw_only=True):
    """Settings of computing maps; null leaves a number to the method."""

    layer: str | None = None
    """Layer whose map is shown (grad_cam); null: the deepest of at least 7×7 positions."""
    steps: Annotated[int, Meta(ge=2, le=LARGEST)] | None = None
    """Points on the way from the mean image to the image (integrated_gradients, integrated_gradients_smoothgrad); null:
    64, and where the map does not add up to within 1 % four times as many, and again; with noise 16."""
    samples: Count | None = None
    """Noisy copies of an image (integrated_gradients_smoothgrad, 8; gradient_shap, 64)."""
    noise: AboveZero | None = None
    """Their noise, in standard deviations of the training images' pixels (integrated_gradients_smoothgrad, 0.15;
    gradient_shap, 0.1)."""
    window: Count | None = None
    """Side of the square that is covered, in pixels (occlusion); null: an eighth of the shorter side."""
    stride: Count | None = None
    """Pixels from one square to the next (occlusion); null: half of the window."""

    def _check(self) -> None:
        if self.window is not None and self.stride is not None and self.stride > self.window:
            raise ConfigError(
                f"--stride ({self.stride}) is longer than --window ({self.window}), so pixels between two squares would"
                " never be covered; choose a stride up to the window."
            )

    def refuse_unused(self, methods: Iterable[Method]) -> None:
        """Refuse what none of the methods reads.

        Raises:
            ConfigError: with the methods that read it.
        """
        methods = list(methods)
        for name, readers in READ_BY.items():
            if getattr(self, name) is not None and not set(methods) & set(readers):
                raise ConfigError(
                    f"--{name} has no effect on {', '.join(methods)}; it is read by {', '.join(readers)}."
                )


READ_BY: dict[str, tuple[Method, ...]] = {
    "layer": ("grad_cam",),
    "steps": ("integrated_gradients", "integrated_gradients_smoothgrad"),
    "samples": ("integrated_gradients_smoothgrad", "gradient_shap"),
    "noise": ("integrated_gradients_smoothgrad", "gradient_shap"),
    "window": ("occlusion",),
    "stride": ("occlusion",),
}
"""The methods that read a setting."""


def methods_of(names: Iterable[str]) -> tuple[Method, ...]:
    """Return the methods by their names, each once; ``all`` stands for every one.

    Raises:
        ConfigError: none is named, one is unknown, or others stand beside ``all``.
    """
    names = list(dict.fromkeys([names] if isinstance(names, str) else names))
    if names == [ALL]:
        return METHODS
    if ALL in names:
        raise ConfigError(f"--method {' '.join(names)}: {ALL} means every method; leave the others out.")
    for name in names:
        if name not in METHODS:
            raise ConfigError(f"--method {name} is unknown; {nearest(name, [*METHODS, ALL])}")
    if not names:
        raise ConfigError(f"no method was named; choose among {', '.join(METHODS)}, or {ALL}.")
    return tuple(name for name in METHODS if name in names)


def refuse_unknown_class(target: str, classes: Iterable[str]) -> None:
    """Refuse to ask about a class that a classifier does not know.

    Raises:
        ConfigError: with the nearest.
    """
    index_of_class(target, list(classes))


def index_of_class(target: str, classes: Sequence[str]) -> int:
    """Return the index of a class by its name, in whichever spelling of accents it is typed.

    Raises:
        ConfigError: there is none, with the nearest.
    """
    spelled = [unicodedata.normalize("NFC", name) for name in classes]
    if unicodedata.normalize("NFC", target) not in spelled:
        raise ConfigError(f"--target {target}: the classifier knows no such class; {nearest(target, classes)}")
    return spelled.index(unicodedata.normalize("NFC", target))
