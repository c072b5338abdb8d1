"""Clients that are faster than all services that they measure."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Self

_BUFFER = 256 * 1024  # of which a copy stays in the processor's cache
_SILENCE = 60  # seconds
_LAST_CHUNK = b"0\r\n\r\n"

SLOW_PACE = 50_000  # bytes a second
SLOW_RECEIVE_BUFFER = 64 * 1024
_TICK = 0.1  # seconds
_ERROR = 16 * 1024


class BadAnswerError(Exception):
    """The answer is not a whole 200."""


@dataclass(frozen=True)
class Timing:
    """The times of a download in seconds, and the size of its body."""

    first_byte: float
    seconds: float
    size: int


class Connection:
    """One connection: a thread downloads one body after the other and discards it."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_SILENCE)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="127.0.0.1")
        # A timeout of Python costs a poll() for each recv(); a timeout of the kernel does not.
        self._socket.settimeout(None)
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _SILENCE, 0)
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_BUFFER)

    def get(self, path: str) -> Timing:
        """Download a body; raise BadAnswerError if it is not whole, OSError without an answer."""
        begun = time.perf_counter()
        self._socket.sendall(_request(path))
        received = self._receive()
        first_byte = time.perf_counter() - begun
        head = bytes(memoryview(self._buffer)[:received])
        while b"\r\n\r\n" not in head:
            received = self._receive()
            head += memoryview(self._buffer)[:received]
        head, _, data = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise BadAnswerError(head.partition(b"\r\n")[0].decode("latin-1"))
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
        size = self._rest(data, int(length[1])) if length else self._chunks(data)
        return Timing(first_byte, time.perf_counter() - begun, size)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _rest(self, data: bytes, length: int) -> int:
        missing = length - len(data)
        while missing > 0:
            missing -= self._receive()
        return length

    def _chunks(self, data: bytes) -> int:
        """Read to the last chunk; the size includes the chunks' framing, at most 1 %."""
        size, tail = len(data), data[-len(_LAST_CHUNK) :]
        while tail != _LAST_CHUNK:
            received = self._receive()
            size += received
            last = memoryview(self._buffer)[max(0, received - len(_LAST_CHUNK)) : received]
            tail = (tail + last)[-len(_LAST_CHUNK) :]
        return size

    def _receive(self) -> int:
        received = self._socket.recv_into(self._buffer)
        if not received:
            raise BadAnswerError("the answer ended early")
        return received

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Crowd:
    """Connections that download at once, each in its own thread."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections
        self._threads = ThreadPoolExecutor(len(connections))

    def get(self, path: str) -> list[Timing]:
        """Download a body on each connection."""
        return list(self._threads.map(lambda one: one.get(path), self._connections))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()


class SlowReaders:
    """Clients with a small receive buffer that read a little at a time."""

    def __init__(self, sockets: Iterable[socket.socket]) -> None:
        self._received = dict.fromkeys(sockets, 0)
        self._buffer = bytearray(int(SLOW_PACE * _TICK))

    def read(self, seconds: float) -> None:
        """Read from all clients at their pace for some seconds."""
        begun = time.monotonic()
        for tick in range(1, int(seconds / _TICK) + 1):
            for one in self._received:
                with suppress(BlockingIOError):
                    self._received[one] += one.recv_into(self._buffer)
            time.sleep(max(0.0, begun + tick * _TICK - time.monotonic()))

    def served(self) -> int:
        """Return how many clients got more bytes than an error document has."""
        return sum(received > _ERROR for received in self._received.values())


@contextmanager
def slow_readers(port: int, path: str, count: int) -> Iterator[SlowReaders]:
    """Yield `count` clients that have sent their request; close them at the end."""
    with ExitStack() as stack:
        yield SlowReaders([stack.enter_context(_slow_reader(port, path)) for _ in range(count)])


def _slow_reader(port: int, path: str) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_RECEIVE_BUFFER)
    reader.connect(("127.0.0.1", port))
    reader.sendall(_request(path))
    reader.setblocking(False)
    return reader


def _request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: downspout.test\r\n\r\n".encode()
