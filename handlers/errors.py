"""Everything that can go wrong with a download.

    Exception
    ├── DownloadError            before the first byte: answered as a problem document
    │   │                        (the client may not, or asked for what can't be had)
    │   ├── NotAllowed           401
    │   │   ├── NotSigned        403
    │   │   │   └── NotAuthorized 403, too
    │   │   └── NoToken          401, too
    │   ├── QueryTooLong         414
    │   ├── ClientLimitReached      429
    │   ├── NotFound             404
    │   │   └── AccessDenied           404, too
    │   ├── SizeTooLarge         400
    │   ├── PreconditionFailed   412
    │   ├── RangeNotSatisfiable  416
    │   ├── HeaderTooLarge       431
    │   │                        (the upstream is at fault)
    │   ├── BadUpstream          502
    │   │   └── UpstreamFailed   502, too
    │   ├── UpstreamBusy         503
    │   ├── UpstreamTimeout      504
    │   │                        (we are)
    │   ├── NoSlot               503
    │   ├── Draining             503
    │   └── NotStarted           503
    ├── BrokenTransfer           after it: nothing can be answered, the connection is cut
    └── CannotStart              there is nothing to fetch with: the configuration is wrong

The text given to an error is for the log alone. What a client is told stands in the class, so
that no name of a bucket, key or host can reach it.
"""

from __future__ import annotations

import logging
from typing import ClassVar, Literal


class DownloadError(Exception):
    """A download that failed before its first byte; base of all that is answered."""

    status: ClassVar[int]
    kind: ClassVar[str]
    title: ClassVar[str]
    detail: ClassVar[str]
    retryable: ClassVar[bool] = False
    transient: ClassVar[bool] = False
    """Whether the same request may well succeed in a moment, so that we try it again ourselves."""
    log_level: ClassVar[int] = logging.WARNING

    def __init__(self, log_text: str = "", *, retry_after: int | None = None) -> None:
        super().__init__(log_text)
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers that the answer has because of this error."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


class NotAllowed(DownloadError):
    """The request has no token, or no signed address, that is good now; which is the log's alone.

    The same for all that can be wrong with either, and whatever there is at the address.
    """

    status = 401
    kind = "not-allowed"
    title = "Not allowed"
    detail = "This needs a valid access token, or an address with a valid signature."
    log_level = logging.INFO

    @property
    def headers(self) -> dict[str, str]:
        """The challenge that a 401 has to have (RFC 9110, 11.6.1; RFC 6750, 3)."""
        return {"www-authenticate": 'Bearer realm="downspout"'}


class NotSigned(NotAllowed):
    """The same where no token would be of use: there is no scheme to challenge with."""

    status = 403
    kind = "not-signed"
    detail = "This needs an address with a valid signature."

    @property
    def headers(self) -> dict[str, str]:
        """None."""
        return {}


class NotAuthorized(NotSigned):
    """The host of this application did not let the request in."""

    kind = "not-authorized"
    detail = "You may not download this."


class NoToken(NotAllowed):
    """The same where no signature would be of use."""

    detail = "This needs a valid access token."


class QueryTooLong(DownloadError):
    """More parameters than any download has a use for; to take them apart would take long."""

    status = 414
    kind = "query-too-long"
    title = "Query too long"
    detail = "The address has more parameters than this service reads."
    log_level = logging.INFO


class ClientLimitReached(DownloadError):
    """As many downloads as one client may have are running for its address."""

    status = 429
    kind = "too-many-downloads-of-client"
    title = "Too many downloads of this client"
    detail = "As many downloads as this service allows one client are running."
    retryable = True
    log_level = logging.INFO


class NotFound(DownloadError):
    """There is nothing to download under these numbers."""

    status = 404
    kind = "not-found"
    title = "Not found"
    detail = "There is nothing to download at this address."
    log_level = logging.INFO


class AccessDenied(NotFound):
    """The store would not say whether there is such an object.

    Answered as one that is missing; logged louder, since it may be our own rights that broke.
    """

    log_level = logging.WARNING


