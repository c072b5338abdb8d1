"""The list of faults, each with the outcome that the service owes its clients."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.misbehaving import Door, Exchange, reset
from tests.support.tls import TlsWriter

from . import acts
from .acts import (
    CUT,
    FIRST,
    FLIPPED,
    GOOD,
    GZIPPED,
    LARGE,
    SECOND,
    SIZE,
    Reply,
    end_where_used_before,
    error,
    raw,
)
from .upstream import Act, Upstream

SOURCES = ("s3", "http")

WHOLE, HEALED, BROKEN, DROPPED = "whole", "whole, resumed", "broken visibly", "dropped"


@dataclass(frozen=True, kw_only=True, eq=False)
class Fault:
    """One fault, and its expected outcome for each source."""

    name: str
    acts: tuple[Act, ...] = (GOOD,)
    """One act for each request; the last one answers all further requests."""

    expected: str | None = None
    """The outcome of both sources; `s3` and `http` name different ones."""

    s3: str | None = None
    http: str | None = None
    client: str = "fetches"
    """What the client does: a key of `judge.CLIENTS`."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the request."""

    size: int = SIZE
    """The size in the path of the bytes route."""

    told: Mapping[str, str] = field(default_factory=dict)
    """Texts that headers of the answer must contain."""

    environ: Mapping[str, str] = field(default_factory=dict)
    idle: int = 0
    """How many idle connections the pool has when the client asks."""

    idle_end: Door | None = None
    """Ends each idle connection just before the client asks."""

    needs_tls: bool = False
    handshakes: tuple[str, ...] = ("trusted",)
    """A key of `Handshakes.by_name` for each connection; the last one for all further ones."""

    door: Door | None = None
    refused: bool = False
    """Whether the upstream refuses connections."""

    def outcome_of(self, source: str) -> str | None:
        """Return the expected outcome of a source, or None if the fault does not apply to it."""
        return {"s3": self.s3, "http": self.http}[source] or self.expected


def closes(writer: asyncio.StreamWriter) -> None:
    writer.close()


BUSY = error(503, "SlowDown")
FAILED = error(500, "InternalError")
PART = {"range": "bytes=1000-1200000"}

BEFORE_HEADERS = [
    Fault(name="connection refused", refused=True, expected="502"),
    Fault(name="connection accepted and closed", door=closes, expected="502"),
    Fault(name="connection accepted and reset", door=reset, expected="502"),
    Fault(name="never answers", acts=(acts.nothing,), expected="504"),
    Fault(name="503 SlowDown once", acts=(BUSY, GOOD), expected=WHOLE),
    Fault(name="503 SlowDown twice", acts=(BUSY, BUSY, GOOD), expected=WHOLE),
    Fault(name="503 SlowDown for ever", acts=(BUSY,), expected="503"),
    Fault(
        name="503 with Retry-After, for ever",
        acts=(error(503, "Unavailable", "retry-after: 77"),),
        http="503",
        told={"retry-after": "77"},
    ),
    Fault(name="500 once", acts=(FAILED, GOOD), expected=WHOLE),
    Fault(name="500 for ever", acts=(FAILED,), expected="502"),
    Fault(name="connection lost before headers once", acts=(acts.close, GOOD), expected=WHOLE),
    Fault(
        name="head of the answer truncated", acts=(raw(b"HTTP/1.1 200 OK\r\nco"),), expected="502"
    ),
    Fault(
        name="garbage instead of HTTP",
        acts=(raw(b"\x16\x03\x01\x02garbage\r\n\r\n"),),
        expected="502",
    ),
    Fault(
        name="header of 70 KB", acts=(Reply(lines=("x-long: " + "x" * 70_000,)),), expected="502"
    ),
    Fault(name="307 to another port", acts=(acts.redirect,), expected="502"),
    Fault(name="404", acts=(error(404, "NoSuchKey"),), expected="404"),
    Fault(name="403 AccessDenied", acts=(error(403, "AccessDenied"),), s3="404", http="502"),
    Fault(name="403 InvalidAccessKeyId", acts=(error(403, "InvalidAccessKeyId"),), s3="502"),
    Fault(name="403 RequestTimeTooSkewed", acts=(error(403, "RequestTimeTooSkewed"),), s3="502"),
    Fault(name="404 NoSuchBucket", acts=(error(404, "NoSuchBucket"),), s3="502"),
    Fault(name="error whose body does not end", acts=(acts.endless_error,), expected="502"),
    Fault(name="HTML error page of a proxy", acts=(acts.html_error,), expected="502"),
    Fault(
        name="idle connection is dead when used again",
        idle=1,
        acts=(end_where_used_before(reset),),
        expected=WHOLE,
    ),
    Fault(
        name="ten idle connections dead at once",
        idle=10,
        acts=(end_where_used_before(reset),),
        expected=WHOLE,
    ),
]

