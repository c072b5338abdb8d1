"""The HTTP source: bodies of another HTTP service, through aiohttp."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

import aiohttp

from ..body.retry import NO_RETRY, RetryPolicy
from ..body.upstream import Upstream
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
from ..rfc9110.ranges import Spec
from .idle import close_idle
from .response import READ_BUFFER, Owner, check_content_range, check_length, payload_reader

_OWN_HEADERS = {"accept-encoding": "identity", "user-agent": "downspout"}

# The conditions that a 412 answers.
_PRECONDITIONS = {"if-match", "if-unmodified-since"}

_MAX_RETRY_AFTER = 3600


@dataclass(frozen=True, slots=True)
class RemoteBody:
    """The body at `url`, which may not exist.

    Each request overrides the session's own decoding, redirects and timeouts: the session may be
    the host's.
    """

    session: aiohttp.ClientSession
    url: str
    length: int | None
    """Bytes of the whole body; None if the upstream tells."""

    read_timeout: float
    """Seconds without a byte after which a read fails."""

    connect_timeout: float
    """Seconds for a connection."""

    retry_policy: RetryPolicy = NO_RETRY
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of every request for it."""

    async def open(
        self, owner: Owner, *, method: str, conditions: Mapping[str, str], spec: Spec | None = None
    ) -> Upstream:
        """Open the body, or its range `spec`, under conditions; `owner` closes it.

        The status is 200, 206 or 304; the upstream may answer a range with the whole. Raises
        DownloadError.
        """
        attempt = partial(self._open, owner, method=method, conditions=conditions, spec=spec)
        return await self.retry_policy.open(attempt)

    async def _open(
        self, owner: Owner, *, method: str, conditions: Mapping[str, str], spec: Spec | None
    ) -> Upstream:
        request_headers = {**_OWN_HEADERS, **self.headers, **conditions}
        if spec:
            request_headers["range"] = f"bytes={spec}"
        response = await self._request(method, request_headers)
        owner.callback(response.close)
        status = response.status
        headers = {name.lower(): value for name, value in response.headers.items()}
        if status == HTTPStatus.OK or (status == HTTPStatus.PARTIAL_CONTENT and spec):
            return self._upstream(response, headers, method, spec)
        if status == HTTPStatus.NOT_MODIFIED and _may_be_unmodified(headers, conditions):
            return Upstream(status=status, headers=headers, length=None)
        # Close it now: its body has no use, and the next attempt needs the connection.
        response.close()
        if status == HTTPStatus.PRECONDITION_FAILED and _PRECONDITIONS & set(conditions):
            raise PreconditionFailed(f"upstream answered {status}")
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and spec:
            length = self.length if self.length is not None else _unsatisfied_length(headers)
            if length is None or spec.within(length) is None:
                raise RangeNotSatisfiable(f"upstream answered {status}", length=length)
        raise _error_for_response(status, headers)

    async def _request(self, method: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        try:
            return await self.session.request(
                method,
                self.url,
                headers=headers,
                allow_redirects=False,
                auto_decompress=False,
                raise_for_status=False,
                read_bufsize=READ_BUFFER,
                # No total: a download may last as long as bytes arrive.
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self.connect_timeout, sock_read=self.read_timeout
                ),
            )
        # Don't log the text of an error: it may contain the URL and a token.
        except TimeoutError as error:
            raise UpstreamTimeout(f"upstream: {type(error).__name__}") from error
        except (aiohttp.ClientConnectionError, OSError) as error:
            close_idle(self.session)
            raise UpstreamFailed(f"upstream: {type(error).__name__}") from error
        # aiohttp raises ValueError and others, too, for responses that it can't parse.
        except Exception as error:
            raise BadUpstream(f"upstream: {type(error).__name__}") from error

    def _upstream(
        self,
        response: aiohttp.ClientResponse,
        headers: Mapping[str, str],
        method: str,
        spec: Spec | None,
    ) -> Upstream:
        """Return a 200 or 206 as an Upstream; raises BadUpstream if it is not what was asked."""
        encoding = headers.get("content-encoding", "identity").lower()
        part, total, length = None, None, self.length
        if response.status == HTTPStatus.PARTIAL_CONTENT and spec:
            part, total = check_content_range(headers, spec, source="upstream", total=length)
            length = part.length
        if encoding != "identity":
            raise BadUpstream(f"upstream answered identity with content-encoding {encoding!r}")
        has_body = method != "HEAD"
        read = payload_reader(response.content.readany, self.read_timeout, "upstream")
        return Upstream(
            status=response.status,
            headers=headers,
            length=check_length(headers, length, source="upstream", has_body=has_body),
            part=part,
            total=total,
            close=response.close,
            read=read if has_body else None,
        )


def _may_be_unmodified(headers: Mapping[str, str], conditions: Mapping[str, str]) -> bool:
    """Return whether a 304 with these headers can be the answer to these conditions."""
    if "if-none-match" not in conditions:
        return "if-modified-since" in conditions
    validators = Validators.from_headers(headers)
    if_none_match = {"if-none-match": conditions["if-none-match"]}
    return (
        validators.etag is None
        or evaluate_conditions(if_none_match, validators) is Verdict.NOT_MODIFIED
    )


def _unsatisfied_length(headers: Mapping[str, str]) -> int | None:
    """Return the length of the whole that a 416 states (RFC 9110, 15.5.17)."""
    stated = re.fullmatch(r"bytes \*/([0-9]{1,18})", headers.get("content-range", ""))
    return int(stated[1]) if stated else None


def _error_for_response(status: int, headers: Mapping[str, str]) -> DownloadError:
    text = f"upstream answered {status}"
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(text)
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return UpstreamBusy(text, retry_after=_retry_after(headers))
    if status == HTTPStatus.GATEWAY_TIMEOUT:
        return UpstreamTimeout(text)
    failed = status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY)
    return UpstreamFailed(text) if failed else BadUpstream(text)


def _retry_after(headers: Mapping[str, str]) -> int | None:
    """Return the seconds of the upstream's Retry-After, at most an hour; None for a date."""
    text = headers.get("retry-after", "")
    return min(int(text), _MAX_RETRY_AFTER) if re.fullmatch(r"[0-9]{1,8}", text) else None
