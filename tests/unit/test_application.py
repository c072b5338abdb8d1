"""The memory of what the application at AUTH_URL has allowed: its bound and its times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from handlers.access.application import MAX_REMEMBERED, Application
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
class FakeClient:
    """Counts the requests to the application, and raises `error` if there is one."""

    asked: list[Sequence[tuple[str, str]]] = field(default_factory=list)
    error: Exception | None = None

    async def ask(self, headers: Sequence[tuple[str, str]]) -> None:
        self.asked.append(headers)
        if self.error:
            raise self.error


def make_application(seconds: float) -> tuple[Any, FakeClient]:
    client: Any = FakeClient()
    return Application(client, seconds), client


def make_scope(query: int) -> dict[str, Any]:
    return {**SCOPE, "query_string": str(query).encode()}


async def test_oldest_yes_is_forgotten_when_10000_are_remembered() -> None:
    """A client that asks for ever new URLs cannot fill the memory."""
    application, client = make_application(3600)
    assert MAX_REMEMBERED == 10_000
    for query in range(10_000):
        await application.check(make_scope(query))
    await application.check(make_scope(0))
    assert len(client.asked) == 10_000
    await application.check(make_scope(10_000))
    await application.check(make_scope(1))
    assert len(client.asked) == 10_001
    assert len(application._allowed_until) == 10_000
    await application.check(make_scope(0))
    assert len(client.asked) == 10_002


async def test_yes_asked_for_again_is_not_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A yes that has expired and is given again is as young as any."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    application, client = make_application(10)
    for query in range(10_000):
        await application.check(make_scope(query))
    now += 10
    await application.check(make_scope(0))
    assert len(client.asked) == 10_001
    await application.check(make_scope(10_000))  # drops 1
    await application.check(make_scope(0))
    assert len(client.asked) == 10_002
    assert len(application._allowed_until) == 10_000


async def test_yes_counts_from_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A yes that the application decided on before it answered is no younger for that."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    application, client = make_application(10)
    for later, asked in ((0, 1), (9.9, 1), (10.1, 2), (20, 2), (20.2, 3)):
        now = 1000 + later
        await application.check(make_scope(0))
        assert len(client.asked) == asked


@pytest.mark.parametrize("seconds", [0, 60])
async def test_no_takes_no_memory(seconds: float) -> None:
    """A refused client fills nothing, and without AUTH_CACHE_SECONDS nobody does."""
    application, client = make_application(seconds)
    client.error = NotAuthorized("AUTH_URL answered 403")
    for query in range(10):
        with pytest.raises(NotAuthorized):
            await application.check(make_scope(query))
    assert not application._allowed_until
    client.error = None
    await application.check(make_scope(0))
    assert len(application._allowed_until) == (1 if seconds else 0)


async def test_application_without_client_address_or_raw_path_is_asked() -> None:
    """Servers on a Unix socket know no address, and raw_path is optional in ASGI."""
    application, client = make_application(60)
    scope = {**make_scope(1), "client": None, "path": "/tasks/7/ä b"}
    del scope["raw_path"]
    await application.check(scope)
    headers = dict(client.asked[0])
    assert "x-forwarded-for" not in headers
    assert headers["x-original-uri"] == "/tasks/7/%C3%A4%20b?1"
    assert headers["x-request-id"] == "r"
