"""The application that AUTH_URL names: its URL, its answers, and what no one else may see."""

from __future__ import annotations

import logging

import pytest

from .client import Received, fetch
from .misbehaving import Behaviour, Exchange, Misbehaving
from .serving import wait_until

# Is in the application's URL, headers and bodies; neither a client nor the log may ever see it.
SECRET = "SECRET-OF-THE-APPLICATION"

# A client that normalizes URLs would change each part of this one.
TARGET = f"/may%2Fdownload/%7E;v=1?app={SECRET}&list=a%2Cb,c+d"

IMAGE = "/tasks/7/image"
PICTURE = b"picture"

# Headers that the application sends and that no client may get.
PRIVATE_LINES = (f"set-cookie: session={SECRET}; Path=/", f"x-user: {SECRET}", "server: app/1")


def auth_url(application: Misbehaving) -> str:
    """Return a value of AUTH_URL that has the application authorize downloads."""
    return application.url + TARGET


async def allow(exchange: Exchange) -> None:
    """Let a request in, with the answer that has nothing but a status."""
    await exchange.head(204)
    exchange.keep = True


def answer_privately(status: int, *lines: str) -> Behaviour:
    """Return a behaviour that answers with a status, a secret body and secret headers."""

    async def answering(exchange: Exchange) -> None:
        await exchange.answer(status, SECRET.encode(), *PRIVATE_LINES, *lines)

    return answering


async def send_picture(exchange: Exchange) -> None:
    """Answer as a store and as an upstream, with an object that any cache may store."""
    lines = ("content-type: image/jpeg", "cache-control: public, max-age=9", 'etag: "v1"')
    if "range" in exchange.headers:
        await exchange.answer(206, PICTURE[:3], "content-range: bytes 0-2/7", *lines)
    else:
        await exchange.answer(200, PICTURE, *lines)


def fetch_logged(port: int, log: pytest.LogCaptureFixture, path: str = IMAGE) -> Received:
    """Request `path` with credentials; return the answer, after its log line is written.

    Fails if the answer or the log has a credential or anything that belongs to the application.
    """
    log.clear()
    log.set_level(logging.DEBUG)
    headers = {"authorization": "Basic SECRET-OF-ADA", "cookie": "session=SECRET-OF-ADA"}
    received = fetch(port, path, headers=headers)
    request_id = received.headers["x-request-id"]
    wait_until(lambda: f"request_id={request_id}" in log.text)
    assert "SECRET" not in log.text
    assert "SECRET" not in str(received)
    assert not {"set-cookie", "x-user", "location"} & received.headers.keys()
    return received
