"""A uvicorn HTTP protocol that detects slow and gone clients; draining on SIGTERM.

A host uses it as `uvicorn.run(app, http="downspout.server:Protocol")`. It needs the packages of
`pip install downspout[server]`.
"""

import asyncio
import fcntl
import logging
import signal
import socket
import struct
import sys
import termios
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .app import drain
from .download.monitor import CONNECTION

__all__ = ["DrainOnSignal", "Protocol", "StandaloneProtocol"]

TCP_ESTABLISHED = 1
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 seconds

logger = logging.getLogger("downspout")


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
        """Return how many bytes are in uvicorn's and the kernel's buffers, not acknowledged."""
        if self.transport.is_closing():  # Its file descriptor may now belong to another socket.
            return 0
        queued = bytearray(4)
        fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def is_gone(self) -> bool:
        """Return whether the client has left, even while uvicorn has paused reading."""
        if self.transport.is_closing():
            return True
        state = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return int(state[0]) != TCP_ESTABLISHED

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


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol; gives each request its Connection, to watch and abort it.

    uvicorn has no write timeout, and closing a transport waits until its buffer is sent: a client
    that reads nothing would hold its socket forever. The kernel's TCP_USER_TIMEOUT is no
    alternative, because it also drops slow clients.
    """

    is_standalone = False

    _connection: Connection | None = None
    _running: RequestResponseCycle | None = None
    _without_body: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection; only Linux tells how much a TCP client has acknowledged."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        is_tcp = sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6)
        if is_tcp and sys.platform == "linux":
            self._connection = Connection(transport, sock, self._discard_body, self.is_standalone)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the running request; uvicorn tells only the last one, which may be queued."""
        if self._connection is not None and self._connection.on_lost is not None:
            self._connection.on_lost()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request, and add its Connection to the extensions of its scope."""
        super().on_message_begin()
        if self._connection is not None:
            self.scope["extensions"] = {CONNECTION: self._connection}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """Remember the running request: the new one, unless it is queued (pipelining)."""
        super().on_headers_complete()
        self.cycle.transport = HeadBuffer(self.transport, self.loop)  # type: ignore[assignment]
        if not self.pipeline:
            self._running = self.cycle

    def on_response_complete(self) -> None:
        """Remember the next running request: the oldest of those that the client pipelined."""
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Buffer a part of a request's body, unless discard_body was called for it."""
        if self.cycle is not self._without_body:
            super().on_body(body)

    def _discard_body(self) -> None:
        self._without_body = self._running
        if self._running is not None:
            self._running.body.clear()
        if not self.pipeline:
            self.flow.resume_reading()


class StandaloneProtocol(Protocol):
    """The protocol for a server that runs only downspout, without a host's middleware."""

    is_standalone = True


class DrainOnSignal:
    """Drains applications on SIGTERM and SIGINT, then calls the server's own signal handlers.

    The server's handlers would stop listening at once. While the applications drain, /readyz and
    new downloads get 503. Create it after the server has set its handlers, for example in a
    lifespan; outside the main thread it does nothing.
    """

    def __init__(self, *apps: Starlette) -> None:
        self._apps = apps
        self._draining: asyncio.Task[None] | None = None
        self._servers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                self._servers[number] = handler
                signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Drain at the first signal, stop at a second SIGINT; platforms may repeat SIGTERM."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # The server's event loop is in another thread, or has ended.
            self._servers[number](number, frame)
            return
        if self._draining is None:
            self._draining = loop.create_task(self._drain(number))
        elif number == signal.SIGINT:
            self._servers[number](number, frame)

    async def _drain(self, number: int) -> None:
        # A signal handler must not log: it may interrupt the write of another log line.
        logger.info("draining: new downloads get 503, running ones have SHUTDOWN_GRACE to finish")
        try:
            await asyncio.gather(*map(drain, self._apps))
        finally:
            self._servers[number](number, None)
