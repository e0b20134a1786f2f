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
import io
import logging
import re
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Form, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from PIL import Image
from pydantic import ConfigDict
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from sightline.config.checks import nearest
from sightline.config.explaining import METHODS, SIGNED, AttributionConfig, refuse_unknown_class
from sightline.config.serving import ServeConfig
from sightline.display.pages import render_html
from sightline.display.pictures import overlaid
from sightline.display.terminal import show
from sightline.errors import ConfigError
from sightline.inference.classifier import Classifier
from sightline.machine.extras import own_version
from sightline.serving.forms import FormRoute
from sightline.serving.limits import PRIVATE, add_guards, noted, plain
from sightline.serving.maps import Maps, explain, seen
from sightline.serving.schemas import ERRORS, EXPLAINED, Answers, Error, Health, Model, Question, describe_model
from sightline.serving.worker import AT_ONCE, Asker, BusyError
from sightline_runtime.conformal import COVERAGES
from sightline_runtime.decoding.decode import WANTED, TooManyPixelsError, UnreadableImageError, read_image
from sightline_runtime.predictions import Prediction

__all__ = ["build_service"]

MOST_REQUESTS = 256  # at a time
RETRY_SECONDS = 2
DECODERS = 2  # threads: the memory that large images take while they are decoded
ROUTES = {"/api/predict": "POST", "/api/health": "GET", "/api/model": "GET", "/api": "GET", "/openapi.json": "GET"}

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")


