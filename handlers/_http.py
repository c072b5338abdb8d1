"""The HTTP source: bodies of another HTTP service through aiohttp, and its errors as ours.

Together with `_clients` and `_s3` the only module that knows aiohttp; it knows no Starlette.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from http import HTTPStatus

import aiohttp

from ._errors import (
    BadUpstream,
    BrokenTransfer,
    DownloadError,
    NotFound,
    UpstreamBusy,
    UpstreamTimeout,
)
from ._upstream import Upstream


async def open_url(
    session: aiohttp.ClientSession, *, method: str, url: str, length: int, owner: AsyncExitStack
) -> Upstream:
    """Open `url`, whose body has to be of `length` bytes; `owner` closes it.

    The session is one that decodes nothing (`_clients`). Raises DownloadError.
    """
    try:
        response = await session.request(method, url, allow_redirects=False)
    except TimeoutError as error:
        raise UpstreamTimeout(f"upstream: {type(error).__name__}") from error
    # Not ClientError alone: aiohttp lets ValueError and OSError through for odd answers.
    except Exception as error:
        raise BadUpstream(f"upstream: {type(error).__name__}: {error}") from error
    owner.callback(response.close)
    if response.status != HTTPStatus.OK:
        raise _error_of_answer(response)
    _check_framing(response, method, length)

    async def read() -> bytes:
        try:
            return await response.content.readany()
        except TimeoutError as error:
            raise BrokenTransfer("upstream_timeout", "the upstream fell silent") from error
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenTransfer("truncated", f"upstream: {type(error).__name__}") from error

    headers = {name.lower(): value for name, value in response.headers.items()}
    return Upstream(headers=headers, length=length, read=read)


def _check_framing(response: aiohttp.ClientResponse, method: str, length: int) -> None:
    """Refuse an answer that is known to be of other bytes, or whose end could not be told."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise BadUpstream(f"upstream answered in content-encoding {encoding!r}, unasked")
    stated = response.headers.get("Content-Length")
    if stated is not None and stated != str(length):
        raise BadUpstream(f"upstream has {stated} bytes where {length} were asked for")
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    if stated is None and not chunked and method != "HEAD":
        raise BadUpstream("upstream's answer has neither a length nor chunks")


def _error_of_answer(response: aiohttp.ClientResponse) -> DownloadError:
    text = f"upstream answered {response.status}"
    if response.status == HTTPStatus.NOT_FOUND:
        return NotFound(text)
    if response.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return UpstreamBusy(text, retry_after=_retry_after(response))
    if response.status == HTTPStatus.GATEWAY_TIMEOUT:
        return UpstreamTimeout(text)
    return BadUpstream(text)


def _retry_after(response: aiohttp.ClientResponse) -> int:
    """Return the upstream's Retry-After where it is a sane number of seconds, else 1."""
    text = response.headers.get("Retry-After", "")
    return min(int(text), 3600) if re.fullmatch(r"[0-9]{1,8}", text) else 1
