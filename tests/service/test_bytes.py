"""The bytes route, before a real httpbin and before an upstream that misbehaves."""

from __future__ import annotations

import httpx
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
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving
from tests.support.serving import RunningService, ServiceWith, wait_until
from tests.support.stored import DATE, select


def test_bytes_are_the_upstreams(service: RunningService, httpbin_url: str) -> None:
    """As many bytes as the path says come, the very ones that the upstream gives."""
    expected = httpx.get(f"{httpbin_url}/stream-bytes/100000?seed=7", trust_env=False).content
    answer = service.get("/tasks/1/bytes/100000")
    assert answer.status_code == 200
    assert answer.headers["content-length"] == "100000"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == expected


@pytest.mark.parametrize("size", [0, 1, 102_400])
def test_bytes_at_the_edges(service: RunningService, size: int) -> None:
    """No bytes, one byte and the most that httpbin gives are whole answers."""
    answer = service.get(f"/tasks/1/bytes/{size}")
    assert (answer.status_code, len(answer.content)) == (200, size)


def test_upstream_that_gives_less_than_asked_is_never_a_whole_answer(
    service: RunningService,
) -> None:
    """Httpbin silently gives 102400 bytes of 200000: the transfer breaks visibly."""
    received = fetch(service.port, "/tasks/1/bytes/200000")
    assert received.status == 200
    assert received.headers["content-length"] == "200000"
    assert len(received.body) == 102_400
    assert not received.whole


def test_upstream_that_states_another_length_is_refused(
    httpbin_url: str, service_with: ServiceWith
) -> None:
    """Where the upstream says beforehand that it has other bytes, it is a 502."""
    stating = service_with(httpbin_url, bytes_url=httpbin_url + "/bytes/{size}")
    assert stating.get("/tasks/1/bytes/200000").status_code == 502
    assert stating.request("HEAD", "/tasks/1/bytes/200000").status_code == 502
    assert stating.get("/tasks/1/bytes/20000").status_code == 200


def test_head_asks_for_the_head_alone(upstream: Misbehaving, troubled: RunningService) -> None:
    """HEAD has the headers of GET, and the upstream is not asked for a body."""

    async def good(exchange: Exchange) -> None:
        await exchange.answer(200, BODY, "content-type: image/gif")

    upstream.behaviour = good
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
def test_body_that_goes_wrong_breaks_visibly(
    upstream: Misbehaving, service_with: ServiceWith, behaviour: Behaviour, http: str
) -> None:
    """Once the first byte is out, a wrong body ends as a transfer short of its length."""
    upstream.behaviour = behaviour
    service = service_with(http=http, upstream_read_timeout=0.3)
    received = fetch(service.port, "/tasks/1/bytes/1024")
    assert received.status == 200
    assert not received.whole
    assert BODY.startswith(received.body)
    wait_until(lambda: service.acquired_connections() == 0)


async def other_length(exchange: Exchange) -> None:
    await exchange.answer(200, BODY + b"x")


