"""Bulk slots: only responses with a body over 1 MiB need one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager

import pytest

from tests.support.client import ask, connect, fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving, not_there
from tests.support.serving import RunningService, serving

MIB = 1024 * 1024
BULK_SLOTS = 7  # of eight
PATH = "/tasks/1/image"


class Store:
    """A store with one object of `size` bytes; its bodies never end while `bodies_hang`."""

    def __init__(self) -> None:
        self.size = 2 * MIB
        self.bodies_hang = True
        self.evaluates_conditions = False

    async def __call__(self, exchange: Exchange) -> None:
        conditions = {"if-none-match": 304, "if-match": 412}
        for name, status in conditions.items():
            if self.evaluates_conditions and name in exchange.headers:
                await exchange.answer(status, b"", 'etag: "v"')
                return
        first, last = 0, self.size - 1
        if text := exchange.headers.get("range"):
            first, last = map(int, text.removeprefix("bytes=").split("-"))
        length = last + 1 - first
        lines = [f"content-length: {length}", 'etag: "v"']
        if text:
            lines.append(f"content-range: bytes {first}-{last}/{self.size}")
        await exchange.head(206 if text else 200, *lines)
        if exchange.method == "HEAD":
            exchange.keep = True
        elif self.bodies_hang:
            await exchange.body(bytes(1000))
            await exchange.hang()
        else:
            await exchange.body(bytes(length))
            exchange.keep = True


@contextmanager
def all_bulk_slots_taken(upstream: Misbehaving) -> Generator[tuple[RunningService, Store]]:
    """Run the service while large downloads hold every bulk slot."""
    upstream.behaviour = store = Store()
    settings = settings_for(upstream.url, max_downloads=BULK_SLOTS + 1, queue_timeout=0.2)
    with serving(settings) as service:
        clients = [connect(service.port) for _ in range(BULK_SLOTS)]
        for client in clients:
            ask(client, PATH)
        for client in clients:
            assert client.recv(1)
        store.bodies_hang = False
        yield service, store
        for client in clients:
            client.close()


def test_head_of_large_object_needs_no_bulk_slot(upstream: Misbehaving) -> None:
    """A HEAD response has no body, whatever its Content-Length."""
    with all_bulk_slots_taken(upstream) as (service, store):
        received = fetch(service.port, PATH, method="HEAD")
    assert (received.status, received.headers["content-length"]) == (200, str(store.size))


def test_small_range_of_large_object_needs_no_bulk_slot(upstream: Misbehaving) -> None:
    """The length of the response counts, not the length of the object."""
    with all_bulk_slots_taken(upstream) as (service, _):
        headers = {"range": f"bytes=0-{MIB - 1}"}
        received = fetch(service.port, PATH, headers=headers)
    assert (received.status, len(received.body)) == (206, MIB)


def test_object_over_1_mib_without_bulk_slot_returns_503(upstream: Misbehaving) -> None:
    """An object of exactly 1 MiB needs no bulk slot; one byte more needs one."""
    with all_bulk_slots_taken(upstream) as (service, store):
        store.size = MIB
        assert len(fetch(service.port, PATH).body) == MIB
        store.size = MIB + 1
        assert fetch(service.port, PATH).status == 503


@pytest.mark.parametrize("path", [PATH, f"/tasks/1/bytes/{2 * MIB}"])
def test_client_without_bulk_slot_opens_no_body(upstream: Misbehaving, path: str) -> None:
    """A client that is turned away costs the store a HEAD at the most."""
    with all_bulk_slots_taken(upstream) as (service, _):
        before = len(upstream.exchanges)
        assert fetch(service.port, path).status == 503
        assert [one.method for one in upstream.exchanges[before:]] in ([], ["HEAD"])


@pytest.mark.parametrize(
    ("name", "value", "status"), [("if-none-match", '"v"', 304), ("if-match", '"other"', 412)]
)
@pytest.mark.parametrize("path", [PATH, f"/tasks/1/bytes/{2 * MIB}"])
def test_condition_without_bulk_slot_is_answered_at_once(
    upstream: Misbehaving, path: str, name: str, value: str, status: int
) -> None:
    """A 304 and a 412 have no large body."""
    with all_bulk_slots_taken(upstream) as (service, store):
        store.evaluates_conditions = True
        assert fetch(service.port, path, headers={name: value}).status == status


def test_missing_object_without_bulk_slot_is_404_at_once(upstream: Misbehaving) -> None:
    """Without a body there is nothing to wait for."""
    with all_bulk_slots_taken(upstream) as (service, _):
        upstream.behaviour = not_there
        assert fetch(service.port, PATH).status == 404


def test_finished_large_downloads_release_their_bulk_slots(upstream: Misbehaving) -> None:
    """Large downloads one after the other do not use up the bulk slots."""
    upstream.behaviour = store = Store()
    store.bodies_hang = False
    with serving(settings_for(upstream.url, max_downloads=8, queue_timeout=0.2)) as service:
        for _ in range(2 * BULK_SLOTS):
            with closing(connect(service.port)) as client:
                ask(client, PATH)
                received = 0
                while data := client.recv(MIB):
                    received += len(data)
            assert received > store.size
