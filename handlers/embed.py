"""Downloads in a host's own handlers: `stream_object`, `redirect_object` and `stream_url`."""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from .answers.headers import type_for_key
from .answers.path import require_valid_key
from .answers.problems import refusal
from .answers.remote_body import answer_with_url
from .answers.selectors import parse_selectors
from .answers.stored_object import Delivery, answer_with_object
from .download.handle import get_download
from .download.scope import DownloadScope, Handler
from .runtime import is_draining
from .telemetry.request_id import RequestId

_FRAMING = {"content-length", "content-range", "transfer-encoding"}
_OBJECT_HEADERS = {
    "accept-ranges",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "etag",
    "expires",
    "last-modified",
}


def stream_object(
    downloads: Starlette, key: str, *, bucket: str | None = None, download_name: str | None = None
) -> StreamingResponse:
    """Return a response that streams an S3 object, for a host's handler to return.

    `downloads` is an application from `create_app`, whose lifespan the host enters; the response
    uses its clients, limits, resuming, ranges, conditions, log, metrics and problem documents.
    `bucket` is the settings' bucket by default; `download_name` is the file name under which a
    browser saves the body. An invalid key is a 404. The response opens the object when the server
    sends the response, and closes it afterwards.

    Headers that the handler sets on the response replace the object's. Unless it sets
    Cache-Control, the response is `private`. The handler must authorize the request: tokens,
    signed URLs and AUTH_URL are not checked. A background task runs once the whole body was sent.
    """
    return _object_download(downloads, key, bucket, download_name, delivery="proxy")


def redirect_object(
    downloads: Starlette, key: str, *, bucket: str | None = None, download_name: str | None = None
) -> StreamingResponse:
    """Return a response that redirects a GET to an S3 object, for a host's handler to return.

    The presigned URL of the store is valid for `Settings.redirect_lifetime` seconds, and names
    bucket and key. The arguments, and the answers to HEAD, errors, 304, 412 and 416, are those of
    `stream_object`.
    """
    return _object_download(downloads, key, bucket, download_name, delivery="redirect")


def _object_download(
    downloads: Starlette, key: str, bucket: str | None, name: str | None, *, delivery: Delivery
) -> StreamingResponse:
    async def handler(request: Request) -> Response:
        download = get_download(request)
        return await answer_with_object(
            download,
            await download.in_time(download.serving.buckets.get(bucket)),
            require_valid_key(key),
            parse_selectors(request),
            default_type=type_for_key(key),
            filename=name,
            delivery=delivery,
        )

    return _EmbeddedDownload(downloads, handler, source="s3")


def stream_url(
    downloads: Starlette,
    url: str,
    *,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
    download_name: str | None = None,
) -> StreamingResponse:
    """Return a response that streams the body at `url`, for a host's handler to return.

    `length` is the number of bytes that the body must have, unless the upstream encodes it
    (Content-Encoding); by default, the upstream's Content-Length. `url` is requested byte for
    byte; only characters that no URL may have are percent-encoded. The request has `headers`;
    redirects are not followed. Otherwise it works like `stream_object`. Never let a client choose
    `url`: it could name an internal server.
    """

    async def handler(request: Request) -> Response:
        return await answer_with_url(
            get_download(request),
            url,
            parse_selectors(request),
            length=length,
            headers=headers,
            filename=download_name,
        )

    return _EmbeddedDownload(downloads, handler, source="http")


class _EmbeddedDownload(StreamingResponse):
    """A response that opens its upstream only when the server sends it.

    A host may drop the response, after an error in a middleware or because the client has left;
    nothing would then close an upstream that was opened earlier.
    """

    def __init__(self, downloads: Starlette, handler: Handler, *, source: str) -> None:
        super().__init__(_no_body())
        self._downloads = downloads
        scope = DownloadScope(handler, source=source, refuse=refusal, is_guarded=False)
        self._app = RequestId(scope, partial(is_draining, downloads))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open, send and close the download; raise if its body breaks: the server then cuts it."""
        is_success = is_sent = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_success, is_sent
            if message["type"] == "http.response.start":
                is_success = message["status"] < HTTPStatus.BAD_REQUEST
                self._replace_headers(MutableHeaders(scope=message), is_success=is_success)
            await send(message)
            is_sent = message["type"] == "http.response.body" and not message.get("more_body")

        await self._app({**scope, "app": self._downloads}, receive, send_with_headers)
        # If the client left before the end, it may request the rest: don't run the task yet.
        if self.background is not None and is_success and is_sent:
            await self.background()

    def _replace_headers(self, headers: MutableHeaders, *, is_success: bool) -> None:
        """Replace the headers of an answer by those of the host, except the framing."""
        kept = _FRAMING if is_success else _FRAMING | _OBJECT_HEADERS
        if headers.get("content-type", "").startswith("multipart/"):
            kept = kept | {"content-type"}
        theirs = [(name, value) for name, value in self.raw_headers if name.decode() not in kept]
        for name, _ in theirs:
            del headers[name.decode()]
        headers.raw.extend(theirs)


async def _no_body() -> AsyncIterator[bytes]:
    """Raise if a host's decorator reads the response's body: only `__call__` can send it."""
    raise RuntimeError("return the response of stream_object or stream_url unchanged")
    yield b""
