"""The answers of the application at AUTH_URL, which authorizes downloads."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import quote

from starlette.types import Scope

from ..sources.auth_client import AuthClient
from ..telemetry.request_id import get_request_id

MAX_REMEMBERED = 10_000  # requests; each takes 150 bytes


@dataclass(slots=True)
class Application:
    """Asks the application at AUTH_URL, and remembers for a time what it has allowed."""

    client: AuthClient
    remember_seconds: float

    _allowed_until: dict[bytes, float] = field(default_factory=dict, init=False)
    """By time.monotonic(), in the order of its values; the keys are digests of requests."""

    async def check(self, scope: Scope) -> None:
        """Return if the application allows the download; raise DownloadError as `ask` does."""
        headers = list(_auth_headers(scope))
        # The application may decide by any of these headers.
        digest = sha256(repr(headers).encode()).digest()
        now = time.monotonic()
        if self._allowed_until.get(digest, 0.0) > now:
            return
        await self.client.ask([*headers, ("x-request-id", get_request_id(scope))])
        if self.remember_seconds:
            self._allowed_until.pop(digest, None)
            self._allowed_until[digest] = now + self.remember_seconds
            if len(self._allowed_until) > MAX_REMEMBERED:
                del self._allowed_until[next(iter(self._allowed_until))]


def _auth_headers(scope: Scope) -> Iterator[tuple[str, str]]:
    """Yield the headers for AUTH_URL, but X-Request-ID."""
    sent = [(name, value.decode(errors="replace")) for name, value in scope["headers"]]
    yield from (("authorization", value) for name, value in sent if name == b"authorization")
    # HTTP/2 splits cookies into several headers (RFC 9113, 8.2.3).
    if cookies := [value for name, value in sent if name == b"cookie"]:
        yield "cookie", "; ".join(cookies)
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope["query_string"]
    uri = path + (b"?" + query if query else b"")
    yield "x-original-method", scope["method"]
    yield "x-original-uri", uri.decode("latin-1")
    if client := scope.get("client"):
        yield "x-forwarded-for", client[0]
    yield "x-forwarded-proto", scope["scheme"]
    yield from (("x-forwarded-host", value) for name, value in sent if name == b"host")
