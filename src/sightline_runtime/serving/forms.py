"""Forms with images, read into memory: what nobody asked for is refused as soon as it is seen."""

import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, Headers, QueryParams, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from sightline_runtime.sentences import nearest
from sightline_runtime.serving.limits import plain

__all__ = ["IMAGES", "FormRoute", "base_name"]

IMAGES = "images"
LONGEST_NAME = 200  # letters of a file's name that are repeated
LONGEST_FIELD = 4096  # bytes
CURL = f"(curl -F {IMAGES}=@cat.jpg)"


class FormRoute(APIRoute):
    """A route whose form may also come in the query, and never touches a disk.

    The state of its application says how many images are taken (``max_images``), and which other fields (``texts``).
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request, with the form read here."""
        handle = super().get_route_handler()

        async def handle_form(request: Request) -> Response:
            return await handle(_FormRequest(request.scope, request.receive))

        return handle_form


class _FormRequest(Request):
    async def form(self, **_: Any) -> FormData:  # type: ignore[override]
        """Return the images and the other fields, those of the query among them.

        Raises:
            HTTPException: there is no form, or something in it that nobody asked for.
        """
        kind = self.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != "multipart/form-data":
            raise HTTPException(
                415,
                f"the body is {plain(kind) or 'of no named type'}; wanted multipart/form-data with the image in the"
                f" field {IMAGES} {CURL}.",
            )
        state = self.app.state
        # a charset of the caller's choice would choose among Python's codecs
        headers = Headers({"content-type": re.sub(r";\s*charset=[^;]*", "", kind, flags=re.IGNORECASE)})
        try:
            form = await _Parser(headers, self.stream(), state.max_images, state.texts, self.query_params).parse()
        except MultiPartException as error:
            sentence = f"the form is broken: {plain(error.message).rstrip('.')}; send it again."
            raise HTTPException(400, sentence) from error
        seen = set()
        texts = [(name, item) for name, item in form.multi_items() if isinstance(item, str)]
        for name, text in [*self.query_params.multi_items(), *texts]:
            _refuse_unknown_field(name, state.texts, self.query_params)
            if name in seen:
                raise HTTPException(400, f"the field {plain(name)} is there twice; send it once.")
            if not text:
                raise HTTPException(422, f"the field {name} is empty; give it a value, or leave it out.")
            seen.add(name)
        for file in (files := form.getlist(IMAGES)):
            assert isinstance(file, UploadFile)
            file.filename = base_name(file.filename) or None  # FastAPI drops an empty file whose name is empty
        if not files:
            raise HTTPException(400, f"no image in the form; send one or more in the field {IMAGES}.")
        return FormData([*self.query_params.multi_items(), *form.multi_items()])


class _Parser(MultiPartParser):
    """A parser that keeps files in memory and refuses a part as soon as its headers are read."""

    spool_max_size = 0  # of files that stay in memory: any

    def __init__(
        self,
        headers: Headers,
        stream: AsyncGenerator[bytes, None],
        most: int,
        texts: Sequence[str],
        query: QueryParams,
    ) -> None:
        super().__init__(headers, stream, max_files=most, max_fields=len(texts), max_part_size=LONGEST_FIELD)
        self.texts = texts
        self.query = query

    def on_headers_finished(self) -> None:
        """Refuse a part that nobody asked for."""
        if self._current_files == self.max_files and b"filename" in (self._current_part.content_disposition or b""):
            raise HTTPException(422, f"more than {self.max_files} images; send at most {self.max_files} in a request.")
        super().on_headers_finished()
        name = self._current_part.field_name
        if self._current_part.file is None:
            _refuse_unknown_field(name, self.texts, self.query)
        elif name != IMAGES:
            sentence = f"a file in the field {plain(name)!r}; wanted images in the field {IMAGES} {CURL}."
            raise HTTPException(400, sentence)


def _refuse_unknown_field(name: str, texts: Sequence[str], query: QueryParams) -> None:
    if name == IMAGES:
        where = "the query" if name in query else "the form"
        raise HTTPException(400, f"the field {IMAGES} is text in {where}; wanted a file with a name {CURL}.")
    if name not in texts:
        raise HTTPException(400, f"unknown field {plain(name)!r}; {nearest(name[:100], [IMAGES, *texts])}")


def base_name(name: str | None) -> str:
    """Return the last part of a file's name, whatever system it comes from, on one line."""
    return plain(re.split(r"[/\\]", name or "")[-1], LONGEST_NAME)
