"""The limit of downloads for each client: counts, and addresses that count as one client."""

from __future__ import annotations

import pytest

from handlers.download.client_limit import ClientLimit, client_network
from handlers.errors import ClientLimitReached


def test_client_over_limit_is_rejected_until_a_download_ends() -> None:
    """The limit applies to each client separately."""
    clients = ClientLimit(2)
    clients.acquire("192.0.2.1")
    second = clients.acquire("192.0.2.1")
    with pytest.raises(ClientLimitReached) as raised:
        clients.acquire("192.0.2.1")
    assert raised.value.headers == {"retry-after": "5"}
    clients.acquire("192.0.2.2")
    clients.release(second)
    clients.acquire("192.0.2.1")


def test_client_without_downloads_is_not_kept() -> None:
    """The limit keeps no entry for a client without a running download."""
    clients = ClientLimit(1)
    for number in range(1000):
        clients.release(clients.acquire(f"192.0.2.{number}"))
    assert not clients.counts


@pytest.mark.parametrize(("limit", "address"), [(None, "192.0.2.1"), (1, None)])
def test_missing_limit_or_client_address_counts_nothing(
    limit: int | None, address: str | None
) -> None:
    """Without a limit or a client address, no download is rejected."""
    clients = ClientLimit(limit)
    assert [clients.acquire(address) for _ in range(5)] == [None] * 5
    clients.release(None)
    assert not clients.counts


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::c000:201", "192.0.2.1"),
        ("64:ff9b:1::c000:201", "64:ff9b:1::/64"),
        ("testclient", "testclient"),
        ("no:address", "no:address"),
    ],
)
def test_client_network_groups_ipv6_by_64_prefix(address: str, client: str) -> None:
    """One customer usually has a whole IPv6 /64, so a /64 counts as one client."""
    assert client_network(address) == client