ODD_HEADERS = [
    Fault(
        name="neither length nor chunks, ended early",
        acts=(Reply(framing="none", upto=500_000),),
        s3="502",
        http=HEALED,
    ),
    Fault(name="length larger than asked for", acts=(Reply(misstated=1000),), http="502"),
    Fault(
        name="length smaller than asked for",
        acts=(Reply(misstated=-1000, upto=-1000),),
        http="502",
    ),
    Fault(
        name="object that was stored as gzip",
        acts=(Reply(GZIPPED, lines=("content-encoding: gzip",)),),
        s3=WHOLE,
        told={"content-encoding": "gzip"},
    ),
    Fault(
        name="gzip that nobody asked for",
        acts=(Reply(GZIPPED, lines=("content-encoding: gzip",)),),
        http=WHOLE,
        told={"content-encoding": "gzip"},
    ),
    Fault(
        name="Last-Modified that is no date",
        acts=(Reply(without=("last-modified",), lines=("last-modified: yesterday",)),),
        expected=WHOLE,
    ),
    Fault(
        name="metadata that is not UTF-8",
        acts=(Reply(lines=("x-amz-meta-owner: \xff\xfe",)),),
        expected=WHOLE,
    ),
    Fault(
        name="CR in the content-type",
        acts=(Reply(without=("content-type",), lines=("content-type: image/png\rx-evil: 1",)),),
        expected="502",
    ),
    Fault(
        name="NUL in the content-type",
        acts=(Reply(without=("content-type",), lines=("content-type: image/png\0",)),),
        expected="502",
    ),
    Fault(
        name="HTML page as the object",
        acts=(Reply(without=("content-type",), lines=("content-type: text/html",)),),
        told={"content-disposition": "attachment", "content-security-policy": "sandbox"},
        expected=WHOLE,
    ),
    Fault(
        name="206 with another Content-Range",
        headers=PART,
        acts=(Reply(mislabelled=1),),
        expected="502",
    ),
    Fault(name="200 to a Range", headers=PART, acts=(Reply(ignores=("range",)),), expected=WHOLE),
]

