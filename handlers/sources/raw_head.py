"""Parse the heads of ordinary 200 and 206 responses ("plain heads") without aiohttp.

Stores answer nearly every request with a plain head. aiohttp's parser handles all other heads.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Stricter than aiohttp's parser, also in the length and the number of header lines.
_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 (20[06]) [\t -~]{0,8000}+\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}+:[\t -~]{0,8000}+\r\n){1,100}+)\r\n"
)
_STATUS_LINES = (b"HTTP/1.1 200 ", b"HTTP/1.1 206 ")
LENGTH = re.compile("[0-9]{1,19}")
_UNUSUAL_HEADERS = {"transfer-encoding", "upgrade", "proxy-connection"}
_IS_REUSABLE = {"keep-alive": True, "close": False}


@dataclass(slots=True)
class PlainHead:
    """The head of a 200 or 206 whose body has a stated length."""

    status: int
    headers: dict[str, str]
    length: int
    is_reusable: bool
    """Whether the connection may serve another request after the body."""


def can_become_plain(buffer: bytearray, end: int) -> bool:
    """Return whether the first `end` bytes can be the beginning of a plain head."""
    begun = bytes(buffer[: min(end, len(_STATUS_LINES[0]))])
    has_bare_lf = buffer.count(b"\n", 0, end) > buffer.count(b"\r\n", 0, end)
    is_status_line = any(line.startswith(begun) for line in _STATUS_LINES)
    return end < len(buffer) and is_status_line and not has_bare_lf


def parse_plain_head(buffer: bytearray, end: int, method: str) -> PlainHead | None:
    """Return the head in the first `end` bytes; None if aiohttp must parse it instead."""
    head = _PLAIN_HEAD.fullmatch(buffer, 0, end)
    if head is None:
        return None
    lines = head[2].decode().split("\r\n")[:-1]
    headers = join_headers([line.partition(":")[::2] for line in lines])
    is_reusable = _IS_REUSABLE.get(headers.get("connection", "keep-alive").lower())
    stated = headers.get("content-length", "")
    if is_reusable is None or not LENGTH.fullmatch(stated) or _UNUSUAL_HEADERS & headers.keys():
        return None
    length = 0 if method == "HEAD" else int(stated)
    return PlainHead(int(head[1]), headers, length, is_reusable=is_reusable)


def join_headers(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers with names in lower case; commas join the values of a repeated name."""
    headers: dict[str, str] = {}
    for given, spaced in fields:
        name, value = given.lower(), spaced.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def join_raw_headers(fields: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Do as `join_headers` for aiobotocore, which keeps only the last of a repeated name."""
    joined = join_headers((name.decode(), value.decode()) for name, value in fields)
    return tuple((name.encode(), value.encode()) for name, value in joined.items())
