"""``sightline-serve``: answer about images over HTTP by an exported classifier, without torch."""

import argparse
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Sequence

import numpy as np

from sightline_runtime.errors import ConfigError, SightlineError, shortened
from sightline_runtime.exported import ExportedClassifier, load
from sightline_runtime.serving.listening import address_of, answer_at, ended_by_sigterm, listening
from sightline_runtime.serving.settings import ServeSettings, ServiceLimits
from sightline_runtime.terminal import show_text

__all__ = ["answer_exported", "main"]

REFUSED = 2  # status of a refusal
STOPPED = 130  # status after Ctrl-C, as shells have it
LAST_PATIENCE = 0.5  # seconds that are left to what the graph is doing when the server ends
DISTRIBUTIONS = ("sightline-vision-runtime", "sightline-vision")


def answer_exported(
    load_classifier: Callable[[], ExportedClassifier], settings: ServiceLimits, say: Callable[[str, str], None]
) -> None:
    """Serve an exported classifier until a signal ends it.

    Args:
        load_classifier: loads it, once the address is known to be free.
        settings: where to listen, whom to answer, and how much to take at once.
        say: is told the address of the service, as soon as callers are let in, and what answers there.
    Raises:
        ConfigError: FastAPI is missing, or the address cannot be listened at.
    """
    for library in ("fastapi", "uvicorn", "python_multipart"):
        if importlib.util.find_spec(library) is None:
            raise ConfigError(f"a service needs {library}, which is not installed; run: pip install '.[serve]'")
    with ended_by_sigterm() as signals, listening(settings) as listener:  # a taken port is refused before all else
        classifier = load_classifier()
        from sightline_runtime.serving.connections import BACKLOG
        from sightline_runtime.serving.service import ExportedPredictor, build_service
        from sightline_runtime.serving.worker import Asker

        classifier.answers(np.zeros((1, *classifier.resize, 3), np.uint8))  # the first answer is slow
        asker = Asker(classifier)
        try:
            app = build_service(ExportedPredictor(asker, settings), _version())
            listener.listen(BACKLOG)
            root = address_of(listener, settings).partition("?")[0]  # programs send the token in a header
            say(f"{root}api", _about(classifier))
            answer_at(listener, app)
        finally:
            if not asker.close(LAST_PATIENCE) and signals:
                os._exit(128 + signals[0])  # Python itself would wait for what the graph is doing


def _about(classifier: ExportedClassifier) -> str:
    """Return in a line what answers, and how good it is on images that it did not learn from."""
    held_out = classifier.metadata.held_out
    accuracy = (
        "accuracy unknown (its file has none of images that were held out)"
        if held_out is None
        else f"accuracy {held_out}"
    )
    return f"{len(classifier.classes)} classes, {accuracy}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its status."""
    usual = ServeSettings()
    parser = argparse.ArgumentParser("sightline-serve", description="Answer about images over HTTP, below /api.")
    parser.add_argument("model", help="file that `sightline export` has written")
    parser.add_argument("--host", default=usual.host, help="address to listen at; 0.0.0.0 answers other machines too")
    parser.add_argument("--port", type=int, default=usual.port, help="port to listen at; 0 takes a free one")
    parser.add_argument("--token", help="what a caller must send as `Authorization: Bearer TOKEN`; 8 letters or more")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute on; else one a core")
    options = parser.parse_args(arguments)
    try:
        settings = ServeSettings(host=options.host, port=options.port, token=options.token)
        answer_exported(lambda: load(options.model, threads=options.threads), settings, _say(options.model))
    except SightlineError as error:
        show_text(f"sightline-serve: {shortened(str(error), 1200)}", error=True)
        return REFUSED
    except KeyboardInterrupt:
        show_text("sightline-serve: stopped.", error=True)
        return STOPPED
    return 0


def _say(model: str) -> Callable[[str, str], None]:
    def say(address: str, about: str) -> None:
        show_text(f"{model}: {about}")
        show_text(f"answering at {address}")

    return say


def _version() -> str:
    """Return the version of the distribution that this package came with."""
    for name in DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "0"


if __name__ == "__main__":
    raise SystemExit(main())