IN_THE_BODY = [
    Fault(
        name="FIN before the first byte", acts=(Reply(upto=0, end="FIN"), GOOD), expected=HEALED
    ),
    Fault(name="FIN in the middle", acts=(CUT, GOOD), expected=HEALED),
    Fault(
        name="FIN before the last byte", acts=(Reply(upto=-1, end="FIN"), GOOD), expected=HEALED
    ),
    Fault(name="RST in the middle", acts=(Reply(upto=500_000, end="RST"), GOOD), expected=HEALED),
    Fault(
        name="silent after the headers", acts=(Reply(upto=0, end="silent"), GOOD), expected=HEALED
    ),
    Fault(
        name="silent in the middle",
        acts=(Reply(upto=500_000, end="silent"), GOOD),
        expected=HEALED,
    ),
    Fault(
        name="silent in the middle of a part",
        headers=PART,
        acts=(Reply(upto=500_000, end="silent"), GOOD),
        expected=HEALED,
    ),
    Fault(
        name="chunks without the last one",
        acts=(Reply(framing="chunked", end="FIN"),),
        expected=BROKEN,
    ),
    Fault(
        name="chunks cut in the middle",
        acts=(Reply(framing="chunked", upto=500_000, end="FIN"), GOOD),
        s3=BROKEN,
        http=HEALED,
    ),
    Fault(
        name="malformed size of a chunk", acts=(acts.malformed_chunk, GOOD), s3=BROKEN, http=HEALED
    ),
    Fault(name="bytes after the length said", acts=(acts.longer_than_said,), expected=WHOLE),
    Fault(name="chunks longer than asked for", acts=(acts.longer_in_chunks,), http=BROKEN),
    Fault(name="slow trickle", acts=(Reply(pause=0.1),), expected=WHOLE),
    Fault(name="cut every 100 KB", acts=(Reply(upto=100_000, end="FIN"),), expected=HEALED),
    Fault(name="cut, then 500 and 503", acts=(CUT, FAILED, BUSY, GOOD), expected=HEALED),
    Fault(
        name="cut, then refused for a moment",
        acts=(acts.cut_and_refuse(0.2), GOOD),
        expected=HEALED,
    ),
    Fault(
        name="cut, then another Content-Range for ever",
        acts=(CUT, Reply(mislabelled=1)),
        expected=BROKEN,
    ),
    Fault(
        name="cut, then the whole for ever", acts=(CUT, Reply(ignores=("range",))), expected=BROKEN
    ),
    Fault(name="cut, then gone", acts=(CUT, error(404, "NoSuchKey")), expected=BROKEN),
    Fault(name="cut, then replaced", acts=(CUT, Reply(SECOND)), expected=BROKEN),
    Fault(
        name="cut, then replaced, conditions ignored",
        acts=(CUT, Reply(SECOND, ignores=("if-match", "if-range"))),
        expected=BROKEN,
    ),
    Fault(
        name="cut, then no byte more for ever",
        acts=(CUT, Reply(upto=0, end="FIN")),
        expected=BROKEN,
    ),
    Fault(name="cut, then refused for ever", acts=(acts.cut_and_refuse(None),), expected=BROKEN),
    Fault(
        name="cut, and no validator",
        acts=(Reply(without=("etag", "last-modified"), upto=500_000, end="FIN"), GOOD),
        expected=BROKEN,
    ),
    Fault(
        name="bytes flipped, with a checksum",
        acts=(
            Reply(
                FLIPPED,
                lines=(
                    f"x-amz-checksum-sha256: {FIRST.checksum}",
                    "x-amz-checksum-type: FULL_OBJECT",
                ),
            ),
        ),
        environ={"VERIFY_CHECKSUMS": "true"},
        s3=BROKEN,
    ),
]

CLIENTS = [
    Fault(
        name="clients gone before the first byte",
        client="leave at once",
        acts=(acts.nothing,),
        expected=DROPPED,
    ),
    Fault(
        name="clients gone in the middle",
        client="leave in the middle",
        acts=(acts.endless,),
        expected=DROPPED,
    ),
    Fault(
        name="clients that take nothing", client="stall", acts=(acts.endless,), expected=DROPPED
    ),
    Fault(
        name="clients that drip",
        client="drip",
        acts=(acts.endless,),
        environ={"CLIENT_MIN_RATE": "1048576"},
        expected=DROPPED,
    ),
    Fault(
        name="client slow but alive",
        client="is slow",
        acts=(Reply(LARGE),),
        size=len(LARGE.body),
        expected=WHOLE,
    ),
    Fault(
        name="client slow but alive, FIN after the body",
        client="is slow",
        acts=(Reply(LARGE, end="FIN"),),
        size=len(LARGE.body),
        expected=WHOLE,
    ),
    Fault(
        name="client slow but alive, FIN after the body, no validator",
        client="is slow",
        acts=(Reply(LARGE, without=("etag", "last-modified"), end="FIN"),),
        size=len(LARGE.body),
        expected=WHOLE,
    ),
]

PROCESS = [
    Fault(
        name="SIGTERM, and time to finish",
        client="sees SIGTERM",
        acts=(Reply(pause=0.05),),
        environ={"SHUTDOWN_GRACE": "10"},
        expected=WHOLE,
    ),
    Fault(
        name="SIGTERM, and no time to finish",
        client="sees SIGTERM",
        acts=(Reply(piece=16 * 1024, pause=0.5),),
        environ={"SHUTDOWN_GRACE": "1"},
        expected=BROKEN,
    ),
]


def _tls(name: str, *acts: Act, **fields: Any) -> Fault:
    return Fault(name=f"TLS: {name}", acts=acts or (GOOD,), needs_tls=True, **fields)


def _close_notify(writer: asyncio.StreamWriter) -> None:
    assert isinstance(writer, TlsWriter)
    writer.close_notify()


def _alert(writer: asyncio.StreamWriter) -> None:
    assert isinstance(writer, TlsWriter)
    writer.alert()


def _before_headers(end: Door) -> Act:
    async def act(_: Upstream, exchange: Exchange) -> None:
        end(exchange.writer)

    return act


