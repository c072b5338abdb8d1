"""Signed addresses: whoever has one may fetch what is at it, until it expires.

An address is signed by three parameters of its query: `expires`, in seconds since 1970, `key`,
the id of the key that it is signed with, and `signature`, an HMAC-SHA256 in base64url. It holds
for GET and HEAD, any range and any condition, of that path and that `download` name; other
parameters change nothing about an answer and are free. The path is the one within the
application, so that it stays good wherever that is mounted; so applications that serve different
things want different keys.
"""

from __future__ import annotations

import hmac
import math
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

# What may not stand twice in a query: which of the two was signed?
_MEANT = ("expires", "key", "signature", "download")

_SECONDS = re.compile(r"[1-9][0-9]{0,11}")

# What there is to sign.
_DOWNLOAD = re.compile(r"/tasks/[0-9]+/(?:image|bytes/[0-9]+)")
_PAIR = re.compile(r"[A-Za-z0-9_-]{1,32}:[!-~]{16,}")

# The clock of whoever signed may be ahead of ours.
SKEW_SECONDS = 300


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret, and the id that says in an address which one it is signed with."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def of(cls, pair: str) -> Self:
        """Return the key that is written as `id:secret`; raises ValueError."""
        if not _PAIR.fullmatch(pair):
            raise ValueError("a key must be id:secret, its secret of at least 16 characters")
        return cls(*pair.split(":", 1))

    def signature(self, path: str, expires: int, download: str | None) -> str:
        """Return what signs a path, unquoted, within an application."""
        # Quoted, none of them has a line break, so that no two are signed alike.
        lines = [
            "downspout 1",
            "GET",
            quote(path, errors="replace"),
            str(expires),
            "" if download is None else f"download={quote(download, errors='replace')}",
        ]
        digest = hmac.digest(self.secret.encode(), "\n".join(lines).encode(), "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


def sign_url(url: str, key: str, *, lifetime: float, root_path: str = "") -> str:
    """Return `url`, a whole one or a path, signed for `lifetime` seconds from now, at least 1.

    `key` is written as in URL_SIGNING_KEYS, `id:secret`. `root_path` is where in `url` the
    application begins, when it is mounted. Raises ValueError for what would not be good: where
    there is no download at `url`, or it has been signed.
    """
    if not 1 <= lifetime < math.inf:
        raise ValueError("an address must be good for a second at least, and not for ever")
    signing = SigningKey.of(key)
    parts = urlsplit(url)
    is_address = parts.scheme in ("http", "https") and parts.netloc
    root = root_path.rstrip("/")
    path = unquote(parts.path)
    if not (is_address or not (parts.scheme or parts.netloc)) or not path.startswith(root):
        raise ValueError(f"{url}: must be an http or https address, or a path, of {root or '/'}")
    path = path.removeprefix(root)
    if not _DOWNLOAD.fullmatch(path):
        raise ValueError(f"{url}: must lead to a download, such as {root}/tasks/1/image")
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in parameters]
    if set(names) & {"expires", "key", "signature"} or names.count("download") > 1:
        raise ValueError(f"{url}: has a signature already, or two names to download by")
    expires = int(time.time() + lifetime)
    signature = signing.signature(path, expires, dict(parameters).get("download"))
    signed = {"expires": str(expires), "key": signing.id, "signature": signature}
    return parts._replace(query=urlencode([*parameters, *signed.items()]), fragment="").geturl()


def rejection_reason(
    keys: Sequence[SigningKey], path: str, parameters: Sequence[tuple[str, str]], *, longest: float
) -> str | None:
    """Return why an address is not signed by one of `keys`, for the log alone; None where it is.

    `longest` is how many seconds from now an address may be good for.
    """
    meant = [(name, value) for name, value in parameters if name in _MEANT]
    found = dict(meant)
    if len(found) < len(meant):
        return "parameter of a signature given twice"
    if not _SECONDS.fullmatch(found.get("expires", "")):
        return "no signature"
    expires = int(found["expires"])
    named = [key for key in keys if key.id == found.get("key")]
    # An id that nobody has takes as long as one that somebody has.
    right = (named or keys)[0].signature(path, expires, found.get("download"))
    given = found.get("signature", "").encode()
    if not hmac.compare_digest(right.encode(), given) or not named:
        return "wrong signature"
    remaining = expires - time.time()
    if remaining <= 0:
        return "signature expired"
    if remaining > longest + SKEW_SECONDS:
        return "signature good for too long"
    return None
