"""Presigned S3 URLs: their parts, and their signature by the rules of Signature Version 4."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import reduce
from urllib.parse import quote, unquote, urlsplit


@dataclass(frozen=True)
class PresignedURL:
    """A presigned URL, without the fragment that it must not have."""

    url: str

    def __post_init__(self) -> None:
        assert "#" not in self.url
        assert "+" not in self.url, "some stores read a plus in a query as a space"

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        """The path, percent-encoded."""
        return urlsplit(self.url).path

    @property
    def query(self) -> dict[str, str]:
        """The decoded parameters of the query; each may occur only once."""
        pairs = [pair.partition("=") for pair in urlsplit(self.url).query.split("&")]
        found = {unquote(name): unquote(value) for name, _, value in pairs}
        assert len(found) == len(pairs), f"a parameter occurs twice: {self.url}"
        return found

    def computed_signature(self, secret: str) -> str:
        """Return the signature that the store computes for a GET of this URL.

        AWS documents the rules in "Authenticating Requests: Using Query Parameters".
        """
        query = self.query
        del query["X-Amz-Signature"]
        assert query["X-Amz-SignedHeaders"] == "host"
        _, *scope = query["X-Amz-Credential"].split("/")
        names = [(quote(name, safe=""), quote(value, safe="")) for name, value in query.items()]
        canonical_query = "&".join(f"{name}={value}" for name, value in sorted(names))
        lines = ["GET", self.path, canonical_query, f"host:{self.host}", "", "host"]
        request = "\n".join([*lines, "UNSIGNED-PAYLOAD"])
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"], "/".join(scope), digest])
        key = reduce(_hmac, scope, b"AWS4" + secret.encode())
        return _hmac(key, text).hex()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
