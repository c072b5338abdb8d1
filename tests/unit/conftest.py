"""Unit tests use no network: a test that needs a socket belongs in tests/service."""

import socket
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that connects or binds a socket; asyncio's own socket pairs still work."""

    def refuse(_: socket.socket, *args: object) -> NoReturn:
        pytest.fail(f"a unit test opens a socket to {args}; move it to tests/service")

    for name in ("bind", "connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
