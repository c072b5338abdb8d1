"""RawClient: requests on aiohttp's connections, without aiohttp's parser."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from handlers.errors import BrokenTransfer
from handlers.sources.connectors import protect
from handlers.sources.raw_buffer import (
    CHUNK_SHARE,
    FAST_BYTES,
    HEAD_BUFFER,
    LARGE_CHUNK,
    PAUSE_SECONDS,
    SMALL_CHUNK,
)
from handlers.sources.raw_client import RawClient
from handlers.sources.response import RawResponse

SILENCE = 0.3
BODY = bytes(range(251)) * 4000
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Return each event loop: asyncio and uvloop have different transports, also for TLS."""
    return "asyncio", {"use_uvloop": request.param}


Behaviour = Callable[["ReceivedRequest"], Awaitable[None]]


@dataclass
class ReceivedRequest:
    """A request that the store received, the `number`th on its connection."""

    head: bytes
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            # Let the client usually receive each piece separately.
            await asyncio.sleep(0)

    async def hang(self) -> None:
        """Send nothing more, and return when the client disconnects."""
        await self.reader.read()

    def reset(self) -> None:
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class RawStore:
    """A server that answers as `behaviour` says and keeps its connections open."""

    behaviour: Behaviour
    origin: str = ""
    connections: int = 0
    requests: list[ReceivedRequest] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        number = 0
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                number += 1
                self.requests.append(ReceivedRequest(head, number, reader, writer))
                await self.behaviour(self.requests[-1])
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            writer.close()


@asynccontextmanager
async def serving(
    behaviour: Behaviour, context: ssl.SSLContext | None = None
) -> AsyncIterator[RawStore]:
    store = RawStore(behaviour)
    listener = await asyncio.start_server(store.serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    store.origin = f"{'https' if context else 'http'}://127.0.0.1:{port}"
    try:
        yield store
    finally:
        listener.close()
        tasks = list(store.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def raw_client(
    store: RawStore, *, connect: float | None = 5, **connector: Any
) -> AsyncIterator[tuple[RawClient, aiohttp.ClientSession]]:
    """Open a raw client and its session; fail if a connection is still in use at the end."""
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession(
            connector=protect(aiohttp.TCPConnector(**connector)),
            timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_read=SILENCE),
            auto_decompress=False,
        ) as session,
    ):
        yield RawClient(session, store.origin, read_timeout=SILENCE), session
        assert count_acquired(session) == 0


def count_acquired(session: aiohttp.ClientSession) -> int:
    return len(session.connector._acquired) if session.connector else 0


def count_idle(session: aiohttp.ClientSession) -> int:
    assert session.connector is not None
    return sum(
        protocol.is_connected() and not protocol.should_close
        for protocols in session.connector._conns.values()
        for protocol, _ in protocols
    )


async def get(client: RawClient, method: str = "GET") -> RawResponse:
    return await client.request(method, "/photos/key", {"host": "store"})


async def read_body(response: RawResponse) -> bytes:
    """Read the body to its end, then close the response."""
    chunks = []
    try:
        while chunk := await response.read():
            chunks.append(chunk)
        assert await response.read() == b""
    finally:
        response.close()
    return b"".join(chunks)


