"""How many downloads one client may have at once."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

from ..errors import ClientLimitReached
from .admission import RETRY_AFTER_SECONDS

# What a provider gives to one customer, who may come from any address of it (RFC 6177).
CLIENT_BITS = 64

# In which all of IPv4 is seen through a translator (RFC 6052, 2.1).
NAT64 = IPv6Network("64:ff9b::/96")


class ClientLimit:
    """Counts the living downloads of each client, waiting ones included: at most `most`."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._living: dict[str, int] = {}

    def enter(self, address: str | None) -> str | None:
        """Count one more; returns what to leave as. Raises ClientLimitReached.

        Without an address, as through a socket of Unix, nothing is counted.
        """
        if self._most is None or address is None:
            return None
        client = client_network(address)
        living = self._living.get(client, 0)
        if living >= self._most:
            raise ClientLimitReached(f"{living} of {client}", retry_after=RETRY_AFTER_SECONDS)
        self._living[client] = living + 1
        return client

    def leave(self, client: str | None) -> None:
        """Count one less."""
        if client is None:
            return
        self._living[client] -= 1
        if not self._living[client]:  # Else it would hold every address there ever was.
            del self._living[client]


def client_network(address: str) -> str:
    """Return what stands for the client of an address: of IPv6, its network."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None or parsed in NAT64:
        return str(IPv4Address(int(parsed) & 0xFFFFFFFF))
    return f"{IPv6Address(int(parsed) >> CLIENT_BITS << CLIENT_BITS)}/{CLIENT_BITS}"
