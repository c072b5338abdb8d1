"""The bytes route with a hand-written mock of aiohttp's response, as in the article."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from handlers import create_app
from settings import Settings


class MockContent:
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)

    async def readany(self) -> bytes:
        return next(self._chunks, b"")


class MockResponse:
    """The part of aiohttp.ClientResponse that a download uses."""

    def __init__(self, chunks: list[bytes], *, length: int) -> None:
        self.status = 200
        self.headers = {"Content-Length": str(length), "Content-Type": "text/plain"}
        self.content = MockContent(chunks)
        self.closed = False

    def close(self) -> None:
        self.closed = True


class MockSession:
    def __init__(self, response: MockResponse) -> None:
        self.response = response
        self.asked: list[tuple[str, str]] = []

    async def request(self, method: str, url: object, **_: object) -> MockResponse:
        self.asked.append((method, str(url)))
        return self.response


def app_with(session: MockSession) -> Starlette:
    """Return the application with a mock instead of aiohttp's session."""
    settings = Settings(s3_image_bucket="photos", bytes_url="http://upstream.test/{size}")
    mocks: Any = session
    return create_app(settings, s3=object(), http=mocks)  # type: ignore[arg-type]


async def get(app: Starlette, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://here.test") as client,
    ):
        return await client.get(path)


async def test_mocked_body_is_streamed_and_response_closed() -> None:
    """The client gets the upstream's chunks, and the upstream response is closed at the end."""
    session = MockSession(MockResponse([b"hello ", b"world"], length=11))
    answer = await get(app_with(session), "/tasks/1/bytes/11")
    assert answer.content == b"hello world"
    assert answer.headers["content-length"] == "11"
    assert session.asked == [("GET", "http://upstream.test/11")]
    assert session.response.closed


async def test_mocked_body_that_ends_early_raises_and_is_closed() -> None:
    """A body that ends early raises, and the upstream response is closed."""
    session = MockSession(MockResponse([b"hello "], length=11))
    with pytest.raises(Exception, match="ended at 6 of 11 bytes"):
        await get(app_with(session), "/tasks/1/bytes/11")
    assert session.response.closed
