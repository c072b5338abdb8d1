"""The store and the HTTP service behind the one under test: a server that does as it is told."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.misbehaving import Exchange, Misbehaving

Act = Callable[["Upstream", Exchange], Awaitable[None]]
"""What is done to one request."""

Door = Callable[[asyncio.StreamWriter], None]
"""What is done to a connection before anything is asked over it."""


@dataclass
class Upstream(Misbehaving):
    """A server whose acts follow one another, one for each request; the last stays for good.

    Its answers say `connection: close` and leave the closing to the client. So what stays open is
    not an idle connection but one that the client has lost hold of.
    """

    acts: tuple[Act, ...] = ()
    asked: int = 0
    busy: int = 0
    """Exchanges whose connection the client has neither closed nor given back."""

    door: Door | None = None
    elsewhere: int = 0
    """A port that nobody has a reason to connect to."""

    strays: int = 0
    """Connections that were made to `elsewhere`."""

    idle: set[asyncio.StreamWriter] = field(default_factory=set)
    """Connections that were left open on purpose."""

    house_opens: bool = False
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _listener: asyncio.Server | None = None

    def play(self, *acts: Act) -> None:
        """Begin with the first of `acts` again."""
        self.acts, self.asked, self.strays = acts, 0, 0
        self.exchanges.clear()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the server's own thread."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection, if the door lets it in."""
        if self.door is None:
            await super().serve(reader, writer)
        else:
            self.door(writer)

    async def act(self, exchange: Exchange) -> None:
        """Do the next act, and wait for the client to close."""
        act = self.acts[min(self.asked, len(self.acts) - 1)]
        self.asked += 1
        self.busy += 1
        try:
            await act(self, exchange)
            if not exchange.keep:
                await exchange.hang()
        finally:
            self.busy -= 1

    async def listen(self) -> None:
        """Accept connections, where none are accepted now."""
        if self._listener is None:
            self._listener = await asyncio.start_server(
                self.serve, "127.0.0.1", self.port, backlog=1024
            )

    async def refuse(self) -> None:
        """Accept no more connections; those there are stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _stray(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.strays += 1
        writer.close()

    async def live(self, begun: threading.Event, end: asyncio.Event) -> None:
        """Listen at both ports until the end."""
        strays = await asyncio.start_server(self._stray, "127.0.0.1", 0)
        self.elsewhere = strays.sockets[0].getsockname()[1]
        await self.listen()
        begun.set()
        await end.wait()
        strays.close()
        await self.refuse()
        await self.cancel_all()


@contextmanager
def upstream() -> Generator[Upstream]:
    """Run an upstream in a thread with an event loop of its own."""
    begun, end = threading.Event(), asyncio.Event()
    # Bound and never listening: while it refuses, nobody else may be given its port.
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        server = Upstream(port=reserved.getsockname()[1])
        server.behaviour = server.act
        loop = server._loop
        thread = threading.Thread(target=lambda: loop.run_until_complete(server.live(begun, end)))
        thread.start()
        try:
            assert begun.wait(10)
            yield server
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join(10)
            loop.close()
