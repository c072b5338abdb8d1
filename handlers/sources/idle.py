"""The idle connections of an aiohttp session."""

import aiohttp


def close_idle(session: aiohttp.ClientSession) -> None:
    """Close a session's idle connections, after one of its connections was found dead.

    A router that has forgotten the connections drops their packets. aiohttp itself tries only one
    more idle connection, so the remaining ones would outlast every retry.
    """
    # aiohttp has no public way. Without this attribute, each idle connection costs a retry.
    for connections in getattr(session.connector, "_conns", {}).values():
        for protocol, _ in connections:
            protocol.close()
