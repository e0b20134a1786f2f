"""The service: ask a classifier about images over HTTP. B images, height H, width W.

    POST /api/predict     images in a form, answers in JSON
    GET  /api/health      whether it is there
    GET  /api/model       what the classifier is and how good
    GET  /api             a page that shows how to ask
    GET  /openapi.json    the same for programs

Every error is ``{"error": sentence, "request_id": id}``. ``sightline serve`` adds explanations and pages.
"""

import asyncio
import html
import logging
import re
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Form, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from pydantic import ConfigDict
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from sightline_runtime.answering import Answering
from sightline_runtime.conformal import COVERAGES
from sightline_runtime.decoding.decode import WANTED, TooManyPixelsError, UnreadableImageError, read_image
from sightline_runtime.errors import ConfigError
from sightline_runtime.exported import ExportedClassifier
from sightline_runtime.predictions import Prediction
from sightline_runtime.sentences import nearest
from sightline_runtime.serving.forms import IMAGES, FormRoute
from sightline_runtime.serving.limits import PRIVATE, add_guards, noted, plain
from sightline_runtime.serving.schemas import ERRORS, Answers, Error, Health, Model, Question, describe_exported
from sightline_runtime.serving.settings import ServiceLimits
from sightline_runtime.serving.worker import AT_ONCE, Asker, BusyError
from sightline_runtime.terminal import show_text

__all__ = ["ExportedPredictor", "Predictor", "build_service", "in_words_of_a_form"]

MOST_REQUESTS = 256  # at a time
RETRY_SECONDS = 2
DECODERS = 2  # threads: the memory that large images take while they are decoded
ROUTES = {"/api/predict": "POST", "/api/health": "GET", "/api/model": "GET", "/api": "GET", "/openapi.json": "GET"}

Array = np.ndarray[Any, Any]
Result = TypeVar("Result")


