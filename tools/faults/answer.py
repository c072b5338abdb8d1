"""Read an answer as a client does, and name what the client got."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any

from tests.support.client import ask, connect
from tests.support.misbehaving import SECRET

from .acts import FIRST, FLIPPED, GZIPPED, LARGE, SECOND, SIZE, Version
from .faults import BROKEN, WHOLE

# Longer than any delay here is on purpose: a client that has got nothing by then waits for ever.
HANG_SECONDS = 15

OBJECTS = (FIRST, SECOND, GZIPPED, LARGE)

# Longer than any whole answer here; an endless one is not read further.
MAX_READ = 10_000_000

# Bytes of one read.
PIECE = 4096

# Two versions do not have this many equal bytes by chance.
SEAM = 100


@dataclass
class Answer:
    """An answer, as far as it was received."""

    status: int = 0
    headers: Message = field(default_factory=Message)
    body: bytearray = field(default_factory=bytearray)
    end: str = "broken"
    """How it ended: `proper`, `broken`, or `none` while the client still waited."""


def fetch(
    port: int,
    path: str,
    headers: Mapping[str, str],
    *,
    receive_buffer: int | None = None,
    **how: Any,
) -> Answer:
    """Request a path and `take` the answer."""
    with closing(connect(port, receive_buffer=receive_buffer)) as connection:
        ask(connection, path, headers=headers)
        return take(connection, **how)


def take(
    connection: socket.socket,
    *,
    on_piece: Callable[[socket.socket], None] = lambda _: None,
    seconds: float = HANG_SECONDS,
) -> Answer:
    """Read until the answer ends or time is up; call `on_piece` after each piece."""
    answer = Answer()
    until = time.monotonic() + seconds
    connection.settimeout(HANG_SECONDS)
    try:
        for _ in _pieces(connection, answer):
            if time.monotonic() > until or len(answer.body) > MAX_READ:
                answer.end = "none"
                return answer
            on_piece(connection)
    except TimeoutError:
        answer.end = "none"
    except (OSError, HTTPException):
        answer.end = "broken"
    else:
        answer.end = "proper"
    return answer


def _pieces(connection: socket.socket, answer: Answer) -> Iterator[None]:
    """Add pieces to the answer and yield after each; raise if it breaks off."""
    response = HTTPResponse(connection)
    response.begin()
    answer.status, answer.headers = response.status, response.headers
    while piece := response.read1(PIECE):
        answer.body += piece
        yield
    if len(answer.body) < int(response.headers.get("content-length", 0)):
        raise IncompleteRead(bytes(answer.body))


def outcome_of(answer: Answer, told: Mapping[str, str], *, asked_range: str | None) -> str:
    """Return the outcome of an answer in words; harm is in bold."""
    if answer.end == "none" and answer.status < 400:
        return "**hangs**"
    if not answer.status:
        return "**no answer**"
    if answer.status >= 400:
        return _error(answer, told)
    return _body(answer, told, asked_range)


def _error(answer: Answer, told: Mapping[str, str]) -> str:
    if answer.status not in (404, 502, 503, 504):
        return f"**{answer.status}**"
    if SECRET.encode() in answer.body:
        return f"**{answer.status}, the store's words**"
    if answer.headers.get("content-type") != "application/problem+json":
        return f"{answer.status}, bare"
    if json.loads(answer.body)["status"] != answer.status:
        return f"**{answer.status}, of another status**"
    seconds = answer.headers.get("retry-after", "")
    if answer.status == 503 and not re.fullmatch("[1-9][0-9]*", seconds):
        return "**503 without Retry-After**"
    return f"{answer.status}{_untold(answer, told)}"


def _body(answer: Answer, told: Mapping[str, str], asked_range: str | None) -> str:
    body = bytes(answer.body)
    selected = [_selected(version, answer, asked_range) for version in OBJECTS]
    if answer.end == "proper" and body in selected:
        return WHOLE + _untold(answer, told)
    if answer.end == "broken" and any(v.startswith(body) for v in (*selected, FLIPPED.body)):
        return BROKEN
    if _is_mixed(body):
        return "**two versions mixed**"
    return "**taken for whole**" if answer.end == "proper" else "**wrong bytes**"


def _selected(version: Version, answer: Answer, asked_range: str | None) -> bytes:
    """Return the bytes that the answer should have, if it is of this version."""
    if answer.headers.get("etag", version.etag) != version.etag:
        return b""
    if answer.status == 206 and asked_range is not None:
        part = asked_range.removeprefix("bytes=")
        first, last = map(int, part.split("-"))
        stated = answer.headers.get("content-range")
        return version.body[first : last + 1] if stated == f"bytes {part}/{SIZE}" else b""
    return version.body if answer.status == 200 else b""


def _is_mixed(body: bytes) -> bool:
    """Return whether a body starts with one version and goes on with another."""
    bodies = [version.body for version in OBJECTS]
    for version in bodies:
        pairs = enumerate(zip(body, version, strict=False))
        seam = next((at for at, (got, right) in pairs if got != right), 0)
        after = body[seam : seam + SEAM]
        if seam > SEAM and any(after in other for other in bodies if other is not version):
            return True
    return False


def _untold(answer: Answer, told: Mapping[str, str]) -> str:
    missing = [name for name, text in told.items() if text not in answer.headers.get(name, "")]
    return f", **without {', '.join(missing)}**" if missing else ""
