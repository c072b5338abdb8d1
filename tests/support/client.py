"""A client that does what browsers and phones do: leave, stall, and take what was cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Received:
    """An answer as it came over the wire, and whether it had an honest end."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool


def connect(port: int, *, receive_buffer: int | None = None) -> socket.socket:
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
    lines = [f"{method} {path} HTTP/1.1", "host: downspout.test", "connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())


def abort(connection: socket.socket) -> None:
    """Leave with RST, as a closed tab does with data on the way."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def asked(port: int, path: str) -> Generator[socket.socket]:
    """Yield a connection over which `path` has been asked for."""
    connection = connect(port)
    try:
        ask(connection, path)
        yield connection
    finally:
        connection.close()


def fetch(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Received:
    """Read one answer to the end of the connection, without raising for a cut one."""
    with contextlib.closing(connect(port)) as connection:
        ask(connection, path, method=method, headers=headers)
        return read_answer(connection, method=method)


def read_answer(connection: socket.socket, *, method: str = "GET") -> Received:
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
    """Take `size` bytes at a time, `rate` a second; returns how many there were in all."""
    received = 0
    while data := connection.recv(size):
        received += len(data)
        time.sleep(len(data) / rate)
    return received
