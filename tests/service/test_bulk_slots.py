"""Which answers need a bulk slot, of which there are fewer than slots: bodies above 1 MiB."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager

from tests.support.client import ask, connect, fetch
from tests.support.components import settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, serving

MIB = 1024 * 1024
BULK_SLOTS = 7  # of eight
PATH = "/tasks/1/image"


class Store:
    """A store whose object is of this size; the bodies of the first seven never end."""

    def __init__(self) -> None:
        self.size = 2 * MIB
        self.is_held_up = True

    async def __call__(self, exchange: Exchange) -> None:
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
        elif self.is_held_up:
            await exchange.body(bytes(1000))
            await exchange.hang()
        else:
            await exchange.body(bytes(length))
            exchange.keep = True


@contextmanager
def full_of_bulk(upstream: Misbehaving) -> Generator[tuple[RunningService, Store]]:
    """Run the service while large downloads have every bulk slot."""
    upstream.behaviour = store = Store()
    settings = settings_for(upstream.url, max_downloads=BULK_SLOTS + 1, queue_timeout=0.2)
    with serving(settings) as service:
        clients = [connect(service.port) for _ in range(BULK_SLOTS)]
        for client in clients:
            ask(client, PATH)
        for client in clients:
            assert client.recv(1)
        store.is_held_up = False
        yield service, store
        for client in clients:
            client.close()


def test_head_of_a_large_object_needs_no_bulk_slot(upstream: Misbehaving) -> None:
    """An answer to HEAD is over at once, whatever length it states."""
    with full_of_bulk(upstream) as (service, store):
        received = fetch(service.port, PATH, method="HEAD")
    assert (received.status, received.headers["content-length"]) == (200, str(store.size))


def test_small_part_of_a_large_object_needs_no_bulk_slot(upstream: Misbehaving) -> None:
    """The length of the answer counts, and not that of the object."""
    with full_of_bulk(upstream) as (service, _):
        headers = {"range": f"bytes=0-{MIB - 1}"}
        received = fetch(service.port, PATH, headers=headers)
    assert (received.status, len(received.body)) == (206, MIB)


def test_object_of_1_mib_is_small_and_one_byte_more_is_not(upstream: Misbehaving) -> None:
    """The limit itself is small; above it a request waits for a bulk slot, here in vain."""
    with full_of_bulk(upstream) as (service, store):
        store.size = MIB
        assert len(fetch(service.port, PATH).body) == MIB
        store.size = MIB + 1
        assert fetch(service.port, PATH).status == 503


def test_several_requests_on_a_connection_give_their_bulk_slots_back(
    upstream: Misbehaving,
) -> None:
    """Large downloads one after the other take no slot away for good."""
    upstream.behaviour = store = Store()
    store.is_held_up = False
    with serving(settings_for(upstream.url, max_downloads=8, queue_timeout=0.2)) as service:
        for _ in range(2 * BULK_SLOTS):
            with closing(connect(service.port)) as client:
                ask(client, PATH)
                received = 0
                while data := client.recv(MIB):
                    received += len(data)
            assert received > store.size
