"""The `no_sockets` fixture in tests/unit/conftest.py."""

import asyncio
import socket

import pytest


@pytest.mark.parametrize("method", ["bind", "connect", "connect_ex"])
def test_socket_in_unit_test_fails(method: str) -> None:
    """A unit test that uses a socket fails with the folder where the test belongs."""
    with socket.socket() as sock, pytest.raises(pytest.fail.Exception, match="tests/service"):
        getattr(sock, method)(("127.0.0.1", 9))


async def test_asyncio_connection_in_unit_test_fails() -> None:
    """A unit test that opens a connection through asyncio fails."""
    with pytest.raises(pytest.fail.Exception):
        await asyncio.open_connection("127.0.0.1", 9)
