"""Signed URLs: anyone who has one may download from it until it expires.

The query parameters `expires` (seconds since 1970), `key` (the id of the signing key) and
`signature` (HMAC-SHA256 in base64url) sign the path and the `download` parameter, for GET and HEAD
with any range and condition. If the URL has the parameter `prefix`, such as `/objects/videos/7/`,
the signature covers all paths that begin with the prefix, instead of one path. Other parameters
are not signed. The signed path leaves out the path at which a host mounts the application: two
applications with different objects need two keys.
"""

import hmac
import math
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ..sources.s3.names import check_key

_ADDED = ("prefix", "expires", "key", "signature")
_SECONDS = re.compile(r"[1-9][0-9]{0,11}")
_PAIR = re.compile(r"[A-Za-z0-9_-]{1,32}:[!-~]{16,}")

# The paths that can be signed; the group is an object's key, after the name of its root if any.
_DOWNLOAD = re.compile(r"/tasks/[0-9]+/(?:image|bytes/[0-9]+)|/objects/(.+)", re.DOTALL)

# The clock of the signing machine may be ahead of this machine's.
SKEW_SECONDS = 300


def sign_url(
    url: str, key: str, *, lifetime: float, root_path: str = "", prefix: str | None = None
) -> str:
    """Return `url` (absolute, or a path) signed for `lifetime` seconds from now.

    `key` is written as in URL_SIGNING_KEYS, `id:secret`. `root_path` is the path under which the
    application is mounted, if it is. `prefix` is a path within the application, such as
    `/objects/videos/7/`: the query of the signed URL is then valid for every URL below it. Raises
    ValueError if the signed URL would not be valid.
    """
    if not 1 <= lifetime < math.inf:
        raise ValueError("the lifetime must be at least 1 second, and finite")
    if not _PAIR.fullmatch(key):
        raise ValueError("a key must be id:secret, with a secret of at least 16 characters")
    key_id, secret = key.split(":", 1)
    parts, root = urlsplit(url), root_path.rstrip("/")
    path = _path_to_sign(url, root)
    if prefix is not None and not _is_below(prefix, path):
        raise ValueError(
            f"{prefix}: must be a beginning of {path} that is in /objects/ and ends in /"
        )
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in parameters]
    if set(_ADDED) & set(names) or names.count("download") > 1:
        raise ValueError(f"{url}: must have no {', '.join(_ADDED)}, and one download at most")
    expires = int(time.time() + lifetime)
    signature = make_signature(secret, path, expires, dict(parameters).get("download"), prefix)
    added = zip(_ADDED, (prefix, str(expires), key_id, signature), strict=True)
    parameters += [(name, value) for name, value in added if value is not None]
    signed = parts._replace(path=quote(root + path), query=urlencode(parameters), fragment="")
    return signed.geturl()


def _path_to_sign(url: str, root: str) -> str:
    """Return the percent-decoded path of `url` below `root`; raise ValueError if not signable."""
    parts = urlsplit(url)
    is_intact = not set("\t\r\n") & set(url)  # urlsplit removes these characters.
    is_absolute = parts.scheme in ("http", "https") and parts.netloc
    is_relative = not (parts.scheme or parts.netloc)
    path = unquote(parts.path, errors="surrogateescape")
    if not (is_intact and (is_absolute or is_relative) and path.startswith(root)):
        raise ValueError(f"{url}: must be an http or https URL, or a path, under {root or '/'}")
    path = path.removeprefix(root)
    download = _DOWNLOAD.fullmatch(path)
    if download is None:
        raise ValueError(f"{url}: must be the URL of a download, such as {root}/tasks/1/image")
    try:
        # The first segment may be the name of a root, which is not part of the key.
        for part in filter(None, (download[1] or "").partition("/")):
            check_key(part)
    except ValueError as error:
        raise ValueError(f"{url}: the key {error}") from None
    return path


def _is_below(prefix: str, path: str) -> bool:
    """Return whether `prefix` can be signed, and covers `path`."""
    return prefix.startswith("/objects/") and prefix.endswith("/") and path.startswith(prefix)


def make_signature(
    secret: str, path: str, expires: int, download: str | None, prefix: str | None = None
) -> str:
    """Return the signature of a percent-decoded path, without the mount path.

    With `prefix`, return the signature of all paths that begin with `prefix`.
    """
    # No quoted line contains a line break or "*", so that no two URLs have the same signed text.
    lines = [
        "downspout 1",
        "GET",
        quote(path, errors="replace") if prefix is None else f"{quote(prefix, errors='replace')}*",
        str(expires),
        "" if download is None else f"download={quote(download, errors='replace')}",
    ]
    digest = hmac.digest(secret.encode(), "\n".join(lines).encode(), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def rejection_reason(
    keys: Mapping[str, str], path: str, query: Sequence[tuple[str, str]], max_lifetime: float
) -> str | None:
    """Return why a URL's signature is rejected (for the log), or None if it is valid.

    `keys` maps the id of each key to its secret. `path` is percent-decoded, without the mount
    path. `max_lifetime` is in seconds from now.
    """
    signed = [(name, value) for name, value in query if name in ("download", *_ADDED)]
    found = dict(signed)
    if len(found) < len(signed):
        return "signature parameter given twice"
    if not _SECONDS.fullmatch(found.get("expires", "")):
        return "no signature"
    expires = int(found["expires"])
    key_id = found.get("key", "")
    # Take as long for an unknown id as for a known one, so that time reveals no ids.
    secret = keys.get(key_id, next(iter(keys.values())))
    prefix = found.get("prefix")
    expected = make_signature(secret, path, expires, found.get("download"), prefix)
    given = found.get("signature", "").encode()
    if not hmac.compare_digest(expected.encode(), given) or key_id not in keys:
        return "wrong signature"
    if prefix is not None and not _is_below(prefix, path):
        return "signature for another prefix"
    return _lifetime_rejection(expires - time.time(), max_lifetime)


def _lifetime_rejection(remaining: float, max_lifetime: float) -> str | None:
    if remaining <= 0:
        return "signature expired"
    if remaining > max_lifetime + SKEW_SECONDS:
        return "signature expires later than URL_MAX_LIFETIME allows"
    return None
