"""The errors of this service.

The client gets a DownloadError as a problem document (RFC 9457). A BrokenTransfer happens after
the first byte and cuts the connection. CannotStart ends the startup.

The text given to an error is for the log only. The client gets the `detail` of the class, so that
no bucket name, key or host can reach it.
"""

import logging
from http import HTTPStatus
from inspect import cleandoc
from typing import ClassVar, Literal


class DownloadError(Exception):
    """Base class of errors before the first byte; the client gets a problem document.

    The docstring of a class with a status is its `detail`, unless the class sets its own.
    """

    status: ClassVar[int]
    kind: ClassVar[str]
    title: ClassVar[str]  # made from the kind, unless a class sets its own
    detail: ClassVar[str]
    default_headers: ClassVar[dict[str, str]] = {}
    retryable: ClassVar[bool] = False  # tells the client that the same request may succeed later
    transient: ClassVar[bool] = False  # this service retries the upstream
    log_level: ClassVar[int] = logging.WARNING

    def __init_subclass__(cls, *, status: int | None = None, kind: str = "") -> None:
        if status is None:
            return  # The class has the status, kind, title and detail of its parent.
        own = vars(cls)
        cls.status, cls.kind = status, kind
        cls.title = own.get("title", kind.replace("-", " ").capitalize())
        # `python -OO` drops docstrings.
        cls.detail = own.get("detail", cleandoc(cls.__doc__ or cls.title))
        is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        cls.log_level = own.get("log_level", logging.WARNING if is_ours else logging.INFO)

    def __init__(self, log_text: str = "", *, retry_after: int | None = None) -> None:
        super().__init__(log_text)
        self.retry_after = retry_after
        self.headers = dict(self.default_headers)
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)


# This service refuses the request.


class SizeTooLarge(DownloadError, status=400, kind="size-too-large"):
    """The size in the path is larger than this service allows."""


class NotAllowed(DownloadError, status=401, kind="not-allowed"):
    """The request needs a valid access token, or a URL with a valid signature."""

    # A 401 must have a challenge (RFC 9110, 11.6.1; RFC 6750, 3).
    default_headers: ClassVar = {"www-authenticate": 'Bearer realm="downspout"'}


class NoToken(NotAllowed, status=401, kind="not-allowed"):
    """The request needs a valid access token."""


class NotAuthenticated(NotAllowed, status=401, kind="not-authenticated"):
    """You must log in, or send valid credentials, to download this."""


class NotSigned(DownloadError, status=403, kind="not-signed"):
    """The request needs a URL with a valid signature."""

    title = "Not allowed"  # A token would not help, so there is no challenge.


class NotAuthorized(DownloadError, status=403, kind="not-authorized"):
    """You may not download this."""

    title = "Not allowed"


class NotFound(DownloadError, status=404, kind="not-found"):
    """There is nothing to download at this URL."""


class AccessDenied(NotFound):
    """The store denies access: the object may not exist, or the credentials be wrong."""

    log_level = logging.WARNING


class PreconditionFailed(DownloadError, status=412, kind="precondition-failed"):
    """The object is not the version that the request's conditions demand."""


class QueryTooLong(DownloadError, status=414, kind="query-too-long"):
    """The URL has more query parameters than this service reads."""


class RangeNotSatisfiable(DownloadError, status=416, kind="range-not-satisfiable"):
    """The requested range begins past the end of the object."""

    def __init__(self, log_text: str = "", *, length: int | None = None) -> None:
        super().__init__(log_text)
        self.length = length
        if length is not None:  # The object's length (RFC 9110, 15.5.17).
            self.headers["content-range"] = f"bytes */{length}"


class ClientLimitReached(DownloadError, status=429, kind="too-many-downloads-of-client"):
    """The client already has as many downloads as this service allows one client."""

    title = "Too many downloads of this client"
    retryable = True


class HeaderTooLarge(DownloadError, status=431, kind="header-too-large"):
    """A header of the request is longer than this service reads."""


# The upstream fails; after retries, where the error is transient.


class BadUpstream(DownloadError, status=502, kind="bad-upstream"):
    """The service behind this one gave no usable answer."""


class RangeIgnored(BadUpstream):
    """The upstream answered a request for a range with the whole body."""


class UpstreamFailed(BadUpstream):
    """The upstream closed the connection or answered 5xx, which often is transient."""

    transient = True


class CredentialsRejected(BadUpstream):
    """The store rejects the access key, its token or the signature."""


class UpstreamBusy(DownloadError, status=503, kind="upstream-busy"):
    """The service behind this one is overloaded."""

    default_headers: ClassVar = {"retry-after": "1"}
    retryable = transient = True


class UpstreamTimeout(DownloadError, status=504, kind="upstream-timeout"):
    """The service behind this one did not answer in time."""

    retryable = transient = True


# This service can't serve.


class NoSlot(DownloadError, status=503, kind="too-many-downloads"):
    """The service already runs as many downloads as it allows."""

    retryable = True


class Draining(DownloadError, status=503, kind="draining"):
    """The server process is shutting down; a retry may reach another one."""

    default_headers: ClassVar = {"retry-after": "1"}
    retryable = True

    def __init__(self, log_text: str = "draining") -> None:
        super().__init__(log_text)


class NotStarted(DownloadError, status=503, kind="not-started"):
    """The host has not entered the application's lifespan, so there are no clients."""

    detail = (
        "The application that mounts this one has not entered its lifespan: "
        "async with downloads.router.lifespan_context(downloads): yield"
    )
    log_level = logging.ERROR


Broken = Literal[
    "truncated", "upstream_timeout", "changed", "corrupt", "client_stalled", "drained"
]


class BrokenTransfer(Exception):
    """A download that fails after its first byte; `outcome` is the reason in its log line.

    The body's iterator raises it, and the ASGI server closes the connection: the client sees a
    body shorter than its Content-Length, or without the last chunk.
    """

    def __init__(self, outcome: Broken, log_text: str) -> None:
        super().__init__(log_text)
        self.outcome = outcome


class CannotStart(Exception):
    """The settings don't allow to create the S3 or HTTP client; the lifespan raises it."""
