"""A classifier as one route of an application of your own.

    pip install fastapi uvicorn python-multipart
    RUN=runs/first uvicorn app:application --app-dir examples/fastapi --host 127.0.0.1
    curl -F photo=@photo.jpg http://127.0.0.1:8000/what

`sightline serve` is the same with a page, explanations, limits and batches of several callers; take this where the
classifier is a small part of something else. RUN may be an exported model.onnx: then PyTorch is never loaded.
"""

import os
from contextlib import asynccontextmanager
from threading import Lock

from fastapi import FastAPI, HTTPException, Request, UploadFile

from sightline_runtime import SightlineError

LARGEST = 20_000_000  # bytes of a photo


def load(run: str):
    """Load a run, or an exported file."""
    if run.endswith(".onnx"):
        import sightline_runtime

        return sightline_runtime.load(run)
    import sightline

    return sightline.load(run)


def application_of(run: str) -> FastAPI:
    """Return an application that answers what a photo shows."""

    @asynccontextmanager
    async def started(application: FastAPI):
        application.state.classifier = load(run)  # once, before the first request
        application.state.busy = Lock()
        yield

    application = FastAPI(title="What is in the photo?", lifespan=started)

    @application.post("/what")
    def what(photo: UploadFile, request: Request) -> dict:  # no coroutine: it computes, in a thread of its own
        content = photo.file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise HTTPException(413, f"{photo.filename} is larger than {LARGEST:,} bytes; send a smaller one.")
        try:
            with request.app.state.busy:  # one at a time: each takes all cores
                answer = request.app.state.classifier.predict(content, coverage=0.9)
        except SightlineError as error:  # the bytes are no image
            raise HTTPException(422, str(error)) from error
        return {
            "label": answer.label,
            "probability": round(answer.probability, 4),
            "none of these": answer.unknown,
            "among these in 90 of 100 photos": list(answer.within or ()),
        }

    return application


def __getattr__(name: str) -> FastAPI:
    """Make the application when uvicorn asks for it."""
    if name != "application":
        raise AttributeError(name)
    return application_of(os.environ["RUN"])
