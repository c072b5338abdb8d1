"""Connectors of aiohttp, changed: with versions of aiohttp that lack what the change needs."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from handlers.sources.connectors import protect


class SlottedProtocol:
    """A protocol on which no attribute can be set, and that has none of ours."""

    __slots__ = ()


class Connection:
    """A connection with such a protocol."""

    protocol = SlottedProtocol()


async def test_protected_connector_works_without_undocumented_attributes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If aiohttp's protocol has other attributes, connections are returned as aiohttp does."""
    connection = Connection()

    async def connect(*_: Any) -> Connection:
        return connection

    async with aiohttp.TCPConnector() as connector:
        monkeypatch.setattr(connector, "connect", connect)
        returned: Any = await protect(connector).connect(None, [], None)  # type: ignore[arg-type]
    assert returned is connection
