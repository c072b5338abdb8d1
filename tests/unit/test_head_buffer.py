"""The head of an answer goes out with the first bytes of its body, and never later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from handlers.server.connection import HeadBuffer

HEAD, BODY = b"HTTP/1.1 200 OK\r\n\r\n", memoryview(b"body")


class Transport(asyncio.Transport):
    """Keeps each system call that a real transport would make."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines([data])

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        assert not self.is_closed
        self.calls.append(b"".join(list_of_data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
async def buffer(transport: Transport) -> HeadBuffer:
    return HeadBuffer(transport, asyncio.get_running_loop())


async def test_head_is_sent_with_the_first_bytes_of_the_body(
    transport: Transport, buffer: HeadBuffer
) -> None:
    """Head and first bytes are one system call, all later bytes one each."""
    buffer.write(HEAD)
    buffer.write(BODY)
    buffer.write(b"more")
    await asyncio.sleep(0)
    assert transport.calls == [HEAD + b"body", b"more"]


async def test_head_without_a_body_is_sent_in_the_next_iteration(
    transport: Transport, buffer: HeadBuffer
) -> None:
    """An answer without a body, or with one that comes later, does not wait."""
    buffer.write(HEAD)
    assert transport.calls == []
    await asyncio.sleep(0)
    assert transport.calls == [HEAD]
    buffer.write(BODY)
    assert transport.calls == [HEAD, b"body"]


async def test_head_is_sent_before_the_connection_closes(
    transport: Transport, buffer: HeadBuffer
) -> None:
    """The answer to a HEAD with "Connection: close" is closed right after its head."""
    buffer.write(HEAD)
    buffer.close()
    await asyncio.sleep(0)
    assert transport.calls == [HEAD]
    assert transport.is_closed


async def test_head_for_a_lost_connection_is_dropped(
    transport: Transport, buffer: HeadBuffer
) -> None:
    """A transport that is closed raises an error for further bytes."""
    buffer.write(HEAD)
    transport.close()
    await asyncio.sleep(0)
    assert buffer.is_closing()
    assert transport.calls == []
