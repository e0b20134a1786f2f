"""The review page: one image at a time, or a grid, drawn by the server.

    GET  /review            the first undecided image, or ``?item=12`` (counted from 1)
    GET  /review/grid       a page of many, around ``?item=12``
    POST /review/decide     a decision; answers with the next undecided image
    POST /review/undo       takes one back; answers with its image

Pictures are within the pages, as they were decoded: no request names a file.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form
from fastapi.responses import HTMLResponse, Response

from sightline.display.pages import render
from sightline.errors import SightlineError, StorageError
from sightline.serving.reviewing.drawing import draw_review
from sightline.serving.reviewing.session import Action, Choice, ConflictError, Session, Undo
from sightline_runtime.serving.limits import PRIVATE

__all__ = ["review_routes"]

View = Literal["one", "grid"]
Opened = Callable[[], Session | str]
HEADERS = PRIVATE | {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; form-action"
        " 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # without one, a form would not say whose page it is of
}


def review_routes(opened: Opened) -> APIRouter:
    """Make the paths of a review.

    Args:
        opened: returns the session; a sentence where there is nothing to review, or not yet.
    """
    router = APIRouter(prefix="/review", include_in_schema=False, dependencies=[Depends(_headed)])

    @router.get("")
    def one(item: int | None = None) -> Response:
        return _page(opened(), "one", item)

    @router.get("/grid")
    def grid(item: int | None = None) -> Response:
        return _page(opened(), "grid", item)

    @router.post("/decide")
    def decide(
        item: Annotated[int, Form()],
        action: Annotated[Action, Form()],
        label: Annotated[int | None, Form()] = None,
        name: Annotated[str, Form()] = "",
        add: Annotated[bool, Form()] = False,
        seen: Annotated[str, Form()] = "",
        view: Annotated[View, Form()] = "one",
    ) -> Response:
        session = opened()
        if isinstance(session, str):
            return _page(session, view, None)
        try:
            text, undo = session.decide(item - 1, Choice(action, label, name, add), seen)
        except SightlineError as error:
            return _page(session, view, item, trouble=error)
        return _page(session, view, None, after=item - 1, text=text, undo=undo)

    @router.post("/undo")
    def undo(
        item: Annotated[int, Form()],
        token: Annotated[str, Form()] = "",
        state: Annotated[str, Form()] = "",
        view: Annotated[View, Form()] = "one",
    ) -> Response:
        session = opened()
        if isinstance(session, str):
            return _page(session, view, None)
        try:
            return _page(session, view, item, text=session.undo(item - 1, token, state))
        except SightlineError as error:
            return _page(session, view, item, trouble=error)

    for name, kind in (("review.js", "text/javascript"), ("review.css", "text/css")):
        router.add_api_route(f"/{name}", _resource(name, kind), methods=["GET"])
    return router


def _headed(response: Response) -> None:
    response.headers.update(HEADERS)


def _resource(name: str, kind: str) -> Callable[[], Response]:
    def resource() -> Response:
        return Response(render(name), 200, HEADERS, kind)

    return resource


def _page(
    session: Session | str,
    view: View,
    item: int | None,
    *,
    after: int = -1,
    text: str = "",
    undo: Undo | None = None,
    trouble: SightlineError | None = None,
) -> Response:
    """Draw the page.

    Args:
        session: or a sentence to show instead.
        view: one image, or many.
        item: its number, counted from 1; None shows the first undecided one.
        after: index of the item behind which that is looked for.
        text: says what was done.
        undo: takes that back.
        trouble: why nothing was.
    """
    status = 200 if trouble is None else 409 if isinstance(trouble, ConflictError) else 422
    status = 507 if isinstance(trouble, StorageError) else status
    try:
        content: dict[str, Any] = draw_review(session, view, item, after) if isinstance(session, Session) else {}
    except SightlineError as error:  # the file of decisions is something else by now
        content, status, session = {}, 500, str(error)
    content |= {"says": "" if isinstance(session, Session) else session, "text": text, "undo": undo}
    page = render("review.html", **content, trouble="" if trouble is None else str(trouble))
    return HTMLResponse(page.encode("utf-8", "replace"), status, HEADERS)
