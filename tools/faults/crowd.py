"""Ten clients at a time that leave, stall or read slowly."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Generator

from tests.support.client import abort, ask, connect
from tests.support.serving import wait_until

from .acts import ENDLESS
from .answer import HANG_SECONDS
from .bench import Bench, comes_true
from .faults import DROPPED

CROWD = 10


@contextlib.contextmanager
def crowd(bench: Bench, source: str) -> Generator[list[socket.socket]]:
    """Connect clients, and yield them when the upstream has all their requests."""
    clients: list[socket.socket] = []
    try:
        for _ in range(CROWD):
            clients.append(connect(bench.port, receive_buffer=4096))
            ask(clients[-1], bench.path(source, ENDLESS))
        wait_until(lambda: bench.upstream.busy == CROWD)
        yield clients
    finally:
        for client in clients:
            client.close()


def leave_at_once(bench: Bench, source: str) -> str:
    """Leave before the answer begins."""
    with crowd(bench, source) as clients:
        leave(clients)
        return DROPPED


def leave_in_the_middle(bench: Bench, source: str) -> str:
    """Leave in the middle of the body."""
    with crowd(bench, source) as clients:
        for client in clients:
            received = 0
            while received < 10_000:
                received += len(data := client.recv(4096))
                assert data, "the service closes before its client does"
        leave(clients)
        return DROPPED


def stall(bench: Bench, source: str) -> str:
    """Read nothing, and stay connected."""
    with crowd(bench, source) as clients:
        dropped = bench.is_released(HANG_SECONDS)
        leave(clients)
        return DROPPED if dropped else "**hangs**"


def drip(bench: Bench, source: str) -> str:
    """Read 10 KB per second from each connection."""
    with crowd(bench, source) as clients:

        def taken() -> bool:
            ready, _, _ = select.select(clients, [], [], 0)
            for client in ready:
                with contextlib.suppress(ConnectionError):
                    client.recv(200)
            return bench.upstream.busy == 0

        dropped = comes_true(taken, HANG_SECONDS)
        leave(clients)
        return DROPPED if dropped else "**hangs**"


def leave(clients: list[socket.socket]) -> None:
    for client in clients:
        abort(client)
