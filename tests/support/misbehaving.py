"""A server that does to a client whatever a test says, byte for byte."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

CHUNK = bytes(range(256)) * 256


@dataclass
class Exchange:
    """One request that arrived, and the means to answer it, well or badly."""

    method: str
    path: str
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent: int = 0
    keep: bool = False

    async def head(self, status: int = 200, *lines: str) -> None:
        """Send a status line and header lines."""
        text = "\r\n".join([f"HTTP/1.1 {status} Whatever", *lines, "", ""])
        await self.raw(text.encode("latin-1"))

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def body(self, data: bytes) -> None:
        await self.raw(data)
        self.sent += len(data)

    async def answer(self, status: int, data: bytes = b"", *lines: str) -> None:
        """Answer as a good server does, and keep the connection."""
        await self.head(status, f"content-length: {len(data)}", *lines)
        if self.method != "HEAD":
            await self.body(data)
        self.keep = True

    async def error(self, status: int, code: str) -> None:
        """Answer with an S3 error."""
        xml = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>"
        await self.answer(status, xml.encode(), "content-type: application/xml")

    async def flood(self) -> None:
        """Send body without end, as fast as it is taken."""
        while True:
            await self.body(CHUNK)

    async def pause(self, seconds: float) -> None:
        """Be silent for a while."""
        await asyncio.sleep(seconds)

    async def hang(self) -> None:
        """Send nothing more; returns when the client has gone."""
        with suppress(ConnectionError):
            await self.reader.read()

    def reset(self) -> None:
        """Close the connection with RST."""
        linger = struct.pack("ii", 1, 0)
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


# Stands in every S3 error's message; must never be seen by a client.
SECRET = "SECRET-OF-THE-STORE"

Behaviour = Callable[[Exchange], Awaitable[None]]


async def not_there(exchange: Exchange) -> None:
    await exchange.error(404, "NoSuchKey")


@dataclass
class Misbehaving:
    """The server: `behaviour` is what it does to each request."""

    behaviour: Behaviour = not_there
    port: int = 0
    open_connections: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    stop_listening: Callable[[], None] = lambda: None
    """Take no more connections; to be called by a behaviour, in its thread."""

    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[str]:
        """All requests that arrived, as "GET /path"."""
        return [f"{exchange.method} {exchange.path}" for exchange in self.exchanges]

    def forget(self) -> None:
        """Behave as at first, and forget what was asked."""
        self.behaviour = not_there
        self.exchanges.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._serve_one(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # the server is being stopped
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _ = request.split(" ")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        exchange = Exchange(method, path, headers, reader, writer)
        self.exchanges.append(exchange)
        await self.behaviour(exchange)
        return exchange.keep

    async def cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def misbehaving(behaviour: Behaviour = not_there) -> Generator[Misbehaving]:
    """Run the server in a thread with an event loop of its own."""
    server = Misbehaving(behaviour)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def main() -> None:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1024)
        server.port = listener.sockets[0].getsockname()[1]
        server.stop_listening = listener.close
        ready.set()
        await stop.wait()
        listener.close()
        await server.cancel_all()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
