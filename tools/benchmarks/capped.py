r"""An origin that limits the rate of each connection, as S3 does.

    python -m tools.benchmarks.capped PORT DIRECTORY BYTES_A_SECOND SECONDS_TO_THE_FIRST_BYTE \
        [CERTIFICATE PRIVATE_KEY]

The kernel limits the rate and copies the bytes, so that Python is not the bottleneck; over TLS,
OpenSSL copies them.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .certificate import Certificate

SO_MAX_PACING_RATE = 47  # Python's socket module does not define it.
TLS_PIECE = 256 * 1024  # bytes

_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


class Origin(ThreadingHTTPServer):
    """The server, with the arguments of the command line."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(
        self,
        port: int,
        objects: Path,
        rate: int,
        latency: float,
        certificate: Certificate | None = None,
    ) -> None:
        self.objects = objects
        self.rate = rate
        self.latency = latency
        self.tls = certificate.server() if certificate else None
        super().__init__(("127.0.0.1", port), Exchange)


class Exchange(BaseHTTPRequestHandler):
    """One connection."""

    server: Origin
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Limit the rate of the connection."""
        self.request.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, self.server.rate)
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        """Answer until the client closes the connection, also in the middle of a body."""
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Answer with the file or a range of it, if If-Match names its version."""
        time.sleep(self.server.latency)
        try:
            file = (self.server.objects / self.path.partition("?")[0].lstrip("/")).open("rb")
        except OSError:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        with file:
            first, end = self._begin(os.fstat(file.fileno()))
            while self.command == "GET" and first < end:
                first += self._send(file.fileno(), first, end - first)

    def _send(self, file: int, first: int, size: int) -> int:
        if self.server.tls is None:
            return os.sendfile(self.connection.fileno(), file, first, size)
        data = os.pread(file, min(size, TLS_PIECE), first)
        self.connection.sendall(data)
        return len(data)

    do_HEAD = do_GET  # noqa: N815 - named by http.server

    def _begin(self, file: os.stat_result) -> tuple[int, int]:
        """Send the header; return where the body begins and ends in the file."""
        size, etag = file.st_size, f'"{file.st_mtime_ns:x}-{file.st_size:x}"'
        headers = {"etag": etag, "last-modified": self.date_time_string(file.st_mtime)}
        if self.headers.get("if-match", etag) != etag:
            self._answer(HTTPStatus.PRECONDITION_FAILED)
            return 0, 0
        asked = _RANGE.fullmatch(self.headers.get("range", ""))
        if not asked:
            self._answer(HTTPStatus.OK, headers, size)
            return 0, size
        first, end = int(asked[1]), min(int(asked[2] or size) + 1, size)
        if first >= end:
            headers = {"content-range": f"bytes */{size}"}
            self._answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
            return 0, 0
        headers["content-range"] = f"bytes {first}-{end - 1}/{size}"
        self._answer(HTTPStatus.PARTIAL_CONTENT, headers, end - first)
        return first, end

    def _answer(
        self, status: HTTPStatus, headers: dict[str, str] | None = None, length: int = 0
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "image/jpeg")
        self.send_header("accept-ranges", "bytes")
        self.send_header("content-length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
        """Write no log."""


if __name__ == "__main__":
    port, objects, rate, latency, *files = sys.argv[1:]
    certificate = Certificate(*map(Path, files)) if files else None
    Origin(int(port), Path(objects), int(rate), float(latency), certificate).serve_forever()
