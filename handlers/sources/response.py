"""Responses of an upstream, before and after the checks that all sources make."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import aiohttp

from ..body.upstream import Read, Upstream
from ..errors import BadUpstream, BrokenTransfer
from ..rfc9110.ranges import Part, Spec, parse_content_range
from .raw_head import LENGTH

# aiohttp stops reading from the socket at twice this size. Its default of 256 KiB nearly doubles
# the memory of a slow client's download and makes a fast client no faster.
READ_BUFFER = 64 * 1024

# Every request has these; on S3 requests, they are not signed.
FIXED_HEADERS = {"accept-encoding": "identity", "user-agent": "downspout"}


@dataclass(slots=True)
class RawResponse:
    """A response whose head has arrived, and that is not checked yet."""

    status: int

    headers: Mapping[str, str]
    """Names in lower case, ASCII values, the values of a repeated name joined by commas."""

    read: Read
    """See `Upstream.read`."""

    close: Callable[[], None]
    """Close the response, and its connection if bytes are missing; a second call does nothing."""


def pause_below_tls(transport: Any) -> None:
    """Let a pause of reading from a TLS transport pause TCP, too.

    By default TLS takes 256 KiB from TCP ahead of a paused reader. asyncio and uvloop drop these
    bytes if the upstream then closes the connection, and a whole body looks cut.
    """
    if hasattr(transport, "set_read_buffer_limits"):
        transport.set_read_buffer_limits(high=1, low=0)


def take_connection(response: Any) -> Callable[[], None]:
    """Return the function that closes a response of aiohttp, or a body of aiobotocore."""
    connection = getattr(getattr(response, "raw_stream", response), "connection", None)
    pause_below_tls(getattr(connection, "transport", None))
    return partial(_close, response, connection)


def _close(response: Any, connection: Any) -> None:
    abort(connection)
    response.close()


def abort(connection: Any) -> None:
    """Close aiohttp's connection without a TLS shutdown, unless it is back in the pool.

    In a TLS shutdown the upstream sends the rest of the body, for up to 30 seconds.
    """
    if transport := getattr(connection, "transport", None):
        transport.abort()


def payload_reader(
    read: Callable[[], Awaitable[bytes]],
    timeout: float,
    source: str,
    errors: tuple[type[Exception], ...] = (aiohttp.ClientError, OSError),
) -> Read:
    """Return a `Read` for a body that aiohttp parses; it raises BrokenTransfer for `errors`.

    Each call takes at most `timeout` seconds. aiohttp's own timer does not stop a body that hangs
    in a malformed chunk, since any byte that arrives restarts the timer.
    """

    async def read_payload() -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return await read()
        except TimeoutError as error:
            raise read_timed_out(source, timeout) from error
        except errors as error:
            raise BrokenTransfer("truncated", f"{source}: {type(error).__name__}") from error

    return read_payload


def read_timed_out(source: str, timeout: float) -> BrokenTransfer:
    """Return the BrokenTransfer for a body without a byte for `timeout` seconds."""
    return BrokenTransfer("upstream_timeout", f"{source}: no byte within {timeout:g} s")


def check_response(
    response: RawResponse,
    spec: Spec | None,
    source: str,
    *,
    total: int | None = None,
    has_body: bool = True,
) -> Upstream:
    """Check that a response is a 200, or a 206 with the range `spec`; return it as an Upstream.

    `source` names the upstream in log texts; `total` is the known length of the whole body, or
    None. Raises BadUpstream, also if the response does not state where its body ends.
    """
    part, length = None, total
    if response.status == HTTPStatus.PARTIAL_CONTENT and spec:
        part, total = _check_content_range(response.headers, spec, source, total)
        length = part.length
    elif response.status != HTTPStatus.OK:
        raise BadUpstream(f"{source} answered {response.status}, range asked: {spec or 'none'}")
    return Upstream(
        status=response.status,
        headers=response.headers,
        length=_check_length(response.headers, length, source, has_body=has_body),
        part=part,
        total=total if part else None,
        close=response.close,
        read=response.read if has_body else None,
    )


def _check_content_range(
    headers: Mapping[str, str], spec: Spec, source: str, total: int | None
) -> tuple[Part, int]:
    text = headers.get("content-range", "")
    part, stated = parse_content_range(text) or (None, None)
    length = stated if total is None else total
    if part is None or length is None or part != spec.within(length):
        raise BadUpstream(f"{source} answered range {spec} with content-range {text!r}")
    if stated not in (length, None):
        raise BadUpstream(f"{source} states {stated} bytes in content-range, expected {length}")
    return part, length


def _check_length(
    headers: Mapping[str, str], expected: int | None, source: str, *, has_body: bool
) -> int | None:
    stated = headers.get("content-length")
    if stated is not None:
        length = int(stated) if LENGTH.fullmatch(stated) else None
        if length is None or expected not in (None, length):
            raise BadUpstream(f"{source} states content-length {stated}, expected {expected}")
        return length
    # Without content-length, chunks or the end of the connection mark the end of a body (RFC 9112,
    # 6.3). Whether a body that ends with its connection is complete, only its length tells.
    encoding = headers.get("transfer-encoding", "").strip().lower()
    is_delimited = encoding == "chunked" or (not encoding and expected is not None)
    if has_body and not is_delimited:
        raise BadUpstream(f"{source} sent a body with neither content-length nor chunks")
    return expected
