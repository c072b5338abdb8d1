"""The headers that describe an object: an allow-list of the upstream's, with checked values."""

import mimetypes
import re
import unicodedata
from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from pathlib import PurePosixPath
from urllib.parse import quote

from ..body.upstream import Upstream
from ..rfc9110.codings import TCHARS, TOKENS, content_codings

# The client gets these upstream headers unchanged. It never gets cookies, nor headers of the store
# itself (server, x-amz-*) or of its connection.
_STORED = ("cache-control", "expires")

# An invalid value (RFC 9110, 5.5) is dropped: uvicorn would cut the connection for CR or LF, and
# answer 500 for characters outside latin-1.
_VALID_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")

_QUOTED = r'"[\t \x21\x23-\x5b\x5d-\x7e]*"'

# A list of types must not match, since browsers use its last type; so commas are only in quotes.
_PARAMETER = rf"[ \t]*;[ \t]*{TCHARS}=(?:{TCHARS}|{_QUOTED})"
_TYPE = re.compile(rf"({TCHARS}/{TCHARS})(?:(?P<valid>(?:{_PARAMETER})*)|[ \t]*;.*)", re.DOTALL)

# Types in which no browser runs scripts. Other types are sent as an attachment in a sandbox: an
# SVG or HTML object would otherwise run as a page of the site that this service belongs to.
_INERT = re.compile(
    r"(?:image/(?!svg)|audio/|video/)(?!.*\+xml).+"
    r"|application/(?:pdf|octet-stream|(?:vnd\.apple\.|x-)mpegurl)|text/plain"
)
# Chromium takes an invalid type of a disposition, like "attachment, inline", for inline.
_ATTACHMENT = re.compile(r"attachment[ \t]*(?:;|\Z)", re.IGNORECASE)

_SANDBOX = "sandbox; default-src 'none'"

MAX_NAME = 200  # characters; most file systems take 255 bytes or characters
_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187, 3.2.1

# S3 sends binary/octet-stream for an object that was stored without a type.
_NO_TYPE = ("", "binary/octet-stream")

# Directives for shared caches; private="NAME" lets them store an answer without the header NAME.
_SHARED_DIRECTIVES = ("", "public", "private", "s-maxage", "proxy-revalidate", "must-understand")
_DIRECTIVE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')


def download_headers(
    upstream: Upstream,
    *,
    default_type: str,
    default_cache_control: str | None = None,
    metadata_names: Collection[str] = (),
) -> dict[str, str]:
    """Return the client's headers for the object of `upstream`: those that describe the object."""
    stored, current = upstream.headers, upstream.validators
    validators = {"etag": current.etag, "last-modified": current.last_modified}
    headers = {name: value for name, value in validators.items() if value is not None}
    for name in (*_STORED, *(f"x-amz-meta-{name}" for name in metadata_names)):
        if name in stored and _is_valid(stored[name]):
            headers[name] = stored[name]
    if default_cache_control:
        headers.setdefault("cache-control", default_cache_control)
    if TOKENS.fullmatch(language := stored.get("content-language", "")):
        headers["content-language"] = language
    if codings := content_codings(stored.get("content-encoding", "")):
        headers["content-encoding"] = ", ".join(codings)
    return headers | type_headers(stored, default_type)


@lru_cache(maxsize=256)
def private_cache_control(stored: str) -> str:
    """Make a Cache-Control private, so that no shared cache keeps the answer (RFC 9111)."""
    directives = [directive.strip(" \t") for directive in _DIRECTIVE.findall(stored)]
    names = [directive.partition("=")[0].rstrip(" \t").lower() for directive in directives]
    if "no-store" in names:
        return "no-store"  # must-understand beside it would make caches ignore it.
    kept = [d for d, name in zip(directives, names, strict=True) if name not in _SHARED_DIRECTIVES]
    return ", ".join(["private", *kept])


def type_headers(stored: Mapping[str, str], default_type: str) -> dict[str, str]:
    """Return the Content-Type of an object, with headers that keep a browser from running it."""
    found = stored.get("content-type", "")
    content_type = default_type if found in _NO_TYPE else found
    return dict(_type_headers(content_type, stored.get("content-disposition", "")))


@lru_cache(maxsize=256)
def _type_headers(content_type: str, disposition: str) -> Mapping[str, str]:
    parsed = _TYPE.fullmatch(content_type)
    if parsed is None:
        content_type = "application/octet-stream"
    elif parsed["valid"] is None:  # Send the type without its odd parameters.
        content_type = parsed[1]
    headers = {"content-type": content_type, "x-content-type-options": "nosniff"}
    if not _is_valid(disposition):
        disposition = ""
    if parsed is None or not _INERT.fullmatch(parsed[1].lower()):
        headers["content-security-policy"] = _SANDBOX
        if not _ATTACHMENT.match(disposition):
            disposition = "attachment"
    return headers | ({"content-disposition": disposition} if disposition else {})


def type_for_key(key: str) -> str:
    """Return the media type for the extension of a key, else application/octet-stream."""
    guessed, coding = _known_types().guess_type("name" + PurePosixPath(key).suffix, strict=False)
    return guessed if guessed and not coding else "application/octet-stream"


@cache
def _known_types() -> mimetypes.MimeTypes:
    return mimetypes.MimeTypes()  # Python's own table, not the one of this machine.


def attachment(name: str) -> str:
    """Return the Content-Disposition with which a client saves a body as `name` (RFC 6266).

    curl and old browsers read `filename`, other browsers prefer `filename*`.
    """
    # Keep the last segment of a path; both / and \ separate segments.
    name = re.split(r"[/\\]", name)[-1]
    # Remove control characters, and format characters that disguise a name.
    name = "".join(char for char in name if unicodedata.category(char) not in ("Cc", "Cf"))
    name = name[:MAX_NAME].strip(" .").encode("utf-8", "ignore").decode()
    if not name:
        return "attachment"
    plain = re.sub(r'[^\x20-\x7e]|["%\\;]', "_", name)
    encoded = f"; filename*=UTF-8''{quote(name, safe=_ATTR_CHAR)}" if plain != name else ""
    return f'attachment; filename="{plain}"{encoded}'


def _is_valid(value: str) -> bool:
    return _VALID_VALUE.fullmatch(value) is not None
