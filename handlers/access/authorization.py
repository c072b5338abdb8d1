"""Authorizes a download by its bearer token, signed URL, or the host's `authorize`."""

import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Scope

from ..errors import NotAllowed, NotAuthorized, NoToken, NotSigned
from ..settings import Settings
from ..telemetry.request_id import get_request_id
from .signed_url import rejection_reason

_BEARER = re.compile(rb"bearer +([^ ]+)", re.IGNORECASE)

logger = logging.getLogger("downspout")


def token_digests(tokens: Collection[str]) -> list[bytes]:
    """Return the digests of bearer tokens (RFC 6750), for `token_rejection_reason`.

    They have equal lengths, so that no comparison's time reveals a token's length.
    """
    return [sha256(token.encode()).digest() for token in tokens]


def token_rejection_reason(digests: list[bytes], scope: Scope) -> str | None:
    """Return why a request's bearer token is rejected (for the log), or None if it is valid."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    # Reject two Authorization headers: a proxy may have checked only the other one.
    bearer = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
    if bearer is None:
        return "no token"
    digest = sha256(bearer[1]).digest()
    # Compare with all tokens: the time until a match would reveal which token it is.
    matches = [hmac.compare_digest(digest, one) for one in digests]
    return None if any(matches) else "wrong token"


class Access:
    """The access rule of one application: one valid credential is enough.

    Requests are checked before they get a slot or reach the store, so that a rejection is cheap
    and does not reveal whether the object exists.
    """

    def __init__(
        self, settings: Settings, authorize: Callable[[Request], Awaitable[bool]] | None
    ) -> None:
        self._tokens = token_digests(settings.access_tokens)
        self._metrics_tokens = token_digests(settings.metrics_tokens)
        self._keys = dict(key.split(":", 1) for key in settings.url_signing_keys)
        self._max_lifetime = settings.url_max_lifetime
        self._authorize = authorize
        self._has_application = settings.auth_url is not None
        error_403 = NotAuthorized if authorize else NotSigned
        self._error_401_or_403 = NotAllowed if self._tokens else error_403

    @property
    def is_open(self) -> bool:
        """Whether downloads need no credential."""
        return not (self._tokens or self._keys or self._authorize or self._has_application)

    async def check(
        self, scope: Scope, ask_application: Callable[[Scope], Awaitable[None]]
    ) -> None:
        """Return if the request of a download is authorized, else raise an error.

        `ask_application` raises an error unless the application at AUTH_URL allows the download.
        Raises that error, NotAllowed (401), NotSigned or NotAuthorized (403), or any error of
        `authorize`.
        """
        reasons: list[str | None] = []  # why each credential is rejected; None for a valid one
        if self._tokens:
            reasons.append(token_rejection_reason(self._tokens, scope))
        if self._keys:
            path = scope["route"].path.format(**scope["path_params"])
            query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            reasons.append(rejection_reason(self._keys, path, query, self._max_lifetime))
        if None in reasons:
            return
        if self._authorize is not None:
            if await self._authorize(Request(scope)):
                return
            reasons.append("the host's authorize returned false")
        if self._has_application:
            await ask_application(scope)
        elif reasons:
            raise self._error_401_or_403(", ".join(filter(None, reasons)))

    def check_metrics(self, scope: Scope) -> None:
        """Raise NoToken (401) if METRICS_TOKENS is set and the request has none of the tokens."""
        tokens = self._metrics_tokens
        if tokens and (reason := token_rejection_reason(tokens, scope)):
            request_id = get_request_id(scope)
            logger.info("request for /metrics refused (%s) request_id=%s", reason, request_id)
            raise NoToken(reason)
