"""The connection of a client of uvicorn's."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable

TCP_ESTABLISHED = 1

# Only there does the kernel tell what a socket's peer has not acknowledged.
VISIBLE = sys.platform == "linux"


class Connection:
    """What a download may know of its connection, and do to it."""

    __slots__ = ("_transport", "on_lost")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.on_lost: Callable[[], None] | None = None
        """Called when it is lost, for the request that runs."""

    def buffered(self) -> int:
        """Return how many bytes the client has not acknowledged: the server's and the kernel's."""
        if self._transport.is_closing():  # Its descriptor may be another's by now.
            return 0
        connection = self._transport.get_extra_info("socket")
        queued = bytearray(4)
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, queued)
        return self._transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def is_gone(self) -> bool:
        """Return whether the client has left; unseen while a request behind this one is queued."""
        if self._transport.is_closing():
            return True
        connection = self._transport.get_extra_info("socket")
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return int(state[0]) != TCP_ESTABLISHED

    def abort(self) -> None:
        """Close the connection with RST, and forget what is buffered."""
        if self._transport.is_closing():
            return
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
