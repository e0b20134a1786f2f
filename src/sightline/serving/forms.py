"""What a caller of ``/api/predict`` asks: its form is read within limits, and every field is checked."""

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from sightline.config import METHODS, AttributionConfig, Method, ServeConfig, methods_of, refuse_unknown_class
from sightline.config.checks import nearest
from sightline.errors import ConfigError
from sightline.inference.views import Views
from sightline.measures.conformal import COVERAGES

__all__ = ["FIELDS", "IMAGES", "Asked", "File", "checked", "in_words_of_a_form", "read_form"]

IMAGES = "images"
FIELDS: dict[str, dict[str, Any]] = {
    "top": {"type": "integer", "minimum": 1, "default": 5, "description": "Classes to name for each image, at most."},
    "views": {
        "type": "string",
        "enum": list(get_args(Views)),
        "description": "Views of an image to average; without it those of the classifier's recipe.",
    },
    "coverage": {
        "type": "number",
        "enum": list(COVERAGES),
        "description": "Also give the set of classes that holds the true one this often.",
    },
    "explain": {"type": "string", "enum": list(METHODS), "description": "Also show which pixels spoke for the class."},
    "layer": {"type": "string", "description": "Layer whose map `explain=grad_cam` shows; without it a fitting one."},
    "target": {"type": "string", "description": "Class that `explain` asks about; without it the most probable one."},
}
"""Every field but the images, as OpenAPI describes it."""
EXPLAINED = (
    16  # images of a request that are explained, at most: a map costs up to a thousand times what an answer does
)
LONGEST_NAME = 200  # letters of a file's name that are repeated
LONGEST_FIELD = 4096  # bytes


@dataclass(frozen=True)
class File:
    """An image as it came."""

    name: str
    """Its base name, fit to be repeated."""
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked about some images."""

    top: int = 5
    views: Views | None = None
    coverage: float | None = None
    explain: Method | None = None
    layer: str | None = None
    target: str | None = None


async def read_form(request: Request, limits: ServeConfig) -> tuple[list[File], dict[str, str]]:
    """The images of a request in their order, and the texts of its other fields, those of the query among them.

    Raises:
        HTTPException: no form, or more in it than the limits allow.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(
            415,
            f"the body is {plain(kind) or 'of no named type'}; wanted multipart/form-data with the image in the field"
            f" {IMAGES} (curl -F {IMAGES}=@cat.jpg).",
        )
    # a charset of the caller's choice would choose among Python's codecs
    kind = re.sub(r";\s*charset=[^;]*", "", kind, flags=re.IGNORECASE)
    parser = _Parser(Headers({"content-type": kind}), request.stream(), limits.max_images)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form is broken: {plain(error.message).rstrip('.')}; send it again.") from error
    try:
        files = [
            File(base_name(item.filename), await item.read())
            for name, item in form.multi_items()
            if isinstance(item, UploadFile)
        ]
    finally:
        await form.close()
    if not files:
        raise HTTPException(400, f"no image in the form; send one or more in the field {IMAGES}.")
    fields: dict[str, str] = {}
    texts = [(name, item) for name, item in form.multi_items() if isinstance(item, str)]
    for name, text in [*request.query_params.multi_items(), *texts]:
        if name in fields:
            raise HTTPException(400, f"the field {plain(name)} is there twice; send it once.")
        _refuse_unknown_field(name, request.query_params)
        fields[name] = text
    return files, fields


class _Parser(MultiPartParser):
    """Starlette's, which refuses what nobody asked for as soon as the headers of a part are read."""

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], most: int) -> None:
        super().__init__(headers, stream, max_files=most, max_fields=len(FIELDS), max_part_size=LONGEST_FIELD)

    def on_headers_finished(self) -> None:
        if self._current_files == self.max_files and b"filename" in (self._current_part.content_disposition or b""):
            raise HTTPException(413, f"more than {self.max_files} images; send at most {self.max_files} in a request.")
        super().on_headers_finished()
        name, is_file = self._current_part.field_name, self._current_part.file is not None
        if is_file and name != IMAGES:
            raise HTTPException(
                400,
                f"a file in the field {plain(name)!r}; wanted images in the field {IMAGES} (curl -F {IMAGES}=@cat.jpg).",
            )
        if not is_file:
            _refuse_unknown_field(name)


def _refuse_unknown_field(name: str, query: Any = ()) -> None:
    if name == IMAGES:
        where = "the query" if name in query else "the form"
        raise HTTPException(
            400, f"the field {IMAGES} is text in {where}; wanted a file with a name (curl -F {IMAGES}=@cat.jpg)."
        )
    if name not in FIELDS:
        raise HTTPException(400, f"unknown field {plain(name)!r}; {nearest(name[:100], [IMAGES, *FIELDS])}")


def checked(fields: dict[str, str], images: int, classes: Sequence[str]) -> Asked:
    """The fields of a form as values.

    Args:
        fields: by their names.
        images: that the form holds.
        classes: that the classifier knows.
    Raises:
        HTTPException: a value is unknown, or a field would have no effect.
    """
    try:
        views, explain = fields.get("views"), fields.get("explain")
        if views is not None and views not in get_args(Views):
            raise ConfigError(f"views is {plain(views)!r}; wanted one of {', '.join(get_args(Views))}.")
        asked = Asked(
            top=_whole(fields.get("top", "5")),
            views=views,  # type: ignore[arg-type]
            coverage=_coverage(fields.get("coverage")),
            explain=None if explain is None else _method(explain),
            layer=fields.get("layer"),
            target=fields.get("target"),
        )
        if asked.explain is None and (idle := [name for name in ("layer", "target") if name in fields]):
            raise ConfigError(
                f"{' and '.join(idle)} without explain has no effect; add explain=grad_cam, or leave it out."
            )
        if asked.target is not None:
            refuse_unknown_class(asked.target, classes)
        if asked.explain is not None:
            AttributionConfig(layer=asked.layer).refuse_unused([asked.explain])
    except ConfigError as error:
        raise HTTPException(422, in_words_of_a_form(str(error))) from error
    if asked.explain is not None and images > EXPLAINED:
        raise HTTPException(413, f"{images} images to explain; at most {EXPLAINED} are explained in a request.")
    return asked


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise ConfigError(f"top is {plain(text)!r}; wanted a whole number, 1 or more.")
    return int(text)


def _coverage(text: str | None) -> float | None:
    """One of ``COVERAGES``, as the literal that means it."""
    if text is None:
        return None
    known = {coverage for coverage in COVERAGES if re.fullmatch(rf"0?{re.escape(f'{coverage:g}'[1:])}0*", text)}
    if not known:
        raise ConfigError(f"coverage is {plain(text)!r}; wanted 0.8 to 0.99, in steps of 0.01.")
    return known.pop()


def _method(name: str) -> Method:
    if name not in METHODS:
        raise ConfigError(f"explain is {plain(name)!r}; {nearest(name[:100], METHODS)}")
    return methods_of([name])[0]


def in_words_of_a_form(sentence: str) -> str:
    """A sentence of the library, whose flags become the fields of a form."""
    return plain(re.sub(r"--([a-z][a-z-]*)", r"\1", re.sub(r"--method\b", "explain", sentence)), 500)


def base_name(name: str | None) -> str:
    """The last part of a file's name, whatever system it comes from, on one line."""
    return plain(re.split(r"[/\\]", name or "")[-1], LONGEST_NAME)


def plain(text: str, most: int = 100) -> str:
    """A stranger's text on one line; letters that cannot be seen become question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:most])
