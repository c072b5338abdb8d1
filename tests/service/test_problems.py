"""Errors as problem documents, and request ids."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Message, Receive, Scope, Send

from handlers import create_app
from handlers.errors import AccessDenied, DownloadError, NotStarted
from handlers.telemetry.request_id import RequestId
from settings import Settings
from tests.support.client import fetch
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, serving_app, wait_until


def test_missing_object_returns_complete_problem_document(troubled: RunningService) -> None:
    """A problem document has all members, and the request id of its header."""
    answer = troubled.get("/tasks/1/image")
    problem = answer.json()
    assert problem == {
        "type": "urn:downspout:problem:not-found",
        "title": "Not found",
        "status": 404,
        "detail": "There is nothing to download at this URL.",
        "request_id": answer.headers["x-request-id"],
        "retryable": False,
    }
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.endswith("}\n")


@pytest.mark.parametrize("path", ["/tasks/1/image", "/nothing", "/healthz", "/"])
def test_valid_request_id_is_echoed(troubled: RunningService, path: str) -> None:
    """Every answer has the X-Request-ID of its request."""
    answer = troubled.get(path, headers={"x-request-id": "01J-abc_.:7"})
    assert answer.headers["x-request-id"] == "01J-abc_.:7"


@pytest.mark.parametrize("given", ["", "a b", "a" * 129, "caf\xe9", '"><script>'])
def test_invalid_request_id_is_replaced(troubled: RunningService, given: str) -> None:
    """An invalid X-Request-ID is replaced by a generated one."""
    answer = troubled.get("/healthz", headers={"x-request-id": given.encode("latin-1")})
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-request-id"].isalnum()


def test_unexpected_exception_returns_500_without_details(
    troubled: RunningService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception is a 500 whose body does not describe the exception."""

    def mistake(*_: object) -> int:
        raise ZeroDivisionError("SECRET")

    monkeypatch.setattr("handlers.image.parse_task_id", mistake)
    answer = troubled.get("/tasks/1/image")
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:downspout:problem:internal-error"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "SECRET" not in answer.text
    assert "ZeroDivisionError" not in answer.text
    request_id = answer.headers["x-request-id"]
    assert f"internal error: ZeroDivisionError request_id={request_id}" in caplog.text


def subclasses(base: type[DownloadError]) -> set[type[DownloadError]]:
    below = set(base.__subclasses__())
    return below.union(*(subclasses(one) for one in below))


def test_error_class_has_every_attribute() -> None:
    """Each error class has a status, a type, a title and a detail."""
    errors = subclasses(DownloadError)
    assert len(errors) >= 8
    for error in errors:
        assert 400 <= error.status < 600
        assert error.kind == error.kind.lower().replace(" ", "-")
        assert error.title
        assert error.detail.endswith((".", "yield"))
        assert error.retryable == (error.status in (429, 503, 504) and error.kind != "not-started")


def test_error_log_level_follows_the_status() -> None:
    """A 4xx logs at info and a 5xx at warning, with two exceptions."""
    louder = {AccessDenied: logging.WARNING, NotStarted: logging.ERROR}
    for error in subclasses(DownloadError):
        usual = logging.INFO if error.status < 500 else logging.WARNING
        assert error.log_level == louder.get(error, usual), error


