"""The rule who may download: a valid bearer token, a signed URL, or the host's `authorize`."""

import hmac
import logging
import re
from collections.abc import Collection, Iterable
from concurrent.futures import Executor
from hashlib import sha256
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Scope

from ..errors import NotAllowed, NotAuthorized, NoToken, NotSigned
from ..settings import Settings
from ..telemetry.request_id import get_request_id
from .hooks import Authorize, run_hook
from .signed_url import SigningKey, rejection_reason

_BEARER = re.compile(rb"bearer +([^ ]+)", re.IGNORECASE)

logger = logging.getLogger("downspout")


class Tokens:
    """A set of bearer tokens (RFC 6750), each of which is valid."""

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


class Access:
    """The access rule of one application: one valid credential is enough.

    The check precedes slot and store, so that a rejection costs little and is the same whether
    or not the object exists.
    """

    def __init__(self, settings: Settings, authorize: Authorize | None, threads: Executor) -> None:
        self._tokens = Tokens(settings.access_tokens)
        self._metrics_tokens = Tokens(settings.metrics_tokens)
        self._keys = [SigningKey.parse(key) for key in settings.url_signing_keys]
        self._max_lifetime = settings.url_max_lifetime
        self._authorize = authorize
        self._threads = threads
        without_tokens = NotAuthorized if authorize else NotSigned
        self._rejection = NotAllowed if self._tokens else without_tokens

    @property
    def is_open(self) -> bool:
        """Whether anybody may download."""
        return not self._tokens and not self._keys and self._authorize is None

    async def check(self, scope: Scope) -> None:
        """Check the request of a download route; return if it may download.

        Raises NotAllowed, NotSigned, NotAuthorized, or what the host's `authorize` raises.
        """
        reasons = self._rejection_reasons(scope)
        if self._authorize is not None and (reasons or not (self._tokens or self._keys)):
            if await run_hook(self._authorize, self._threads, Request(scope)):
                return
            reasons.append("not authorized by the host")
        if reasons:
            raise self._rejection(", ".join(reasons))

    def _rejection_reasons(self, scope: Scope) -> list[str]:
        """Return why token and signature are rejected; nothing if one of them is valid."""
        reasons: list[str] = []
        if self._tokens:
            if (reason := self._tokens.rejection_reason(scope["headers"])) is None:
                return []
            reasons.append(reason)
        if self._keys:
            path = scope["route"].path.format(**scope["path_params"])
            query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            reason = rejection_reason(self._keys, path, query, max_lifetime=self._max_lifetime)
            if reason is None:
                return []
            reasons.append(reason)
        return reasons

    def check_metrics(self, scope: Scope) -> None:
        """Raise NoToken unless a request may read the metrics; without tokens, any request may."""
        tokens = self._metrics_tokens
        if tokens and (reason := tokens.rejection_reason(scope["headers"])):
            logger.info("metrics refused (%s) request_id=%s", reason, get_request_id(scope))
            raise NoToken(reason)
