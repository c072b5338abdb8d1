"""What downspout changes in aiohttp's connectors: sockets, reuse and closing of connections."""

import socket
from typing import Any, TypeVar

import aiohttp

ConnectorT = TypeVar("ConnectorT", bound=aiohttp.BaseConnector)


def protect(connector: ConnectorT) -> ConnectorT:
    """Change a connector and return it: no reuse after stray bytes, no TLS shutdown at the end.

    Stray bytes have arrived on an idle connection since its last answer. aiohttp would take them
    for the answer to the next request, of another client. And the TLS shutdown by which aiohttp
    closes a connection takes 30 seconds if the upstream is silent.
    """
    connect = connector.connect

    async def connect_protected(*args: Any, **kwargs: Any) -> Any:
        while True:
            connection: Any = await connect(*args, **kwargs)
            handler = connection.protocol
            # These attributes are undocumented. Without them, aiohttp's behaviour stays as it is.
            try:  # noqa: SIM105 - suppress would take 0.5 % of a small download's time
                handler.close = handler.abort
            except AttributeError:
                pass
            if not getattr(handler, "should_close", False):
                return connection
            connection.close()

    connector.connect = connect_protected  # type: ignore[method-assign]
    return connector


class ConnectingSocket(socket.socket):
    """A socket whose descriptor only aiohttp and the event loop close.

    If a connection over TLS is reset before the handshake, uvloop closes the descriptor, but the
    socket keeps its number. A `socket.socket`, when collected, would close the descriptor that has
    this number by then, such as the connection of another client. uvloop 0.23 has mended that for
    cancelled connections alone: https://github.com/MagicStack/uvloop/issues/738
    """

    def __del__(self) -> None:
        self.detach()


def create_socket(address: tuple[Any, ...]) -> ConnectingSocket:
    """Return a socket for an address of getaddrinfo, as aiohttp's `socket_factory` has to."""
    family, kind, protocol, *_ = address
    return ConnectingSocket(family, kind, protocol)
