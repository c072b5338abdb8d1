"""Downloads for a host's own handlers: the healing body, its headers, and its closing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import request_response
from starlette.types import Message, Receive, Scope, Send

from .answers.location import check_key
from .answers.problems import EXCEPTION_HANDLERS
from .answers.remote_body import answer_with_url
from .answers.stored_object import answer_with_object
from .download.scope import DownloadScope, RawHeaders, in_time
from .errors import NotFound
from .sources.s3.buckets import Buckets
from .telemetry.request_id import RequestId

Handler = Callable[[Request], Awaitable[Response]]

_FRAMING = {b"content-length", b"content-range", b"transfer-encoding"}
_OF_THE_OBJECT = {
    b"accept-ranges",
    b"cache-control",
    b"content-disposition",
    b"content-encoding",
    b"content-language",
    b"content-type",
    b"etag",
    b"expires",
    b"last-modified",
}

# What was not foreseen is the host's to answer.
_HANDLERS = {kind: how for kind, how in EXCEPTION_HANDLERS.items() if kind is not Exception}


def stream_object(
    downloads: Starlette, key: str, *, bucket: str | None = None, download_name: str | None = None
) -> StreamingResponse:
    """Return the answer with an object, for a handler of a host's to return.

    `bucket` is the settings' where it is None; with a `download_name` it is to be saved as that. A
    key that is none is a 404. Nothing is opened before the answer is sent, and whatever was is
    closed after it, as on the routes of `downloads`: with its clients, bounds, healing, ranges and
    conditions, log and metrics; errors are its problem documents. Headers that the handler puts on
    it replace those of the object; without, it is `Cache-Control: private`. Who may have it is the
    handler's to decide: tokens and signed addresses are not asked for. A background task is run
    when all was sent. The host enters the lifespan of `downloads`.
    """

    async def handler(request: Request) -> Response:
        try:
            check_key(key)
        except ValueError as error:
            raise NotFound(str(error)) from error
        stores: Buckets = request.app.state.stores
        store = await in_time(request, stores.of(bucket))
        return await answer_with_object(request, store, key, download_name=download_name)

    return _Streamed(downloads, handler, source="s3")


def stream_url(
    downloads: Starlette,
    url: str,
    *,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
    download_name: str | None = None,
) -> StreamingResponse:
    """Return the answer with the body at `url`, for a handler of a host's to return.

    `length` is how many bytes it must have; without, what the upstream says. It is asked for
    with `headers`, and redirects are not followed. All else is as with `stream_object`. `url`
    must not be a client's to choose: whatever this process reaches could be read.
    """

    async def handler(request: Request) -> Response:
        return await answer_with_url(
            request, url, length=length, headers=headers, download_name=download_name
        )

    return _Streamed(downloads, handler, source="http")


class _Streamed(StreamingResponse):
    """An answer that is opened when it is sent.

    Opened before, it would have nobody to close it where the host drops it: for an error of a
    middleware's, or a client that has gone.
    """

    def __init__(self, downloads: Starlette, handler: Handler, *, source: str) -> None:
        super().__init__(_not_this_way())
        self._downloads = downloads
        answering = DownloadScope(request_response(handler), source=source, guarded=False)
        self._app = RequestId(ExceptionMiddleware(answering, handlers=_HANDLERS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open, send and close it; raises what must break the connection."""
        is_good = is_sent = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_good, is_sent
            if message["type"] == "http.response.start":
                is_good = message["status"] < HTTPStatus.BAD_REQUEST
                headers = _replaced(message["headers"], self.raw_headers, of_a_problem=not is_good)
                message = {**message, "headers": headers}
            await send(message)
            is_sent = message["type"] == "http.response.body" and not message.get("more_body")

        ours = {**scope, "app": self._downloads}
        await self._app(ours, receive, send_with_headers)
        # Who left before the end may come again for the rest.
        if self.background is not None and is_good and is_sent:
            await self.background()


async def _not_this_way() -> AsyncIterator[bytes]:
    """Fail whoever takes the body without the answer, as some decorators do: it would be empty."""
    raise RuntimeError("an answer of stream_object or stream_url is to be returned as it is")
    yield b""


def _replaced(headers: RawHeaders, by: RawHeaders, *, of_a_problem: bool) -> RawHeaders:
    """Return the headers, those of a host's instead of ours of the same name.

    What says how this very answer is framed stays, and of a problem all that says what it is.
    """
    kept = _FRAMING | (_OF_THE_OBJECT if of_a_problem else set())
    if any(value.startswith(b"multipart/") for name, value in headers if name == b"content-type"):
        kept = kept | {b"content-type"}
    theirs = [header for header in by if header[0] not in kept]
    names = {name for name, _ in theirs}
    return [*(header for header in headers if header[0] not in names), *theirs]
