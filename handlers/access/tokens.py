"""Bearer tokens (RFC 6750): whether a request has a valid one."""

import hmac
import re
from collections.abc import Collection, Iterable
from hashlib import sha256

_BEARER = re.compile(rb"bearer +([^ ]+)", re.IGNORECASE)


class Tokens:
    """A set of tokens, each of which is valid."""

    def __init__(self, tokens: Collection[str]) -> None:
        # Digests have one length, so that the time of a comparison tells no token's length.
        self._digests = [sha256(token.encode()).digest() for token in tokens]

    def __len__(self) -> int:
        return len(self._digests)

    def rejection_reason(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return why a request's bearer token is rejected (for the log), or None if it is valid.

        `headers` are raw, as in an ASGI scope.
        """
        values = [value for name, value in headers if name == b"authorization"]
        # With two headers, a proxy before this service may have checked the other one.
        bearer = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
        if bearer is None:
            return "no token"
        digest = sha256(bearer[1]).digest()
        # Compare with all tokens: stopping at a match would tell which one it is.
        matches = [hmac.compare_digest(digest, one) for one in self._digests]
        return None if any(matches) else "wrong token"
