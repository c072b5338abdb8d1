"""Which headers of a stored object go out, and how: by allow-list, values checked."""

from __future__ import annotations

import re
from collections.abc import Mapping

# What RFC 9110 says of the bytes themselves. Nothing of the store's own (x-amz-*, server), of
# its connection, and no cookie.
_STORED = (
    "etag",
    "last-modified",
    "cache-control",
    "expires",
    "content-encoding",
    "content-language",
)

# A value that could not be a header (RFC 9110, 5.5) is dropped: uvicorn would answer nothing at
# all to CR or LF, and 500 to what is not latin-1.
_SANE_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")

_TYPE = re.compile(r"([a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+)(?:\s*;.*)?", re.IGNORECASE)

# Types that no browser runs. Everything else is handed over as a file, in a sandbox: an SVG or
# HTML object would otherwise run as a page of whatever site this service is a part of.
_INERT = re.compile(
    r"image/(?!svg)[^;]+|audio/.+|video/.+"
    r"|application/pdf|application/octet-stream|text/plain"
)
_SANDBOX = "sandbox; default-src 'none'"

# What S3 writes for an object that was stored without a type.
_NO_TYPE = ("", "binary/octet-stream")


def download_headers(
    stored: Mapping[str, str], *, length: int | None, default_type: str
) -> dict[str, str]:
    """Return the headers of a whole body of `length` bytes; `stored` has names in lower case."""
    headers = {name: stored[name] for name in _STORED if _is_sane(stored.get(name, ""))}
    if length is not None:
        headers["content-length"] = str(length)
    return headers | _type_headers(stored.get("content-type", ""), default_type)


def _type_headers(stored_type: str, default_type: str) -> dict[str, str]:
    content_type = default_type if stored_type in _NO_TYPE else stored_type
    parsed = _TYPE.fullmatch(content_type)
    if parsed is None or not _is_sane(content_type):
        content_type, essence = "application/octet-stream", ""
    else:
        essence = parsed[1].lower()
    headers = {"content-type": content_type, "x-content-type-options": "nosniff"}
    if not _INERT.fullmatch(essence):
        headers |= {"content-disposition": "attachment", "content-security-policy": _SANDBOX}
    return headers


def _is_sane(value: str) -> bool:
    return _SANE_VALUE.fullmatch(value) is not None
