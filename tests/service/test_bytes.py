"""The bytes route in front of a real httpbin and of a faulty upstream."""

from __future__ import annotations

import pytest

from tests.support.behaviours import (
    BODY,
    chunks_without_an_end,
    ends_short_of_its_length,
    falls_silent,
    longer_in_one_chunk,
    longer_than_asked,
    malformed_chunk,
    resets,
)
from tests.support.client import fetch
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving, answer_with
from tests.support.serving import RunningService, ServiceWith, http_get, wait_until
from tests.support.stored import DATE, select


def test_bytes_body_equals_upstream_body(service: RunningService, httpbin_url: str) -> None:
    """The body has the requested size and the upstream's bytes."""
    expected = http_get(f"{httpbin_url}/stream-bytes/100000?seed=7").content
    answer = service.get("/tasks/1/bytes/100000")
    assert answer.status_code == 200
    assert answer.headers["content-length"] == "100000"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == expected


@pytest.mark.parametrize("size", [0, 1, 102_400])
def test_smallest_and_largest_size_return_whole_body(service: RunningService, size: int) -> None:
    """Sizes 0, 1 and httpbin's maximum return the whole body."""
    answer = service.get(f"/tasks/1/bytes/{size}")
    assert (answer.status_code, len(answer.content)) == (200, size)


def test_upstream_body_shorter_than_requested_breaks_transfer(service: RunningService) -> None:
    """Httpbin silently sends 102400 of 200000 bytes, so the transfer breaks visibly."""
    received = fetch(service.port, "/tasks/1/bytes/200000")
    assert received.status == 200
    assert received.headers["content-length"] == "200000"
    assert len(received.body) == 102_400
    assert not received.whole


def test_upstream_content_length_mismatch_returns_502(
    httpbin_url: str, service_with: ServiceWith
) -> None:
    """An upstream Content-Length other than the requested size is a 502."""
    service = service_with(httpbin_url, bytes_url=httpbin_url + "/bytes/{size}")
    assert service.get("/tasks/1/bytes/200000").status_code == 502
    assert service.request("HEAD", "/tasks/1/bytes/200000").status_code == 502
    assert service.get("/tasks/1/bytes/20000").status_code == 200


def test_head_sends_upstream_head_request(upstream: Misbehaving, troubled: RunningService) -> None:
    """HEAD returns the headers of GET, and the upstream gets a HEAD request."""
    upstream.behaviour = answer_with(200, BODY, "content-type: image/gif")
    head = troubled.request("HEAD", "/tasks/1/bytes/1024")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == "1024"
    assert head.headers["content-type"] == "image/gif"
    assert upstream.requests == ["HEAD /bytes/1/1024"]


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize(
    "behaviour",
    [
        longer_than_asked,
        longer_in_one_chunk,
        chunks_without_an_end,
        ends_short_of_its_length,
        resets,
        falls_silent,
        malformed_chunk,
    ],
)
def test_faulty_upstream_body_breaks_transfer(
    upstream: Misbehaving, service_with: ServiceWith, behaviour: Behaviour, http: str
) -> None:
    """After the first byte, a faulty body ends as a transfer short of its Content-Length."""
    upstream.behaviour = behaviour
    service = service_with(http=http, upstream_read_timeout=0.3)
    received = fetch(service.port, "/tasks/1/bytes/1024")
    assert received.status == 200
    assert not received.whole
    assert BODY.startswith(received.body)
    wait_until(lambda: service.acquired_connections() == 0)


async def not_http(exchange: Exchange) -> None:
    await exchange.raw(b"what do you want?\r\n\r\n")


def respond(code: int, *lines: str) -> Behaviour:
    return answer_with(code, b"SECRET of the upstream", *lines)


@pytest.mark.parametrize(
    ("behaviour", "answered"),
    [
        pytest.param(answer_with(200, BODY + b"x"), 502, id="other length"),
        pytest.param(
            answer_with(206, BODY, "content-range: bytes 0-1023/4096"), 502, id="unrequested part"
        ),
        pytest.param(not_http, 502, id="not HTTP"),
        pytest.param(answer_with(200, BODY, "x-long: " + "a" * 9000), 502, id="head too long"),
        pytest.param(respond(404), 404, id="404"),
        pytest.param(respond(401), 502, id="401"),
        pytest.param(respond(403), 502, id="403"),
        pytest.param(respond(418), 502, id="418"),
        pytest.param(respond(429), 503, id="429"),
        pytest.param(respond(500), 502, id="500"),
        pytest.param(respond(503), 503, id="503"),
        pytest.param(respond(504), 504, id="504"),
        pytest.param(respond(304), 502, id="304"),
    ],
)
def test_unusable_upstream_response_returns_problem(
    upstream: Misbehaving, troubled: RunningService, behaviour: Behaviour, answered: int
) -> None:
    """Each unusable response maps to one status, and the problem has no upstream text."""
    upstream.behaviour = behaviour
    answer = troubled.get("/tasks/1/bytes/1024")
    assert answer.status_code == answered
    assert answer.headers["content-type"] == "application/problem+json"
    assert "SECRET" not in answer.text
    assert str(upstream.port) not in answer.text
    wait_until(lambda: troubled.acquired_connections() == 0)


