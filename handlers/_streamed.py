"""Downloads for a host's own handlers: the healing body, its headers, and its closing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import request_response
from starlette.types import Message, Receive, Scope, Send

from ._download import DownloadScope, in_time
from ._location import check_key
from ._object_answer import answer_from_store
from ._problems import EXCEPTION_HANDLERS
from ._remote_answer import answer_from_url
from ._request_id import RequestId
from ._stores import Stores

Handler = Callable[[Request], Awaitable[Response]]
RawHeaders = Sequence[tuple[bytes, bytes]]

# What was not foreseen is the host's to answer.
_HANDLERS = {kind: how for kind, how in EXCEPTION_HANDLERS.items() if kind is not Exception}


def stream_object(
    downloads: Starlette, key: str, *, bucket: str | None = None
) -> StreamingResponse:
    """Return the answer with an object, for a handler of a host's to return.

    `bucket` is the settings' where it is None. Nothing is opened before the answer is sent, and
    whatever was is closed after it, as on the routes of `downloads`: with its clients, bounds,
    healing, ranges and conditions, log and metrics; errors are its problem documents. Headers that
    the handler puts on it replace those of the object. Who may have it is the host's to decide:
    tokens and signed addresses are not asked for. The host enters the lifespan of `downloads`.
    Raises ValueError where `key` is none.
    """
    check_key(key)

    async def handler(request: Request) -> Response:
        stores: Stores = request.app.state.stores
        store = await in_time(request, stores.of(bucket))
        return await answer_from_store(request, store, key)

    return _Streamed(downloads, handler, source="s3")


def stream_url(
    downloads: Starlette,
    url: str,
    *,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> StreamingResponse:
    """Return the answer with the body at `url`, for a handler of a host's to return.

    `length` is how many bytes it must have; without, what the upstream says. It is asked for
    with `headers`, and redirects are not followed. All else is as with `stream_object`. `url`
    must not be a client's to choose: whatever this process reaches could be read.
    """

    async def handler(request: Request) -> Response:
        return await answer_from_url(request, url, length=length, headers=headers)

    return _Streamed(downloads, handler, source="http")


class _Streamed(StreamingResponse):
    """An answer that is opened when it is sent.

    Opened before, it would have nobody to close it where the host drops it: for an error of a
    middleware's, or a client that has gone.
    """

    def __init__(self, downloads: Starlette, handler: Handler, *, source: str) -> None:
        super().__init__(_nothing())
        self._downloads = downloads
        answering = DownloadScope(request_response(handler), source=source, guarded=False)
        self._app = RequestId(ExceptionMiddleware(answering, handlers=_HANDLERS))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open, send and close it; raises what must break the connection."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and self.raw_headers:
                message = {**message, "headers": _replaced(message["headers"], self.raw_headers)}
            await send(message)

        ours = {**scope, "app": self._downloads}
        await self._app(ours, receive, send_with_headers)
        if self.background is not None:
            await self.background()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


def _replaced(headers: RawHeaders, by: RawHeaders) -> RawHeaders:
    """Return the headers, those of a host's instead of ours of the same name."""
    names = {name for name, _ in by}
    return [*(header for header in headers if header[0] not in names), *by]
