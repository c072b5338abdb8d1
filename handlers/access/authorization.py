"""Who may download: who has a token or a signed address, or whom a host lets in; else all."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Collection
from hashlib import sha256
from typing import TypeAlias

from starlette.requests import Request

from ..errors import NotAllowed, NotAuthorized, NoToken, NotSigned
from ..telemetry.request_id import get_request_id
from .signed_url import SigningKey, rejection_reason

logger = logging.getLogger("downspout")

Authorize: TypeAlias = Callable[[Request], bool | Awaitable[bool]]
"""Return whether a request is let in; a plain function is called in a thread."""

_BEARER = re.compile(r"bearer +([^ ]+)", re.IGNORECASE)


class Tokens:
    """Some tokens, any of which will do."""

    def __init__(self, tokens: Collection[str]) -> None:
        # Of one length, so that the time to compare them tells nothing of theirs.
        self._digests = [sha256(token.encode()).digest() for token in tokens]

    def __len__(self) -> int:
        return len(self._digests)

    def rejection_reason(self, request: Request) -> str | None:
        """Return why a request has none of them, for the log alone; None where it has."""
        given = request.headers.getlist("authorization")
        bearer = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
        if bearer is None:
            return "no token"
        digest = sha256(bearer[1].encode("latin-1")).digest()
        # With all of them, whichever it is.
        found = [hmac.compare_digest(digest, one) for one in self._digests]
        return None if any(found) else "wrong token"


class Access:
    """What lets a request in.

    It is asked before anything else, a place included, so that its answer is the same whatever
    is at an address, and holds up nobody.
    """

    def __init__(
        self,
        tokens: Collection[str],
        signing_keys: Collection[str],
        *,
        longest: float,
        authorize: Callable[[Request], Awaitable[bool]] | None = None,
    ) -> None:
        self._tokens = Tokens(tokens)
        self._authorize = authorize
        self._keys = [SigningKey.of(key) for key in signing_keys]
        self._longest = longest

    @property
    def is_open(self) -> bool:
        """Whether everybody may download."""
        return not self._tokens and not self._keys and self._authorize is None

    async def check(self, request: Request) -> None:
        """Let a request of a download route in; raises NotAllowed, or what the host does."""
        problems = self._problems_of(request)
        if self._authorize is not None and (problems or not (self._tokens or self._keys)):
            if await self._authorize(request):
                return
            problems.append("the host did not let it in")
        if problems:
            raise self._refusal(", ".join(problems))

    def _problems_of(self, request: Request) -> list[str]:
        """Return why neither a token nor a signature lets a request in, if they do not."""
        problems: list[str] = []
        if self._tokens:
            problem = self._tokens.rejection_reason(request)
            if problem is None:
                return []
            problems.append(problem)
        if self._keys:
            path = request.scope["route"].path.format(**request.path_params)
            parameters = request.query_params.multi_items()
            problem = rejection_reason(self._keys, path, parameters, longest=self._longest)
            if problem is None:
                return []
            problems.append(problem)
        return problems

    def _refusal(self, log_text: str) -> NotAllowed:
        if self._tokens:
            return NotAllowed(log_text)
        return NotAuthorized(log_text) if self._authorize else NotSigned(log_text)


def check_metrics(tokens: Tokens, request: Request) -> None:
    """Let a request see the figures; raises NotAllowed."""
    if tokens and (problem := tokens.rejection_reason(request)):
        logger.info("metrics refused (%s) request_id=%s", problem, get_request_id(request.scope))
        raise NoToken(problem)
