"""The HTTP source: bodies of another HTTP service through aiohttp, and its errors as ours.

It knows aiohttp, and neither botocore nor Starlette.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

import aiohttp

from ..body.retry import NO_RETRY, RetryPolicy
from ..body.upstream import READ_BUFFER, Upstream, body_reader, ends_visibly
from ..errors import (
    BadUpstream,
    DownloadError,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
)
from ..rfc9110.conditions import Validators, Verdict, evaluate_conditions
from ..rfc9110.ranges import Part, Spec, parse_content_range
from .idle import close_idle

_OURS = {"accept-encoding": "identity", "user-agent": "downspout"}

# The conditions of which a 412 can tell.
_MAY_FAIL = {"if-match", "if-unmodified-since"}


@dataclass(frozen=True, slots=True)
class RemoteBody:
    """The body at `url`, there or not.

    Whatever the session decodes, follows or waits for by itself is not left to it: it may be a
    host's.
    """

    session: aiohttp.ClientSession
    url: str
    length: int | None
    """How many bytes it has; None where the upstream is to tell."""

    silence: float
    """Seconds that it may keep its reader waiting."""

    connecting: float
    """Seconds for a connection."""

    patience: RetryPolicy = NO_RETRY
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request for it."""

    async def open(
        self,
        owner: AsyncExitStack | ExitStack,
        *,
        method: str,
        conditions: Mapping[str, str],
        spec: Spec | None = None,
    ) -> Upstream:
        """Open it, or the range `spec` of it, on the conditions of a request; `owner` closes it.

        The answer's status is 200, 206 or 304; a whole may come instead of a range. Raises
        DownloadError.
        """
        attempt = partial(self._open, owner, method=method, conditions=conditions, spec=spec)
        return await self.patience.open(attempt)

    async def _open(
        self,
        owner: AsyncExitStack | ExitStack,
        *,
        method: str,
        conditions: Mapping[str, str],
        spec: Spec | None,
    ) -> Upstream:
        headers = {**_OURS, **self.headers, **conditions}
        if spec:
            headers["range"] = f"bytes={spec}"
        response = await self._request(method, headers)
        owner.callback(response.close)
        status = response.status
        if status == HTTPStatus.OK:
            length = _checked_length(response, method, self.length)
            return self._opened(response, method, length)
        if status == HTTPStatus.PARTIAL_CONTENT and spec is not None:
            part, total = self._checked_part(response, spec)
            length = _checked_length(response, method, part.length)
            return self._opened(response, method, length, part, total)
        if status == HTTPStatus.NOT_MODIFIED and _may_be_known(response, conditions):
            return Upstream(status=status, headers=_headers_of(response), length=None)
        if status == HTTPStatus.PRECONDITION_FAILED and _MAY_FAIL & set(conditions):
            raise PreconditionFailed(f"upstream answered {status}")
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and spec is not None:
            length = self.length if self.length is not None else _length_beyond(response)
            if length is None or spec.within(length) is None:
                raise RangeNotSatisfiable(f"upstream answered {status}", length=length)
        response.close()  # Its body is of no use, and another attempt wants the place.
        raise _error_of_answer(response)

    async def _request(self, method: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        try:
            return await self.session.request(
                method,
                self.url,
                headers=headers,
                allow_redirects=False,
                # The bytes that the upstream sends are the ones that go out.
                auto_decompress=False,
                raise_for_status=False,
                read_bufsize=READ_BUFFER,
                # No total: a download may take as long as it keeps moving.
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self.connecting, sock_read=self.silence
                ),
            )
        except TimeoutError as error:
            raise UpstreamTimeout(f"upstream: {type(error).__name__}") from error
        # Of none of them the text: it may have the address, and that a token.
        except (aiohttp.ClientConnectionError, OSError) as error:
            close_idle(self.session)
            raise UpstreamFailed(f"upstream: {type(error).__name__}") from error
        # Not ClientError alone: aiohttp lets ValueError and others through for odd answers.
        except Exception as error:
            raise BadUpstream(f"upstream: {type(error).__name__}") from error

    def _opened(
        self,
        response: aiohttp.ClientResponse,
        method: str,
        length: int | None,
        part: Part | None = None,
        total: int | None = None,
    ) -> Upstream:
        read = body_reader(
            response.content.readany,
            silence=self.silence,
            failures=(aiohttp.ClientError, OSError),
            source="upstream",
        )
        return Upstream(
            status=response.status,
            headers=_headers_of(response),
            length=length,
            part=part,
            total=total,
            close=response.close,
            read=None if method == "HEAD" else read,
        )

    def _checked_part(self, response: aiohttp.ClientResponse, spec: Spec) -> tuple[Part, int]:
        """Return the part that a 206 has and of how many bytes, where that was asked for."""
        stated = response.headers.get("Content-Range", "")
        part, total = parse_content_range(stated) or (None, None)
        length = total if self.length is None else self.length
        if part is None or length is None or part != spec.within(length):
            raise BadUpstream(f"upstream answered range {spec} with content-range {stated!r}")
        if total not in (length, None):
            raise BadUpstream(f"upstream has {total} bytes where {length} were asked for")
        return part, length


def _headers_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _may_be_known(response: aiohttp.ClientResponse, conditions: Mapping[str, str]) -> bool:
    """Return whether a 304 can be an answer to these conditions."""
    if "if-none-match" not in conditions:
        return "if-modified-since" in conditions
    stated = Validators.from_headers(_headers_of(response))
    known = {"if-none-match": conditions["if-none-match"]}
    return stated.etag is None or evaluate_conditions(known, stated) is Verdict.NOT_MODIFIED


def _checked_length(
    response: aiohttp.ClientResponse, method: str, expected: int | None
) -> int | None:
    """Return how long the body is, None where only its end will tell.

    Refuses an answer that is known to be of other bytes, or whose end could not be told.
    """
    headers = _headers_of(response)
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise BadUpstream(f"upstream answered in content-encoding {encoding!r}, unasked")
    stated = headers.get("content-length")
    if stated is not None and expected is None and re.fullmatch("[0-9]{1,18}", stated):
        expected = int(stated)
    if stated is not None and stated != str(expected):
        raise BadUpstream(f"upstream has {stated} bytes where {expected} were asked for")
    if method != "HEAD" and not ends_visibly(headers):
        raise BadUpstream("upstream's answer has neither a length nor chunks")
    return expected


def _length_beyond(response: aiohttp.ClientResponse) -> int | None:
    """Return the length that a 416 states (RFC 9110, 15.5.17)."""
    stated = re.fullmatch(r"bytes \*/([0-9]{1,18})", response.headers.get("Content-Range", ""))
    return int(stated[1]) if stated else None


def _error_of_answer(response: aiohttp.ClientResponse) -> DownloadError:
    text = f"upstream answered {response.status}"
    if response.status == HTTPStatus.NOT_FOUND:
        return NotFound(text)
    if response.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return UpstreamBusy(text, retry_after=_retry_after(response))
    if response.status == HTTPStatus.GATEWAY_TIMEOUT:
        return UpstreamTimeout(text)
    failed = response.status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY)
    return UpstreamFailed(text) if failed else BadUpstream(text)


def _retry_after(response: aiohttp.ClientResponse) -> int | None:
    """Return the upstream's Retry-After where it is a sane number of seconds."""
    text = response.headers.get("Retry-After", "")
    return min(int(text), 3600) if re.fullmatch(r"[0-9]{1,8}", text) else None
