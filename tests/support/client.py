"""A client on a plain socket, which can leave, stall, and accept a cut answer."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Received:
    """An answer as it came over the wire, and whether its body has the stated end."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool


def connect(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    """Connect to a port of loopback."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    try:
        connection.connect(("127.0.0.1", port))
    except OSError:
        connection.close()
        raise
    return connection


def ask(
    connection: socket.socket,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send a request that closes the connection after its answer."""
    lines = [f"{method} {path} HTTP/1.1", "host: downspout.test", "connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())


def abort(connection: socket.socket) -> None:
    """Close with RST, as a browser does whose tab is closed during a download."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def asked(port: int, path: str) -> Generator[socket.socket]:
    """Connect and send a request for `path`; yield the connection."""
    connection = connect(port)
    try:
        ask(connection, path)
        yield connection
    finally:
        connection.close()


def fetch(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Received:
    """Request `path` and return the answer, whole or cut."""
    with contextlib.closing(connect(port)) as connection:
        ask(connection, path, method=method, headers=headers)
        return read_answer(connection, method=method)


def read_answer(connection: socket.socket, *, method: str = "GET") -> Received:
    """Read until the connection ends; a reset is an end as well."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 20):
            received += data
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in pairs}
    if method == "HEAD":
        whole = True
    elif "content-length" in headers:
        whole = len(body) == int(headers["content-length"])
    else:
        whole = body.endswith(b"0\r\n\r\n")
    return Received(int(status_line.split(" ")[1]), headers, body, whole)


def read_slowly(connection: socket.socket, size: int, *, rate: float) -> int:
    """Read `size` bytes at a time at `rate` bytes per second; return the total."""
    received = 0
    while data := connection.recv(size):
        received += len(data)
        time.sleep(len(data) / rate)
    return received
