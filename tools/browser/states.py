"""The states of the page, and the upstream behaviour that leads to each."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.misbehaving import Behaviour, Exchange, not_there
from tests.support.serving import ROOT

PICTURE = (ROOT / "scripts" / "demo" / "picture.jpg").read_bytes()
LENGTH = f"content-length: {len(PICTURE)}"
HALF = len(PICTURE) // 2

TOKEN = "token-of-the-browser"


async def whole(exchange: Exchange) -> None:
    await exchange.answer(200, PICTURE, "content-type: image/jpeg", 'etag: "1"')


async def half(exchange: Exchange) -> None:
    await exchange.head(200, LENGTH, "content-type: image/jpeg")
    await exchange.body(PICTURE[:HALF])
    await exchange.hang()


async def cut(exchange: Exchange) -> None:
    """Cut the picture in the middle, without a validator, so that it cannot be resumed."""
    await exchange.head(200, LENGTH, "content-type: image/jpeg")
    await exchange.body(PICTURE[:HALF])
    await exchange.pause(0.3)  # or the client may lose the bytes that have arrived


async def no_picture(exchange: Exchange) -> None:
    await exchange.answer(200, b"this is none", "content-type: image/jpeg", 'etag: "1"')


async def busy(exchange: Exchange) -> None:
    await exchange.error(503, "SlowDown")


@dataclass(frozen=True)
class State:
    """A state: the behaviour of the store, and the texts that the page then shows."""

    name: str
    store: Behaviour
    title: str
    detail: str = ""
    guarded: bool = False


STATES = (
    State("whole", whole, "Complete:", f"{len(PICTURE):,} bytes"),
    State("loading", half, "Loading", "the picture of task 1"),
    State("broken", cut, "Broken", f"broke after {HALF:,} of {len(PICTURE):,} bytes"),
    State("missing", not_there, "Not found", "There is nothing to download"),
    State("busy", busy, "Upstream busy", "is overloaded"),
    State("no picture", no_picture, "No picture", "All 12 bytes arrived"),
    State("guarded", whole, "Not allowed", "needs a valid access token", guarded=True),
)
