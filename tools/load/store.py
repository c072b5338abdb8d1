"""A fast store in a process of its own: S3's GetObject and an HTTP upstream at full speed.

    python -m tools.load.store [--cut N] [--replace N] [--send-buffer BYTES]

Cuts one body in N at a random byte, and replaces an object during one body in N. Prints its port
as one line, and ends when its standard input ends. `GET /control/stats` returns the bytes written
for each request, in the order in which they began, and the numbers of the open requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import socket
import sys
from collections import defaultdict
from dataclasses import dataclass, field

import uvloop

from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.stored import Selection, select

from .objects import Version

_PATH = re.compile(r"/(?:photos/test/([0-9]+)/image\.jpg|bytes/([0-9]+)/[0-9]+)")


# libuv accepts one connection per listening socket and turn of its loop, and with hundreds of
# bodies a turn is long. With more listening sockets clients do not wait for the store.
ACCEPTORS = 16


@dataclass
class Store:
    """The behaviour of the store: it answers, cuts, replaces and counts."""

    cut: int
    replace: int
    _exchanges: list[Exchange] = field(default_factory=list)
    _open: set[int] = field(default_factory=set)
    _numbers: defaultdict[int, int] = field(default_factory=lambda: defaultdict(lambda: 1))
    _rng: random.Random = field(default_factory=lambda: random.Random(3))

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.path == "/control/stats":
            await exchange.answer(200, self._stats())
            return
        found = _PATH.fullmatch(exchange.path.partition("?")[0])
        if found is None:
            await exchange.error(404, "NoSuchKey")
            return
        # Without a buffer in this process, `sent` is what the kernel has taken.
        exchange.writer.transport.set_write_buffer_limits(0)
        index = len(self._exchanges)
        self._exchanges.append(exchange)
        self._open.add(index)
        try:
            await self._answer(exchange, int(found[1] or found[2]))
        finally:
            self._open.discard(index)

    def _stats(self) -> bytes:
        written = [exchange.sent for exchange in self._exchanges]
        return json.dumps({"written": written, "open": sorted(self._open)}).encode()

    async def _answer(self, exchange: Exchange, task_id: int) -> None:
        version = Version(task_id, self._numbers[task_id])
        found = select(exchange.headers, version.size, version.etag, version.last_modified)
        if found.status == 412:
            await exchange.error(412, "PreconditionFailed")
            return
        await exchange.head(found.status, *_lines(version, found))
        if exchange.method == "HEAD":
            exchange.keep = True
        else:
            await self._push(exchange, version, found.first, found.end)

    async def _push(self, exchange: Exchange, version: Version, first: int, end: int) -> None:
        cut_at = self._moment(self.cut, end - first)
        replace_at = self._moment(self.replace, end - first)
        for page in version.pages(first, end):
            if replace_at is not None and exchange.sent + len(page) > replace_at:
                self._numbers[version.task_id] += 1
                replace_at = None
            if cut_at is not None and exchange.sent + len(page) > cut_at:
                await exchange.body(page[: cut_at - exchange.sent])
                if self._rng.random() < 0.5:  # half of them end short, half are reset
                    exchange.reset()
                return
            await exchange.body(page)
            # A write that the kernel takes at once does not give way to other requests.
            await asyncio.sleep(0)
        exchange.keep = True

    def _moment(self, one_in: int, length: int) -> int | None:
        """Return the byte of a body at which it is cut or replaced, or None."""
        if not one_in or self._rng.randrange(one_in):
            return None
        return self._rng.randrange(length)


def _lines(version: Version, found: Selection) -> list[str]:
    return [
        *found.content_range,
        f"content-length: {found.end - found.first}",
        f"etag: {version.etag}",
        f"last-modified: {version.last_modified}",
        "accept-ranges: bytes",
        "content-type: image/jpeg",
    ]


async def serve(options: argparse.Namespace) -> None:
    """Serve until the standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    if options.send_buffer:  # which the accepted connections inherit
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer)
    server = Misbehaving(Store(options.cut, options.replace))
    for _ in range(ACCEPTORS):
        await asyncio.start_server(server.serve, sock=listener.dup())
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # do not wait for the requests that still run


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--cut", "--replace", "--send-buffer"):
        parser.add_argument(name, type=int, default=0)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
