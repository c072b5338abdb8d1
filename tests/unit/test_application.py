"""The cache of the answers of AUTH_URL that allow a download: its bound and its times."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.access.application import MAX_CACHED, AuthApplication
from handlers.errors import NotAuthorized

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "scheme": "http",
    "path": "/tasks/7/image",
    "raw_path": b"/tasks/7/image",
    "headers": [(b"host", b"a.test")],
    "client": ("127.0.0.1", 1),
    "downspout.request_id": "r",
}


@dataclass
class FakeRemote:
    """Counts the requests to the application, and answers each with `status`."""

    status: int = 204
    asked: list[Mapping[str, str]] = field(default_factory=list)

    async def request(self, owner: ExitStack, method: str, headers: Mapping[str, str]) -> Any:
        self.asked.append(headers)
        return SimpleNamespace(status=self.status, headers={})


@dataclass
class Clock:
    """Replaces the module `time` in the application's module only: event loops need the other."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("handlers.access.application.time", clock)
    return clock


def make_application(seconds: float) -> tuple[AuthApplication, FakeRemote]:
    remote: Any = FakeRemote()
    return AuthApplication(remote, timeout=10, cache_seconds=seconds), remote


def make_scope(query: int) -> dict[str, Any]:
    return {**SCOPE, "query_string": str(query).encode()}


async def test_oldest_yes_is_dropped_when_10000_are_cached() -> None:
    """A client that requests more and more URLs cannot fill the memory."""
    application, remote = make_application(3600)
    assert MAX_CACHED == 10_000
    for query in range(10_000):
        await application.check(make_scope(query))
    await application.check(make_scope(0))
    assert len(remote.asked) == 10_000
    await application.check(make_scope(10_000))
    await application.check(make_scope(1))
    assert len(remote.asked) == 10_001
    assert len(application._allowed_until) == 10_000
    await application.check(make_scope(0))
    assert len(remote.asked) == 10_002


async def test_yes_asked_for_again_is_not_the_oldest(clock: Clock) -> None:
    """An answer that has expired is cached anew after the application repeats it."""
    application, remote = make_application(10)
    for query in range(10_000):
        await application.check(make_scope(query))
    clock.now += 10
    await application.check(make_scope(0))
    assert len(remote.asked) == 10_001
    await application.check(make_scope(10_000))  # drops 1
    await application.check(make_scope(0))
    assert len(remote.asked) == 10_002
    assert len(application._allowed_until) == 10_000


async def test_yes_counts_from_the_question(clock: Clock) -> None:
    """AUTH_CACHE_SECONDS begin when the application is asked, not when it answers."""
    application, remote = make_application(10)
    for later, asked in ((0, 1), (9.9, 1), (10.1, 2), (20, 2), (20.2, 3)):
        clock.now = 1000 + later
        await application.check(make_scope(0))
        assert len(remote.asked) == asked


@pytest.mark.parametrize("seconds", [0, 60])
async def test_no_takes_no_memory(seconds: float) -> None:
    """A refusal is not cached; without AUTH_CACHE_SECONDS no answer is."""
    application, remote = make_application(seconds)
    remote.status = 403
    for query in range(10):
        with pytest.raises(NotAuthorized):
            await application.check(make_scope(query))
    assert not application._allowed_until
    remote.status = 204
    await application.check(make_scope(0))
    assert len(application._allowed_until) == (1 if seconds else 0)


async def test_application_without_client_address_or_raw_path_is_asked() -> None:
    """Servers on a Unix socket know no address, and raw_path is optional in ASGI."""
    application, remote = make_application(60)
    scope = {**make_scope(1), "client": None, "path": "/tasks/7/ä b"}
    del scope["raw_path"]
    await application.check(scope)
    headers = remote.asked[0]
    assert "x-forwarded-for" not in headers
    assert headers["x-original-uri"] == "/tasks/7/%C3%A4%20b?1"
    assert headers["x-request-id"] == "r"
