"""The one thread that asks a network: the service and the page hand it their questions. B images, height H, width W.

Explanations set hooks on the network and seed the global generators, so nothing else may ask it meanwhile; and two threads
of PyTorch on few cores wait for each other.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from sightline.predicting import Classifier, Prediction
from sightline.views import Views

__all__ = ["Asker"]

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")


class Asker:
    """Answers questions to a classifier, one after the other, on a thread of its own; made once for a server."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._thread = ThreadPoolExecutor(1, "asker")

    def ask(
        self, pixels_BHWC: Array, views: Views | None = None, coverage: float | None = None
    ) -> Future[list[Prediction]]:
        """What the classifier says of uint8 images already at its cached size, as ``Classifier.answers`` has it."""
        return self.do(lambda: self.classifier.answers(pixels_BHWC, views, coverage=coverage))

    def do(self, work: Callable[[], Result]) -> Future[Result]:
        """Run what else needs the network, such as an explanation, on its thread."""
        return self._thread.submit(work)

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        self._thread.shutdown()
