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

from ._conditions import Verdict, validators_of, verdict_on
from ._errors import (
    BadUpstream,
    DownloadError,
    NotFound,
    PreconditionFailed,
    RangeNotSatisfiable,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
)
from ._idle import close_idle
from ._patience import ONCE, Patience
from ._ranges import Part, Spec, parse_content_range
from ._upstream import Upstream, body_reader, ends_visibly

# The conditions of which a 412 can tell.
_MAY_FAIL = {"if-match", "if-unmodified-since"}


@dataclass(frozen=True, slots=True)
class RemoteBody:
    """The body of `length` bytes at `url`, there or not.

    The session is one that decodes nothing (`_clients`).
    """

    session: aiohttp.ClientSession
    url: str
    length: int
    silence: float
    """Seconds that a body may keep its reader waiting."""

    patience: Patience = ONCE
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
        headers = {**self.headers, **conditions}
        if spec:
            headers["range"] = f"bytes={spec}"
        response = await self._request(method, headers)
        owner.callback(response.close)
        status = response.status
        if status == HTTPStatus.OK:
            _check_framing(response, method, self.length)
            return self._opened(response, method, self.length)
        if status == HTTPStatus.PARTIAL_CONTENT and spec is not None:
            part = self._checked_part(response, spec)
            _check_framing(response, method, part.length)
            return self._opened(response, method, part.length, part)
        if status == HTTPStatus.NOT_MODIFIED and _may_be_known(response, conditions):
            return Upstream(status=status, headers=_headers_of(response), length=None)
        if status == HTTPStatus.PRECONDITION_FAILED and _MAY_FAIL & set(conditions):
            raise PreconditionFailed(f"upstream answered {status}")
        beyond = spec is not None and spec.within(self.length) is None
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and beyond:
            raise RangeNotSatisfiable(f"upstream answered {status}", length=self.length)
        response.close()  # Its body is of no use, and another attempt wants the place.
        raise _error_of_answer(response)

    async def _request(self, method: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        try:
            return await self.session.request(
                method, self.url, headers=headers, allow_redirects=False
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
        self, response: aiohttp.ClientResponse, method: str, length: int, part: Part | None = None
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
            close=response.close,
            read=None if method == "HEAD" else read,
        )

    def _checked_part(self, response: aiohttp.ClientResponse, spec: Spec) -> Part:
        """Return the part that a 206 says to have, where it is the one that was asked for."""
        stated = response.headers.get("Content-Range", "")
        part, total = parse_content_range(stated) or (None, None)
        if part is None or part != spec.within(self.length) or total not in (self.length, None):
            raise BadUpstream(f"upstream answered range {spec} with content-range {stated!r}")
        return part


def _headers_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _may_be_known(response: aiohttp.ClientResponse, conditions: Mapping[str, str]) -> bool:
    """Return whether a 304 can be an answer to these conditions."""
    if "if-none-match" not in conditions:
        return "if-modified-since" in conditions
    stated = validators_of(_headers_of(response))
    known = {"if-none-match": conditions["if-none-match"]}
    return stated.etag is None or verdict_on(known, stated) is Verdict.NOT_MODIFIED


def _check_framing(response: aiohttp.ClientResponse, method: str, length: int) -> None:
    """Refuse an answer that is known to be of other bytes, or whose end could not be told."""
    headers = _headers_of(response)
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise BadUpstream(f"upstream answered in content-encoding {encoding!r}, unasked")
    stated = headers.get("content-length")
    if stated is not None and stated != str(length):
        raise BadUpstream(f"upstream has {stated} bytes where {length} were asked for")
    if method != "HEAD" and not ends_visibly(headers):
        raise BadUpstream("upstream's answer has neither a length nor chunks")


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
