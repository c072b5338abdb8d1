"""What a server may show of a request's connection: an ASGI extension."""

from collections.abc import Callable
from typing import Final, Protocol

CONNECTION: Final = "downspout.connection"
"""Key of the extension in `scope["extensions"]`; its value is a Connection."""


class Connection(Protocol):
    """The connection of a request."""

    on_lost: Callable[[], None] | None
    """Called when the connection is lost; the request that runs sets it."""

    @property
    def is_standalone(self) -> bool:
        """Whether no middleware of a host stands between the server and the application."""

    def buffered(self) -> int:
        """Return how many bytes the client has not acknowledged."""

    def is_gone(self) -> bool:
        """Return whether the client has left."""

    def abort(self) -> None:
        """Close the connection at once, and drop its buffers."""

    def discard_body(self) -> None:
        """Drop the body of the request, so that the server goes on reading."""