@pytest.mark.parametrize(
    ("given", "forwarded"), [("60", "60"), ("99999999", "3600"), ("soon", "1"), ("-1", "1")]
)
def test_upstream_retry_after_is_forwarded_if_valid(
    upstream: Misbehaving, troubled: RunningService, given: str, forwarded: str
) -> None:
    """Retry-After is forwarded up to 3600 seconds; an invalid value becomes 1."""
    upstream.behaviour = respond(503, f"retry-after: {given}")
    assert troubled.get("/tasks/1/bytes/1024").headers["retry-after"] == forwarded


def test_upstream_redirect_is_not_followed_and_returns_502(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """An upstream cannot redirect the service to another host."""
    upstream.behaviour = respond(302, f"location: {upstream.url}/elsewhere")
    assert troubled.get("/tasks/1/bytes/1024").status_code == 502
    assert upstream.requests == ["GET /bytes/1/1024"]


def test_upstream_cookie_is_neither_stored_nor_forwarded(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """Set-Cookie reaches neither the next upstream request nor the client."""
    upstream.behaviour = answer_with(200, BODY, "set-cookie: session=secret; Path=/")
    first = troubled.get("/tasks/1/bytes/1024")
    troubled.get("/tasks/1/bytes/1024")
    assert "set-cookie" not in first.headers
    assert all("cookie" not in exchange.headers for exchange in upstream.exchanges)


def test_client_headers_are_not_forwarded(upstream: Misbehaving, troubled: RunningService) -> None:
    """The client's Authorization, Cookie, Accept-Encoding and Host are not forwarded."""
    upstream.behaviour = answer_with(200, BODY)
    headers = {"authorization": "Bearer x", "cookie": "a=b", "accept-encoding": "gzip, br"}
    troubled.get("/tasks/1/bytes/1024", headers=headers)
    sent = upstream.exchanges[0].headers
    assert set(sent) == {"host", "accept", "accept-encoding", "user-agent", "x-request-id"}
    assert sent["accept-encoding"] == "identity"
    assert sent["host"] == f"127.0.0.1:{upstream.port}"


def test_upstream_html_is_sent_as_attachment_in_sandbox(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """A browser must not render the upstream's HTML as a page of this site."""
    upstream.behaviour = answer_with(200, BODY, "content-type: text/html")
    headers = troubled.get("/tasks/1/bytes/1024").headers
    assert headers["content-disposition"] == "attachment"
    assert "sandbox" in headers["content-security-policy"]


def test_silent_upstream_returns_504(upstream: Misbehaving, service_with: ServiceWith) -> None:
    """An upstream that sends no response before the read timeout is a 504."""
    upstream.behaviour = Exchange.hang
    service = service_with(upstream_read_timeout=0.3)
    assert service.get("/tasks/1/bytes/1024").status_code == 504


def test_unreachable_upstream_returns_502(unreachable_url: str, service_with: ServiceWith) -> None:
    """A refused upstream connection is a 502."""
    service = service_with(unreachable_url)
    assert service.get("/tasks/1/bytes/1024").status_code == 502


def test_slow_body_longer_than_timeouts_completes(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """Timeouts limit silence, not the duration of a body that keeps arriving."""

    async def slow(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 1024")
        for start in range(0, 1024, 128):
            await exchange.body(BODY[start : start + 128])
            await exchange.pause(0.2)

    upstream.behaviour = slow
    service = service_with(upstream_read_timeout=0.8, first_byte_timeout=0.8)
    assert service.get("/tasks/1/bytes/1024").content == BODY


@pytest.mark.parametrize("size", ["1025", "9" * 18, "9" * 25, "9" * 5000])
def test_size_over_limit_returns_400(
    upstream: Misbehaving, service_with: ServiceWith, size: str
) -> None:
    """A size over BYTES_MAX_SIZE is a 400 without an upstream request."""
    service = service_with(bytes_max_size=1024)
    assert service.get(f"/tasks/1/bytes/{size}").status_code == 400
    assert upstream.exchanges == []


class RangeUpstream:
    """An upstream with ranges and conditions, and with If-Range if `supports_if_range`."""

    def __init__(self, etag: str = '"v1"', *, supports_if_range: bool = True) -> None:
        self.etag = etag
        self.supports_if_range = supports_if_range

    async def __call__(self, exchange: Exchange) -> None:
        lines = [f"etag: {self.etag}", f"last-modified: {DATE}", "accept-ranges: bytes"]
        headers = dict(exchange.headers)
        if headers.get("if-none-match") == self.etag:
            await exchange.answer(304, b"", *lines)
            return
        if not self.supports_if_range:
            headers.pop("if-range", None)
        found = select(headers, len(BODY), self.etag)
        body = BODY[found.first : found.end] if found.status < 400 else b"no"
        await exchange.answer(found.status, body, *found.content_range, *lines)


@pytest.mark.parametrize("supports_if_range", [True, False])
@pytest.mark.parametrize(
    ("headers", "status", "content_range"),
    [
        ({}, 200, None),
        ({"range": "bytes=0-8"}, 206, "bytes 0-8/1024"),
        ({"range": "bytes=1000-5000"}, 206, "bytes 1000-1023/1024"),
        ({"range": "bytes=-24"}, 206, "bytes 1000-1023/1024"),
        ({"range": "bytes=0-4,5-8"}, 206, "bytes 0-8/1024"),
        ({"range": "bytes=0-1,5-6"}, 200, None),
        ({"range": "bytes=5000-"}, 416, "bytes */1024"),
        ({"range": "bytes=-0"}, 416, "bytes */1024"),
        ({"range": "bytes=8-0"}, 200, None),
        ({"range": "bytes=0-8", "if-range": '"v1"'}, 206, "bytes 0-8/1024"),
        ({"range": "bytes=0-8", "if-range": DATE}, 206, "bytes 0-8/1024"),
        ({"range": "bytes=0-8", "if-range": '"v0"'}, 200, None),
        ({"range": "bytes=0-8", "if-range": 'W/"v1"'}, 200, None),
        ({"if-none-match": '"v1"'}, 304, None),
        ({"if-none-match": '"v0"'}, 200, None),
        ({"if-match": '"v1"'}, 200, None),
        ({"if-match": '"v0"'}, 412, None),
        ({"if-match": '"v0"', "range": "bytes=0-8"}, 412, None),
    ],
)
def test_ranges_and_conditions_return_upstream_status(
    upstream: Misbehaving,
    troubled: RunningService,
    headers: dict[str, str],
    status: int,
    content_range: str | None,
    supports_if_range: bool,
) -> None:
    """Ranges and conditions are forwarded, and the client gets the upstream's status."""
    upstream.behaviour = RangeUpstream(supports_if_range=supports_if_range)
    answer = troubled.get("/tasks/1/bytes/1024", headers=headers)
    assert answer.status_code == status
    assert answer.headers.get("content-range") == content_range
    if status in (200, 206, 304):
        assert answer.headers["etag"] == '"v1"'
        assert answer.headers["last-modified"] == DATE
    if status == 206:
        assert content_range is not None
        first, last = content_range.removeprefix("bytes ").split("/")[0].split("-")
        assert answer.content == BODY[int(first) : int(last) + 1]
    if status in (200, 206):
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-length"] == str(len(answer.content))
    if status == 304:
        assert answer.content == b""


def test_if_range_date_accepts_206_without_last_modified(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """A 206 to an If-Range date need not repeat Last-Modified (RFC 9110, 15.3.7)."""
    upstream.behaviour = answer_with(206, BODY[:9], "content-range: bytes 0-8/*")
    headers = {"range": "bytes=0-8", "if-range": DATE}
    answer = troubled.get("/tasks/1/bytes/1024", headers=headers)
    assert (answer.status_code, answer.content) == (206, BODY[:9])
    assert answer.headers["content-range"] == "bytes 0-8/1024"


@pytest.mark.parametrize("line", ["range: bytes=0-8", "if-range: x"])
def test_head_with_range_returns_200(
    upstream: Misbehaving, troubled: RunningService, line: str
) -> None:
    """HEAD forwards no Range to the upstream."""
    upstream.behaviour = RangeUpstream()
    name, _, value = line.partition(": ")
    answer = troubled.request("HEAD", "/tasks/1/bytes/1024", headers={name: value})
    assert answer.status_code == 200
    assert "range" not in upstream.exchanges[0].headers
    assert answer.headers["content-length"] == "1024"


@pytest.mark.parametrize(
    ("code", "lines", "body"),
    [
        (206, ["content-range: bytes 1-9/1024"], BODY[1:10]),
        (206, ["content-range: bytes 0-8/2048"], BODY[:9]),
        (206, ["content-range: bytes 0-8/1024"], BODY[:8]),
        (206, [], BODY[:9]),
        (200, [], BODY[:9]),
    ],
)
def test_range_response_mismatch_returns_502(
    upstream: Misbehaving, troubled: RunningService, code: int, lines: list[str], body: bytes
) -> None:
    """A response with a range or length other than the requested one is a 502."""
    upstream.behaviour = answer_with(code, body, *lines)
    answer = troubled.get("/tasks/1/bytes/1024", headers={"range": "bytes=0-8"})
    assert answer.status_code == 502


@pytest.mark.parametrize(
    ("code", "headers", "lines"),
    [
        (304, {}, []),
        (412, {}, []),
        (416, {}, []),
        (304, {"if-match": '"a"'}, []),
        (304, {"if-unmodified-since": "Mon, 23 Nov 2026 08:00:00 GMT"}, []),
        (304, {"if-none-match": '"a"'}, ['etag: "b"']),
        (412, {"if-none-match": '"a"'}, []),
        (416, {"range": "bytes=0-4"}, []),
    ],
)
def test_conditional_status_not_matching_request_returns_502(
    upstream: Misbehaving,
    troubled: RunningService,
    code: int,
    headers: dict[str, str],
    lines: list[str],
) -> None:
    """A 304, 412 or 416 that the request's headers cannot cause is a 502."""
    upstream.behaviour = respond(code, *lines)
    assert troubled.get("/tasks/1/bytes/1024", headers=headers).status_code == 502


@pytest.mark.parametrize(
    ("headers", "forwarded"),
    [
        ({"if-modified-since": "garbage"}, {}),
        ({"if-none-match": '"' + "a" * 9000 + '"'}, {}),
        ({"if-range": '"' + "a" * 9000 + '"', "range": "bytes=0-8"}, {}),
        ({"if-none-match": '"a", W/"b"'}, {"if-none-match": '"a", W/"b"'}),
        (
            {"if-range": '"v0"', "range": "bytes=0-8", "if-none-match": '"v9"'},
            {"if-none-match": '"v9"'},
        ),
    ],
)
def test_only_valid_conditions_are_forwarded(
    upstream: Misbehaving,
    troubled: RunningService,
    headers: dict[str, str],
    forwarded: dict[str, str],
) -> None:
    """Invalid and oversized conditions are dropped; a request for the whole has no If-Range."""
    upstream.behaviour = RangeUpstream(supports_if_range=False)
    assert troubled.get("/tasks/1/bytes/1024", headers=headers).status_code == 200
    sent = upstream.exchanges[-1].headers
    conditional = {name for name in sent if name.startswith("if-")}
    assert {name: sent[name] for name in conditional} == forwarded


def test_upstream_without_range_support_returns_full_200(service: RunningService) -> None:
    """Httpbin has no range support, so the client gets a 200 without Accept-Ranges."""
    answer = service.get("/tasks/1/bytes/1024", headers={"range": "bytes=0-8"})
    assert (answer.status_code, len(answer.content)) == (200, 1024)
    assert "accept-ranges" not in answer.headers


def test_download_parameter_sets_attachment_filename(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """?download=NAME sets `filename` and `filename*` of Content-Disposition."""
    upstream.behaviour = RangeUpstream()
    answer = troubled.get("/tasks/1/bytes/1024?download=B%C3%A4ume%20%22im%22%20Regen.bin")
    assert answer.headers["content-disposition"] == (
        'attachment; filename="B_ume _im_ Regen.bin"; '
        "filename*=UTF-8''B%C3%A4ume%20%22im%22%20Regen.bin"
    )


def test_request_id_is_forwarded_to_upstream(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """An operator can search the upstream's log for the request id."""
    troubled.get("/tasks/1/bytes/5", headers={"x-request-id": "one", "range": "bytes=1-2"})
    assert [exchange.headers["x-request-id"] for exchange in upstream.exchanges] == ["one"]
    assert upstream.exchanges[0].headers["range"] == "bytes=1-2"