class SizeTooLarge(DownloadError):
    """More bytes were asked for than the service is set to fetch."""

    status = 400
    kind = "size-too-large"
    title = "Size too large"
    detail = "The size in the path is larger than this service allows."
    log_level = logging.INFO


class PreconditionFailed(DownloadError):
    """The object is not the version that the request is conditional on."""

    status = 412
    kind = "precondition-failed"
    title = "Precondition failed"
    detail = "What is stored is not what the request's conditions ask for."
    log_level = logging.INFO


class RangeNotSatisfiable(DownloadError):
    """No byte of the ranges asked for exists; `length` is that of the whole, where known."""

    status = 416
    kind = "range-not-satisfiable"
    title = "Range not satisfiable"
    detail = "The range asked for begins beyond the end."
    log_level = logging.INFO

    def __init__(self, log_text: str = "", *, length: int | None = None) -> None:
        super().__init__(log_text)
        self.length = length

    @property
    def headers(self) -> dict[str, str]:
        """The length, as section 15.5.17 of RFC 9110 has it told."""
        return {} if self.length is None else {"content-range": f"bytes */{self.length}"}


class HeaderTooLarge(DownloadError):
    """A range or a condition of more bytes than any client has reason to send."""

    status = 431
    kind = "header-too-large"
    title = "Header too large"
    detail = "A header of the request is longer than this service reads."
    log_level = logging.INFO


class BadUpstream(DownloadError):
    """The upstream refused us, can't be reached, or answered nonsense."""

    status = 502
    kind = "bad-upstream"
    title = "Bad upstream"
    detail = "The service behind this one gave no usable answer."


class UpstreamFailed(BadUpstream):
    """The upstream failed in a way that often passes: a lost connection, an error of its own."""

    transient = True


class UpstreamBusy(DownloadError):
    """The upstream asked us to come later, and still did after the retries."""

    status = 503
    kind = "upstream-busy"
    title = "Upstream busy"
    detail = "The service behind this one is overloaded."
    retryable = True
    transient = True

    @property
    def headers(self) -> dict[str, str]:
        """When to come again: as the upstream told, or soon."""
        return {"retry-after": "1"} | super().headers


class UpstreamTimeout(DownloadError):
    """The upstream did not begin to answer in time."""

    status = 504
    kind = "upstream-timeout"
    title = "Upstream timeout"
    detail = "The service behind this one did not answer in time."
    retryable = True
    transient = True


class NoSlot(DownloadError):
    """As many downloads as allowed are running, and none ended while this one waited."""

    status = 503
    kind = "too-many-downloads"
    title = "Too many downloads"
    detail = "As many downloads as this service allows are running."
    retryable = True


class Draining(DownloadError):
    """The process is about to end, and begins no more downloads."""

    status = 503
    kind = "draining"
    title = "Draining"
    detail = "This instance is about to end; another one will answer."
    retryable = True

    def __init__(self, log_text: str = "draining") -> None:
        super().__init__(log_text, retry_after=1)


class NotStarted(DownloadError):
    """The application's lifespan was not entered, so there are no clients to fetch with."""

    status = 503
    kind = "not-started"
    title = "Not started"
    detail = (
        "The application that mounts this one has not entered its lifespan: "
        "async with downloads.router.lifespan_context(downloads): yield"
    )
    log_level = logging.ERROR


Broken = Literal[
    "truncated", "upstream_timeout", "changed", "corrupt", "client_stalled", "drained"
]


class BrokenTransfer(Exception):
    """A transfer that can't be completed, which its client must see.

    `outcome` is the word for it in the log. Raised out of the body's iterator, never handled:
    the server closes the connection short of the content-length, or without the last chunk.
    """

    def __init__(self, outcome: Broken, log_text: str) -> None:
        super().__init__(log_text)
        self.outcome = outcome


class CannotStart(Exception):
    """The clients can't be made of the configuration; raised out of the lifespan."""