def answer(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def sending(*pieces: bytes, close: bool = False) -> Behaviour:
    async def behaviour(request: ReceivedRequest) -> None:
        await request.send(*pieces)
        if close:
            request.writer.close()

    return behaviour


def split_bytes(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize(
    ("length", "size"),
    [
        (0, 7),
        (3000, 1),
        (16384, 1000),
        (HEAD_BUFFER, HEAD_BUFFER),
        (100_003, 777),
        (1_000_000, 65_537),
        (1_000_000, 1_000_100),
    ],
)
async def test_body_in_chunks_of_any_size_arrives_complete(length: int, size: int) -> None:
    """A body arrives complete, and its bytes are not overwritten by later reads."""
    async with (
        serving(sending(*split_bytes(answer(BODY[:length]), size))) as store,
        raw_client(store) as (client, session),
    ):
        for _ in range(3):
            response = await get(client)
            assert response.status == 200
            first = await response.read()
            # A memoryview of the receive buffer, not a copy by a parser.
            assert isinstance(first, memoryview) or not length
            assert bytes(first) + await read_body(response) == BODY[:length]
        assert (store.connections, count_idle(session)) == (1, 1)


async def test_connection_serves_the_raw_client_and_aiohttp_in_turn() -> None:
    """A connection that the raw client has used serves aiohttp, and then the raw client again."""
    async with serving(sending(answer(BODY))) as store, raw_client(store) as (client, session):
        for _ in range(2):
            assert await read_body(await get(client)) == BODY
            async with session.get(f"{store.origin}/photos/key") as response:
                assert await response.read() == BODY
        assert store.connections == 1


async def test_close_of_a_complete_response_leaves_the_next_one_waiting() -> None:
    """Closing a response again does not touch the next request on its connection."""
    delay = 0.0

    async def answering(request: ReceivedRequest) -> None:
        await asyncio.sleep(delay)
        await request.send(answer(BODY))

    async with serving(answering) as store, raw_client(store) as (client, _):
        first = await get(client)
        assert await read_body(first) == BODY
        delay = 0.1
        second = asyncio.create_task(get(client))
        await asyncio.sleep(0.02)
        first.close()
        assert await read_body(await second) == BODY
        assert store.connections == 1


@pytest.mark.parametrize("free", range(4))
async def test_body_that_ends_near_the_buffer_end_arrives_complete(free: int) -> None:
    """A body that fills the head buffer except for a few bytes arrives complete."""
    head = len(answer(b"")) + 4
    body = BODY[: HEAD_BUFFER - head - free]
    async with serving(sending(answer(body))) as store, raw_client(store) as (client, _):
        for _ in range(2):
            assert await read_body(await get(client)) == body
        assert store.connections == 1


async def test_body_after_a_head_that_fills_the_buffer_arrives() -> None:
    """The body after a head of exactly HEAD_BUFFER bytes arrives."""
    free = HEAD_BUFFER - len(answer(b"", *["A: "] * 5))
    values = [len(piece) for piece in split_bytes(b"a" * free, 7000)]
    head = answer(b"", *[f"A: {'a' * size}" for size in values])
    head = head.replace(b"Length: 0", b"Length: 5")
    assert len(head) == HEAD_BUFFER

    async def answering(request: ReceivedRequest) -> None:
        await request.send(head)
        await asyncio.sleep(0.05)
        await request.send(b"hello")

    async with serving(answering) as store, raw_client(store) as (client, _):
        assert await read_body(await get(client)) == b"hello"


async def test_head_split_at_any_byte_is_parsed() -> None:
    """A response head is parsed wherever it is split in two."""
    whole = answer(b"hello", 'ETag: "a"', "Vary: a", "vary:b \t", "x-amz-meta-a: b:c")
    position = 0

    async def cut_there(request: ReceivedRequest) -> None:
        await request.send(whole[:position])
        await asyncio.sleep(0.001)
        await request.send(whole[position:])

    async with serving(cut_there) as store, raw_client(store) as (client, _):
        for position in range(1, len(whole)):  # noqa: B007 - read by the server
            response = await get(client)
            assert response.headers == {
                "content-length": "5",
                "etag": '"a"',
                "vary": "a, b",
                "x-amz-meta-a": "b:c",
            }
            assert await read_body(response) == b"hello"
        assert store.connections == 1


async def test_request_head_has_only_the_given_headers() -> None:
    """The request head has the given target and headers, and nothing else."""
    async with serving(sending(HELLO)) as store, raw_client(store) as (client, _):
        response = await client.request("GET", "/a%2Fb?c", {"host": "h", "range": "bytes=0-4"})
        assert await read_body(response) == b"hello"
        assert (
            store.requests[0].head
            == b"GET /a%2Fb?c HTTP/1.1\r\nhost: h\r\nrange: bytes=0-4\r\n\r\n"
        )


@pytest.mark.parametrize("broken", ["a\rb", "a\nb", "a\0b", "ü\u20ac"])
async def test_line_break_in_request_raises_value_error(broken: str) -> None:
    """A line break or an unencodable character raises before a connection is opened."""
    async with serving(sending(HELLO)) as store, raw_client(store) as (client, _):
        with pytest.raises(ValueError, match=r"break|encode"):
            await client.request("GET", "/" + broken, {"host": "h"})
        with pytest.raises(ValueError, match=r"break|encode"):
            await client.request("GET", "/", {"host": "h", "range": broken})
        assert store.connections == 0


async def test_connection_is_reused_by_raw_client_and_aiohttp() -> None:
    """RawClient and aiohttp's client reuse the same connection in turn."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

    async def either(request: ReceivedRequest) -> None:
        await request.send(chunked if request.number % 3 else HELLO)

    async with serving(either) as store, raw_client(store) as (client, session):
        for _ in range(6):
            assert await read_body(await get(client)) == b"hello"
            async with session.get(store.origin + "/") as response:
                assert await response.read() == b"hello"
            assert (count_acquired(session), count_idle(session)) == (0, 1)
        assert store.connections == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("length", [0, 5, 16384, HEAD_BUFFER, 1_000_000])
async def test_excess_bytes_after_body_close_the_connection(length: int, method: str) -> None:
    """Bytes after a body are dropped, and the next request uses a new connection."""
    body = BODY[:length]
    evil = answer(b"evil")
    first = answer(body if method == "GET" else b"") + evil

    async def excessive(request: ReceivedRequest) -> None:
        await request.send(HELLO if len(store.requests) > 1 else first)

    async with serving(excessive) as store, raw_client(store) as (client, _):
        response = await get(client, method)
        assert await read_body(response) == (body if method == "GET" else b"")
        assert await read_body(await get(client)) == b"hello"
        assert store.connections == 2


@pytest.mark.parametrize("is_ours", [True, False])
async def test_bytes_on_idle_connection_close_it(is_ours: bool) -> None:
    """An idle connection that receives bytes is not reused."""

    async def talkative(request: ReceivedRequest) -> None:
        await request.send(HELLO)
        if len(store.requests) == 1:
            await asyncio.sleep(0.05)
            await request.send(answer(b"evil"))

    async with serving(talkative) as store, raw_client(store) as (client, session):
        if is_ours:
            assert await read_body(await get(client)) == b"hello"
        else:
            async with session.get(store.origin + "/") as response:
                assert await response.read() == b"hello"
        await asyncio.sleep(0.2)
        assert await read_body(await get(client)) == b"hello"
        assert store.connections == 2


@pytest.mark.parametrize("how", ["eof", "reset"])
@pytest.mark.parametrize("length", [1, 1000, 300_000])
async def test_body_cut_short_raises_after_its_bytes(how: str, length: int) -> None:
    """The bytes before an early end are returned; then every read raises BrokenTransfer."""

    async def breaking(request: ReceivedRequest) -> None:
        await request.send(answer(BODY[: length + 1])[:-1])
        # A reset discards the bytes that the client has not read from its socket.
        await arrived.wait()
        request.reset() if how == "reset" else request.writer.close()

    arrived = asyncio.Event()
    async with serving(breaking) as store, raw_client(store) as (client, _):
        response = await get(client)
        got = b""
        while len(got) < length:
            got += await response.read()
        arrived.set()
        for _ in range(2):
            with pytest.raises(BrokenTransfer) as caught:
                await response.read()
            assert caught.value.outcome == "truncated"
        assert isinstance(caught.value.__cause__, OSError) == (how == "reset")
        assert got == BODY[:length]
        response.close()


async def test_connection_lost_before_read_returns_buffered_bytes() -> None:
    """Bytes received before the connection was lost are returned before the error."""
    truncated = answer(BODY[:1001])[:-1]
    async with serving(sending(truncated, close=True)) as store, raw_client(store) as (client, _):
        response = await get(client)
        await asyncio.sleep(0.05)
        assert await response.read() == BODY[:1000]
        with pytest.raises(BrokenTransfer):
            await response.read()
        response.close()


SILENT: dict[str, tuple[bytes, ...]] = {
    "from the start": (),
    "in a head": (HELLO[:20],),
    "after a head": (HELLO[:-5],),
    "in a body": (HELLO[:-2],),
    "in a head that is parsed": (b"HTTP/1.1 404 Not Found\r\nContent-",),
    "after an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n",),
    "in a body that is parsed": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhell",),
}


async def catch_failure(work: Awaitable[Any]) -> Any:
    """Return the result of `work`, or the exception that it raises."""
    try:
        return await work
    except (aiohttp.ClientError, BrokenTransfer) as error:
        return error


@pytest.mark.parametrize("pieces", SILENT.values(), ids=SILENT)
async def test_silent_store_raises_after_read_timeout(pieces: tuple[bytes, ...]) -> None:
    """A read without a byte raises after the read timeout, in the head and in the body."""

    async def silent(request: ReceivedRequest) -> None:
        await request.send(*pieces)
        await request.hang()

    async with serving(silent) as store, raw_client(store) as (client, _):
        begun = asyncio.get_running_loop().time()
        if isinstance(failed := await catch_failure(get(client)), RawResponse):
            failed = await catch_failure(read_body(failed))
            assert isinstance(failed, BrokenTransfer)
            assert failed.outcome == "upstream_timeout"
        else:
            assert isinstance(failed, aiohttp.SocketTimeoutError)
        assert SILENCE - 0.05 < asyncio.get_running_loop().time() - begun < SILENCE + 1


async def test_slow_store_and_slow_reader_do_not_time_out() -> None:
    """The read timeout limits only the time between two bytes."""

    async def slow(request: ReceivedRequest) -> None:
        for piece in split_bytes(HELLO, 12):
            await request.send(piece)
            await asyncio.sleep(SILENCE * 0.6)

    async with serving(slow) as store, raw_client(store) as (client, _):
        response = await get(client)
        await asyncio.sleep(SILENCE * 1.5)
        assert await read_body(response) == b"hello"


OK = "HTTP/1.1 200 OK"
FIVE = "Content-Length: 5"
IN_CHUNKS = "Transfer-Encoding: chunked"
CHUNKS = "5\r\nhello\r\n0\r\n\r\n"


def answer_text(*lines: str, body: str = "hello") -> tuple[str, str]:
    return "\r\n".join([*lines, "", ""]), body


UNUSUAL = {
    "plain": answer_text(OK, FIVE),
    "nothing": ("", ""),
    "half a head": (answer_text(OK, FIVE)[0][:25], ""),
    "chunked": answer_text(OK, IN_CHUNKS, body=CHUNKS),
    "chunked, cut": answer_text(OK, IN_CHUNKS, body=CHUNKS[:-5]),
    "chunked, malformed": answer_text(OK, IN_CHUNKS, body="five\r\nhello\r\n0\r\n\r\n"),
    "no length": answer_text(OK),
    "HTTP/1.0": answer_text("HTTP/1.0 200 OK"),
    "HTTP/1.0 with length": answer_text("HTTP/1.0 200 OK", FIVE),
    "HTTP/2.0": answer_text("HTTP/2.0 200 OK", FIVE),
    "206": answer_text("HTTP/1.1 206 Partial Content", FIVE),
    "404": answer_text("HTTP/1.1 404 Not Found", IN_CHUNKS, body=CHUNKS),
    "404 with length": answer_text("HTTP/1.1 404 Not Found", FIVE),
    "304": answer_text("HTTP/1.1 304 Not Modified", FIVE, body=""),
    "204": answer_text("HTTP/1.1 204 No Content", body=""),
    "100 before it": answer_text("HTTP/1.1 100 Continue", "", OK, FIVE),
    "103 before it": answer_text("HTTP/1.1 103 Early Hints", "Link: </a>", "", OK, FIVE),
    "101": answer_text("HTTP/1.1 101 Other", "Upgrade: a", "Connection: upgrade", body=""),
    "no reason": answer_text("HTTP/1.1 200 ", FIVE),
    "no reason, no space": answer_text("HTTP/1.1 200", FIVE),
    "four digits": answer_text("HTTP/1.1 2000 OK", FIVE),
    "obs-fold": answer_text(OK, "A: b", " c", FIVE),
    "fold into length": answer_text(OK, FIVE, " 0"),
    "two lengths": answer_text(OK, FIVE, FIVE.lower()),
    "two other lengths": answer_text(OK, FIVE, "Content-Length: 4"),
    "list of lengths": answer_text(OK, FIVE + ", 5"),
    "length and chunked": answer_text(OK, FIVE, IN_CHUNKS, body=CHUNKS),
    "chunked and length": answer_text(OK, IN_CHUNKS, FIVE, body=CHUNKS),
    "other encoding": answer_text(OK, "Transfer-Encoding: gzip"),
    "plus": answer_text(OK, "Content-Length: +5"),
    "minus": answer_text(OK, "Content-Length: -5"),
    "hex": answer_text(OK, "Content-Length: 0x5"),
    "no digits": answer_text(OK, "Content-Length: "),
    "huge length": answer_text(OK, "Content-Length: " + "9" * 30),
    "zeros": answer_text(OK, "Content-Length: 0005"),
    "spaces": answer_text(OK, "Content-Length: \t 5 \t"),
    "space before colon": answer_text(OK, "Content-Length : 5"),
    "space before name": answer_text(OK, " Content-Length: 5"),
    "no name": answer_text(OK, ": a", FIVE),
    "no colon": answer_text(OK, "a", FIVE),
    "NUL": answer_text(OK, "A: \0", FIVE),
    "control": answer_text(OK, "A: \1", FIVE),
    "bare CR": answer_text(OK, "A: b\rContent-Length: 4", FIVE),
    "bare LF": (f"{OK}\n{FIVE}\n\n", "hello"),
    "one bare LF": answer_text(OK, "A: b\nB: c", FIVE),
    "CRLF before it": answer_text("", "", OK, FIVE),
    "no HTTP": ("220 store ESMTP\r\n", ""),
    "lower case": answer_text(OK.lower(), FIVE),
    "close": answer_text(OK, "Connection: close", FIVE),
    "close in a list": answer_text(OK, "Connection: a, Close", FIVE),
    "close twice": answer_text(OK, "Connection: keep-alive", FIVE, "Connection: close"),
    "proxy-connection": answer_text(OK, "Proxy-Connection: close", FIVE),
    "upgrade": answer_text(OK, "Upgrade: a", "Connection: upgrade", FIVE),
    "not ASCII": answer_text(OK, "A: \xfc", FIVE),
    "gzip": answer_text(OK, "Content-Encoding: gzip", FIVE),
    "long line": answer_text(OK, "A: " + "a" * 8100, FIVE),
    "too long line": answer_text(OK, "A: " + "a" * 9000, FIVE),
    "many lines": answer_text(OK, *["A: b"] * 127, FIVE),
    "too many lines": answer_text(OK, *["A: b"] * 129, FIVE),
    "40 KiB": answer_text(OK, *["A: " + "a" * 8000] * 5, FIVE),
    "too short": answer_text(OK, FIVE, body="hell"),
}

Outcome = tuple[int, bytes, dict[str, str], int] | str


async def request_with_aiohttp(origin: str, method: str) -> Outcome:
    async with raw_client(RawStore(sending(), origin)) as (_, session):
        try:
            async with session.request(method, origin + "/", allow_redirects=False) as response:
                async with asyncio.timeout(2 * SILENCE):
                    body = await response.read()
                headers = {
                    name.lower(): ", ".join(response.headers.getall(name))
                    for name, value in response.headers.items()
                    if value.isascii()
                }
                await asyncio.sleep(0)
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"raises {isinstance(error, TimeoutError)}"
        return response.status, body, headers, count_idle(session)


async def request_with_raw_client(origin: str, method: str) -> Outcome:
    async with raw_client(RawStore(sending(), origin)) as (client, session):
        try:
            response = await get(client, method)
            body = await read_body(response)
        except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, TimeoutError) as error:
            return f"raises {isinstance(error, TimeoutError)}"
        except BrokenTransfer as broken:
            return f"raises {broken.outcome == 'upstream_timeout'}"
        return response.status, body, dict(response.headers), count_idle(session)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("size", [1, 1 << 20], ids=["bytes", "whole"])
@pytest.mark.parametrize(("head", "body"), UNUSUAL.values(), ids=UNUSUAL)
async def test_unusual_answer_gives_the_result_of_aiohttp(
    head: str, body: str, size: int, method: str
) -> None:
    """RawClient and aiohttp give the same answer or error, and both keep the connection or not."""
    data = (head if method == "HEAD" else head + body).encode("latin-1")
    size = max(size, len(data) // 200)

    async def answering(request: ReceivedRequest) -> None:
        await request.send(*split_bytes(data, size))
        # Some bodies end when the connection closes.
        await asyncio.sleep(0.1)
        request.writer.close()

    async with serving(answering) as store:
        assert await request_with_raw_client(store.origin, method) == await request_with_aiohttp(
            store.origin, method
        )


async def test_closed_idle_connection_is_replaced() -> None:
    """A request on a connection that closes without an answer is sent again at once."""

    async def once(request: ReceivedRequest) -> None:
        if request.number == 1:
            await request.send(HELLO)
        else:
            request.reset()

    async with serving(once) as store, raw_client(store) as (client, _):
        for _ in range(3):
            assert await read_body(await get(client)) == b"hello"
        assert (store.connections, len(store.requests)) == (3, 5)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 2", b"HTTP/1.1 404 Not"])
async def test_lost_request_is_sent_at_most_twice(begun: bytes) -> None:
    """A second loss, or a loss after the answer began, raises ServerDisconnectedError."""
    async with serving(sending(begun, close=True)) as store, raw_client(store) as (client, _):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get(client)
        assert len(store.requests) == (1 if begun else 2)


async def test_reset_before_head_raises_client_os_error() -> None:
    """A reset before the head raises ClientOSError with the system's errno."""

    async def resetting(request: ReceivedRequest) -> None:
        request.reset()

    async with serving(resetting) as store, raw_client(store) as (client, _):
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await get(client)
        assert caught.value.errno


async def test_connect_failure_raises_errors_of_aiohttp(unused_port: int) -> None:
    """A closed port, a full pool and a closed session raise aiohttp's own errors."""
    nobody = RawStore(sending(), f"http://127.0.0.1:{unused_port}")
    async with raw_client(nobody) as (client, _):
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(client)
    async with (
        serving(sending(HELLO[:-1])) as store,
        raw_client(store, connect=0.05, limit=1) as (client, session),
    ):
        response = await get(client)
        with pytest.raises(aiohttp.ConnectionTimeoutError):
            await get(client)
        response.close()
    with pytest.raises(RuntimeError):
        await get(RawClient(session, store.origin, read_timeout=1))


async def test_full_pool_of_session_without_limit_raises_connection_timeout() -> None:
    """If the session has no limit, the read timeout ends the wait for a connection."""
    async with (
        serving(answer_head_and_hang) as store,
        raw_client(store, connect=None, limit=1) as (client, _),
    ):
        response = await get(client)
        with pytest.raises(aiohttp.ConnectionTimeoutError):
            await get(client)
        response.close()


async def answer_head_and_hang(request: ReceivedRequest) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    await request.hang()


async def test_connection_close_header_closes_the_connection() -> None:
    """A connection whose answer has `Connection: close` is not reused."""
    closing = answer(b"hello", "connection: Close")
    async with serving(sending(closing)) as store, raw_client(store) as (client, session):
        for _ in range(2):
            assert await read_body(await get(client)) == b"hello"
            assert count_idle(session) == 0
        assert store.connections == 2


async def test_head_answer_has_no_body() -> None:
    """The answer to HEAD has a Content-Length and no body."""

    async def answering(request: ReceivedRequest) -> None:
        await request.send(HELLO[:-5] if request.head.startswith(b"HEAD") else HELLO)

    async with serving(answering) as store, raw_client(store) as (client, _):
        for _ in range(2):
            response = await get(client, "HEAD")
            assert response.headers["content-length"] == "5"
            assert await read_body(response) == b""
            assert await read_body(await get(client)) == b"hello"
        assert store.connections == 1


class EndlessBody:
    """A store with an endless body, which counts the bytes it sent."""

    def __init__(self, status: str = "200 OK") -> None:
        self.status = status
        self.sent = 0

    async def __call__(self, request: ReceivedRequest) -> None:
        await request.send(f"HTTP/1.1 {self.status}\r\nContent-Length: {10**12}\r\n\r\n".encode())
        while True:
            await request.send(BODY)
            self.sent += len(BODY)


async def test_paused_reader_pauses_the_store() -> None:
    """While the reader pauses, the store can send only as much as the buffers hold."""
    endless_body = EndlessBody()
    async with serving(endless_body) as store, raw_client(store) as (client, _):
        response = await get(client)
        total = 0
        while total < 3 * LARGE_CHUNK:
            total += len(await response.read())
        sent = -1
        while sent < endless_body.sent:
            sent = endless_body.sent
            await asyncio.sleep(0.2)
        assert sent < 30_000_000
        while total < sent + 1_000_000:
            total += len(await response.read())
        response.close()


async def test_chunks_grow_while_the_reader_does_not_pause() -> None:
    """Chunks grow while the reader keeps reading, and are small again after a pause."""
    async with serving(EndlessBody()) as store, raw_client(store) as (client, _):
        response = await get(client)
        taken = 0
        for _ in range(2):
            while taken < FAST_BYTES:
                size = len(await response.read())
                assert size <= max(SMALL_CHUNK, taken // CHUNK_SHARE)
                taken += size
            sizes = [len(await response.read()) for _ in range(8)]
            assert SMALL_CHUNK < max(sizes) <= LARGE_CHUNK
            await asyncio.sleep(PAUSE_SECONDS * 1.2)
            taken = len(await response.read())  # bytes from before the pause
        response.close()


@pytest.mark.skipif(sys.platform != "linux", reason="SO_RCVLOWAT changes no buffer elsewhere")
@pytest.mark.parametrize("is_fast", [True, False])
async def test_only_a_fast_reader_enlarges_the_receive_window(is_fast: bool) -> None:
    """The kernel receives LARGE_CHUNK bytes ahead for a fast reader, but not for a slow one."""
    async with serving(EndlessBody()) as store, raw_client(store) as (client, session):
        response = await get(client)
        assert session.connector is not None
        [protocol] = session.connector._acquired
        assert protocol.transport is not None
        connection = protocol.transport.get_extra_info("socket")
        taken = 0
        while taken < FAST_BYTES:
            taken += len(await response.read())
            if not is_fast:
                await asyncio.sleep(PAUSE_SECONDS * 1.2)
        size = connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert (size >= LARGE_CHUNK) == is_fast
        # With another value, the event loop would not hear of the last bytes of a body.
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        response.close()


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
async def test_close_before_end_frees_the_pool_slot(status: str) -> None:
    """Closing a response before its end closes the connection and frees the pool slot."""
    async with (
        serving(EndlessBody(status)) as store,
        raw_client(store, limit=1) as (client, session),
    ):
        for _ in range(3):
            response = await get(client)
            assert await response.read()
            response.close()
            response.close()
            assert (count_acquired(session), count_idle(session)) == (0, 0)
            with pytest.raises(BrokenTransfer):
                await response.read()
        async with asyncio.timeout(1):
            await session.close()


async def test_session_close_ends_waiting_reads() -> None:
    """Closing the session makes a waiting read raise, and does not wait for the read."""
    async with serving(sending(HELLO[:-1])) as store, raw_client(store) as (client, session):
        response = await get(client)
        assert await response.read() == b"hell"
        reading = asyncio.ensure_future(response.read())
        await asyncio.sleep(0.01)
        async with asyncio.timeout(1):
            await session.close()
        with pytest.raises(BrokenTransfer):
            await reading
        response.close()


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
async def test_response_close_ends_waiting_read(status: str) -> None:
    """Closing a response makes a waiting read raise BrokenTransfer."""
    async with (
        serving(sending(answer(b"hello", status=status)[:-1])) as store,
        raw_client(store) as (client, _),
    ):
        response = await get(client)
        await response.read()
        reading = asyncio.ensure_future(response.read())
        await asyncio.sleep(0.01)
        response.close()
        with pytest.raises(BrokenTransfer):
            await reading


async def test_read_after_early_close_raises() -> None:
    """A body closed before all of it was read raises instead of ending."""
    async with serving(sending(HELLO)) as store, raw_client(store) as (client, session):
        response = await get(client)
        assert count_idle(session) == 1
        response.close()
        assert count_idle(session) == 1
        with pytest.raises(BrokenTransfer):
            await response.read()


@pytest.mark.parametrize("begun", [b"", HELLO[:10], b"HTTP/1.1 404 Not"])
async def test_cancelled_request_closes_its_connection(begun: bytes) -> None:
    """A cancelled request closes its connection, before and within the response head."""

    async def hanging(request: ReceivedRequest) -> None:
        await request.send(begun)
        await request.hang()

    async with serving(hanging) as store, raw_client(store) as (client, session):
        request = asyncio.ensure_future(get(client))
        await asyncio.sleep(0.05)
        assert store.requests
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (count_acquired(session), count_idle(session)) == (0, 0)
        await asyncio.sleep(0.05)
        assert not store.tasks


async def test_cancelled_read_loses_no_byte() -> None:
    """A read can be repeated after cancellation without losing a byte."""
    go_on = asyncio.Event()

    async def halting(request: ReceivedRequest) -> None:
        await request.send(HELLO[:-5])
        await go_on.wait()
        await request.send(HELLO[-5:])

    async with serving(halting) as store, raw_client(store) as (client, session):
        response = await get(client)
        for _ in range(2):
            reading = asyncio.ensure_future(response.read())
            await asyncio.sleep(0.01)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        with pytest.raises(RuntimeError):
            await asyncio.gather(response.read(), response.read())
        go_on.set()
        await asyncio.sleep(0.01)
        assert count_acquired(session) == 0
        response.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a self-signed certificate for 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "store.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


def make_contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate)
    return server_context, ssl.create_default_context(cafile=certificate)


@pytest.mark.parametrize("length", [0, 5, 16384, 1_000_000])
async def test_tls_body_arrives_complete(certificate: Path, length: int) -> None:
    """Over TLS, a body is complete, and the connection is reused unless excess bytes follow."""
    server_context, client_context = make_contexts(certificate)
    whole = answer(BODY[:length])

    async def answering(request: ReceivedRequest) -> None:
        await request.send(whole + answer(b"evil") if len(store.requests) == 4 else whole)

    async with (
        serving(answering, server_context) as store,
        raw_client(store, ssl=client_context) as (client, session),
    ):
        for connections in (1, 1, 2):
            assert await read_body(await get(client)) == BODY[:length]
            async with session.get(store.origin + "/") as response:
                assert await response.read() == BODY[:length]
            assert (store.connections, count_acquired(session)) == (1, 0) or connections == 2
        assert await read_body(await get(client)) == BODY[:length]


@pytest.mark.parametrize("how", ["eof", "reset", "silence", "close"])
async def test_tls_failure_gives_the_same_outcome(certificate: Path, how: str) -> None:
    """Over TLS, an early end, a reset, silence and an early close act as without TLS."""
    server_context, client_context = make_contexts(certificate)

    async def breaking(request: ReceivedRequest) -> None:
        await request.send(answer(BODY)[:500_000])
        if how == "reset":
            request.reset()
        elif how == "eof":
            request.writer.close()
        await request.hang()

    async with (
        serving(breaking, server_context) as store,
        raw_client(store, ssl=client_context, limit=1) as (client, session),
    ):
        for _ in range(2):
            response = await get(client)
            if how == "close":
                assert await response.read()
                response.close()
                continue
            with pytest.raises(BrokenTransfer) as caught:
                await read_body(response)
            assert (caught.value.outcome == "upstream_timeout") == (how == "silence")
        assert count_acquired(session) == 0


async def test_tls_paused_reader_pauses_the_store(certificate: Path) -> None:
    """Over TLS, a paused reader pauses the store, and then reads on without a gap."""
    server_context, client_context = make_contexts(certificate)
    endless_body = EndlessBody()
    async with (
        serving(endless_body, server_context) as store,
        raw_client(store, ssl=client_context) as (client, _),
    ):
        response = await get(client)
        received = bytearray()
        sent = -1
        while sent < endless_body.sent:
            sent = endless_body.sent
            await asyncio.sleep(0.2)
        assert sent < 30_000_000
        while len(received) < sent + 2 * len(BODY):
            received += await response.read()
        assert bytes(received[: 3 * len(BODY)]) == 3 * BODY
        response.close()
