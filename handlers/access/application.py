"""The application at AUTH_URL, which authorizes downloads by its answers."""

import asyncio
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from urllib.parse import quote

from starlette.types import Scope

from .. import errors
from ..sources.http import RemoteBody
from ..sources.response import FIXED_HEADERS
from ..telemetry.request_id import get_request_id

MAX_CACHED = 10_000  # answers; each takes 150 bytes
MAX_CHALLENGE = 4096  # characters of WWW-Authenticate; a longer one is not sent

_NOT_PRINTABLE_ASCII = re.compile("[^ -~]+")
_REFUSALS = {401: errors.NotAuthenticated, 403: errors.NotAuthorized}


@dataclass(slots=True)
class AuthApplication:
    """Asks the application about each download, and caches its answers that allow one."""

    remote: RemoteBody
    timeout: float
    """Seconds until the application answers, with the wait for a connection."""

    cache_seconds: float
    _allowed_until: dict[bytes, float] = field(default_factory=dict, init=False)
    """When a cached answer expires, by time.monotonic(), for the digest of a request's headers;
    the oldest answer is the first."""

    async def check(self, scope: Scope) -> None:
        """Return if the application allows the download, by a 2xx.

        Raises NotAuthenticated for a 401, NotAuthorized for a 403, UpstreamTimeout, or BadUpstream
        for all else. The body of the answer is not read.
        """
        headers = _auth_headers(scope)
        # The application may decide by any of these headers.
        digest = sha256(repr(headers).encode()).digest()
        now = time.monotonic()
        if self._allowed_until.get(digest, 0.0) > now:
            return
        await self._ask({**headers, "x-request-id": get_request_id(scope), **FIXED_HEADERS})
        if self.cache_seconds:
            self._allowed_until.pop(digest, None)
            self._allowed_until[digest] = now + self.cache_seconds
            if len(self._allowed_until) > MAX_CACHED:
                del self._allowed_until[next(iter(self._allowed_until))]

    async def _ask(self, headers: dict[str, str]) -> None:
        with ExitStack() as owner:
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await self.remote.request(owner, "GET", headers)
            except TimeoutError as error:
                text = f"AUTH_URL: no answer within {self.timeout:g} s"
                raise errors.UpstreamTimeout(text) from error
            except errors.DownloadError as error:
                text = f"AUTH_URL: {str(error).removeprefix('upstream: ')}"
                raise type(error)(text) from error
        status = answer.status
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        refusal = _REFUSALS.get(status, errors.BadUpstream)(f"AUTH_URL answered {status}")
        challenge = _NOT_PRINTABLE_ASCII.sub("", answer.headers.get("www-authenticate", ""))
        if status in _REFUSALS and 0 < len(challenge) <= MAX_CHALLENGE:
            refusal.headers["www-authenticate"] = challenge
        raise refusal


def _auth_headers(scope: Scope) -> dict[str, str]:
    """Return the headers that describe a request to the application, without X-Request-ID."""
    values: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        values.setdefault(name, []).append(value.decode(errors="replace"))
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query, client = scope["query_string"], scope.get("client")
    headers = {
        "authorization": ", ".join(values.get(b"authorization", [])),
        # HTTP/2 splits cookies into several headers (RFC 9113, 8.2.3).
        "cookie": "; ".join(values.get(b"cookie", [])),
        "x-original-method": scope["method"],
        "x-original-uri": (path + b"?" * bool(query) + query).decode(errors="replace"),
        "x-forwarded-for": client[0] if client else "",
        "x-forwarded-proto": scope["scheme"],
        "x-forwarded-host": ", ".join(values.get(b"host", [])),
    }
    return {name: value for name, value in headers.items() if value}
