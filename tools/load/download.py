"""One download as a client sees it, at full speed or paced, and its verdict."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.support.client import ask, connect

from .objects import Version

if TYPE_CHECKING:
    from hashlib import _Hash

_BUFFER = 256 * 1024
_LIMIT = 600.0  # seconds; longer than any download here takes

Verdict = Literal["whole", "broken", "wrong"]


def image_of(task_id: int) -> str:
    return f"/tasks/{task_id}/image"


def bytes_of(task_id: int) -> str:
    return f"/tasks/{task_id}/bytes/{Version(task_id, 1).size}"


@dataclass
class Download:
    """A download and its state; `status` is 0 until the answer begins."""

    port: int
    path: str
    pace: int = 0
    """Bytes per second; 0 reads at full speed."""

    receive_buffer: int | None = None
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    received: int = 0
    seconds: float = 0.0
    sha256: _Hash = field(default_factory=hashlib.sha256)
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the request and read until the connection ends."""
        begun = time.monotonic()
        connection = connect(self.port, receive_buffer=self.receive_buffer)
        with contextlib.closing(connection), contextlib.suppress(ConnectionResetError):
            ask(connection, self.path, headers=headers)
            connection.setblocking(False)
            async with asyncio.timeout(_LIMIT):
                async for data in self._body(connection):
                    self.sha256.update(data)
                    self.received += len(data)
        self.seconds = time.monotonic() - begun

    async def _body(self, connection: socket.socket) -> AsyncGenerator[bytes]:
        loop = asyncio.get_running_loop()
        read_size = min(_BUFFER, self.pace // 5) or _BUFFER
        head = b""
        while b"\r\n\r\n" not in head:
            data = await loop.sock_recv(connection, 4096)
            if not data:
                return
            head += data
        head, _, data = head.partition(b"\r\n\r\n")
        self._take_head(head.decode("latin-1"))
        begun, taken = time.monotonic(), 0
        while True:
            yield data
            taken += len(data)
            if self.pace:
                await asyncio.sleep(begun + taken / self.pace - time.monotonic())
            if not (data := await loop.sock_recv(connection, read_size)):
                return

    def _take_head(self, head: str) -> None:
        status_line, *lines = head.split("\r\n")
        self.status = int(status_line.split(" ")[1])
        self.headers = dict(line.split(": ", 1) for line in lines)
        self.answered.set()

    def verdict(self) -> Verdict:
        """Return `whole`, `broken` (a visibly short part of one version) or `wrong`."""
        version = Version.of_etag(self.headers.get("etag", ""))
        if self.status != 200 or version is None or str(version.task_id) not in self.path:
            return "wrong"
        if int(self.headers.get("content-length", -1)) != version.size:
            return "wrong"
        if self.sha256.hexdigest() != version.sha256(self.received):
            return "wrong"
        return "whole" if self.received == version.size else "broken"


async def run_all(downloads: Iterable[Download], *, at_once: int) -> None:
    """Run downloads, `at_once` at a time."""
    waiting = iter(downloads)

    async def worker() -> None:
        for download in waiting:
            await download.run()

    await asyncio.gather(*(worker() for _ in range(at_once)))


async def all_answered(downloads: Iterable[Download]) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*(download.answered.wait() for download in downloads))
