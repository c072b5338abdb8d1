"""200 clients that leave at once in the middle of a download at full speed."""

from __future__ import annotations

import math
import selectors
import socket
import time
from collections.abc import Callable

from tests.support.client import abort, ask, connect, fetch

from .download import bytes_of, image_of
from .figures import MIB, Figures
from .objects import task_of
from .processes import RunningService, RunningStore, running_service, running_store

CLIENTS = 200
BOUND = 2.0  # seconds until nothing is open for clients that have gone
CLIENT_STALL_SECONDS = 20.0
SETTLED = 1.0
MIDWAY = MIB  # bytes that every client has got by then
# What a store has sent and nobody has read lies in two kernels' buffers: this bounds its own.
SEND_BUFFER = "65536"
ENDLESS = task_of(1, 9_999_999_999)
SMALL = task_of(2, 1000)


def aborts(figures: Figures) -> None:
    for route in (image_of, bytes_of):
        case = f"aborts, {route.__name__.removesuffix('_of')}"
        with (
            running_store("--send-buffer", SEND_BUFFER) as store,
            running_service(store, MAX_DOWNLOADS="400", BYTES_MAX_SIZE=str(10**10)) as service,
        ):
            for warming_up in (image_of, bytes_of):
                fetch(service.port, warming_up(SMALL))
            _measure(case, figures, store, service, route(ENDLESS))


def _measure(
    case: str, figures: Figures, store: RunningStore, service: RunningService, path: str
) -> None:
    baseline = service.descriptors()
    idle = service.bytes_read()
    asking = time.monotonic()
    clients = [connect(service.port) for _ in range(CLIENTS)]
    for client in clients:
        ask(client, path)
    received = _read_until_midway(clients)
    midway = time.monotonic() - asking
    # Their heads are not of what it read; 1 % is more than enough for them.
    assert service.bytes_read() - idle > received * 0.99, "the kernel does not count reads"
    written = store.stats()["written"]
    pulled = service.bytes_read()
    begun = time.monotonic()
    for client in clients:
        abort(client)
    aborting = time.monotonic() - begun
    pulled_at_last = service.bytes_read()
    conditions: dict[str, Callable[[], bool]] = {
        "no exchange is open at the store": lambda: not store.stats()["open"],
        "descriptors are as before": lambda: service.descriptors() <= baseline,
    }
    _seconds_until(conditions, figures, case)
    time.sleep(SETTLED)
    after = service.bytes_read()
    single = max(now - was for now, was in zip(store.stats()["written"], written, strict=True))
    figures.add(case, "seconds until each client had a MiB", f"{midway:.1f}")
    figures.add(case, "GiB that all had by then", f"{received / MIB / 1024:.1f}")
    figures.add(case, "milliseconds that the resets took", f"{aborting * 1000:.1f}")
    figures.add(case, "MiB read since the first reset, all", f"{(after - pulled) / MIB:.1f}")
    figures.add(
        case, "MiB read since the last reset, all", f"{(after - pulled_at_last) / MIB:.1f}"
    )
    figures.add(case, "MiB written for one, kernels' buffers included", f"{single / MIB:.1f}")
    gone = service.outcomes(downloads=CLIENTS)["client_gone"]
    figures.add(case, "client_gone in the log", gone, kept=gone == CLIENTS)


def _read_until_midway(clients: list[socket.socket]) -> int:
    """Read from all clients until each has its part; return the total in bytes."""
    received = dict.fromkeys(clients, 0)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while min(received.values()) < MIDWAY:
            for key, _ in selector.select(CLIENT_STALL_SECONDS):
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(256 * 1024)
                assert data, "the service ended a download"
                received[key.fileobj] += len(data)
    return sum(received.values())


def _seconds_until(conditions: dict[str, Callable[[], bool]], figures: Figures, case: str) -> None:
    begun = time.monotonic()
    seen: dict[str, float] = {}
    while len(seen) < len(conditions) and time.monotonic() < begun + CLIENT_STALL_SECONDS:
        for name, holds in conditions.items():
            if name not in seen and holds():
                seen[name] = time.monotonic() - begun
        time.sleep(0.01)
    for name in conditions:
        seconds = seen.get(name, math.inf)
        figures.add(case, f"seconds until {name}", f"{seconds:.2f}", kept=seconds <= BOUND)
