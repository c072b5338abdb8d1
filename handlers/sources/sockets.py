"""Sockets of connections to upstreams; the garbage collector does not close their descriptors."""

import socket
from typing import Any


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
