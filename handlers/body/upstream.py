"""An upstream's response with an unread body; every source returns one."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus

from ..rfc9110.conditions import Validators
from ..rfc9110.ranges import Part

Chunk = bytes | memoryview
"""Bytes of a body. The buffer behind a memoryview is not written to again."""

Read = Callable[[], Awaitable[Chunk]]

Owner = AsyncExitStack | ExitStack
"""An exit stack of the caller; it closes the responses that are opened for the caller."""


@dataclass(kw_only=True, slots=True)
class Upstream:
    """A response with known status and headers and an unread body.

    The source registers `close` on the exit stack that it gets as `owner`.
    """

    status: int = HTTPStatus.OK

    headers: Mapping[str, str]
    """The headers of the response, names in lower case, not yet filtered for the client."""

    validators: Validators = field(init=False)
    """The entity tag and the date in `headers`."""

    length: int | None
    """Bytes of this body; None if the body is chunked and its length is unknown."""

    part: Part | None = None
    """The range in a 206, checked against the requested range; None for other statuses."""

    total: int | None = None
    """For a 206, bytes of the whole object; None if unknown."""

    close: Callable[[], None] = lambda: None
    """Close the response before the owner does. A second call does nothing."""

    read: Read | None = None
    """Returns the next bytes, b"" at the end; raises only BrokenTransfer.

    None for HEAD and for a 304, which have no body even if the headers state a length.
    """

    def __post_init__(self) -> None:
        """Parse the validators once; several steps of an answer need them."""
        etag, modified = self.headers.get("etag", ""), self.headers.get("last-modified", "")
        self.validators = Validators.parse(etag, modified)

    @property
    def object_length(self) -> int | None:
        """Bytes of the whole object; None if unknown."""
        return self.total if self.part else self.length


OpenPart = Callable[[Part, Owner], Awaitable[Upstream]]
"""Opens exactly this part of the version that the client gets; the owner closes the response.

Raises DownloadError.
"""


class Observer:
    """Counts the upstream failures of one download; this base class counts nothing."""

    def upstream_failed(self, error: BaseException) -> None:
        """Count a failed request or a broken body, whether or not it is retried."""

    def body_resumed(self) -> None:
        """Count a broken body that was resumed at its next byte."""


NO_OBSERVER = Observer()
