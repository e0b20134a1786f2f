"""Serve a finished classifier: a page to look at, and a service to call."""

from sightline.serving.asking import Asker

__all__ = ["Asker"]
