"""The service: ask a finished classifier about images over HTTP. B images, height H, width W.

    POST /api/predict     images in a form, answers in JSON
    GET  /api/health      whether it is there
    GET  /api/model       what the classifier is and how good
    GET  /api             a page that shows how to ask
    GET  /openapi.json    the same for programs

Numbers are those of ``sightline predict``. Every error is ``{"error": sentence, "request_id": id}``.
"""

import asyncio
import base64
import functools
import io
import logging
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sightline.config import METHODS, SIGNED, AttributionConfig, Method, ServeConfig
from sightline.data.augment.augment import centre
from sightline.data.decoding.decode import WANTED, TooManyPixelsError, UnreadableImageError, read_image
from sightline.display.pages import render_html
from sightline.display.pictures import overlaid
from sightline.display.terminal import show
from sightline.errors import ConfigError
from sightline.explanation.explain import Explainer
from sightline.inference.classifier import Classifier
from sightline.inference.predictions import Prediction
from sightline.machine.extras import own_version
from sightline.measures.conformal import COVERAGES
from sightline.serving.forms import EXPLAINED, FIELDS, Asked, File, checked, in_words_of_a_form, read_form
from sightline.serving.limits import BodyLimit, RequestLog, SameSite, Token, is_loopback, noted
from sightline.serving.openapi import ERRORS, document
from sightline.serving.worker import AT_ONCE, Asker, BusyError

__all__ = ["build_service", "describe_model"]

MOST_REQUESTS = 256  # that are read, decoded or answered at a time
RETRY_SECONDS = 2
DECODERS = 2  # threads: the memory that large images take while they are decoded

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")


def _to_standard_error(line: str) -> None:
    show(line, error=True)


def build_service(asker: Asker, limits: ServeConfig, log: Callable[[str], None] = _to_standard_error) -> FastAPI:
    """Make the service of a classifier, behind its guards; other pages may be mounted on it at ``/``.

    Run it without uvicorn's own access log, which would write tokens down.

    Args:
        asker: asks the classifier; it is not closed here.
        limits: whom to answer, and how much to take.
        log: is given a line for each request.
    """
    _keep_quiet()
    app = FastAPI(title="sightline", version=own_version(), docs_url=None, redoc_url=None)
    described = document(limits, own_version())
    app.openapi = lambda: described  # type: ignore[method-assign]
    _Service(asker, limits).add_to(app)
    app.add_exception_handler(HTTPException, _refused)
    # the last one added is the outermost
    if limits.token is not None:
        app.add_middleware(Token, token=limits.token)
    app.add_middleware(SameSite, local_names_only=limits.token is None and is_loopback(limits.host))
    app.add_middleware(BodyLimit, most_bytes=int(limits.max_megabytes * 1e6))
    app.add_middleware(RequestLog, log=log)
    return app


def _keep_quiet() -> None:
    """Let the libraries that read what strangers send not write down what is odd about it: they could fill a log."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for name in ("python_multipart", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


async def _refused(request: Request, error: Exception) -> Response:
    """An error as JSON, in our words where the framework has only the status's name."""
    assert isinstance(error, HTTPException)
    sentence = str(error.detail)
    if error.status_code == 404:
        sentence = f"there is nothing at this path; the service is at {', '.join(ROUTES)}."
    if error.status_code == 405:
        sentence = f"this path does not take {request.method}; wanted {(error.headers or {}).get('Allow', 'GET')}."
    return _json(request, {"error": sentence}, error.status_code, dict(error.headers or {}))


