"""Who may download: whoever has a token or a signed address; everybody, where neither is set."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Collection
from hashlib import sha256

from starlette.requests import Request

from ._errors import NotAllowed, NoToken, NotSigned
from ._request_id import request_id_of
from ._signed_url import SigningKey, problem_of

logger = logging.getLogger("downspout")

_BEARER = re.compile(r"bearer +([^ ]+)", re.IGNORECASE)


class Tokens:
    """Some tokens, any of which will do."""

    def __init__(self, tokens: Collection[str]) -> None:
        # Of one length, so that the time to compare them tells nothing of theirs.
        self._digests = [sha256(token.encode()).digest() for token in tokens]

    def __len__(self) -> int:
        return len(self._digests)

    def problem_of(self, request: Request) -> str | None:
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
        self, tokens: Collection[str], signing_keys: Collection[str], *, longest: float
    ) -> None:
        self._tokens = Tokens(tokens)
        self._keys = [SigningKey.of(key) for key in signing_keys]
        self._longest = longest

    @property
    def is_open(self) -> bool:
        """Whether everybody may download."""
        return not self._tokens and not self._keys

    def check(self, request: Request) -> None:
        """Let a request of a download route in; raises NotAllowed."""
        problems: list[str] = []
        if self._tokens:
            problems += filter(None, [self._tokens.problem_of(request)])
            if not problems:
                return
        if self._keys:
            path = request.scope["route"].path.format(**request.path_params)
            parameters = request.query_params.multi_items()
            problem = problem_of(self._keys, path, parameters, longest=self._longest)
            if problem is None:
                return
            problems.append(problem)
        if problems:
            raise (NotAllowed if self._tokens else NotSigned)(", ".join(problems))


def check_metrics(tokens: Tokens, request: Request) -> None:
    """Let a request see the figures; raises NotAllowed."""
    if tokens and (problem := tokens.problem_of(request)):
        logger.info("metrics refused (%s) request_id=%s", problem, request_id_of(request.scope))
        raise NoToken(problem)
