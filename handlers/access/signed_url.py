"""Signed URLs: anyone who has one may download from it until it expires.

The query parameters `expires` (seconds since 1970), `key` (the id of the signing key) and
`signature` (HMAC-SHA256 in base64url) sign the path and the `download` parameter, for GET and HEAD
with any range and condition. Other parameters are not signed. The signed path leaves out the path
at which a host mounts the application: two applications with different objects need two keys.
"""

import hmac
import math
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

_SIGNATURE = ("expires", "key", "signature")
_SECONDS = re.compile(r"[1-9][0-9]{0,11}")
_PAIR = re.compile(r"[A-Za-z0-9_-]{1,32}:[!-~]{16,}")

# The paths that can be signed.
_DOWNLOAD = re.compile(r"/tasks/[0-9]+/(?:image|bytes/[0-9]+)")

# The clock of the signing machine may be ahead of this machine's.
SKEW_SECONDS = 300


def sign_url(url: str, key: str, *, lifetime: float, root_path: str = "") -> str:
    """Return `url` (absolute, or a path) signed for `lifetime` seconds from now.

    `key` is written as in URL_SIGNING_KEYS, `id:secret`. `root_path` is the path under which the
    application is mounted, if it is. Raises ValueError if the signed URL would not be valid.
    """
    if not 1 <= lifetime < math.inf:
        raise ValueError("the lifetime must be at least 1 second, and finite")
    if not _PAIR.fullmatch(key):
        raise ValueError("a key must be id:secret, with a secret of at least 16 characters")
    key_id, secret = key.split(":", 1)
    parts = urlsplit(url)
    is_absolute = parts.scheme in ("http", "https") and parts.netloc
    is_relative = not (parts.scheme or parts.netloc)
    root = root_path.rstrip("/")
    path = unquote(parts.path)
    if not (is_absolute or is_relative) or not path.startswith(root):
        raise ValueError(f"{url}: must be an http or https URL, or a path, under {root or '/'}")
    path = path.removeprefix(root)
    if not _DOWNLOAD.fullmatch(path):
        raise ValueError(f"{url}: must be the URL of a download, such as {root}/tasks/1/image")
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in parameters]
    if set(names) & set(_SIGNATURE) or names.count("download") > 1:
        raise ValueError(f"{url}: has a signature already, or two download names")
    expires = int(time.time() + lifetime)
    signature = make_signature(secret, path, expires, dict(parameters).get("download"))
    parameters += zip(_SIGNATURE, (str(expires), key_id, signature), strict=True)
    return parts._replace(query=urlencode(parameters), fragment="").geturl()


def make_signature(secret: str, path: str, expires: int, download: str | None) -> str:
    """Return the signature of a percent-decoded path, without the mount path."""
    # No quoted line contains a line break, so that no two URLs have the same signed text.
    lines = [
        "downspout 1",
        "GET",
        quote(path, errors="replace"),
        str(expires),
        "" if download is None else f"download={quote(download, errors='replace')}",
    ]
    digest = hmac.digest(secret.encode(), "\n".join(lines).encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def rejection_reason(
    keys: Mapping[str, str], path: str, query: Sequence[tuple[str, str]], *, max_lifetime: float
) -> str | None:
    """Return why a URL's signature is rejected (for the log), or None if it is valid.

    `keys` maps the id of each key to its secret. `path` is percent-decoded, without the mount
    path. `max_lifetime` is in seconds from now.
    """
    signed = [(name, value) for name, value in query if name in (*_SIGNATURE, "download")]
    found = dict(signed)
    if len(found) < len(signed):
        return "signature parameter given twice"
    if not _SECONDS.fullmatch(found.get("expires", "")):
        return "no signature"
    expires = int(found["expires"])
    key_id = found.get("key", "")
    # Take as long for an unknown id as for a known one, so that time reveals no ids.
    secret = keys.get(key_id, next(iter(keys.values())))
    expected = make_signature(secret, path, expires, found.get("download"))
    given = found.get("signature", "").encode()
    if not hmac.compare_digest(expected.encode(), given) or key_id not in keys:
        return "wrong signature"
    remaining = expires - time.time()
    if remaining <= 0:
        return "signature expired"
    if remaining > max_lifetime + SKEW_SECONDS:
        return "signature expires later than URL_MAX_LIFETIME allows"
    return None
