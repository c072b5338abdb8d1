"""AWS Signature Version 4 of requests without a body, as S3 wants it.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

_ALGORITHM = "AWS4-HMAC-SHA256"
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class Credentials(Protocol):
    """An access key, as botocore has them frozen at a moment."""

    access_key: str
    secret_key: str
    token: str | None


class Signer:
    """Signs requests to the S3 of one region.

    Botocore's own signer derives the key anew for each request, which costs more than all the
    rest; here it is kept for as long as the day and the secret are the same.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._key_is_of = ("", "")
        self._key = b""

    def signed(
        self,
        method: str,
        host: str,
        path: str,
        headers: Mapping[str, str],
        *,
        credentials: Credentials,
        now: datetime,
    ) -> dict[str, str]:
        """Return `headers` with those that sign them; names are in lower case.

        `path` is percent-encoded as it is sent, and has no query; `host` has no default port;
        `now` is in UTC.
        """
        timestamp = (
            f"{now.year:04}{now.month:02}{now.day:02}T{now.hour:02}{now.minute:02}{now.second:02}Z"
        )
        signed = {
            **headers,
            "host": host,
            "x-amz-content-sha256": _EMPTY_SHA256,
            "x-amz-date": timestamp,
        }
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        names = sorted(signed)
        canonical_headers = "".join([f"{name}:{_trimmed(signed[name])}\n" for name in names])
        signed_names = ";".join(names)
        canonical = f"{method}\n{path}\n\n{canonical_headers}\n{signed_names}\n{_EMPTY_SHA256}"
        scope = f"{timestamp[:8]}/{self._region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"{_ALGORITHM}\n{timestamp}\n{scope}\n{digest}"
        signature = _hmac(self._key_for(timestamp[:8], credentials.secret_key), to_sign).hex()
        signed["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={signed_names}, Signature={signature}"
        )
        return signed

    def _key_for(self, day: str, secret: str) -> bytes:
        if self._key_is_of != (day, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = _hmac(key, part)
            self._key, self._key_is_of = key, (day, secret)
        return self._key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _trimmed(value: str) -> str:
    return " ".join(value.split()) if " " in value or "\t" in value else value
