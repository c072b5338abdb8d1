"""Idle connections of a pool, when one of them has been found dead."""

from __future__ import annotations

import aiohttp


def close_idle(session: aiohttp.ClientSession) -> None:
    """Close the idle connections of a session: where one was dead, the others may be.

    aiohttp itself tries once more, with another idle one; a router in between that has forgotten
    all of them would outlast every attempt.
    """
    connector = session.connector
    if connector is None:
        return
    for idle in connector._conns.values():  # noqa: SLF001 - nothing public closes them
        for protocol, _ in idle:
            protocol.close()
