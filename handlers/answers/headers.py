"""Which headers of a stored object go out, and how: by allow-list, values checked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from functools import lru_cache
from urllib.parse import quote

from ..body.checksums import repr_digest
from ..rfc9110.conditions import Validators

# What RFC 9110 says of the bytes themselves. Nothing of the store's own (x-amz-*, server), of
# its connection, and no cookie.
_STORED = ("cache-control", "expires")

# A value that could not be a header (RFC 9110, 5.5) is dropped: uvicorn would answer nothing at
# all to CR or LF, and 500 to what is not latin-1.
_SANE_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")

_TCHARS = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_QUOTED = r'"[\t \x21\x23-\x2b\x2d-\x5b\x5d-\x7e]*"'
_TOKENS = re.compile(rf"{_TCHARS}(?:[ \t]*,[ \t]*{_TCHARS})*")

# Of a list, browsers take the last type: what has a comma in it is none of the inert ones.
_PARAMETER = rf"[ \t]*;[ \t]*{_TCHARS}=(?:{_TCHARS}|{_QUOTED})"
_TYPE = re.compile(rf"({_TCHARS}/{_TCHARS})(?:{_PARAMETER})*")

# Types that no browser runs. Everything else is handed over as a file, in a sandbox: an SVG or
# HTML object would otherwise run as a page of whatever site this service is a part of.
_INERT = re.compile(
    r"(?:image/(?!svg)|audio/|video/)(?!.*\+xml).+"
    r"|application/pdf|application/octet-stream|text/plain"
)
_SANDBOX = "sandbox; default-src 'none'"

MAX_NAME = 200  # characters: as much as file systems take, in most scripts
_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187, 3.2.1

# What S3 writes for an object that was stored without a type.
_NO_TYPE = ("", "binary/octet-stream")


# `private` with a list of fields lets the rest of an answer be stored.
_OF_SHARED = ("", "public", "private", "s-maxage", "proxy-revalidate", "must-understand")
_DIRECTIVE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')

_KEPT_WITHOUT_BODY = ("etag", "last-modified", "cache-control", "expires")


def download_headers(
    stored: Mapping[str, str],
    *,
    default_type: str,
    length: int | None = None,
    content_range: str | None = None,
    ranges: bool = False,
    download_name: str | None = None,
    default_cache_control: str | None = None,
    private: bool = False,
    metadata_names: Collection[str] = (),
) -> dict[str, str]:
    """Return the headers of an answer with a body of `length` bytes; `stored` has lower case.

    Caches that several people share may not have what is `private`.
    """
    headers = _stored_headers(stored, metadata_names)
    if default_cache_control:
        headers.setdefault("cache-control", default_cache_control)
    if private:
        headers["cache-control"] = private_cache_control(headers.get("cache-control", ""))
    if length is not None:
        headers["content-length"] = str(length)
    if ranges:
        headers["accept-ranges"] = "bytes"
    if content_range is not None:
        headers["content-range"] = content_range
    elif digest := repr_digest(stored):
        headers["repr-digest"] = digest
    headers |= type_headers(stored, default_type)
    if download_name is not None:
        headers["content-disposition"] = attachment(download_name)
    return headers


@lru_cache(maxsize=256)  # There are few of them.
def private_cache_control(stored: str) -> str:
    """Return a Cache-Control that keeps an answer out of shared caches (RFC 9111, 5.2.2.7).

    What may not be stored at all stays so; what is said to shared caches alone is dropped.
    """
    directives = [directive.strip(" \t") for directive in _DIRECTIVE.findall(stored)]
    names = [directive.partition("=")[0].rstrip(" \t").lower() for directive in directives]
    if "no-store" in names:
        return "no-store"  # Alone: must-understand would have caches ignore it.
    kept = [d for d, name in zip(directives, names, strict=True) if name not in _OF_SHARED]
    return ", ".join(["private", *kept])


def not_modified_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return those headers of a 200 that its 304 has to have, too (RFC 9110, 15.4.5)."""
    return {name: headers[name] for name in _KEPT_WITHOUT_BODY if name in headers}


def type_headers(stored: Mapping[str, str], default_type: str) -> dict[str, str]:
    """Return the content type of a stored object, and what keeps a browser from running it."""
    content_type = stored.get("content-type", "")
    if content_type in _NO_TYPE:
        content_type = default_type
    return _type_headers(content_type, stored.get("content-disposition", ""))


@lru_cache(maxsize=256)  # There are few of them.
def _type_headers(content_type: str, disposition: str) -> dict[str, str]:
    parsed = _TYPE.fullmatch(content_type) if _is_sane(content_type) else None
    if parsed is None:
        content_type = "application/octet-stream"
    headers = {"content-type": content_type, "x-content-type-options": "nosniff"}
    if not _is_sane(disposition):
        disposition = ""
    if parsed is None or not _INERT.fullmatch(parsed[1].lower()):
        headers["content-security-policy"] = _SANDBOX
        if not disposition.lower().startswith("attachment"):
            disposition = "attachment"
    return headers | ({"content-disposition": disposition} if disposition else {})


def attachment(name: str) -> str:
    """Return the Content-Disposition that has a browser save a body as `name` (RFC 6266).

    curl and old browsers know the plain form alone, others take the encoded one before it.
    """
    # A name is no path, whatever a client's system takes for a separator.
    name = re.split(r"[/\\]", name)[-1]
    # Nor may it look like another one: no controls, no marks that turn the writing around.
    name = "".join(char for char in name if unicodedata.category(char) not in ("Cc", "Cf"))
    name = name[:MAX_NAME].strip(" .")
    name = name.encode("utf-8", "ignore").decode()
    if not name:
        return "attachment"
    plain = re.sub(r'[^\x20-\x7e]|["%\\;]', "_", name)
    encoded = f"; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}" if plain != name else ""
    return f'attachment; filename="{plain}"{encoded}'


def _stored_headers(stored: Mapping[str, str], metadata_names: Collection[str]) -> dict[str, str]:
    current = Validators.from_headers(stored)
    headers: dict[str, str] = {}
    if current.etag is not None:
        headers["etag"] = current.etag
    if current.last_modified is not None:
        headers["last-modified"] = current.last_modified
    for name in (*_STORED, *(f"x-amz-meta-{name}" for name in metadata_names)):
        if name in stored and _is_sane(stored[name]):
            headers[name] = stored[name]
    if _TOKENS.fullmatch(language := stored.get("content-language", "")):
        headers["content-language"] = language
    if coding := _content_coding(stored.get("content-encoding", "")):
        headers["content-encoding"] = coding
    return headers


def _content_coding(stored: str) -> str:
    """Return the codings of the bytes themselves; "aws-chunked" was one of their upload alone."""
    if not stored:
        return ""
    codings = re.findall(_TCHARS, stored) if _TOKENS.fullmatch(stored) else []
    return ", ".join(c for c in codings if c.lower() not in ("aws-chunked", "identity"))


def _is_sane(value: str) -> bool:
    return _SANE_VALUE.fullmatch(value) is not None
