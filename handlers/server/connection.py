"""A client's connection: what it has acknowledged, whether it has left, and its answers' heads."""

import asyncio
import fcntl
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds


@dataclass(slots=True, eq=False)
class Connection:
    """A client's connection, the ASGI extension that download/monitor.py specifies."""

    transport: asyncio.Transport
    socket: socket.socket
    discard_body: Callable[[], None]
    """Drops the running request's body. Otherwise uvicorn, after 64 KiB of a body that no handler
    reads, pauses reading from the socket and does not notice that the client leaves."""

    is_standalone: bool
    on_lost: Callable[[], None] | None = None

    def buffered(self) -> int:
        """Return how many bytes are in uvicorn's and the kernel's buffers, not acknowledged.

        On a Unix socket the kernel counts what the client has not read, in blocks of about 36 KiB.
        """
        if self.transport.is_closing():  # Its file descriptor may now belong to another socket.
            return 0
        queued = bytearray(4)
        fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def is_gone(self) -> bool:
        """Return whether the client has left, even while uvicorn has paused reading."""
        if self.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Close the connection with a TCP RST, which drops the bytes in its buffers."""
        if self.transport.is_closing():
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()


class HeadBuffer:
    """A transport for one answer that sends the head and the first bytes of the body together.

    uvicorn writes them one after the other. The second system call and TCP segment take 5 % of the
    CPU time of a small download. If no body follows at once, the event loop sends the head.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | memoryview | None = None
        """None before the head is written, empty after it was sent."""
        self.is_closing = transport.is_closing

    def write(self, data: bytes | memoryview) -> None:
        """Keep the head; send all later bytes, after the head."""
        if self._head is None:
            self._head = data
            self._loop.call_soon(self._send_head)
        elif self._head:
            self._transport.writelines((self._head, data))
            self._head = b""
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send the head, then close the connection after its last byte."""
        self._send_head()
        self._transport.close()

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self.is_closing():
            self._transport.write(head)
