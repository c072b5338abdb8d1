"""Bounds on a request's head: its size, its duration, and exactly one Host header."""

import asyncio
import json
import logging
import sys
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

NO_LIMIT = sys.maxsize

logger = logging.getLogger("downspout")


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's httptools protocol with bounded request heads.

    httptools collects a request line or header field of any size, and uvicorn has no deadline for
    a head. uvicorn also writes its answer to a malformed head into the body of a running answer;
    here it follows the running and the pipelined answers.
    """

    max_head_bytes = 64 * 1024
    """Bytes of a head. A pipelined head may have twice as many before it is refused."""

    head_timeout: float = 30
    """Seconds from the connection, or from the first byte of a later head, to the head's end."""

    linger_timeout: float = 2
    """Seconds in which the client can read a refusal. Its further bytes are dropped: closing
    the socket with unread bytes would send a TCP RST, which may overtake the refusal."""

    url = b""  # uvicorn sets it with the first byte of a request line.
    _head_left = max_head_bytes
    """Bytes that may follow before the end of the head; NO_LIMIT in a body, -1 once refused."""

    _timer: asyncio.TimerHandle | None = None
    """For the head, or for closing the connection after a refusal."""

    _refusal: bytes | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection, and the time for its first head."""
        super().connection_made(transport)
        self._head_left = self.max_head_bytes
        self._timer = self.loop.call_later(self.head_timeout, self._on_head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection and its timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, with no more than `max_head_bytes` of one head."""
        size = len(data)
        if size <= self._head_left:
            self._head_left -= size
            super().data_received(data)
        else:
            self._feed_parts(data)
        if self._timer is None and 0 <= self._head_left < self.max_head_bytes:
            self._timer = self.loop.call_later(self.head_timeout, self._on_head_timeout)
        elif self._timer is None and self.cycle is not None and self.cycle.response_complete:
            # uvicorn has stopped its timer for these bytes: the rest of a body after its answer.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _feed_parts(self, data: bytes) -> None:
        """Feed the parser parts that end where a head must end; refuse a head that does not."""
        while data and self._refusal is None and not self.transport.is_closing():
            part, data = data[: self._head_left], data[self._head_left :]
            if not part:
                self._refuse_long_head()
                return
            self._head_left -= len(part)
            super().data_received(part)

    def on_headers_complete(self) -> None:
        """Check the Host header (RFC 9112, 3.2), and end the head's limits."""
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            self._refuse(HTTPStatus.BAD_REQUEST, "A request must have exactly one Host header.")
            raise ValueError("Host")  # Stops the parser.
        self._head_left = NO_LIMIT
        self._stop_timer()
        before = self.cycle
        super().on_headers_complete()
        if self.parser.should_upgrade() and self.cycle is not before:
            # An upgrade that is not served is ignored (RFC 9110, 7.8). But httptools would take
            # the body for another request, so the connection ends with the answer.
            self.cycle.keep_alive = False
            self._refusal = b""

    def on_body(self, body: bytes) -> None:
        """Begin or go on with a body, which has no limit here."""
        self._head_left = NO_LIMIT
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Limit the trailer section, which follows the last chunk header, like a head."""
        self._head_left = self.max_head_bytes

    def on_message_complete(self) -> None:
        """Begin the limit of the next head, if one may follow."""
        self._head_left = self.max_head_bytes if self._refusal is None else -1
        self._stop_timer()  # A trailer section may have started it.
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Send a refusal after the last running answer."""
        super().on_response_complete()
        if self._refusal is not None and not self._is_answering():
            self._send_refusal(self._refusal)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request; uvicorn has logged it."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _is_answering(self) -> bool:
        """Return whether an answer is running or queued; the last request has the last answer."""
        return self.cycle is not None and not self.cycle.response_complete

    def _on_head_timeout(self) -> None:
        self._timer = None
        if self._is_answering():
            # uvicorn may have paused reading, so the client can't be blamed yet.
            self._timer = self.loop.call_later(self.head_timeout, self._on_head_timeout)
        elif self._head_left < self.max_head_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The request head took too long.")
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse_long_head(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if len(self.url) > self.max_head_bytes // 2:
            status = HTTPStatus.REQUEST_URI_TOO_LONG
        limit = f"A request head may have at most {self.max_head_bytes} bytes."
        logger.warning("refused a request with %d: %s", status, limit)
        self._refuse(status, limit)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer with an error, after the running answers; parse nothing more."""
        if self._refusal is not None or self.transport.is_closing():
            return
        self._head_left = -1
        self._refusal = self._make_refusal(status, detail)
        self._stop_timer()
        if not self._is_answering():
            self._send_refusal(self._refusal)
        elif self.cycle.more_body:
            # The body of a running or queued request is malformed, so its handler would wait for
            # the rest. If an answer has begun, only the end of the connection can tell.
            if not (self.cycle.response_started or self.pipeline):
                self.transport.write(self._refusal)
            self.transport.close()

    def _make_refusal(self, status: HTTPStatus, detail: str) -> bytes:
        """Return an answer with a problem document."""
        problem = {"title": status.phrase, "status": int(status), "detail": detail}
        body = json.dumps(problem, indent=2).encode() + b"\n"
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return STATUS_LINE[status] + lines + b"\r\n" + body

    def _send_refusal(self, refusal: bytes) -> None:
        """Send the refusal and end this direction; close when the client has, or soon."""
        if self.transport.is_closing():
            return
        # The last answer's transport may still hold the head of that answer.
        transport = self.transport if self.cycle is None else self.cycle.transport
        transport.write(refusal)
        if self.transport.can_write_eof():  # TLS can't.
            self.transport.write_eof()
        self._timer = self.loop.call_later(self.linger_timeout, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
