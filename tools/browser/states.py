"""The states of the page, and the upstream behaviour that leads to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.misbehaving import Behaviour, Exchange, not_there
from tests.support.serving import ROOT

PICTURE = (ROOT / "scripts" / "demo" / "picture.jpg").read_bytes()
LENGTH = f"content-length: {len(PICTURE)}"
HALF = len(PICTURE) // 2

TOKEN = "token-of-the-browser"
SIGNING_KEY = "a:0123456789abcdef"
COOKIE = "session=session-of-ada"

KEY = "a folder/Grüße #1.pdf"
DOCUMENT = b"a document"
PDF = f"{len(DOCUMENT)} bytes, application/pdf"


async def whole(exchange: Exchange) -> None:
    await exchange.answer(200, PICTURE, "content-type: image/jpeg", 'etag: "1"')


async def half(exchange: Exchange) -> None:
    await exchange.head(200, LENGTH, "content-type: image/jpeg")
    await exchange.body(PICTURE[:HALF])
    await exchange.hang()


async def cut_once(exchange: Exchange) -> None:
    """Cut the picture in the middle; the service resumes it at the next byte."""
    tag = 'etag: "1"'
    if "range" not in exchange.headers:
        await exchange.head(200, LENGTH, "content-type: image/jpeg", tag)
        await exchange.body(PICTURE[:HALF])
        await exchange.pause(0.3)  # or the client may lose the bytes that have arrived
        return
    begin = int(exchange.headers["range"].removeprefix("bytes=").partition("-")[0])
    span = f"content-range: bytes {begin}-{len(PICTURE) - 1}/{len(PICTURE)}"
    await exchange.answer(206, PICTURE[begin:], "content-type: image/jpeg", tag, span)


async def document(exchange: Exchange) -> None:
    await exchange.answer(200, DOCUMENT, "content-type: application/pdf", 'etag: "1"')


async def cut(exchange: Exchange) -> None:
    """Cut the picture in the middle, without a validator, so that it cannot be resumed."""
    await exchange.head(200, LENGTH, "content-type: image/jpeg")
    await exchange.body(PICTURE[:HALF])
    await exchange.pause(0.3)  # or the client may lose the bytes that have arrived


async def no_picture(exchange: Exchange) -> None:
    await exchange.answer(200, b"this is none", "content-type: image/jpeg", 'etag: "1"')


async def busy(exchange: Exchange) -> None:
    await exchange.error(503, "SlowDown")


async def session_required(exchange: Exchange) -> None:
    """Answer as the application at AUTH_URL: the session cookie authorizes a download."""
    is_logged_in = exchange.headers.get("cookie") == COOKIE
    await exchange.answer(204 if is_logged_in else 401)


async def forbid(exchange: Exchange) -> None:
    """Answer as the application at AUTH_URL: nobody may download."""
    await exchange.answer(403)


@dataclass(frozen=True)
class State:
    """A state: the behaviour of the store, and the texts that the page then shows."""

    name: str
    store: Behaviour
    title: str
    detail: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    key: str = ""
    """The key of the object that the visitor asks for; without a key, the page loads task 1."""

    form: str = ""
    """The label of the credential's input; without a label, the page shows no such form."""

    link: str = ""
    """The link that the page shows, `save` or `open`, if any."""

    resumes: str = ""
    """What the page says about resumed downloads."""

    has_metrics: bool = True

    application: Behaviour | None = None
    """The behaviour of the application at AUTH_URL; None if AUTH_URL is not set."""

    @property
    def has_picture(self) -> bool:
        return self.title == "Complete:"


OBJECTS = {"s3_objects": ("public/",)}
ACCESS_TOKENS = {"access_tokens": (TOKEN,)}
REDIRECT = {"delivery": "redirect"}
ONCE = "Since this page was opened, the service resumed a broken download once."

STATES = (
    State("whole", whole, "Complete:", f"{len(PICTURE):,} bytes", OBJECTS),
    State("loading", half, "Loading", "the picture of task 1"),
    State("resumed", cut_once, "Complete:", f"{len(PICTURE):,} bytes", resumes=ONCE),
    State("broken", cut, "Broken", f"broke after {HALF:,} of {len(PICTURE):,} bytes"),
    State("missing", not_there, "Not found", "There is nothing to download"),
    State("busy", busy, "Upstream busy", "is overloaded"),
    State("no picture", no_picture, "No picture", "All 12 bytes arrived", link="save"),
    State("object", document, "Complete", PDF, OBJECTS, key=KEY, link="save"),
    State("object picture", whole, "Complete:", f"{len(PICTURE):,} bytes", OBJECTS, key=KEY),
    State("object missing", not_there, "Not found", "nothing to download", OBJECTS, key=KEY),
    State("redirect", whole, "Redirected", "the picture of task 1", REDIRECT, link="open"),
    State("redirect token", whole, "Not allowed", "", REDIRECT | ACCESS_TOKENS, form="Token"),
    State(
        "token",
        whole,
        "Not allowed",
        "needs a valid access token",
        {**ACCESS_TOKENS, "metrics_tokens": (TOKEN,)},
        form="Token",
        has_metrics=False,
    ),
    State(
        "signature",
        whole,
        "Not allowed",
        "needs a URL with a valid signature",
        {"url_signing_keys": (SIGNING_KEY,)},
        form="Signed URL",
    ),
    State(
        "application",
        whole,
        "Not authenticated",
        "Log in to your application",
        form="Token",
        application=session_required,
    ),
    State("forbidden", whole, "Not allowed", "You may not download", application=forbid),
)
