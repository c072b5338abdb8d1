"""The answers of the application at AUTH_URL, which authorizes downloads."""

import time
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
        headers = _describe(scope)
        # The application may decide by any of these headers.
        digest = sha256(repr(headers).encode()).digest()
        now = time.monotonic()
        if self._allowed_until.get(digest, 0.0) > now:
            return
        await self.client.ask({**headers, "x-request-id": get_request_id(scope)})
        if self.remember_seconds:
            self._allowed_until.pop(digest, None)
            self._allowed_until[digest] = now + self.remember_seconds
            if len(self._allowed_until) > MAX_REMEMBERED:
                del self._allowed_until[next(iter(self._allowed_until))]


def _describe(scope: Scope) -> dict[str, str]:
    """Return the headers that tell the application about a request, but for its id."""
    values: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        values.setdefault(name, []).append(value.decode(errors="replace"))
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope["query_string"]
    client = scope.get("client")
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
