"""A store in memory: one object, whose connections give bytes when the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from handlers.body.upstream import Chunk, Observer, Owner, Upstream
from handlers.errors import BrokenTransfer, DownloadError
from handlers.rfc9110.ranges import Part


@dataclass(eq=False)
class MemoryConnection:
    """One open request for a part."""

    body: bytes
    part: Part
    chunk: int
    position: int
    fails_at: int | None = None
    is_open: bool = True
    pauses: int = 1
    """How often the event loop runs before each chunk."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing is given before it is set."""

    async def read(self) -> Chunk:
        await self.gate.wait()
        for _ in range(self.pauses):
            await asyncio.sleep(0)
        if self.fails_at is not None and self.position >= self.fails_at:
            raise BrokenTransfer("upstream_timeout", "as the test says")
        end = min(self.position + self.chunk, self.part.last + 1)
        if self.fails_at is not None:
            end = min(end, self.fails_at)
        data = self.body[self.position : end]
        self.position = end
        return data if end % 2 else memoryview(data)

    def close(self) -> None:
        self.is_open = False


@dataclass
class RecordingObserver(Observer):
    """Keeps what an observer is told."""

    failed: list[str] = field(default_factory=list)
    resumed: int = 0

    def upstream_failed(self, error: BaseException) -> None:
        self.failed.append(str(error))

    def body_resumed(self) -> None:
        self.resumed += 1


@dataclass(eq=False)
class MemoryStore:
    """Opens parts of `body`, and keeps the connections for the test to look at."""

    body: bytes
    chunk: int = 7_001
    connections: list[MemoryConnection] = field(default_factory=list)
    requests: list[Part] = field(default_factory=list)
    """All parts that were asked for, refused ones included."""
    most_open: int = 0
    """How many connections have been open at once."""
    is_gated: bool = False
    """Whether connections wait for the test to set their gate."""
    refusals: dict[int, DownloadError] = field(default_factory=dict)
    """Errors of requests for parts that begin at a byte or behind it."""
    failures: list[int] = field(default_factory=list)
    """Bytes at which each connection breaks that would give them."""
    spoil: Callable[[MemoryConnection], None] = lambda _: None
    """Called with each new connection."""

    def connect(self, part: Part) -> MemoryConnection:
        fails_at = next((at for at in self.failures if part.first <= at <= part.last), None)
        connection = MemoryConnection(self.body, part, self.chunk, part.first, fails_at)
        if not self.is_gated:
            connection.gate.set()
        self.connections.append(connection)
        self.spoil(connection)
        self.most_open = max(self.most_open, len(self.open_connections))
        return connection

    @property
    def open_connections(self) -> list[MemoryConnection]:
        return [connection for connection in self.connections if connection.is_open]

    @property
    def parts(self) -> list[Part]:
        """The parts of all connections, in order."""
        return [connection.part for connection in self.connections]

    async def open_part(self, part: Part, stack: Owner) -> Upstream:
        """Open a part, as `read_ahead` wants it."""
        assert 0 <= part.first <= part.last < len(self.body)
        self.requests.append(part)
        await asyncio.sleep(0)
        if refusal := next((e for at, e in self.refusals.items() if part.first >= at), None):
            raise refusal
        return self.upstream(self.connect(part), stack)

    async def open_at(self, position: int, stack: Owner) -> Upstream:
        """Open the rest, as `BodyResumer` wants it."""
        return await self.open_part(Part(position, len(self.body) - 1), stack)

    def upstream(self, connection: MemoryConnection, stack: Owner) -> Upstream:
        stack.callback(connection.close)
        return Upstream(
            headers={}, length=connection.part.length, close=connection.close, read=connection.read
        )
