"""An upstream's answer whose body has not been read yet."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from http import HTTPStatus

from ..rfc9110.ranges import Part

Chunk = bytes | memoryview
"""Bytes of a body, which nobody writes to any more."""

Read = Callable[[], Awaitable[Chunk]]

Owner = AsyncExitStack | ExitStack
"""Closes what was opened for it."""


@dataclass(kw_only=True, slots=True)
class Upstream:
    """An answer with known status and headers and an unread body.

    Its opener closes it, by the exit stack that the source got as `owner`.
    """

    status: int = HTTPStatus.OK

    headers: Mapping[str, str]
    """The headers of the answer, names in lower case, not yet filtered for the client."""

    length: int | None
    """Bytes of the body; None if only the chunked framing tells its end."""

    part: Part | None = None
    """The part of the object that a 206 has, checked against the requested one."""

    total: int | None = None
    """Bytes of the whole object of which this is a `part`, if the upstream tells."""

    close: Callable[[], None] = lambda: None
    """Close it before its owner does. May be called twice."""

    read: Read | None = None
    """Return the next bytes, b"" at the end; raise BrokenTransfer and nothing else.

    None if there is no body, whatever length the headers state: for HEAD and for a 304.
    """

    @property
    def object_length(self) -> int | None:
        """Bytes of the whole object, if the upstream tells."""
        return self.total if self.part else self.length


OpenPart = Callable[[Part, Owner], Awaitable[Upstream]]
"""Opens exactly this part of the version that is read; the owner closes it.

Raises DownloadError.
"""


class Observer:
    """Counts what goes wrong with the upstream of one download; this one counts nothing."""

    def upstream_failed(self, error: BaseException) -> None:
        """Count a failed request or a broken body, whether or not it is retried."""

    def body_resumed(self) -> None:
        """Count a broken body that goes on at its next byte."""


NO_OBSERVER = Observer()
