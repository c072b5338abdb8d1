"""Authorizes a download by its bearer token, signed URL, or the host's `authorize`."""

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
    """The bearer tokens (RFC 6750) that are valid."""

    def __init__(self, tokens: Collection[str]) -> None:
        # Digests have equal lengths, so that no comparison's time reveals a token's length.
        self._digests = [sha256(token.encode()).digest() for token in tokens]

    def __len__(self) -> int:
        return len(self._digests)

    def rejection_reason(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return why a request's bearer token is rejected (for the log), or None if it is valid.

        `headers` are raw, as in an ASGI scope.
        """
        values = [value for name, value in headers if name == b"authorization"]
        # Reject two Authorization headers: a proxy may have checked only the other one.
        bearer = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
        if bearer is None:
            return "no token"
        digest = sha256(bearer[1]).digest()
        # Compare with all tokens: the time until a match would reveal which token it is.
        matches = [hmac.compare_digest(digest, one) for one in self._digests]
        return None if any(matches) else "wrong token"


class Access:
    """The access rule of one application: one valid credential is enough.

    Requests are checked before they get a slot or reach the store, so that a rejection is cheap
    and does not reveal whether the object exists.
    """

    def __init__(self, settings: Settings, authorize: Authorize | None, threads: Executor) -> None:
        self._tokens = Tokens(settings.access_tokens)
        self._metrics_tokens = Tokens(settings.metrics_tokens)
        self._keys = [SigningKey.parse(key) for key in settings.url_signing_keys]
        self._max_lifetime = settings.url_max_lifetime
        self._authorize = authorize
        self._threads = threads
        error_403 = NotAuthorized if authorize else NotSigned
        self._error_401_or_403 = NotAllowed if self._tokens else error_403

    @property
    def is_open(self) -> bool:
        """Whether downloads need no credential."""
        return not self._tokens and not self._keys and self._authorize is None

    async def check(self, scope: Scope) -> None:
        """Return if the request of a download is authorized, else raise an error.

        Raises NotAllowed (401), NotSigned or NotAuthorized (403), or any error of `authorize`.
        """
        reasons = self._rejection_reasons(scope)
        if self._authorize is not None and (reasons or not (self._tokens or self._keys)):
            if await run_hook(self._authorize, self._threads, Request(scope)):
                return
            reasons.append("the host's authorize returned false")
        if reasons:
            raise self._error_401_or_403(", ".join(reasons))

    def _rejection_reasons(self, scope: Scope) -> list[str]:
        """Return why token and signature are rejected; an empty list if either is valid."""
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
        """Raise NoToken (401) if METRICS_TOKENS is set and the request has none of the tokens."""
        tokens = self._metrics_tokens
        if tokens and (reason := tokens.rejection_reason(scope["headers"])):
            logger.info("metrics refused (%s) request_id=%s", reason, get_request_id(scope))
            raise NoToken(reason)
