"""Figures of a service that has seen something of everything that is counted."""

from __future__ import annotations

from .client import fetch
from .components import settings_for
from .misbehaving import Exchange, Misbehaving
from .serving import serving


def exposition(upstream: Misbehaving) -> str:
    """Return what /metrics answers after a download that was refused, broke and was resumed."""

    async def stumbling(exchange: Exchange) -> None:
        lines = ['etag: "v"', "accept-ranges: bytes"]
        if len(upstream.exchanges) == 1:
            await exchange.error(503, "SlowDown")
        elif "range" in exchange.headers:
            await exchange.head(206, "content-length: 2", "content-range: bytes 3-4/5", *lines)
            await exchange.body(b"45")
        else:
            await exchange.head(200, "content-length: 5", *lines)
            await exchange.body(b"123")

    upstream.behaviour = stumbling
    with serving(settings_for(upstream.url)) as service:
        assert fetch(service.port, "/tasks/1/image").body == b"12345"
        return service.get("/metrics").text
