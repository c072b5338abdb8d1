"""One HTTP exchange on a connection of aiohttp's pool, without aiohttp's parser."""

import asyncio
import socket
import sys
from http import HTTPStatus
from typing import Any

import aiohttp

from ..body.upstream import Chunk
from ..errors import BrokenTransfer
from .raw_buffer import HEAD_BUFFER, LARGE_CHUNK, RawBuffer
from .raw_head import PlainHead, can_become_plain, join_headers, parse_plain_head
from .response import READ_BUFFER, RawResponse, abort, payload_reader, read_timed_out

_SOURCE = "store"


class RawProtocol(asyncio.BufferedProtocol):
    """Passes the bytes of a connection to an exchange, or without one to aiohttp's handler.

    It stays on the connection: uvloop takes four system calls to change a protocol and back.
    """

    def __init__(self, handler: Any, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self.exchange: RawExchange | None = None
        self.timeout, self.now = timeout, loop.time
        self._handler, self._loop = handler, loop
        self._stray = bytearray()
        self._future: asyncio.Future[None] | None = None
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._has_large_window = sys.platform != "linux"

    async def wait(self) -> None:
        """Return when `wake` is called; raise SocketTimeoutError after `timeout` seconds."""
        if self._future is not None:
            raise RuntimeError("another task is already waiting for this response")
        self._since = self.now()
        # One timer serves many waits: `_ring` starts it anew if the current wait has time left.
        if self._timer is None:
            self._timer = self._loop.call_later(self.timeout, self._ring)
        self._future = future = self._loop.create_future()
        try:
            await future
        finally:
            if self._future is future:  # `wake` was not called.
                self._future = None

    def wake(self) -> None:
        """Let the waiting task continue; the next exchange may wait before it does."""
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.set_result(None)

    def enlarge_window(self, transport: asyncio.BaseTransport) -> None:
        """Let Linux receive LARGE_CHUNK bytes ahead; elsewhere, and at later calls, do nothing.

        Linux begins with 64 KiB, and gives more only slowly while the event loop is busy: 32
        downloads of 10 MiB on new connections took a third longer. SO_RCVLOWAT raises the receive
        buffer, which Linux goes on tuning, unlike with SO_RCVBUF (tcp_set_rcvlowat, Linux 4.18).
        """
        if not self._has_large_window:
            self._has_large_window = True
            sock = transport.get_extra_info("socket")
            for size in (LARGE_CHUNK, 1):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _ring(self) -> None:
        self._timer = None
        if self._future is None or self._future.done():
            return
        remaining = self._since + self.timeout - self.now()
        if remaining > 0:
            self._timer = self._loop.call_later(remaining, self._ring)
        else:
            error = aiohttp.SocketTimeoutError("Timeout on reading data from socket")
            self._future.set_exception(error)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the length is known
        """Return memory for bytes of a response, or for bytes that no exchange waits for."""
        if self.exchange is not None:
            return self.exchange.get_buffer()
        self._stray = bytearray(READ_BUFFER)
        return memoryview(self._stray)

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on `nbytes` that the transport has written to the memory."""
        self._since = self.now()
        if self.exchange is not None:
            self.exchange.buffer_updated(nbytes)
        else:
            self._handler.data_received(bytes(self._stray[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer; tell the exchange, which tells the handler, or the handler."""
        if self._timer is not None:
            self._timer.cancel()
        exchange, self.exchange = self.exchange, None
        (exchange or self._handler).connection_lost(exc)


class RawExchange:
    """Sends one request and receives its response, in place of aiohttp's protocol.

    `raw_client.missing_parts` tells whether aiohttp's `connection` has the parts used here.
    """

    def __init__(
        self, connection: Any, method: str, read_timeout: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport = connection.transport
        protocol = self._transport and self._transport.get_protocol()
        if not isinstance(protocol, RawProtocol):
            protocol = RawProtocol(connection.protocol, read_timeout, loop)
        self.has_begun = False
        self._protocol = protocol
        self._connection = connection
        self._handler = connection.protocol
        self._method = method
        self._head: PlainHead | None = None
        self._buffer = RawBuffer()
        # Until the head has arrived: free bytes for it. Then: bytes of the body that are missing.
        self._left = HEAD_BUFFER
        self._failure: BrokenTransfer | None = None

    async def send(self, request: bytes) -> RawResponse:
        """Send a request and return its response; raise the exceptions of aiohttp's client."""
        if not self._transport.is_reading():
            raise aiohttp.ServerDisconnectedError("Connection is closing")
        self._protocol.exchange = self
        if self._transport.get_protocol() is not self._protocol:
            self._transport.set_protocol(self._protocol)
        self._transport.write(request)
        await self._protocol.wait()
        if self._head is None:
            return await self._receive_parsed()
        return RawResponse(self._head.status, self._head.headers, self.read, self.close)

    async def read(self) -> Chunk:
        """Return the next bytes of the body, b"" at the end; raise BrokenTransfer."""
        buffer, protocol = self._buffer, self._protocol
        buffer.note_reader(protocol.now())
        while buffer.start == buffer.end:
            if self._failure is not None:
                raise self._failure
            if not self._left:
                return b""
            try:
                await protocol.wait()
            except TimeoutError as error:
                raise read_timed_out(_SOURCE, protocol.timeout) from error
        was_full = buffer.is_full
        chunk = buffer.take(protocol.now(), is_last=not self._left)
        if self._left and self._failure is None:
            if buffer.is_fast:
                protocol.enlarge_window(self._transport)
            if was_full:
                self._transport.resume_reading()
        return chunk

    def close(self) -> None:
        """Close the response, and its connection if bytes are missing; may be called again."""
        if self._left or self._buffer.start < self._buffer.end:
            text = f"{_SOURCE}: downspout closed the connection before the body was complete"
            self._failure = BrokenTransfer("truncated", text)
            self._buffer.clear()
        if self._connection.protocol is not None:
            self._give_back(is_reusable=False)
            self._protocol.wake()

    def get_buffer(self) -> memoryview:
        """Return memory for the rest of the body and one byte more.

        If that byte arrives, the connection is closed: the next response would begin with it.
        """
        return self._buffer.writable(self._left + 1)

    def buffer_updated(self, nbytes: int) -> None:
        """Count `nbytes` that the transport has written to the buffer."""
        self._buffer.end += nbytes
        if self._head is None:
            self.has_begun = True
            self._find_head()
        else:
            self._left -= nbytes
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let `read` raise BrokenTransfer if bytes of the body are missing."""
        if self._head is None and self._buffer.end:
            self._hand_over()
        elif self._head is not None and self._left and self._failure is None:
            text = f"{_SOURCE}: connection lost, {self._left} bytes missing"
            self._failure = BrokenTransfer("truncated", text)
            self._failure.__cause__ = exc
        # aiohttp's connector waits for this call. Without a head, the handler raises the error.
        self._handler.connection_lost(exc)
        self._protocol.wake()

    def _find_head(self) -> None:
        buffer = self._buffer
        stop = buffer.data.find(b"\r\n\r\n", 0, buffer.end)
        if stop < 0 and can_become_plain(buffer.data, buffer.end):
            return
        self._head = parse_plain_head(buffer.data, stop + 4, self._method)
        if self._head is None:
            self._hand_over()
            return
        buffer.start = stop + 4
        self._left = self._head.length - (buffer.end - buffer.start)
        self._advance()

    def _advance(self) -> None:
        if self._left <= 0:
            self._buffer.end += self._left  # Drop bytes after the body.
            is_reusable = not self._left and self._head is not None and self._head.is_reusable
            self._left = 0
            self._give_back(is_reusable=is_reusable)
        elif self._buffer.is_full:
            self._transport.pause_reading()
        self._protocol.wake()

    def _give_back(self, *, is_reusable: bool) -> None:
        self._protocol.exchange = None
        if is_reusable:
            self._connection.release()
        else:
            abort(self._connection)
            self._connection.close()

    def _hand_over(self) -> None:
        """Pass the bytes received so far, and all later ones, to aiohttp's handler to parse."""
        self._handler.set_response_params(
            skip_payload=self._method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._protocol.timeout,
            read_bufsize=READ_BUFFER,
        )
        self._protocol.exchange = None
        self._transport.set_protocol(self._handler)
        self._handler.data_received(bytes(self._buffer.data[: self._buffer.end]))
        self._protocol.wake()

    async def _receive_parsed(self) -> RawResponse:
        """Return the response that aiohttp's handler parses, after interim ones (1xx)."""
        handler, connection = self._handler, self._connection
        while True:
            if not len(handler) and not handler.is_eof():
                handler.start_timeout()  # aiohttp stops this timer at a 1xx.
            message, payload = await handler.read()
            if message.code >= HTTPStatus.OK or message.code == HTTPStatus.SWITCHING_PROTOCOLS:
                break

        def close() -> None:
            if not payload.at_eof():
                payload.set_exception(aiohttp.ClientConnectionError("Connection closed"))
            abort(connection)
            connection.close()

        payload.on_eof(connection.release)
        fields = ((n.decode(), v.decode()) for n, v in message.raw_headers if v.isascii())
        read = payload_reader(payload.readany, self._protocol.timeout, _SOURCE)
        return RawResponse(message.code, join_headers(fields), read, close)
