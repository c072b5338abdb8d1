"""AWS Signature Version 4 for S3 requests without a body.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from time import gmtime, strftime
from typing import Protocol

_ALGORITHM = "AWS4-HMAC-SHA256"
_EMPTY_SHA = hashlib.sha256(b"").hexdigest()


class Credentials(Protocol):
    """An access key with its secret; botocore's frozen credentials are of this type."""

    access_key: str
    secret_key: str
    token: str | None


def sign_request(
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
    *,
    region: str,
    credentials: Credentials,
    now: float,
) -> dict[str, str]:
    """Return `headers` with the headers of the signature added, names in lower case.

    `path` is percent-encoded and has no query; `host` omits a default port; `now` is in
    seconds since 1970.
    """
    timestamp = _timestamp(int(now))
    day = timestamp[:8]
    signed = {**headers, "host": host, "x-amz-content-sha256": _EMPTY_SHA, "x-amz-date": timestamp}
    if credentials.token:
        signed["x-amz-security-token"] = credentials.token
    names = sorted(signed)
    # Spaces around a value are not signed, and several spaces in it count as one.
    canonical_headers = "".join([f"{name}:{' '.join(signed[name].split())}\n" for name in names])
    signed_names = ";".join(names)
    canonical = f"{method}\n{path}\n\n{canonical_headers}\n{signed_names}\n{_EMPTY_SHA}"
    scope = f"{day}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"{_ALGORITHM}\n{timestamp}\n{scope}\n{digest}"
    mac = _signing_key(credentials.secret_key, day, region).copy()
    mac.update(to_sign.encode())
    signed["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={signed_names}, Signature={mac.hexdigest()}"
    )
    return signed


# Cached, since strftime costs more than the canonical request.
@lru_cache(maxsize=1)
def _timestamp(now: int) -> str:
    return strftime("%Y%m%dT%H%M%SZ", gmtime(now))


# Cached, since deriving the key costs more than the rest of signing.
@lru_cache(maxsize=64)
def _signing_key(secret: str, day: str, region: str) -> hmac.HMAC:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, digestmod="sha256")
