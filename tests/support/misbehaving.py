"""The fake store and upstream: a server that answers as a test says, byte for byte."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .tls import encrypted

CHUNK = bytes(range(256)) * 256

# Is part of the message of each S3 error; no client may ever see it.
SECRET = "SECRET-OF-THE-STORE"


@dataclass
class Exchange:
    """One request that arrived, and the means to answer it, well or badly."""

    method: str
    path: str
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: int = 0
    """Bytes of the body that the kernel or this process's buffer has taken."""

    keep: bool = False
    """Whether the connection serves another request after this one."""

    is_over: bool = False
    """Whether the answer has been sent, or its client has closed the connection."""

    lines: list[str] = field(default_factory=list)
    """The header lines as they arrived, repeated ones included."""

    def values(self, name: str) -> list[str]:
        """Return the values of all header lines of this name (lower case)."""
        pairs = (line.split(":", 1) for line in self.lines)
        return [value.strip() for found, value in pairs if found.lower() == name]

    async def head(self, status: int = 200, *lines: str) -> None:
        """Send a status line and header lines."""
        text = "\r\n".join([f"HTTP/1.1 {status} Whatever", *lines, "", ""])
        await self.raw(text.encode("latin-1"))

    async def raw(self, data: bytes) -> None:
        """Send bytes that do not count as body."""
        self.writer.write(data)
        await self.writer.drain()

    async def body(self, data: bytes) -> None:
        """Send bytes of the body."""
        await self.raw(data)
        self.sent += len(data)

    async def answer(self, status: int, data: bytes = b"", *lines: str) -> None:
        """Send a whole answer, and keep the connection unless `lines` say `connection: close`."""
        await self.head(status, f"content-length: {len(data)}", *lines)
        if self.method != "HEAD":
            await self.body(data)
        self.keep = "connection: close" not in lines

    async def error(self, status: int, code: str, *lines: str) -> None:
        """Send an S3 error."""
        xml = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>"
        await self.answer(status, xml.encode(), "content-type: application/xml", *lines)

    async def flood(self) -> None:
        """Send body without end, as fast as the client reads."""
        while True:
            await self.body(CHUNK)

    async def pause(self, seconds: float) -> None:
        """Send nothing for some seconds."""
        await asyncio.sleep(seconds)

    async def hang(self) -> None:
        """Send nothing more; return when the client has closed the connection."""
        with suppress(ConnectionError):
            await self.reader.read()

    def reset(self) -> None:
        """Close the connection with RST."""
        reset(self.writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST."""
    raw: socket.socket = writer.get_extra_info("socket")
    if raw.fileno() != -1:  # Else the client has closed the connection first.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]
"""Answers one request."""

Door = Callable[[asyncio.StreamWriter], None]
"""Handles a connection before any request arrives on it."""

T = TypeVar("T")


async def not_there(exchange: Exchange) -> None:
    """Answer as a store that has no object."""
    await exchange.error(404, "NoSuchKey")


def answer_with(status: int, data: bytes = b"", *lines: str) -> Behaviour:
    """Return a behaviour that gives the same whole answer to every request."""

    async def answering(exchange: Exchange) -> None:
        await exchange.answer(status, data, *lines)

    return answering


@dataclass
class Misbehaving:
    """The server: `behaviour` answers each request; tests change it at any time."""

    behaviour: Behaviour = not_there
    door: Door | None = None
    port: int = 0
    tls: ssl.SSLContext | None = None
    open_connections: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None
    _listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The URL of the server, without a path."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[str]:
        """All requests that arrived, as "GET /path"."""
        return [f"{exchange.method} {exchange.path}" for exchange in self.exchanges]

    def forget(self) -> None:
        """Behave as at first, and forget all requests."""
        self.behaviour = not_there
        self.exchanges.clear()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's own thread; called from any other thread."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def listen(self) -> None:
        """Accept connections, unless the server does already."""
        if self._listener is None:
            self._listener = await asyncio.start_server(
                self.serve, "127.0.0.1", self.port, backlog=1024
            )

    async def refuse(self) -> None:
        """Refuse new connections; open ones stay."""
        self.stop_listening()

    def stop_listening(self) -> None:
        """Do as `refuse`, for a behaviour that is no coroutine; called in the server's thread."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        if self.door is not None:
            self.door(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                async with self.secure(reader, writer) as (reader, writer):  # noqa: PLR1704
                    while await self._serve_one(reader, writer):
                        pass
        except asyncio.CancelledError:
            pass  # the server is being stopped
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()

    def secure(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Yield the streams of a connection, over TLS if the server speaks it."""
        if self.tls is None:
            return nullcontext((reader, writer))
        return encrypted(reader, writer, self.tls)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _ = request.split(" ")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        exchange = Exchange(method, path, headers, reader, writer, lines=lines)
        self.exchanges.append(exchange)
        try:
            await self.behaviour(exchange)
        finally:
            exchange.is_over = True
        return exchange.keep and headers.get("connection") != "close"

    async def live(self, begun: threading.Event, end: asyncio.Event) -> None:
        """Listen until the end, then break off all connections."""
        await self.listen()
        begun.set()
        await end.wait()
        await self.refuse()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


S = TypeVar("S", bound=Misbehaving)


@contextmanager
def running(server: S) -> Generator[S]:
    """Run a server in a thread with an event loop of its own."""
    begun, end = threading.Event(), asyncio.Event()
    server._loop = loop = asyncio.new_event_loop()
    # Bound and never listening, so that no other process gets the port while the server refuses.
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        server.port = reserved.getsockname()[1]
        thread = threading.Thread(target=lambda: loop.run_until_complete(server.live(begun, end)))
        thread.start()
        try:
            assert begun.wait(10)
            yield server
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join(10)
            loop.close()


@contextmanager
def misbehaving(behaviour: Behaviour = not_there) -> Generator[Misbehaving]:
    """Run a server with a behaviour."""
    with running(Misbehaving(behaviour)) as server:
        yield server
