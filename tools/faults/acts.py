"""Acts: each is a way for the upstream to answer one request."""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from tests.support.misbehaving import SECRET, Door, Exchange, reset
from tests.support.stored import DATE, Selection, select
from tests.support.tls import TlsWriter

from .upstream import Act, Upstream

SIZE = 1_234_567
PIECE = 64 * 1024


@dataclass(frozen=True)
class Version:
    """One version of the object: its entity tag and its bytes."""

    etag: str
    body: bytes

    @property
    def checksum(self) -> str:
        """The SHA-256 of the body in base64, as S3 sends it."""
        return b64encode(hashlib.sha256(self.body).digest()).decode()


def _gzipped(plain: bytes) -> bytes:
    """Return a gzip file as long as `plain`, made of its first bytes."""
    added = len(gzip.compress(plain, 0, mtime=0)) - len(plain)
    return gzip.compress(plain[:-added], 0, mtime=0)


FIRST = Version('"v1"', hashlib.shake_256(b"the first version").digest(SIZE))
SECOND = Version('"v2"', hashlib.shake_256(b"the second version").digest(SIZE))
# Larger than the kernels' socket buffers.
LARGE = Version('"large"', hashlib.shake_256(b"the large one").digest(8_000_000))
GZIPPED = Version('"v3"', _gzipped(FIRST.body))
# The first version with some bytes flipped, as by a broken disk.
FLIPPED = Version('"v1"', FIRST.body[:300_000] + b"flipped" + FIRST.body[300_007:])


@dataclass(frozen=True)
class Reply:
    """Answer as a good store does, with the differences that the fields name."""

    version: Version = FIRST
    lines: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """Response headers to leave out."""

    ignores: tuple[str, ...] = ()
    """Request headers to ignore."""

    framing: str = "length"
    """`length`, `chunked`, or `none`: the body ends when the connection does."""

    misstated: int = 0
    """Bytes to add to the true Content-Length."""

    mislabelled: int = 0
    """Bytes to add to the true first position in Content-Range."""

    upto: int | None = None
    """How many bytes of the body to send; a negative number leaves out the last ones."""

    end: str = "whole"
    """How the body ends: `whole`, `silent`, `FIN`, `RST`, or a key of TLS_ENDS."""

    piece: int = PIECE
    pause: float = 0.0
    """Seconds between two pieces."""

    async def __call__(self, upstream: Upstream, exchange: Exchange) -> None:
        """Answer one request."""
        asked = {k: v for k, v in exchange.headers.items() if k not in self.ignores}
        found = select(asked, len(self.version.body), self.version.etag)
        if found.status == 412:
            await error(412, "PreconditionFailed")(upstream, exchange)
            return
        body = self.version.body[found.first : found.end]
        await exchange.head(found.status, *self.head(found))
        await self._send(exchange, body[: self.upto])
        if self.end == "whole" and self.framing == "chunked":
            await exchange.raw(b"0\r\n\r\n")
        elif self.end in TLS_ENDS:
            assert isinstance(exchange.writer, TlsWriter)
            TLS_ENDS[self.end](exchange.writer)
        elif self.end == "FIN" or self.framing == "none":
            with suppress(OSError):
                exchange.writer.write_eof()
        elif self.end == "RST":
            exchange.reset()

    def head(self, found: Selection) -> list[str]:
        """Return the header lines of an answer with the bytes that were found."""
        good = {
            "content-length": str(found.end - found.first + self.misstated),
            "content-type": "image/jpeg",
            "etag": self.version.etag,
            "last-modified": DATE,
            "accept-ranges": "bytes",
        }
        if found.status == 206:
            shifted = found.first + self.mislabelled
            good["content-range"] = f"bytes {shifted}-{found.end - 1}/{found.size}"
        if self.framing != "length":
            del good["content-length"]
        lines = [f"{name}: {value}" for name, value in good.items() if name not in self.without]
        lines += ["transfer-encoding: chunked"] if self.framing == "chunked" else []
        return [*lines, *self.lines, "connection: close"]

    async def _send(self, exchange: Exchange, body: bytes) -> None:
        for start in range(0, len(body), self.piece):
            piece = body[start : start + self.piece]
            if self.framing == "chunked":
                await exchange.raw(b"%x\r\n%b\r\n" % (len(piece), piece))
            else:
                await exchange.body(piece)
            if self.pause:
                await exchange.pause(self.pause)


def close_notify_and_fin(writer: TlsWriter) -> None:
    """Close TLS, then TCP, as a good server does."""
    writer.close_notify()
    writer.write_eof()


def half_a_record(writer: TlsWriter) -> None:
    """Send a record without its last bytes."""
    writer.send(writer.encrypt(FIRST.body[:1000])[:-500])


def half_a_record_and_fin(writer: TlsWriter) -> None:
    half_a_record(writer)
    writer.write_eof()


def half_a_record_and_rst(writer: TlsWriter) -> None:
    half_a_record(writer)
    reset(writer)


def flipped_byte(writer: TlsWriter) -> None:
    writer.write_damaged(FIRST.body[:1000])


