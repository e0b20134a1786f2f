"""Serve a review by itself, on this machine or to whom knows the token."""

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from sightline.config.serving import AddressConfig, ServeConfig
from sightline.display.events import Serving
from sightline.display.reporting import Listener
from sightline.display.terminal import show
from sightline.errors import ConfigError
from sightline.machine.extras import own_version
from sightline.serving.reviewing.items import Review
from sightline.serving.reviewing.routes import review_routes
from sightline.serving.reviewing.session import Session
from sightline_runtime.serving.limits import add_guards, is_loopback
from sightline_runtime.serving.listening import address_of, answer_at, ended_by_sigterm, listening

__all__ = ["build_review", "may_be_reviewed_at", "refuse_to_review_at", "serve_review"]

MOST_MEGABYTES = 0.1  # of a request, which is a few words
WAITING = 128  # callers that wait to be let in


def may_be_reviewed_at(address: AddressConfig) -> bool:
    """Tell whether decisions may be taken at an address: from this machine only, or from those who know the token."""
    return address.token is not None or is_loopback(address.host)


def refuse_to_review_at(address: AddressConfig) -> None:
    """Refuse an address at which anybody could change labels.

    Raises:
        ConfigError: it is open to other machines, without a token.
    """
    if not may_be_reviewed_at(address):
        raise ConfigError(
            f"--host {address.host} without --token would let anyone who reaches it change labels; add --token TOKEN,"
            " or leave --host out."
        )


def build_review(
    review: Review, address: AddressConfig, log: Callable[[str], None] = lambda line: show(line, error=True)
) -> FastAPI:
    """Make the application of a review, behind the guards of the service.

    Args:
        review: what is shown, and where decisions go.
        address: whom to answer.
        log: is given a line for each request.
    """
    app = FastAPI(title="sightline", version=own_version(), openapi_url=None, docs_url=None, redoc_url=None)
    session = Session(review)
    app.include_router(review_routes(lambda: session))

    @app.get("/", include_in_schema=False)
    def begin() -> RedirectResponse:
        return RedirectResponse("/review", 303)

    limits = ServeConfig(host=address.host, token=address.token, max_megabytes=MOST_MEGABYTES)
    add_guards(app, limits, log)
    return app


def serve_review(review: Review, address: AddressConfig, on_event: Listener) -> None:
    """Answer until Ctrl-C, or another signal, ends it.

    Raises:
        ConfigError: the address cannot be listened at, or is open to everyone.
    """
    refuse_to_review_at(address)
    app = build_review(review, address, log=lambda line: None)  # people look at the page: a line a key says nothing
    with ended_by_sigterm(), listening(address) as listener:
        listener.listen(WAITING)
        about = f"{review.title}: {len(review.items):,} to decide on; decisions go to {review.sink.path}"
        on_event(Serving(address_of(listener, address), about, service=False))
        try:
            answer_at(listener, app)
        except KeyboardInterrupt:  # how one ends it
            return
