"""Downloads for a host's own handlers: the same streaming, resuming and closing."""

from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import request_response
from starlette.types import Message, Receive, Scope, Send

from .answers.path import Handler
from .answers.problems import refusal
from .answers.remote_body import answer_with_url
from .answers.selectors import parse_selectors
from .answers.stored_object import answer_with_object
from .download.handle import get_download
from .download.scope import DownloadScope
from .errors import NotFound
from .sources.s3.names import check_key
from .telemetry.request_id import RequestId

RawHeaders = list[tuple[bytes, bytes]]

_FRAMING = {b"content-length", b"content-range", b"transfer-encoding"}
_OBJECT_HEADERS = {
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


def stream_object(
    downloads: Starlette, key: str, *, bucket: str | None = None, download_name: str | None = None
) -> StreamingResponse:
    """Return the answer with an object, for a host's handler to return.

    `bucket` is the settings' bucket by default; `download_name` is the file name that a client
    saves. An invalid key is a 404. The answer opens the object when it is sent, and closes it
    afterwards, like the routes of `downloads`: with its clients, limits, resuming, ranges,
    conditions, log and metrics. Errors are its problem documents.

    Headers that the handler sets replace those of the object; without any, the answer has
    `Cache-Control: private`. The handler decides who may have it: tokens and signed URLs are not
    checked. A background task runs when the whole answer was sent. The host enters the lifespan
    of `downloads`.
    """

    async def handler(request: Request) -> Response:
        try:
            check_key(key)
        except ValueError as error:
            raise NotFound(f"key {error}") from error
        download = get_download(request)
        store = await download.in_time(download.serving.buckets.get(bucket))
        selectors = parse_selectors(request.method, request.headers)
        return await answer_with_object(download, store, key, selectors, filename=download_name)

    return _EmbeddedDownload(downloads, handler, source="s3")


def stream_url(
    downloads: Starlette,
    url: str,
    *,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
    download_name: str | None = None,
) -> StreamingResponse:
    """Return the answer with the body at `url`, for a host's handler to return.

    `length` is the number of bytes that the body must have; by default the upstream tells it. The
    upstream gets `headers`; redirects are not followed. The rest is as with `stream_object`.
    A client must not choose `url`: it could read whatever this process can reach.
    """

    async def handler(request: Request) -> Response:
        return await answer_with_url(
            get_download(request),
            url,
            parse_selectors(request.method, request.headers),
            length=length,
            headers=headers,
            filename=download_name,
        )

    return _EmbeddedDownload(downloads, handler, source="http")


class _EmbeddedDownload(StreamingResponse):
    """An answer that opens its upstream when it is sent.

    Opened earlier, the upstream would stay open where the host drops the answer: after an error in
    a middleware, or for a client that has left.
    """

    def __init__(self, downloads: Starlette, handler: Handler, *, source: str) -> None:
        super().__init__(_no_body())
        self._downloads = downloads
        app = request_response(handler)
        self._app = RequestId(DownloadScope(app, source=source, refuse=refusal, is_guarded=False))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open, send and close the download; raises an error that must break the connection."""
        is_success = is_sent = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_success, is_sent
            if message["type"] == "http.response.start":
                is_success = message["status"] < HTTPStatus.BAD_REQUEST
                kept = _FRAMING if is_success else _FRAMING | _OBJECT_HEADERS
                headers = _replaced(message["headers"], self.raw_headers, kept)
                message = {**message, "headers": headers}
            await send(message)
            is_sent = message["type"] == "http.response.body" and not message.get("more_body")

        await self._app({**scope, "app": self._downloads}, receive, send_with_headers)
        # A client that left before the end may come again for the rest.
        if self.background is not None and is_success and is_sent:
            await self.background()


async def _no_body() -> AsyncIterator[bytes]:
    """Raise for a decorator that takes the body out of the answer: the body would be empty."""
    raise RuntimeError("return the answer of stream_object or stream_url as it is")
    yield b""


def _replaced(headers: RawHeaders, by: RawHeaders, kept: set[bytes]) -> RawHeaders:
    """Return `headers`, where those of the host replace ours of the same name, except `kept`."""
    if any(value.startswith(b"multipart/") for name, value in headers if name == b"content-type"):
        kept = kept | {b"content-type"}
    theirs = [header for header in by if header[0] not in kept]
    names = {name for name, _ in theirs}
    return [*(header for header in headers if header[0] not in names), *theirs]
