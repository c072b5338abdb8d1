"""Requests on aiohttp's connections, without its parser and without a copy of the body.

The pool, its limits, names, TLS and the time to connect remain aiohttp's. A plain answer, as a
store gives it to nearly every request, is read here; what is not plain is handed over to aiohttp's
parser as it came, which so remains the judge of all that is unusual.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from yarl import URL

from ..body.upstream import READ_BUFFER, Chunk, Read

# For a head, and for all of a small body behind it.
HEAD_BUFFER = 32 * 1024

# Large pieces cost least: of 512 KiB a third of what those of 64 KiB do. But there are some of
# them for each body: filling, waiting, being sent. So none is larger than an eighth of what the
# reader has taken without a pause; buffers on the way to a client take much at any speed.
SMALL = 32 * 1024
LARGE = 512 * 1024
SHARE = 8
PAUSE_SECONDS = 0.05

# Stricter than aiohttp's parser in all, and within its limits for a line and for their number.
_PLAIN = re.compile(
    rb"HTTP/1\.1 (20[06]) [\t -~]{0,8000}+\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}+:[\t -~]{0,8000}+\r\n){1,100}+)\r\n"
)
_STARTS = (b"HTTP/1.1 200 ", b"HTTP/1.1 206 ")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LENGTH = re.compile("[0-9]{1,19}")
_UNUSUAL = {"transfer-encoding", "upgrade", "proxy-connection"}
_MAY_BE_REUSED = {"keep-alive": True, "close": False}
_BREAK = re.compile("[\r\n\0]")
_NOTHING = bytearray()
_SILENT = "Timeout on reading data from socket"


@dataclass(slots=True)
class RawResponse:
    """An answer whose head has come; whoever asked for it closes it."""

    status: int

    headers: Mapping[str, str]
    """Names in lower case; only values that are ASCII, those of a repeated name joined."""

    length: int | None
    """Bytes of the body; None where only its framing tells."""

    read: Read
    """Return the next bytes, b"" at the end; raises ClientError, TimeoutError where all is still.

    What it returns is not written to again.
    """

    close: Callable[[], None]
    """May be called twice; closes the connection too where the body has not come to its end."""


class RawClient:
    """Asks one origin, on the connections of a session."""

    def __init__(self, session: aiohttp.ClientSession, origin: str, *, silence: float) -> None:
        self.session = session
        self._silence = silence
        # It only tells where to connect to, so one does for all requests.
        self._place = aiohttp.ClientRequest(
            "GET", URL(origin), session=session, loop=asyncio.get_running_loop()
        )

    async def request(self, method: str, target: str, headers: Mapping[str, str]) -> RawResponse:
        """Ask, by GET or HEAD; raises what aiohttp's client does, ValueError for a bad header.

        A connection that is lost without a byte is replaced once (RFC 9112 9.3.1): an idle one
        may be closed just when it is used again.
        """
        request = _encoded(method, target, headers)
        is_last = False
        while True:
            exchange = _RawExchange(await self._connect(), method, self._silence)
            try:
                return await exchange.answer_to(request)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                exchange.close()
                if is_last or exchange.has_begun:
                    raise
                is_last = True
            except BaseException:
                exchange.close()
                raise

    async def _connect(self) -> Connection:
        connector = self.session.connector
        if connector is None:
            raise RuntimeError("Session is closed")
        try:
            return await connector.connect(self._place, [], self.session.timeout)
        except TimeoutError as error:
            text = f"Connection timeout to host {self._place.url}"
            raise aiohttp.ConnectionTimeoutError(text) from error


class _RawExchange(asyncio.BufferedProtocol):
    """One request and its answer; until that has come it stands in for aiohttp's handler."""

    def __init__(self, connection: Connection, method: str, silence: float) -> None:
        assert connection.protocol is not None  # noqa: S101 - it has just been opened
        assert connection.transport is not None  # noqa: S101
        self.has_begun = False
        self._connection = connection
        self._handler = connection.protocol
        self._transport = connection.transport
        self._method = method
        self._silence = silence
        self._head: tuple[int, dict[str, str], int] | None = None
        # Filled up to _end and taken up to _start. What is filled is never written to again: a
        # transport keeps a piece until it is sent.
        self._buffer = bytearray(HEAD_BUFFER)
        self._start = self._end = self._searched = 0
        self._left = HEAD_BUFFER  # once there is a head: the bytes of the body still to come
        self._taken_at_once = 0
        self._given = math.inf
        self._is_reusable = self._is_paused = False
        self._failure: aiohttp.ClientError | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._waiting_since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def answer_to(self, request: bytes) -> RawResponse:
        handler = self._handler
        # What came unasked would be taken for the answer.
        if handler.should_close or handler._reading_paused or handler._buffer_paused:  # noqa: SLF001 - nothing public tells
            raise aiohttp.ServerDisconnectedError("Connection not fit for another request")
        self._transport.set_protocol(self)
        self._transport.write(request)
        await self._wait()
        if self._head is None:
            return await self._parsed()
        return RawResponse(*self._head, self.read, self.close)

    async def read(self) -> Chunk:
        if self._loop.time() - self._given > PAUSE_SECONDS:
            self._taken_at_once = 0
        while self._start == self._end:
            if self._failure is not None:
                raise self._failure
            if not self._left:
                return b""
            await self._wait()
        self._given = self._loop.time()
        return self._taken()

    def close(self) -> None:
        if self._left or self._start < self._end:
            self._failure = aiohttp.ClientConnectionError("Connection closed")
            self._drop_buffer()
        if self._connection.protocol is not None:
            self._give_back(is_reusable=False)
        self._wake()

    # What the transport calls

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - we know what may come
        if self._start == self._end == len(self._buffer):
            size = min(max(self._taken_at_once // SHARE, SMALL), LARGE)
            self._buffer = bytearray(min(size, self._left + 1))
            self._start = self._end = 0
        # With room for a byte too many: where one comes, nobody may be given the connection,
        # whose next answer would begin with it. What follows it stays in the kernel.
        return memoryview(self._buffer)[self._end : self._end + self._left + 1]

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        if self._head is None:
            self.has_begun = True
            self._waiting_since = self._loop.time()
            self._look_for_head()
        else:
            self._left -= nbytes
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is None and self._end:
            self._hand_over()
        elif self._head is not None and self._left and self._failure is None:
            self._failure = aiohttp.ClientPayloadError(f"{self._left} bytes of the body missing")
            self._failure.__cause__ = exc
        self._stop_timer()
        # Its connector waits for it to hear of this; before a head, it has the error to raise.
        self._handler.connection_lost(exc)
        self._wake()

    # The head

    def _look_for_head(self) -> None:
        stop = self._buffer.find(b"\r\n\r\n", self._searched, self._end)
        if stop < 0 and self._may_become_plain():
            self._searched = max(self._end - 3, 0)
        elif stop >= 0 and self._is_plain(stop + 4):
            self._advance()
        else:
            self._hand_over()

    def _may_become_plain(self) -> bool:
        begun = bytes(self._buffer[: min(self._end, len(_STARTS[0]))])
        return (
            self._end < len(self._buffer)
            and any(start.startswith(begun) for start in _STARTS)
            and not _BARE_LF.search(self._buffer, self._searched, self._end)
        )

    def _is_plain(self, stop: int) -> bool:
        """Return whether the head that ends at `stop` needs no parser; if so, it is taken."""
        head = _PLAIN.fullmatch(self._buffer, 0, stop)
        if head is None:
            return False
        lines = head[2].decode().split("\r\n")[:-1]
        headers = _joined([line.partition(":")[::2] for line in lines])
        is_reusable = _MAY_BE_REUSED.get(headers.get("connection", "keep-alive").lower())
        stated = headers.get("content-length", "")
        if is_reusable is None or not _LENGTH.fullmatch(stated) or _UNUSUAL & headers.keys():
            return False
        length = 0 if self._method == "HEAD" else int(stated)
        self._head = int(head[1]), headers, length
        self._is_reusable = is_reusable
        self._start = stop
        self._left = length - (self._end - stop)
        return True

    def _hand_over(self) -> None:
        """Let aiohttp's handler have the connection and what has come, as its own client does."""
        self._handler.set_response_params(
            skip_payload=self._method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=self._silence,
            read_bufsize=READ_BUFFER,
        )
        self._stop_timer()
        self._transport.set_protocol(self._handler)
        self._handler.data_received(bytes(self._buffer[: self._end]))
        self._drop_buffer()
        self._wake()

    async def _parsed(self) -> RawResponse:
        handler, connection = self._handler, self._connection
        while True:
            if not len(handler) and not handler.is_eof():
                handler.start_timeout()  # which it drops at an interim answer
            message, payload = await handler.read()
            if message.code >= HTTPStatus.OK or message.code == HTTPStatus.SWITCHING_PROTOCOLS:
                break

        async def read() -> bytes:
            try:
                # aiohttp's own timer does not ring at a malformed chunk, where it waits for ever.
                async with asyncio.timeout(self._silence):
                    return await payload.readany()
            except TimeoutError as error:
                raise aiohttp.SocketTimeoutError(_SILENT) from error

        def close() -> None:
            if not payload.at_eof():
                payload.set_exception(aiohttp.ClientConnectionError("Connection closed"))
            connection.close()

        payload.on_eof(connection.release)
        headers = _joined((n.decode(), v.decode()) for n, v in message.raw_headers if v.isascii())
        length = _length_of(self._method, message)
        return RawResponse(message.code, headers, length, read, close)

    # The body

    def _advance(self) -> None:
        if self._left <= 0:
            self._end += self._left  # what there is too much is nobody's
            is_reusable = self._is_reusable and not self._left
            self._left = 0
            self._give_back(is_reusable=is_reusable)
        elif self._end == len(self._buffer):
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def _taken(self) -> memoryview:
        chunk = memoryview(self._buffer)[self._start : self._end]
        self._taken_at_once += len(chunk)
        self._start = self._end
        if not self._left or self._end == len(self._buffer):  # else what is free is filled, too
            self._drop_buffer()
        if self._is_paused and self._failure is None:
            self._is_paused = False
            self._transport.resume_reading()
        return chunk

    def _drop_buffer(self) -> None:
        self._start, self._end, self._buffer = 0, 0, _NOTHING

    def _give_back(self, *, is_reusable: bool) -> None:
        self._stop_timer()
        self._transport.set_protocol(self._handler)
        if is_reusable:
            self._connection.release()
        else:
            self._connection.close()

    # Waiting

    async def _wait(self) -> None:
        """Wait until something has come, or nothing will; raises SocketTimeoutError."""
        if self._waiter is not None:
            raise RuntimeError("somebody is waiting for it already")
        self._waiting_since = self._loop.time()
        # It is left running between waits, and asked when it rings whether one is overdue.
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence, self._ring)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _ring(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        remaining = self._waiting_since + self._silence - self._loop.time()
        if remaining > 0:
            self._timer = self._loop.call_later(remaining, self._ring)
        else:
            self._waiter.set_exception(aiohttp.SocketTimeoutError(_SILENT))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _encoded(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if _BREAK.search("".join(lines)):
        raise ValueError("a line break or NUL in the head of a request")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _joined(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for given, spaced in fields:
        name, value = given.lower(), spaced.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _length_of(method: str, message: RawResponseMessage) -> int | None:
    if method == "HEAD" or message.code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return 0
    stated = message.headers.get("content-length", "")
    return None if message.chunked or not _LENGTH.fullmatch(stated) else int(stated)
