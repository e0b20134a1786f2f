"""The settings of choosing images to label."""

from typing import Annotated

from msgspec import Meta

from sightline.config.building import Block

__all__ = ["UnlabeledConfig"]


class UnlabeledConfig(Block, frozen=True, kw_only=True):
    """Unlabeled images, and the run that chooses which of them to label next."""

    unlabeled: str
    """Folder of images without labels (or a manifest): the images are chosen whose labels would teach a run most, and
    the answers become a manifest to train on."""
    run: str
    """Folder of the finished run that chooses among the unlabeled images; those that it has learned from, validated on
    or was tested on are left out."""
    count: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Images to choose."""