def wait_for_log_lines(request_id: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Wait for the log lines of a request, which may come after its answer."""

    def found() -> list[str]:
        own_records = [record for record in caplog.records if record.name == "downspout"]
        messages = [record.getMessage() for record in own_records]
        return [line for line in messages if line.endswith(f"request_id={request_id}")]

    lines: list[str] = wait_until(found)
    return lines


def test_store_error_is_logged_and_not_sent(
    upstream: Misbehaving, troubled: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line has the store's error code, the answer has not."""
    caplog.set_level(logging.INFO, "downspout")

    async def refuse(exchange: Exchange) -> None:
        await exchange.error(403, "InvalidAccessKeyId")

    upstream.behaviour = refuse
    headers = {"x-request-id": "abc"}
    answer = troubled.get("/tasks/1/image?token=hush", headers=headers)
    [line] = wait_for_log_lines("abc", caplog)
    assert line.startswith("GET /tasks/1/image 502 failed (store answered 403 InvalidAccess")
    assert line.endswith("request_id=abc")
    assert "hush" not in line
    assert "InvalidAccess" not in answer.text


def test_path_with_line_break_is_one_log_line(
    troubled: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    """A path with a line break is quoted in the log."""
    caplog.set_level(logging.INFO, "downspout")
    fetch(troubled.port, "/tasks/1%0AGET%20/image")
    fetch(troubled.port, "/tasks/%0A1/image")
    wait_until(lambda: "GET /tasks/%0A1/image 404" in caplog.text)
    assert "\n1/image" not in caplog.text


def test_store_error_with_line_break_is_one_log_line(
    upstream: Misbehaving, troubled: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    """A store's error code is cut and kept on one log line."""
    caplog.set_level(logging.INFO, "downspout")

    async def forge(exchange: Exchange) -> None:
        await exchange.error(400, "Odd\nWARNING downspout: GET /forged" + "x" * 9000)

    upstream.behaviour = forge
    troubled.get("/tasks/1/image", headers={"x-request-id": "forged"})
    [line] = wait_for_log_lines("forged", caplog)
    assert "\n" not in line
    assert len(line) < 1000


def test_mounted_app_without_lifespan_returns_503() -> None:
    """Without the lifespan, a download is a 503 that shows the line of code to add."""
    downloads = create_app(Settings(s3_image_bucket="photos"))
    host = Starlette(routes=[Mount("/media", downloads)])
    with serving_app(host) as port:
        for path in ("/media/tasks/1/image", "/media/tasks/1/bytes/5"):
            received = fetch(port, path)
            assert received.status == 503
            assert b"downloads.router.lifespan_context(downloads)" in received.body
        assert fetch(port, "/media/readyz").status == 503
        assert fetch(port, "/media/healthz").status == 200


def test_nested_lifespan_shares_clients() -> None:
    """A nested lifespan uses the outer lifespan's clients, which the outer lifespan closes."""

    async def twice() -> None:
        app = create_app(Settings(s3_image_bucket="photos", s3_region="us-east-1"))
        lifespan = app.router.lifespan_context
        async with lifespan(app):
            first = app.state.http
            async with lifespan(app):
                assert app.state.http is first
            assert not first.closed
        assert first.closed
        assert not hasattr(app.state, "s3")

    asyncio.run(twice())


def test_overlapping_lifespans_close_clients_at_last_exit() -> None:
    """The clients stay open until the last lifespan exits, and can be opened again."""

    async def overlapping() -> None:
        app = create_app(Settings(s3_image_bucket="photos", s3_region="us-east-1"))
        lifespan = app.router.lifespan_context
        for _ in range(2):
            first, second = lifespan(app), lifespan(app)
            await asyncio.gather(first.__aenter__(), second.__aenter__())
            http = app.state.http
            await first.__aexit__(None, None, None)
            assert not http.closed
            await second.__aexit__(None, None, None)
            assert http.closed
            assert not hasattr(app.state, "s3")

    asyncio.run(overlapping())


def test_websocket_on_download_route_is_closed(troubled: RunningService) -> None:
    """A WebSocket connection to a download route is closed."""
    scope = {"type": "websocket", "path": "/tasks/1/image", "headers": [], "query_string": b""}
    sent: list[str] = []

    async def shake_hands() -> None:
        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: dict[str, str]) -> None:
            sent.append(message["type"])

        await troubled.app(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(shake_hands())
    assert sent == ["websocket.close"]


async def test_request_id_of_mounted_app_is_replaced() -> None:
    """An answer has only one X-Request-ID header."""
    sent: list[Message] = []

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-request-id", b"theirs"), (b"etag", b'"1"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def keep(message: Message) -> None:
        sent.append(message)

    async def nothing() -> Message:
        raise AssertionError

    given = [(b"x-request-id", b"ours")]
    await RequestId(answering)({"type": "http", "headers": given}, nothing, keep)
    assert sorted(sent[0]["headers"]) == [(b"etag", b'"1"'), (b"x-request-id", b"ours")]
