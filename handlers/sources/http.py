"""The HTTP source: requests bodies from another HTTP service with aiohttp."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from .. import errors
from ..body.retry import NO_RETRY, RetryPolicy
from ..body.upstream import Owner, Upstream
from ..rfc9110.codings import content_codings
from ..rfc9110.conditions import Validators, evaluate_conditions
from ..rfc9110.ranges import Spec
from .errors import ERROR_BY_STATUS, translate_error
from .proxies import Proxies
from .raw_head import join_headers
from .response import (
    FIXED_HEADERS,
    READ_BUFFER,
    RawResponse,
    check_response,
    payload_reader,
    take_connection,
)

_MAX_RETRY_AFTER = 3600

# Statuses of upstreams that answer GET only. A presigned GET URL, for one, is not valid for HEAD.
_HEAD_REFUSED = (
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_IMPLEMENTED,
)

_NOT_IN_URLS = re.compile("[^!-~]")


@dataclass(frozen=True, slots=True)
class RemoteBody:
    """The body at `url`, which may not exist.

    The session may be the host's, so each request overrides its decoding, redirects and timeouts.
    """

    session: aiohttp.ClientSession
    url: str
    length: int | None
    """Bytes that the whole body must have; None if the upstream may decide.

    If `codings` is None, an encoded body has the length that the upstream states instead.
    """

    read_timeout: float
    """Seconds without a byte after which a read fails."""

    connect_timeout: float
    """Seconds after which opening a connection fails."""

    retry_policy: RetryPolicy = NO_RETRY
    headers: Mapping[str, str] = field(default_factory=dict)
    """Additional headers of every request for this body."""

    proxies: Proxies = field(default_factory=Proxies)

    codings: tuple[str, ...] | None = None
    """The content codings of the version to resume; None if the upstream may decide."""

    async def open(
        self, owner: Owner, *, method: str, conditions: Mapping[str, str], spec: Spec | None = None
    ) -> Upstream:
        """Open the body or its range `spec`; `owner` closes it. Raises DownloadError.

        `conditions` are headers. The status is 200, 206 or 304; it may be 200 for a range, too.
        """
        attempt = partial(self._open, owner, method=method, conditions=conditions, spec=spec)
        return await self.retry_policy.open(attempt)

    async def _open(
        self, owner: Owner, *, method: str, conditions: Mapping[str, str], spec: Spec | None
    ) -> Upstream:
        range_header = {"range": f"bytes={spec}"} if spec else {}
        sent = {**FIXED_HEADERS, **self.headers, **conditions, **range_header}
        response = await self.request(owner, method, sent)
        if method == "HEAD" and self._must_repeat_as_get(response):
            response = await self.request(owner, "GET", sent)
            response.close()  # Don't read the body.
        status, headers = response.status, response.headers
        if status == HTTPStatus.OK or (status == HTTPStatus.PARTIAL_CONTENT and spec):
            total, has_body = self._expected_length(headers), method != "HEAD"
            return check_response(response, spec, "upstream", total=total, has_body=has_body)
        if status == HTTPStatus.NOT_MODIFIED:
            upstream = Upstream(status=status, headers=headers, length=None)
            if _may_be_unmodified(upstream.validators, conditions):
                return upstream
        # Close it now, without reading the error's body: a retry needs the connection.
        response.close()
        raise self._error(response, conditions, spec)

    def _must_repeat_as_get(self, response: RawResponse) -> bool:
        """Return whether the upstream refuses HEAD, or answers it with the length of no body."""
        has_no_length = response.headers.get("content-length") == "0" and self.length != 0
        is_empty = response.status == HTTPStatus.OK and has_no_length
        return is_empty or response.status in _HEAD_REFUSED

    def _expected_length(self, headers: Mapping[str, str]) -> int | None:
        """Return the bytes that the whole body must have, with the codings in `headers`.

        An encoded body is passed on as it is, although no request accepts one.
        """
        stated = headers.get("content-encoding", "")
        codings = content_codings(stated)
        if codings is None:
            raise errors.BadUpstream(f"upstream sent content-encoding {stated!r}")
        if self.codings is None:
            return None if codings else self.length
        if codings != self.codings:
            raise errors.PreconditionFailed(f"upstream's content-encoding is now {stated!r}")
        return self.length

    async def request(self, owner: Owner, method: str, headers: Mapping[str, str]) -> RawResponse:
        """Send one request; `owner` closes the response. Raises DownloadError."""
        try:
            url = exact_url(self.url)
        except ValueError as error:
            raise errors.BadUpstream("the upstream's URL is invalid") from error
        proxy = self.proxies.proxy_for(url)
        try:
            response = await self.session.request(
                method,
                url,
                headers=headers,
                proxy=proxy,
                allow_redirects=False,
                auto_decompress=False,
                raise_for_status=False,
                read_bufsize=READ_BUFFER,
                # No total timeout: a download may last as long as bytes arrive.
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self.connect_timeout, sock_read=self.read_timeout
                ),
            )
        except Exception as error:
            # Don't log the text: it may contain the URL and a token.
            text = f"upstream: {type(error).__name__}"
            raise translate_error(error, self.session, self.url, text) from error
        close = take_connection(response)
        owner.callback(close)
        return RawResponse(
            response.status,
            join_headers(response.headers.items()),
            payload_reader(response.content.readany, self.read_timeout, "upstream"),
            close,
        )

    def _error(
        self, response: RawResponse, conditions: Mapping[str, str], spec: Spec | None
    ) -> errors.DownloadError:
        status, headers = response.status, response.headers
        text = f"upstream answered {status}"
        can_fail = {"if-match", "if-unmodified-since"} & conditions.keys()
        if status == HTTPStatus.PRECONDITION_FAILED and can_fail:
            return errors.PreconditionFailed(text)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and spec:
            stated = re.fullmatch(r"bytes \*/([0-9]{1,18})", headers.get("content-range", ""))
            length = int(stated[1]) if stated else self.length
            if length is None or spec.within(length) is None:
                return errors.RangeNotSatisfiable(text, length=length)
        if status == HTTPStatus.NOT_FOUND:
            return errors.NotFound(text)
        kind = ERROR_BY_STATUS.get(status, errors.BadUpstream)
        retry_after = headers.get("retry-after", "")
        if kind is errors.UpstreamBusy and re.fullmatch("[0-9]{1,8}", retry_after):
            return kind(text, retry_after=min(int(retry_after), _MAX_RETRY_AFTER))
        return kind(text)


def exact_url(text: str) -> URL:
    """Return the URL to request, with path and query as `text` has them; raise ValueError.

    `%2F` and `/` are different (RFC 3986, 2.2), and the signature of a presigned URL covers them.
    Only characters that no URL may have, like spaces and letters beyond ASCII, are encoded.
    """
    url, parts = URL(text), urlsplit(text)
    path, query = (
        _NOT_IN_URLS.sub(lambda found: quote(found[0]), part) for part in (parts.path, parts.query)
    )
    return URL.build(
        scheme=url.scheme, authority=url.raw_authority, path=path, query_string=query, encoded=True
    )


def _may_be_unmodified(stated: Validators, conditions: Mapping[str, str]) -> bool:
    """Return whether a 304 with the validators `stated` can be the answer to these conditions."""
    if "if-none-match" not in conditions:
        return "if-modified-since" in conditions
    known = {"if-none-match": conditions["if-none-match"]}
    return stated.etag is None or evaluate_conditions(known, stated) is not None
