"""A client's TCP connection: unacknowledged bytes, whether the client has left, abort."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass

TCP_ESTABLISHED = 1
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds


def is_visible(transport: asyncio.Transport) -> bool:
    """Return whether the kernel tells what the client has acknowledged: Linux does, for TCP."""
    connection = transport.get_extra_info("socket")
    families = (socket.AF_INET, socket.AF_INET6)
    return sys.platform == "linux" and connection is not None and connection.family in families


@dataclass(slots=True, eq=False)
class Connection:
    """A client's connection, as a request finds it among the extensions of its ASGI scope."""

    transport: asyncio.Transport
    discard_body: Callable[[], None]
    """Drops the body of the request that runs. Otherwise the server pauses reading at 64 KiB of a
    body that no handler reads, and does not see that the client leaves."""

    is_standalone: bool
    """Whether the server serves downspout alone, without the middleware of a host."""

    on_lost: Callable[[], None] | None = None
    """Called when the connection is lost; belongs to the request that runs."""

    def buffered(self) -> int:
        """Return how many bytes the server and the kernel hold that the client has not taken."""
        if self.transport.is_closing():  # Its descriptor may belong to another socket by now.
            return 0
        connection = self.transport.get_extra_info("socket")
        queued = bytearray(4)
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def is_gone(self) -> bool:
        """Return whether the client has left, also while the server has paused reading."""
        if self.transport.is_closing():
            return True
        connection = self.transport.get_extra_info("socket")
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return int(state[0]) != TCP_ESTABLISHED

    def abort(self) -> None:
        """Close the connection with RST; the bytes in its buffers are dropped."""
        if self.transport.is_closing():
            return
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()