def _cut_by(end: str) -> Reply:
    return Reply(upto=500_000, end=end)


TLS = [
    _tls("certificate of an unknown authority", handshakes=("untrusted",), expected="502"),
    _tls("certificate that has expired", handshakes=("expired",), expected="502"),
    _tls("certificate of another host", handshakes=("another host",), expected="502"),
    _tls("certificate unknown once", handshakes=("untrusted", "trusted"), expected=WHOLE),
    _tls("no common cipher", handshakes=("no common cipher",), expected="502"),
    _tls("plain HTTP at the port", handshakes=("plain HTTP",), expected="502"),
    _tls("silent in the handshake", handshakes=("silent",), expected="504"),
    _tls("silent in the handshake once", handshakes=("silent", "trusted"), expected=WHOLE),
    _tls("RST in the handshake", handshakes=("reset",), expected="502"),
    _tls("RST in the handshake once", handshakes=("reset", "trusted"), expected=WHOLE),
    _tls("FIN in the handshake", handshakes=("ended",), expected="502"),
    _tls("version 1.2", handshakes=("TLS 1.2",), expected=WHOLE),
    _tls("version 1.2, FIN in the middle", CUT, GOOD, handshakes=("TLS 1.2",), expected=HEALED),
    _tls(
        "version 1.2, record with a flipped byte",
        _cut_by("flipped byte"),
        GOOD,
        handshakes=("TLS 1.2",),
        expected=HEALED,
    ),
    _tls("close_notify before headers once", _before_headers(_close_notify), GOOD, expected=WHOLE),
    _tls("alert before headers once", _before_headers(_alert), GOOD, expected=WHOLE),
    _tls("close_notify in the middle", _cut_by("close_notify"), GOOD, expected=HEALED),
    _tls(
        "close_notify and FIN in the middle", _cut_by("close_notify, FIN"), GOOD, expected=HEALED
    ),
    _tls("alert in the middle", _cut_by("alert"), GOOD, expected=HEALED),
    _tls("truncated record, then silent", _cut_by("half a record"), GOOD, expected=HEALED),
    _tls("truncated record, then FIN", _cut_by("half a record, FIN"), GOOD, expected=HEALED),
    _tls("truncated record, then RST", _cut_by("half a record, RST"), GOOD, expected=HEALED),
    _tls("record with a flipped byte", _cut_by("flipped byte"), GOOD, expected=HEALED),
    _tls("bytes that are no record", _cut_by("no record"), GOOD, expected=HEALED),
    _tls(
        "record with a flipped byte three times",
        *[_cut_by("flipped byte")] * 3,
        GOOD,
        expected=HEALED,
    ),
    _tls(
        "neither length nor chunks, ended early by close_notify",
        Reply(framing="none", upto=500_000, end="close_notify, FIN"),
        s3="502",
        http=HEALED,
    ),
    _tls(
        "chunks without the last one, then close_notify",
        Reply(framing="chunked", end="close_notify, FIN"),
        expected=BROKEN,
    ),
    _tls(
        "cut, then a certificate of an unknown authority",
        CUT,
        GOOD,
        handshakes=("trusted", "untrusted"),
        expected=BROKEN,
    ),
    _tls(
        "cut, then a certificate of an unknown authority once",
        CUT,
        GOOD,
        handshakes=("trusted", "untrusted", "trusted"),
        expected=HEALED,
    ),
    _tls(
        "cut, then silent in the handshake once",
        CUT,
        GOOD,
        handshakes=("trusted", "silent", "trusted"),
        expected=HEALED,
    ),
    _tls("close_notify on ten idle connections", idle=10, idle_end=_close_notify, expected=WHOLE),
    _tls(
        "idle connection answers with close_notify",
        end_where_used_before(_close_notify),
        idle=1,
        expected=WHOLE,
    ),
    _tls(
        "ten idle connections answer with an alert",
        end_where_used_before(_alert),
        idle=10,
        expected=WHOLE,
    ),
    _tls(
        "close_notify and FIN after the body, no validator, client slow",
        Reply(LARGE, without=("etag", "last-modified"), end="close_notify, FIN"),
        client="is slow",
        size=len(LARGE.body),
        expected=WHOLE,
    ),
]

FAULTS = [*BEFORE_HEADERS, *ODD_HEADERS, *IN_THE_BODY, *CLIENTS, *PROCESS, *TLS]