def no_record(writer: TlsWriter) -> None:
    """Send bytes that are no record."""
    writer.send(b"HTTP/1.1 200 OK\r\n\r\n" * 10)


TLS_ENDS: dict[str, Callable[[TlsWriter], None]] = {
    "close_notify": TlsWriter.close_notify,
    "close_notify, FIN": close_notify_and_fin,
    "alert": TlsWriter.alert,
    "half a record": half_a_record,
    "half a record, FIN": half_a_record_and_fin,
    "half a record, RST": half_a_record_and_rst,
    "flipped byte": flipped_byte,
    "no record": no_record,
}

GOOD = Reply()
CUT = Reply(upto=500_000, end="FIN")


def error(status: int, code: str, *lines: str) -> Act:
    """Return an act that answers with an S3 error."""

    async def act(_: Upstream, exchange: Exchange) -> None:
        await exchange.error(status, code, "connection: close", *lines)

    return act


async def html_error(_: Upstream, exchange: Exchange) -> None:
    """Answer with the HTML page of a proxy that cannot reach the store."""
    html = f"<html><body><h1>502</h1>{SECRET}</body></html>".encode()
    await exchange.answer(502, html, "connection: close", "content-type: text/html")


async def endless_error(_: Upstream, exchange: Exchange) -> None:
    """Answer with an error whose body does not end."""
    await exchange.head(500, "content-length: 1000000000000", "content-type: application/xml")
    while True:
        # Slow: a service that reads all of it does not run out of memory during the suite.
        await exchange.body(bytes(PIECE))
        await exchange.pause(0.01)


async def redirect(upstream: Upstream, exchange: Exchange) -> None:
    """Redirect the client to another port."""
    scheme = "https" if upstream.tls else "http"
    location = f"location: {scheme}://127.0.0.1:{upstream.elsewhere}{exchange.path}"
    await exchange.answer(307, b"", location, "connection: close")


async def nothing(_: Upstream, exchange: Exchange) -> None:
    """Do not answer."""


async def close(_: Upstream, exchange: Exchange) -> None:
    """Close the connection without an answer."""
    exchange.writer.write_eof()


def raw(data: bytes) -> Act:
    """Return an act that sends these bytes and closes the connection."""

    async def act(_: Upstream, exchange: Exchange) -> None:
        await exchange.raw(data)
        exchange.writer.write_eof()

    return act


def end_where_used_before(end: Door) -> Act:
    """Return an act that ends a connection that was idle, and answers well on all others."""

    async def act(upstream: Upstream, exchange: Exchange) -> None:
        if exchange.writer in upstream.idle:
            end(exchange.writer)
        else:
            await GOOD(upstream, exchange)

    return act


async def malformed_chunk(_: Upstream, exchange: Exchange) -> None:
    """Send a malformed chunk size, and keep the connection open."""
    await exchange.head(200, *Reply(framing="chunked").head(select({}, SIZE, FIRST.etag)))
    await exchange.raw(b"%x\r\n%b\r\n" % (PIECE, FIRST.body[:PIECE]))
    # In a write of its own, so that the good chunk before it arrives by itself.
    await exchange.pause(0.05)
    await exchange.raw(b"ZZ\r\nxx")


async def longer_than_said(upstream: Upstream, exchange: Exchange) -> None:
    """Send bytes after the end of the body."""
    await GOOD(upstream, exchange)
    await exchange.raw(b"bytes of nobody")


async def longer_in_chunks(upstream: Upstream, exchange: Exchange) -> None:
    """Send a chunk after the last byte that was asked for."""
    await replace(GOOD, framing="chunked", end="silent")(upstream, exchange)
    await exchange.raw(b"5\r\nbytes\r\n0\r\n\r\n")


async def endless(_: Upstream, exchange: Exchange) -> None:
    """Send a body that no client here reads to its end."""
    await exchange.head(200, f"content-length: {ENDLESS}", 'etag: "v1"', "connection: close")
    await exchange.flood()


ENDLESS = 1_000_000_000


def cut_and_refuse(seconds: float | None) -> Act:
    """Return an act that cuts a body and refuses connections, for `seconds` or for good."""

    async def act(upstream: Upstream, exchange: Exchange) -> None:
        await upstream.refuse()
        await CUT(upstream, exchange)
        if seconds is not None:
            await exchange.pause(seconds)
            await upstream.listen()

    return act


def housing(*, keep: bool = False) -> Act:
    """Return an act that answers slowly until the house opens, so that many run at once."""
    size = 10_000
    lines = (f"content-length: {size}", 'etag: "house"', *([] if keep else ["connection: close"]))

    async def act(upstream: Upstream, exchange: Exchange) -> None:
        await exchange.head(200, *lines)
        if exchange.method == "HEAD":
            exchange.keep = keep
            return
        while not upstream.house_opens and exchange.sent < size // 2:
            await exchange.body(b".")
            await exchange.pause(0.1)
        await exchange.body(b"." * (size - exchange.sent))
        exchange.keep = keep

    return act
