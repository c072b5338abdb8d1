"""The guard in tests/unit/conftest.py."""

import asyncio
import socket

import pytest


@pytest.mark.parametrize("method", ["bind", "connect", "connect_ex"])
def test_socket_in_unit_test_fails(method: str) -> None:
    """A unit test that reaches for the network fails and says where the test belongs."""
    with socket.socket() as sock, pytest.raises(pytest.fail.Exception, match="tests/service"):
        getattr(sock, method)(("127.0.0.1", 9))


async def test_connection_of_asyncio_in_unit_test_fails() -> None:
    """The guard also stops a connection that asyncio opens."""
    with pytest.raises(pytest.fail.Exception):
        await asyncio.open_connection("127.0.0.1", 9)