def build_service(
    asker: Asker, limits: ServeConfig, log: Callable[[str], None] = lambda line: show(line, error=True)
) -> FastAPI:
    """Make the service of a classifier, behind its guards; other pages may be mounted on it at ``/``.

    Run it without uvicorn's own access log, which would write tokens down.

    Args:
        asker: asks the classifier; it is not closed here.
        limits: whom to answer, and how much to take.
        log: is given a line for each request.
    """
    _keep_quiet()
    app = FastAPI(
        title="sightline",
        description="A classifier of images. A caller may name a request by the header X-Request-Id.",
        version=own_version(),
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.max_images = limits.max_images
    app.include_router(_routes(asker, limits))
    for path in ("/openapi.json", "/api", "/api/{rest:path}"):  # whatever is mounted at / must not answer in our name
        route = Route(path, _nothing, include_in_schema=False)
        route.methods = None  # any
        app.router.routes.append(route)
    for error in (HTTPException, RequestValidationError, ConfigError, BusyError):
        app.add_exception_handler(error, _refused)
    add_guards(app, limits, log)
    return app


def _keep_quiet() -> None:
    """Let the libraries that read what callers send not write down what is odd about it: they could fill a log."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for name in ("python_multipart", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


# ── the paths ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _private(response: Response) -> None:
    """Let nobody on the way keep an answer."""
    response.headers.update(PRIVATE)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Error, "description": ERRORS[status]} for status in statuses}


def _routes(asker: Asker, limits: ServeConfig) -> APIRouter:
    router = APIRouter(dependencies=[Depends(_private)], responses=_errors(403, 405, 500), route_class=FormRoute)
    predictor = _Predictor(asker, limits)
    described = describe_model(asker.classifier.model, limits, predictor.maps.methods)
    guarded: dict[str, Any] = {}
    if limits.token:
        bearer = Security(HTTPBearer(scheme_name="token", auto_error=False))
        guarded = {"dependencies": [bearer], "responses": _errors(401)}
    began = time.monotonic()

    class PredictForm(Question):
        model_config = ConfigDict(json_schema_extra=lambda schema: predictor.narrow(schema))

    @router.post(
        "/api/predict",
        summary="Classify images",
        description=f"{WANTED}. A field may be in the form or in the query.",
        response_model=Answers,
        response_model_exclude_unset=True,
        **guarded | {"responses": _errors(400, 408, 413, 415, 422, 503) | guarded.get("responses", {})},
    )
    async def predict(
        request: Request, question: Annotated[PredictForm, Form(media_type="multipart/form-data")]
    ) -> dict[str, Any]:
        images = await predictor.answer(request, question)
        return _identified(request, images=images, views=question.views or asker.classifier.views)

    @router.head("/api/health", include_in_schema=False)
    @router.get("/api/health", summary="Whether the server is there, also when it is busy", response_model=Health)
    async def health(request: Request) -> dict[str, Any]:
        uptime = round(time.monotonic() - began, 3)
        return _identified(request, status="ok", uptime_seconds=uptime, waiting_images=asker.waiting_images)

    @router.head("/api/model", include_in_schema=False)
    @router.get("/api/model", summary="What the classifier is and how good", response_model=Model, **guarded)
    async def model(request: Request) -> dict[str, Any]:
        return _identified(request, **described)

    @router.head("/api", include_in_schema=False)
    @router.get("/api", include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        content = {
            "base": str(request.base_url).rstrip("/"),
            "token": limits.token is not None,
            "model": described,
            "fields": {name: field for name, field in Question.model_fields.items() if name != "images"},
            "errors": ERRORS,
            "limits": limits,
            "explained": EXPLAINED,
        }
        return HTMLResponse(render_html("service.html", **content))

    return router


def _identified(request: Request, **content: Any) -> dict[str, Any]:
    return {**content, "request_id": noted(request.scope).request_id}


async def _nothing(request: Request) -> Response:
    if allowed := ROUTES.get(request.scope["path"]):
        raise HTTPException(405, headers={"Allow": allowed})
    raise HTTPException(404)


async def _refused(request: Request, error: Exception) -> Response:
    """Answer with an error as JSON, in our words where the framework has only the status's name."""
    status, sentence, headers = 422, in_words_of_a_form(str(error)), {}
    if isinstance(error, RequestValidationError):
        _, name, *_ = error.errors()[0]["loc"]
        value = str(error.body.get(name))
        wanted = {
            "top": "wanted a whole number, 1 or more.",
            "views": "wanted one of one, flip, six.",
            "coverage": "wanted 0.8 to 0.99, in steps of 0.01.",
        }
        sentence = f"{name} is {plain(value)!r}; {wanted.get(str(name)) or nearest(value[:100], METHODS)}"
    elif isinstance(error, BusyError):
        status, headers = 503, {"Retry-After": str(RETRY_SECONDS)}
        sentence = f"{str(error).partition(';')[0]}, and no more are taken; ask again in {RETRY_SECONDS} s."
    elif isinstance(error, HTTPException):
        status, sentence, headers = error.status_code, str(error.detail), dict(error.headers or {})
        if status == 404:
            sentence = f"there is nothing at this path; the service is at {', '.join(ROUTES)}."
        if status == 405:
            sentence = f"this path does not take {request.method}; wanted {headers.get('Allow', 'GET')}."
    return JSONResponse(_identified(request, error=sentence), status, {**PRIVATE, **headers})


def in_words_of_a_form(sentence: str) -> str:
    """Return a sentence of the library with the fields of a form in place of its flags."""
    return plain(re.sub(r"--([a-z][a-z-]*)", r"\1", re.sub(r"--method\b", "explain", sentence)), 500)


# ── predict ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Predictor:
    """Answers questions about images."""

    def __init__(self, asker: Asker, limits: ServeConfig) -> None:
        self.asker = asker
        self.limits = limits
        self.maps = Maps(asker)
        self.decoders = ThreadPoolExecutor(DECODERS, "decoder")
        self.requests = 0  # that are being answered

    def narrow(self, schema: dict[str, Any]) -> None:
        """Narrow the schema of a question to what this classifier answers on this server."""
        classifier, fields = self.asker.classifier, schema["properties"]
        images = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
        fields["images"] |= images | {"maxItems": self.limits.max_images}
        values = {
            "views": list(classifier.model["temperatures"]),
            "coverage": list(COVERAGES) if classifier.trust else [],
            "explain": self.maps.methods,
            "layer": [layer.name for layer in self.maps.layers],
            "target": classifier.classes,
        }
        fields |= {name: {**fields[name], "enum": known} if known else False for name, known in values.items()}
        schema["dependentRequired"] = {"layer": ["explain"], "target": ["explain"]}
        schema["dependentSchemas"] = {
            "layer": {"properties": {"explain": {"const": "grad_cam"}}},
            "explain": {"properties": {"images": images | {"maxItems": EXPLAINED}}},
        }

    async def answer(self, request: Request, question: Question) -> list[dict[str, Any]]:
        """Return what is said of each image.

        Raises:
            BusyError: too many requests are being answered.
            ConfigError: a value is unknown, or a field would have no effect.
            HTTPException: an image cannot be read.
        """
        noted(request.scope).images = len(question.images)
        if self.requests >= MOST_REQUESTS:
            raise BusyError(f"{self.requests} requests are being answered")
        self._refuse_unfit(question)
        self.requests += 1
        try:
            return await _unless_gone(request, self._images(question))
        finally:
            self.requests -= 1

    def _refuse_unfit(self, question: Question) -> None:
        """Refuse what this classifier cannot answer, and fields that would have no effect."""
        classifier, method = self.asker.classifier, question.explain
        idle = [name for name in ("layer", "target") if getattr(question, name) is not None]
        if method is None and idle:
            raise ConfigError(
                f"{' and '.join(idle)} without explain has no effect; add explain=grad_cam, or leave it out."
            )
        if question.target is not None:
            refuse_unknown_class(question.target, classifier.classes)
        if method is not None:
            AttributionConfig(layer=question.layer).refuse_unused([method])
            if len(question.images) > EXPLAINED:
                raise ConfigError(
                    f"{len(question.images)} images to explain; at most {EXPLAINED} are explained in a request."
                )
            if reason := self.maps.left_out.get(method):
                raise ConfigError(f"{method} cannot be given here: {reason}.")
        if question.coverage is not None:
            classifier.limit(question.views or classifier.views, question.coverage)

    async def _images(self, question: Question) -> list[dict[str, Any]]:
        """Return what is said of each image; cancelled, it cancels what has not begun."""
        classifier, files = self.asker.classifier, question.images
        most, decoded = int(self.limits.max_megapixels * 1e6), []
        predictions: list[Prediction] = []
        for place, file in enumerate(files, 1):
            which = f"image {place} of {len(files)} ({file.filename or 'without a name'})"
            pixels = self.decoders.submit(_decoded, await file.read(), which, most, classifier)
            decoded.append(await asyncio.wrap_future(pixels))
        pixels_BHWC = np.stack(decoded)
        for start in range(0, len(files), AT_ONCE):  # some at a time: others have their turn
            part_BHWC = pixels_BHWC[start : start + AT_ONCE]
            part = await asyncio.wrap_future(self.asker.ask(part_BHWC, question.views, question.coverage))
            predictions.extend(part)
        images = [_answer(file, one, question.top) for file, one in zip(files, predictions, strict=True)]
        if question.explain is not None:
            for image, pixels_HWC in zip(images, pixels_BHWC, strict=True):  # one at a time, likewise
                work = partial(_explained, classifier, pixels_HWC, question)
                image["explanation"] = await asyncio.wrap_future(self.asker.do(work))
        return images


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


def _decoded(content: bytes, which: str, most: int, classifier: Classifier) -> Array:
    """Return the pixels of an image at the size that a classifier reads, (H, W, 3).

    Raises:
        HTTPException: it cannot be read; it is named by its place and its name.
    """
    try:
        return read_image(content, classifier.resize, classifier.preprocessing, maximum=most).pixels
    except TooManyPixelsError as error:
        raise HTTPException(413, f"{which} has {error}; send it smaller.") from error
    except UnreadableImageError as error:
        sentence = f"{which} cannot be read: {in_words_of_a_form(str(error))}; send a {WANTED} file"
        raise HTTPException(422, f"{sentence} that opens elsewhere.") from error


def _answer(file: UploadFile, prediction: Prediction, top: int) -> dict[str, Any]:
    """Return what is said of one image."""
    ranked = list(prediction.probabilities.items())[:top]
    answer = {
        "file": file.filename or "",
        "class": prediction.label,
        "probability": prediction.probability,
        "classes": [{"class": label, "probability": probability} for label, probability in ranked],
        "none_of_these": prediction.unknown,
    }
    return answer if prediction.within is None else answer | {"set": list(prediction.within)}


def _explained(classifier: Classifier, pixels_HWC: Array, question: Question) -> dict[str, Any]:
    """Return which pixels of an image at the cached size speak for a class. Only on the thread of an ``Asker``."""
    assert question.explain is not None
    image = explain(classifier, pixels_HWC, question.explain, question.layer, question.target)
    heat_HW = image.explanations[0].map_HW
    if question.explain in SIGNED:
        heat_HW = np.maximum(heat_HW, 0)  # what speaks for the class, as with the other methods
    file = io.BytesIO()
    Image.fromarray(overlaid(seen(classifier, pixels_HWC), heat_HW)).save(file, "PNG")
    overlay = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"method": question.explain, "class": image.label, "overlay": overlay}
