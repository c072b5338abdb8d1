"""Limits the concurrent downloads of one client (MAX_DOWNLOADS_PER_CLIENT)."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from ..errors import ClientLimitReached
from .admission import RETRY_AFTER_SECONDS

# A provider gives a /64 to one customer, who may use any address in it (RFC 6177).
CLIENT_BITS = 64

# A NAT64 gateway maps all IPv4 addresses into this network (RFC 6052, 2.1).
NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(slots=True)
class ClientLimit:
    """Counts the downloads of each client, including those that wait for a slot."""

    limit: int | None
    counts: dict[str, int] = field(default_factory=dict)

    def acquire(self, address: str | None) -> str | None:
        """Count one more download; return the client's id, which `release` needs.

        Raises ClientLimitReached if the client already has `limit` downloads. If `address` is
        None, as on a Unix socket, nothing is limited.
        """
        if self.limit is None or address is None:
            return None
        client = client_network(address)
        count = self.counts.get(client, 0)
        if count >= self.limit:
            text = f"{client} has {count} downloads"
            raise ClientLimitReached(text, retry_after=RETRY_AFTER_SECONDS)
        self.counts[client] = count + 1
        return client

    def release(self, client: str | None) -> None:
        """Count one download less for the client that `acquire` returned."""
        if client is not None:
            self.counts[client] -= 1
            if not self.counts[client]:  # Otherwise the table would grow with every address.
                del self.counts[client]


def client_network(address: str) -> str:
    """Return a client's id: its IPv4 address, or the /64 network of its IPv6 address."""
    if ":" not in address:
        return address
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None or parsed in NAT64:
        return str(IPv4Address(int(parsed) & 0xFFFFFFFF))
    return f"{IPv6Address(int(parsed) >> CLIENT_BITS << CLIENT_BITS)}/{CLIENT_BITS}"
