"""Keys at the length limit of S3: 1,024 bytes of UTF-8."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from handlers import create_app
from tests.support.client import fetch
from tests.support.components import BUCKET, settings_for
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import serving_app


async def five_bytes(exchange: Exchange) -> None:
    await exchange.answer(200, b"12345")


@pytest.mark.parametrize(
    ("key", "status"),
    [("k" * 1024, 200), ("é" * 512, 200), ("k" * 1025, 500), ("é" * 512 + "k", 500)],
    ids=["1024", "1024 of UTF-8", "1025", "1025 of UTF-8"],
)
def test_key_over_1024_bytes_returns_500(upstream: Misbehaving, key: str, status: int) -> None:
    """A longer key from `locate` is an error of the host; the store gets no request."""
    upstream.behaviour = five_bytes
    app = create_app(settings_for(upstream.url), locate=lambda _: key)
    with serving_app(app) as port:
        received = fetch(port, "/tasks/1/image")
    assert received.status == status
    paths = [unquote(exchange.path) for exchange in upstream.exchanges]
    assert paths == ([f"/{BUCKET}/{key}"] if status == 200 else [])