def _json(
    request: Request, content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    private = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    content = {**content, "request_id": noted(request.scope).request_id}
    return JSONResponse(content, status, {**private, **(headers or {})})


EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
ROUTES = {"/api/predict": "POST", "/api/health": "GET", "/api/model": "GET", "/api": "GET", "/openapi.json": "GET"}


class _Service:
    """The answers of the paths."""

    def __init__(self, asker: Asker, limits: ServeConfig) -> None:
        self.asker = asker
        self.limits = limits
        self.started = time.monotonic()
        self.decoders = ThreadPoolExecutor(DECODERS, "decoder")
        self.requests = 0  # that are being answered
        self.unfit = asker.do(lambda: _unfit(asker.classifier)).result()
        self.model = describe_model(
            asker.classifier.model, limits, [name for name in METHODS if name not in self.unfit]
        )

    def add_to(self, app: FastAPI) -> None:
        """Register the paths."""
        add = app.router.add_route  # plainer than FastAPI's own, which looks for parameters in signatures
        add("/api/predict", self.predict, ["POST"], include_in_schema=False)
        add("/api/health", self.health, ["GET"], include_in_schema=False)
        add("/api/model", self.describe, ["GET"], include_in_schema=False)
        add("/api", self.page, ["GET"], include_in_schema=False)
        # whatever is mounted at / must not answer in the service's name
        for path in ("/api", "/api/{rest:path}", "/openapi.json"):
            add(path, self.nothing, EVERY_METHOD, include_in_schema=False)

    async def nothing(self, request: Request) -> Response:
        """Neither of the others."""
        if allowed := ROUTES.get(request.scope["path"]):
            raise HTTPException(405, headers={"Allow": allowed})
        raise HTTPException(404)

    async def health(self, request: Request) -> Response:
        """Whether the server is there."""
        uptime = round(time.monotonic() - self.started, 3)
        return _json(request, {"status": "ok", "uptime_seconds": uptime, "waiting_images": self.asker.waiting_images})

    async def describe(self, request: Request) -> Response:
        """What the classifier is and how good."""
        return _json(request, self.model)

    async def page(self, request: Request) -> Response:
        """How to ask, for people."""
        content = {"base": str(request.base_url).rstrip("/"), "token": self.limits.token is not None}
        text = render_html(
            "service.html",
            **content,
            model=self.model,
            fields=FIELDS,
            errors=ERRORS,
            limits=self.limits,
            explained=EXPLAINED,
        )
        return HTMLResponse(text)

    # ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def predict(self, request: Request) -> Response:
        """Classify images."""
        if self.requests >= MOST_REQUESTS:
            raise _busy(f"{self.requests} requests are being answered")
        self.requests += 1
        try:
            return await self._answer(request)
        except BusyError as error:
            raise _busy(str(error).partition(";")[0]) from error
        finally:
            self.requests -= 1

    async def _answer(self, request: Request) -> Response:
        files, fields = await read_form(request, self.limits)
        noted(request.scope).images = len(files)
        classifier = self.asker.classifier
        asked = checked(fields, len(files), classifier.classes)
        if asked.explain in self.unfit:
            raise HTTPException(422, self.unfit[asked.explain])
        try:
            if asked.coverage is not None:
                classifier.limit(asked.views or classifier.views, asked.coverage)
            images = await _unless_gone(request, self._images(files, asked))
        except ConfigError as error:
            raise HTTPException(422, in_words_of_a_form(str(error))) from error
        return _json(request, {"images": images, "views": asked.views or classifier.views})

    async def _images(self, files: Sequence[File], asked: Asked) -> list[dict[str, Any]]:
        """What is said of each image; cancelled, it cancels what has not begun."""
        classifier = self.asker.classifier
        most = int(self.limits.max_megapixels * 1e6)
        pixels_BHWC = await asyncio.wrap_future(self.decoders.submit(_decoded, files, most, classifier))
        found: list[Prediction] = []
        for start in range(0, len(files), AT_ONCE):  # some at a time: others have their turn
            part_BHWC = pixels_BHWC[start : start + AT_ONCE]
            part = await asyncio.wrap_future(self.asker.ask(part_BHWC, asked.views, asked.coverage))
            found.extend(part)
        images = [_answer(file.name, prediction, asked.top) for file, prediction in zip(files, found, strict=True)]
        if asked.explain is not None:
            for image, pixels_HWC in zip(images, pixels_BHWC, strict=True):  # one at a time, likewise
                work = functools.partial(explained, classifier, pixels_HWC, asked)
                image["explanation"] = await asyncio.wrap_future(self.asker.do(work))
        return images


def _busy(found: str) -> HTTPException:
    sentence = f"{found}, and no more are taken; ask again in {RETRY_SECONDS} s."
    return HTTPException(503, sentence, {"Retry-After": str(RETRY_SECONDS)})


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for work; if the caller leaves meanwhile, cancel it.

    Raises:
        ClientDisconnect: the caller has left.
    """
    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        gone.cancel()
        answer.cancel()


async def _left(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _decoded(files: Sequence[File], most: int, classifier: Classifier) -> Array:
    """The pixels of the images at the size that a classifier reads, (B, H, W, 3).

    Raises:
        HTTPException: one cannot be read; it is named by its place and its name.
    """
    found = []
    for place, file in enumerate(files, 1):
        which = f"image {place} of {len(files)} ({file.name or 'without a name'})"
        try:
            found.append(read_image(file.data, classifier.resize, classifier.preprocessing, maximum=most).pixels)
        except TooManyPixelsError as error:
            raise HTTPException(413, f"{which} has {error}; send it smaller.") from error
        except UnreadableImageError as error:
            sentence = f"{which} cannot be read: {in_words_of_a_form(str(error))}; send a {WANTED} file"
            raise HTTPException(422, f"{sentence} that opens elsewhere.") from error
    return np.stack(found)


def _answer(name: str, prediction: Prediction, top: int) -> dict[str, Any]:
    """What is said of one image."""
    ranked = list(prediction.probabilities.items())[:top]
    found: dict[str, Any] = {"file": name, "class": prediction.label, "probability": prediction.probability}
    found["classes"] = [{"class": label, "probability": probability} for label, probability in ranked]
    found["none_of_these"] = prediction.unknown
    if prediction.within is not None:
        found["set"] = list(prediction.within)
    return found


def explained(classifier: Classifier, pixels_HWC: Array, asked: Asked) -> dict[str, Any]:
    """Which pixels of an image at the cached size spoke for a class. Only on the thread of an ``Asker``.

    Raises:
        ConfigError: the network lacks what the method needs, or has no such layer.
    """
    assert asked.explain is not None
    explainer = Explainer(classifier, [asked.explain], AttributionConfig(layer=asked.layer))
    image = explainer.explain(pixels_HWC[None], asked.target, faithfulness=False)[0]
    heat_HW = image.explanations[0].map_HW
    if asked.explain in SIGNED:
        heat_HW = np.maximum(heat_HW, 0)  # what speaks for the class, as with the other methods
    shown_HWC = centre(torch.from_numpy(pixels_HWC[None]), classifier.size).numpy()[0]
    file = io.BytesIO()
    Image.fromarray(overlaid(shown_HWC, heat_HW)).save(file, "PNG")
    overlay = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"method": asked.explain, "class": image.label, "overlay": overlay}


# ── what the classifier is ───────────────────────────────────────────────────────────────────────────────────────────


def _unfit(classifier: Classifier) -> dict[Method | None, str]:
    """The methods of explanation that the classifier, or this machine, lacks something for, and the sentence."""
    found: dict[Method | None, str] = {}
    for method in METHODS:
        try:
            Explainer(classifier, [method])
        except ConfigError as error:
            reason = in_words_of_a_form(str(error))
            if "pip install" in reason:  # which would not help the caller
                reason = f"explain {method} needs a library that this server does not have; choose grad_cam."
            found[method] = reason
    return found


def describe_model(model: dict[str, Any], limits: ServeConfig, methods: Sequence[str]) -> dict[str, Any]:
    """What of ``model.json`` is for everyone: what is named here, and no folder of the machine.

    Args:
        model: of a classifier.
        limits: of the server.
        methods: of explanation that it has what it takes for.
    """
    metrics, trust = model.get("metrics"), model.get("trust")
    accuracy = None
    if metrics:  # of earlier versions some are missing
        accuracy = {"value": metrics["accuracy"], "interval": metrics.get("accuracy_interval"), "n": metrics["n"]}
        accuracy["split"] = metrics.get("split")
    unknown = trust and {name: trust["unknown"][name] for name in ("share_of_own", "rates")}
    return {
        "classes": model["classes"],
        "size": list(model["size"]),
        "views": model["views"],
        "parameters": model.get("parameters"),
        "accuracy": accuracy,
        "calibration": {
            "temperatures": model["temperatures"],
            "n": model.get("calibrated_on"),
            "error": metrics.get("calibration_error") if metrics else None,
        },
        "unknown": unknown,
        "coverages": list(COVERAGES) if trust else [],
        "methods": list(methods),
        "versions": model.get("versions", {}),
        "limits": {
            "megabytes": limits.max_megabytes,
            "images": limits.max_images,
            "megapixels": limits.max_megapixels,
            "explained_images": EXPLAINED,
        },
    }
