"""The store and the HTTP service behind the subject: a server that acts as the fault says."""

import asyncio
import ssl
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from tests.support.misbehaving import Exchange, Misbehaving, running
from tests.support.tls import CHUNK, encrypted

from .handshakes import Misstep

Act = Callable[["Upstream", Exchange], Awaitable[None]]
"""Answers one request."""


@dataclass
class Upstream(Misbehaving):
    """A server with a list of acts: one for each request, and the last for all further requests.

    Its answers say `connection: close` and leave the closing to the client. So a connection that
    stays open is not an idle one: the client has lost hold of it.
    """

    acts: tuple[Act, ...] = ()
    asked: int = 0
    handshakes: list[ssl.SSLContext | Misstep] = field(default_factory=list)
    """One for each connection over TLS; the last one for all further connections."""

    busy: int = 0
    """Exchanges whose connection the client has neither closed nor given back."""

    elsewhere: int = 0
    """The port that a redirect names; no client may connect to it."""

    strays: int = 0
    """Connections to the port `elsewhere`."""

    idle: set[asyncio.StreamWriter] = field(default_factory=set)
    """Connections that were left open on purpose."""

    house_opens: bool = False

    def play(self, *acts: Act, handshakes: Iterable[ssl.SSLContext | Misstep] = ()) -> None:
        """Start again with the first of `acts` and of `handshakes`; by default, with good ones."""
        self.acts, self.asked, self.strays = acts, 0, 0
        self.handshakes = list(handshakes)
        self.exchanges.clear()

    @asynccontextmanager
    async def secure(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Begin a connection with the next handshake."""
        if self.tls is None:
            yield reader, writer
            return
        handshake = self.handshakes[0] if self.handshakes else self.tls
        if len(self.handshakes) > 1:
            del self.handshakes[0]
        if isinstance(handshake, ssl.SSLContext):
            async with encrypted(reader, writer, handshake) as streams:
                yield streams
            return
        self.busy += 1
        try:
            await reader.read(CHUNK)  # The client's hello.
            await handshake(reader, writer)
        finally:
            self.busy -= 1
        raise ConnectionAbortedError("no handshake")

    async def act(self, exchange: Exchange) -> None:
        """Do the next act, and wait until the client closes the connection."""
        act = self.acts[min(self.asked, len(self.acts) - 1)]
        self.asked += 1
        self.busy += 1
        try:
            await act(self, exchange)
            if not exchange.keep:
                await exchange.hang()
        finally:
            self.busy -= 1

    async def live(self, begun: threading.Event, end: asyncio.Event) -> None:
        """Listen at both ports until the end."""
        self.behaviour = self.act
        async with await asyncio.start_server(self._stray, "127.0.0.1", 0) as strays:
            self.elsewhere = strays.sockets[0].getsockname()[1]
            await super().live(begun, end)

    async def _stray(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.strays += 1
        writer.close()


@contextmanager
def upstream(tls: ssl.SSLContext | None) -> Generator[Upstream]:
    """Run an upstream in a thread with an event loop of its own."""
    with running(Upstream(tls=tls)) as server:
        yield server