async def no_end_to_be_told(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.body(BODY)


async def encoded(exchange: Exchange) -> None:
    await exchange.answer(200, BODY, "content-encoding: gzip")


async def part_unasked(exchange: Exchange) -> None:
    await exchange.answer(206, BODY, "content-range: bytes 0-1023/4096")


async def nonsense(exchange: Exchange) -> None:
    await exchange.raw(b"what do you want?\r\n\r\n")


async def head_too_long(exchange: Exchange) -> None:
    await exchange.answer(200, BODY, "x-long: " + "a" * 9000)


def status(code: int, *lines: str) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(code, b"SECRET of the upstream", *lines)

    return behaviour


@pytest.mark.parametrize(
    ("behaviour", "answered"),
    [
        pytest.param(other_length, 502, id="other length"),
        pytest.param(no_end_to_be_told, 502, id="no end to be told"),
        pytest.param(encoded, 502, id="encoded unasked"),
        pytest.param(part_unasked, 502, id="part unasked"),
        pytest.param(nonsense, 502, id="nonsense"),
        pytest.param(head_too_long, 502, id="head too long"),
        pytest.param(status(404), 404, id="404"),
        pytest.param(status(401), 502, id="401"),
        pytest.param(status(403), 502, id="403"),
        pytest.param(status(418), 502, id="418"),
        pytest.param(status(429), 503, id="429"),
        pytest.param(status(500), 502, id="500"),
        pytest.param(status(503), 503, id="503"),
        pytest.param(status(504), 504, id="504"),
        pytest.param(status(304), 502, id="304"),
    ],
)
def test_answer_that_is_no_body(
    upstream: Misbehaving, troubled: RunningService, behaviour: Behaviour, answered: int
) -> None:
    """Each other answer of the upstream has its one answer here, with nothing of the upstream."""
    upstream.behaviour = behaviour
    answer = troubled.get("/tasks/1/bytes/1024")
    assert answer.status_code == answered
    assert answer.headers["content-type"] == "application/problem+json"
    assert "SECRET" not in answer.text
    assert str(upstream.port) not in answer.text
    wait_until(lambda: troubled.acquired_connections() == 0)


@pytest.mark.parametrize(
    ("given", "passed_on"), [("60", "60"), ("99999999", "3600"), ("soon", "1"), ("-1", "1")]
)
def test_retry_after_of_the_upstream(
    upstream: Misbehaving, troubled: RunningService, given: str, passed_on: str
) -> None:
    """An upstream's Retry-After is passed on where it is a sane number of seconds."""
    upstream.behaviour = status(503, f"retry-after: {given}")
    assert troubled.get("/tasks/1/bytes/1024").headers["retry-after"] == passed_on


def test_redirects_are_not_followed(upstream: Misbehaving, troubled: RunningService) -> None:
    """An upstream can't send us elsewhere."""
    upstream.behaviour = status(302, f"location: {upstream.url}/elsewhere")
    assert troubled.get("/tasks/1/bytes/1024").status_code == 502
    assert upstream.requests == ["GET /bytes/1/1024"]


def test_cookies_are_not_kept(upstream: Misbehaving, troubled: RunningService) -> None:
    """What the upstream sets for one request is not sent with the next, nor to the client."""

    async def with_cookie(exchange: Exchange) -> None:
        await exchange.answer(200, BODY, "set-cookie: session=secret; Path=/")

    upstream.behaviour = with_cookie
    first = troubled.get("/tasks/1/bytes/1024")
    troubled.get("/tasks/1/bytes/1024")
    assert "set-cookie" not in first.headers
    assert all("cookie" not in exchange.headers for exchange in upstream.exchanges)


def test_nothing_of_the_client_goes_to_the_upstream(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """The client's credentials, cookies and host stay here."""

    async def good(exchange: Exchange) -> None:
        await exchange.answer(200, BODY)

    upstream.behaviour = good
    headers = {"authorization": "Bearer x", "cookie": "a=b", "accept-encoding": "gzip, br"}
    troubled.get("/tasks/1/bytes/1024", headers=headers)
    sent = upstream.exchanges[0].headers
    assert set(sent) == {"host", "accept", "accept-encoding", "user-agent", "x-request-id"}
    assert sent["accept-encoding"] == "identity"
    assert sent["host"] == f"127.0.0.1:{upstream.port}"


def test_body_that_a_browser_could_run_goes_out_as_a_file(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """HTML of the upstream's is no page of ours."""

    async def page(exchange: Exchange) -> None:
        await exchange.answer(200, BODY, "content-type: text/html")

    upstream.behaviour = page
    headers = troubled.get("/tasks/1/bytes/1024").headers
    assert headers["content-disposition"] == "attachment"
    assert "sandbox" in headers["content-security-policy"]


def test_silent_upstream_is_504(upstream: Misbehaving, service_with: ServiceWith) -> None:
    """An upstream that does not begin to answer in time is a 504."""
    upstream.behaviour = Exchange.hang
    service = service_with(upstream_read_timeout=0.3)
    assert service.get("/tasks/1/bytes/1024").status_code == 504


def test_unreachable_upstream_is_502(unreachable_url: str, service_with: ServiceWith) -> None:
    """A refused connection is a 502."""
    service = service_with(unreachable_url)
    assert service.get("/tasks/1/bytes/1024").status_code == 502


def test_download_may_take_longer_than_any_timeout(
    upstream: Misbehaving, service_with: ServiceWith
) -> None:
    """Timeouts are for silence: a body that keeps moving is served to its end."""

    async def slow(exchange: Exchange) -> None:
        await exchange.head(200, "content-length: 1024")
        for start in range(0, 1024, 128):
            await exchange.body(BODY[start : start + 128])
            await exchange.pause(0.2)

    upstream.behaviour = slow
    service = service_with(upstream_read_timeout=0.8, first_byte_timeout=0.8)
    assert service.get("/tasks/1/bytes/1024").content == BODY


@pytest.mark.parametrize("size", ["1025", "9" * 18, "9" * 25, "9" * 5000])
def test_size_over_the_limit_is_400(
    upstream: Misbehaving, service_with: ServiceWith, size: str
) -> None:
    """A size over the limit is a 400 before anything is asked of the upstream."""
    service = service_with(bytes_max_size=1024)
    assert service.get(f"/tasks/1/bytes/{size}").status_code == 400
    assert upstream.exchanges == []


class Ranging:
    """An upstream that knows ranges and conditions as it should."""

    def __init__(self, etag: str = '"v1"', *, knows_if_range: bool = True) -> None:
        self.etag = etag
        self.knows_if_range = knows_if_range

    async def __call__(self, exchange: Exchange) -> None:
        lines = [f"etag: {self.etag}", f"last-modified: {DATE}", "accept-ranges: bytes"]
        headers = dict(exchange.headers)
        if headers.get("if-none-match") == self.etag:
            await exchange.answer(304, b"", *lines)
            return
        if not self.knows_if_range:
            headers.pop("if-range", None)
        found = select(headers, len(BODY), self.etag)
        body = BODY[found.first : found.end] if found.status < 400 else b"no"
        await exchange.answer(found.status, body, *found.content_range, *lines)


@pytest.mark.parametrize("knows_if_range", [True, False])
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
def test_ranges_and_conditions_are_the_upstreams(
    upstream: Misbehaving,
    troubled: RunningService,
    headers: dict[str, str],
    status: int,
    content_range: str | None,
    knows_if_range: bool,
) -> None:
    """What the client asks is passed on, and the upstream's 206, 304, 412 and 416 come back."""
    upstream.behaviour = Ranging(knows_if_range=knows_if_range)
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


def test_part_that_does_not_repeat_its_date(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """A 206 to If-Range by date need not say the date again (15.3.7): it is taken as it is."""

    async def terse(exchange: Exchange) -> None:
        await exchange.answer(206, BODY[:9], "content-range: bytes 0-8/*")

    upstream.behaviour = terse
    headers = {"range": "bytes=0-8", "if-range": DATE}
    answer = troubled.get("/tasks/1/bytes/1024", headers=headers)
    assert (answer.status_code, answer.content) == (206, BODY[:9])
    assert answer.headers["content-range"] == "bytes 0-8/1024"


@pytest.mark.parametrize("line", ["range: bytes=0-8", "if-range: x"])
def test_head_ignores_ranges(upstream: Misbehaving, troubled: RunningService, line: str) -> None:
    """HEAD asks for no range of the upstream, and has none."""
    upstream.behaviour = Ranging()
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
def test_part_that_makes_no_sense(
    upstream: Misbehaving, troubled: RunningService, code: int, lines: list[str], body: bytes
) -> None:
    """An answer to a range that is another's, or of another length, is a 502."""

    async def odd(exchange: Exchange) -> None:
        await exchange.answer(code, body, *lines)

    upstream.behaviour = odd
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
def test_answer_to_a_question_that_was_not_asked(
    upstream: Misbehaving,
    troubled: RunningService,
    code: int,
    headers: dict[str, str],
    lines: list[str],
) -> None:
    """A 304, 412 or 416 that can be no answer to the request is nonsense: a 502."""
    upstream.behaviour = status(code, *lines)
    assert troubled.get("/tasks/1/bytes/1024", headers=headers).status_code == 502


@pytest.mark.parametrize(
    ("headers", "passed_on"),
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
def test_only_sane_conditions_are_passed_on(
    upstream: Misbehaving,
    troubled: RunningService,
    headers: dict[str, str],
    passed_on: dict[str, str],
) -> None:
    """What an upstream could choke on is not passed on; what holds for the whole is."""
    upstream.behaviour = Ranging(knows_if_range=False)
    assert troubled.get("/tasks/1/bytes/1024", headers=headers).status_code == 200
    sent = upstream.exchanges[-1].headers
    conditional = {name for name in sent if name.startswith("if-")}
    assert {name: sent[name] for name in conditional} == passed_on


def test_upstream_that_ignores_ranges_is_relayed(service: RunningService) -> None:
    """Httpbin gives the whole to a Range; so does the service, and promises no ranges."""
    answer = service.get("/tasks/1/bytes/1024", headers={"range": "bytes=0-8"})
    assert (answer.status_code, len(answer.content)) == (200, 1024)
    assert "accept-ranges" not in answer.headers


def test_download_under_a_name(upstream: Misbehaving, troubled: RunningService) -> None:
    """?download=NAME makes a file of that name, in both spellings."""
    upstream.behaviour = Ranging()
    answer = troubled.get("/tasks/1/bytes/1024?download=B%C3%A4ume%20%22im%22%20Regen.bin")
    assert answer.headers["content-disposition"] == (
        'attachment; filename="B_ume _im_ Regen.bin"; '
        "filename*=UTF-8''B%C3%A4ume%20%22im%22%20Regen.bin"
    )


def test_upstream_hears_the_id_of_the_request(
    upstream: Misbehaving, troubled: RunningService
) -> None:
    """What went wrong there can be found in its log, too."""
    troubled.get("/tasks/1/bytes/5", headers={"x-request-id": "one", "range": "bytes=1-2"})
    assert [exchange.headers["x-request-id"] for exchange in upstream.exchanges] == ["one"]
    assert upstream.exchanges[0].headers["range"] == "bytes=1-2"
