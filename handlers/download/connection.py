"""What a server may show of a request's connection: an ASGI extension."""

from collections.abc import Callable
from typing import Final, Protocol

CONNECTION: Final = "downspout.connection"
"""Key of the extension in `scope["extensions"]`; its value is a Connection."""


class Connection(Protocol):
    """The connection of a request."""

    on_lost: Callable[[], None] | None
    """Called when the connection is lost; the request that runs sets it."""

    def buffered(self) -> int:
        """Return how many bytes the client has not acknowledged."""

    def is_gone(self) -> bool:
        """Return whether the client has left."""

    def abort(self) -> None:
        """Close the connection at once, and drop its buffers."""