def build_service(
    predictor: "Predictor",
    version: str,
    log: Callable[[str], None] = lambda line: show_text(line.replace("\n", "\\n"), error=True),
) -> FastAPI:
    """Make the service of a classifier, behind its guards; other pages may be mounted on it at ``/``.

    Run it without uvicorn's own access log, which would write tokens down.

    Args:
        predictor: answers, within its limits.
        version: of what serves.
        log: is given a line for each request.
    """
    _keep_quiet()
    app = FastAPI(
        title="sightline",
        description="A classifier of images. A caller may name a request by the header X-Request-Id.",
        version=version,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.max_images = predictor.limits.max_images
    app.state.texts = [name for name in predictor.question.model_fields if name != IMAGES]
    app.state.words = predictor.words
    app.include_router(_routes(predictor))
    for path in ("/openapi.json", "/api", "/api/{rest:path}"):  # whatever is mounted at / must not answer in our name
        route = Route(path, _nothing, include_in_schema=False)
        route.methods = None  # any
        app.router.routes.append(route)
    for error in (HTTPException, RequestValidationError, ConfigError, BusyError):
        app.add_exception_handler(error, _refused)
    add_guards(app, predictor.limits, log)
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


def _routes(predictor: "Predictor") -> APIRouter:
    router = APIRouter(dependencies=[Depends(_private)], responses=_errors(403, 405, 500), route_class=FormRoute)
    asker, limits = predictor.asker, predictor.limits
    described = predictor.described()
    guarded: dict[str, Any] = {}
    if limits.token:
        bearer = Security(HTTPBearer(scheme_name="token", auto_error=False))
        guarded = {"dependencies": [bearer], "responses": _errors(401)}
    began = time.monotonic()

    class PredictForm(predictor.question):  # type: ignore[name-defined,misc]
        model_config = ConfigDict(json_schema_extra=lambda schema: predictor.narrow(schema))

    @router.post(
        "/api/predict",
        summary="Classify images",
        description=f"{WANTED}. A field may be in the form or in the query.",
        response_model=predictor.answers,
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
    @router.get("/api/model", summary="What the classifier is and how good", response_model=predictor.model, **guarded)
    async def model(request: Request) -> dict[str, Any]:
        return _identified(request, **described)

    @router.head("/api", include_in_schema=False)
    @router.get("/api", include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(predictor.page(str(request.base_url).rstrip("/"), described))

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
            "views": "wanted one of one, flip, six, adaptive.",
            "coverage": "wanted 0.8 to 0.99, in steps of 0.01.",
        }
        known: Sequence[str] = request.app.state.words.get(name, ())
        sentence = f"{name} is {plain(value)!r}; {wanted.get(str(name)) or nearest(value[:100], known)}"
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


class Predictor:
    """Answers questions about images; what a classifier of some kind adds is added by a class of its own."""

    question: type[Question] = Question
    """What is asked."""
    answers: type[Answers] = Answers
    """What is answered."""
    model: type[Model] = Model
    """What is known of the classifier."""
    words: Mapping[str, Sequence[str]] = {}
    """Words that are known of fields that have some."""

    def __init__(self, asker: Asker[Any], limits: ServiceLimits) -> None:
        """
        Args:
            asker: asks the classifier; it is not closed here.
            limits: whom to answer, and how much to take.
        """
        self.asker = asker
        self.limits = limits
        self.classifier: Answering = asker.classifier
        self.decoders = ThreadPoolExecutor(DECODERS, "decoder")
        self.requests = 0  # that are being answered

    def described(self) -> dict[str, Any]:
        """Return what is known of the classifier, as ``model`` has it."""
        raise NotImplementedError

    def page(self, base: str, described: Mapping[str, Any]) -> str:
        """Return a page, HTML, that shows how to ask at an address."""
        raise NotImplementedError

    def narrow(self, schema: dict[str, Any]) -> None:
        """Narrow the schema of a question to what this classifier answers on this server."""
        images = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
        schema["properties"][IMAGES] |= images | {"maxItems": self.limits.max_images}
        self.narrow_words(schema, "views", list(self.classifier.temperatures))
        self.narrow_words(schema, "coverage", list(COVERAGES) if self.classifier.set_limits else [])

    def narrow_words(self, schema: dict[str, Any], name: str, known: Sequence[Any]) -> None:
        """Let a field have the values that are known, or no value where there are none."""
        fields = schema["properties"]
        fields[name] = {**fields[name], "enum": known} if known else False

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
        self.refuse_unfit(question)
        self.requests += 1
        try:
            return await _unless_gone(request, self._images(question))
        finally:
            self.requests -= 1

    def refuse_unfit(self, question: Question) -> None:
        """Refuse what this classifier cannot answer, and fields that would have no effect.

        Raises:
            ConfigError: there is such a field.
        """
        if question.coverage is not None:
            self.classifier.limit(question.views or self.classifier.views, question.coverage)

    async def add(self, images: list[dict[str, Any]], pixels_BHWC: Array, question: Question) -> None:
        """Add to what is said of each image what else was asked for."""

    async def _images(self, question: Question) -> list[dict[str, Any]]:
        """Return what is said of each image; cancelled, it cancels what has not begun."""
        files = question.images
        most, decoded = int(self.limits.max_megapixels * 1e6), []
        predictions: list[Prediction] = []
        for place, file in enumerate(files, 1):
            which = f"image {place} of {len(files)} ({file.filename or 'without a name'})"
            pixels = self.decoders.submit(_decoded, await file.read(), which, most, self.classifier)
            decoded.append(await asyncio.wrap_future(pixels))
        pixels_BHWC = np.stack(decoded)
        for start in range(0, len(files), AT_ONCE):  # some at a time: others have their turn
            part_BHWC = pixels_BHWC[start : start + AT_ONCE]
            part = await asyncio.wrap_future(self.asker.ask(part_BHWC, question.views, question.coverage))
            predictions.extend(part)
        images = [_answer(file, one, question.top) for file, one in zip(files, predictions, strict=True)]
        await self.add(images, pixels_BHWC, question)
        return images


class ExportedPredictor(Predictor):
    """Answers questions about images by an exported classifier."""

    def __init__(self, asker: Asker[ExportedClassifier], limits: ServiceLimits) -> None:
        super().__init__(asker, limits)
        self.exported = asker.classifier

    def described(self) -> dict[str, Any]:
        return describe_exported(self.exported, self.limits)

    def page(self, base: str, described: Mapping[str, Any]) -> str:
        token = '-H "Authorization: Bearer $TOKEN" ' if self.limits.token else ""
        names = ", ".join(described["classes"])
        fields = "".join(
            f"<dt><code>{name}</code></dt><dd>{html.escape(field.description or '')}</dd>"
            for name, field in self.question.model_fields.items()
        )
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>sightline: how to ask</title>'
            "<h1>How to ask this classifier</h1>"
            f"<p>It tells {len(described['classes'])} classes apart: {html.escape(names)}."
            f" {html.escape(_how_good(described['accuracy']))}</p>"
            f"<pre>curl -F images=@cat.jpg -F top=3 {token}{html.escape(base)}/api/predict</pre>"
            f'<dl>{fields}</dl><p><a href="/openapi.json">The same for programs</a></p>'
        )


def _how_good(accuracy: Mapping[str, Any] | None) -> str:
    if accuracy is None:
        return "Its file does not tell how good it is on images that it did not learn from."
    low, high = accuracy["interval"]
    return (
        f"Of {accuracy['n']:,} images that it had not learned from ({accuracy['split']}) {accuracy['value']:.1%} were"
        f" named right (95 % interval {low:.1%} to {high:.1%})."
    )


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


def _decoded(content: bytes, which: str, most: int, classifier: Answering) -> Array:
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
