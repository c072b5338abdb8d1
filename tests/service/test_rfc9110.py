"""Ranges and conditions, row by row (RFC 9110, sections 13, 14 and 15), on a real S3 server.

The same requests go to nginx with the same file, if nginx is installed. If nginx gives another
answer, the row has the answer and the section of the RFC.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest

from tests.support.client import Received, connect, read_answer
from tests.support.components import Store
from tests.support.nginx import nginx_serving
from tests.support.serving import RunningService, wait_until

BODY = hashlib.shake_256(b"rfc 9110").digest(1000)
ETAG = f'"{hashlib.md5(BODY).hexdigest()}"'
CACHE = "max-age=60"


@dataclass(frozen=True)
class Row:
    """One request and its expected answer; `{L-2}` is Last-Modified minus two seconds."""

    number: int
    headers: tuple[str, ...] = ()
    status: int = 200
    content_range: str | None = None
    nginx: tuple[int, str] | None = None  # nginx's other answer, and the section of the RFC
    empty: bool = False


def part(first: int, last: int) -> str:
    return f"bytes {first}-{last}/1000"


INVALID = "14.2: an invalid ranges-specifier may be ignored, and the whole serves the client"
MANY_RANGES = (206, "14.2: many small ranges may be ignored")
IMS_IGNORED = "13.1.3: ignored beside If-None-Match"
IMS_EXACT = "13.1.3: nginx compares the date for equality unless told otherwise"

ROWS = [
    Row(1),
    Row(3, ("Range: bytes=0-8",), 206, part(0, 8)),
    Row(4, ("Range: bytes=0-0",), 206, part(0, 0)),
    Row(5, ("Range: bytes=990-",), 206, part(990, 999)),
    Row(6, ("Range: bytes=-10",), 206, part(990, 999)),
    Row(7, ("Range: bytes=-5000",), 206, part(0, 999)),
    Row(8, ("Range: bytes=0-",), 206, part(0, 999)),
    Row(9, ("Range: bytes=990-1990",), 206, part(990, 999)),
    Row(10, ("Range: bytes=999-999",), 206, part(999, 999)),
    Row(11, ("Range: bytes=1000-",), 416, "bytes */1000"),
    Row(12, ("Range: bytes=100000-200000",), 416, "bytes */1000"),
    Row(13, ("Range: bytes=-0",), 416, "bytes */1000"),
    Row(14, ("Range: bytes=5-4",), nginx=(416, INVALID)),
    Row(15, ("Range: bytes=abc",), nginx=(416, INVALID)),
    Row(15, ("Range: bytes=10",), nginx=(416, INVALID)),
    Row(15, ("Range: bytes=--6",), nginx=(416, INVALID)),
    Row(15, ("Range: bytes=0x1-2",), nginx=(416, INVALID)),
    Row(16, ("Range: bytes=",)),
    Row(17, ("Range: items=0-5",)),
    Row(18, ("Range: BYTES=0-1",), 206, part(0, 1)),
    Row(19, ("Range: bytes= 0-1",), 206, part(0, 1)),
    Row(19, ("Range: bytes=0-1 ",), 206, part(0, 1)),
    Row(20, ("Range: bytes=0-1,5-6",), 206),
    Row(20, ("Range: bytes=0-1,2-6",), 206, part(0, 6)),
    Row(20, ("Range: bytes=0-1,5000-",), 206, part(0, 1)),
    Row(20, ("Range: bytes=-0,5000-",), 416, "bytes */1000"),
    Row(21, ("Range: bytes=0-,1-,2-,3-,4-",)),
    Row(
        22, ("Range: bytes=" + ",".join(f"{n}-{n}" for n in range(0, 1000, 2)),), nginx=MANY_RANGES
    ),
    Row(22, ("Range: bytes=" + ",".join(["0-0"] * 5000),)),
    Row(23, ("Range: bytes=0-99999999999999999999",), 206, part(0, 999), nginx=(416, "14.1.1")),
    Row(24, ("Range: bytes=" + "9" * 5000 + "-",), 416, "bytes */1000"),
    Row(24, ("Range: bytes=-" + "9" * 5000,), 206, part(0, 999), nginx=(416, "14.1.1")),
    Row(
        25,
        ("Range: bytes=0-8", "Range: bytes=3-4"),
        nginx=(206, "5.3: not a list field: two lines of it are none"),
    ),
    Row(27, empty=True),
    Row(28, ("Range: bytes=0-10",), empty=True),
    Row(29, ("Range: bytes=-5",), empty=True),
    Row(30, ("If-None-Match: {E}",), 304),
    Row(31, ("If-None-Match: W/{E}",), 304),
    Row(32, ('If-None-Match: "x", {E} , "y"',), 304),
    Row(
        32, ('If-None-Match: "x"', "If-None-Match: {E}"), 304, nginx=(400, "5.3: lines of a list")
    ),
    Row(33, ("If-None-Match: *",), 304),
    Row(34, ('If-None-Match: "a"',)),
    Row(34, ("If-None-Match: ,",)),
    Row(34, ("If-None-Match: garbage",)),
    Row(35, ("If-Modified-Since: {L}",), 304),
    Row(35, ("If-Modified-Since: {L+60}",), 304, nginx=(200, IMS_EXACT)),
    Row(36, ("If-Modified-Since: {L-1}",)),
    Row(36, ("If-Modified-Since: not a date",)),
    Row(37, ('If-None-Match: "x"', "If-Modified-Since: {L}")),
    Row(38, ("If-None-Match: {E}", "If-Modified-Since: {L-60}"), 304, nginx=(200, IMS_IGNORED)),
    Row(39, ("If-Match: {E}",)),
    Row(39, ('If-Match: "x", {E}',)),
    Row(39, ("If-Match: *",)),
    Row(40, ('If-Match: "B"',), 412),
    Row(41, ("If-Match: W/{E}",), 412),
    Row(42, ("If-Unmodified-Since: {L-2}",), 412),
    Row(42, ("If-Unmodified-Since: {L}",)),
    Row(42, ("If-Unmodified-Since: not a date",), nginx=(412, "13.1.4: not a date: ignored")),
    Row(
        43, ("If-Match: {E}", "If-Unmodified-Since: {L-2}"), nginx=(412, "13.2.2: step 2 is else")
    ),
    Row(44, ("If-None-Match: {E}", "Range: bytes=0-8"), 304),
    Row(44, ('If-Match: "B"', "Range: bytes=5000-"), 412),
    Row(44, ("If-Match: {E}", "Range: bytes=0-8"), 206, part(0, 8)),
    Row(45, ("Range: bytes=0-8", "If-Range: {E}"), 206, part(0, 8)),
    Row(45, ("Range: bytes=0-1,5-6", "If-Range: {E}"), 206),
    Row(46, ("Range: bytes=0-8", 'If-Range: "B"')),
    Row(47, ("Range: bytes=0-8", "If-Range: W/{E}")),
    Row(48, ("Range: bytes=0-8", "If-Range: {L}"), 206, part(0, 8)),
    Row(48, ("Range: bytes=0-8", "If-Range: {L+1}")),
    Row(48, ("Range: bytes=0-8", "If-Range: not a date")),
    Row(49, ('If-Range: "B"',)),
    Row(50, ("Range: bytes=5000-", 'If-Range: "B"')),
    Row(50, ("Range: bytes=5000-", "If-Range: {E}"), 416, "bytes */1000"),
    Row(50, ("Range: bytes=5000-", "If-Range: {L}"), 416, "bytes */1000"),
]


@dataclass
class Origin:
    """A server of the test object, with the validators of the object."""

    port: int
    path: str
    empty_path: str
    etag: str
    empty_etag: str
    modified: datetime

    def send_request(self, method: str, row: Row) -> Received:
        path = self.empty_path if row.empty else self.path
        lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: close"]
        etag = self.empty_etag if row.empty else self.etag
        lines += [self.fill_placeholders(header, etag) for header in row.headers]
        with connect(self.port) as connection:
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
            return read_answer(connection, method=method)

    def fill_placeholders(self, header: str, etag: str) -> str:
        header = header.replace("{E}", etag)
        for seconds in (0, -1, -2, -60, 1, 60):
            mark = f"{{L{seconds:+d}}}" if seconds else "{L}"
            date = format_datetime(self.modified + timedelta(seconds=seconds), usegmt=True)
            header = header.replace(mark, date)
        return header


@pytest.fixture(scope="module")
def downspout(store: Store, service: RunningService) -> Origin:
    """Return the service in front of a real S3 server with the object."""
    store.put("test/9110/image.jpg", BODY, ContentType="image/png", CacheControl=CACHE)
    store.put("test/9111/image.jpg", b"", ContentType="image/png")
    head = store.client.head_object(Bucket="photos", Key="test/9110/image.jpg")
    # A date is a strong validator only after its second is over.
    wait_until(lambda: datetime.now(UTC) >= head["LastModified"] + timedelta(seconds=2))
    empty = store.client.head_object(Bucket="photos", Key="test/9111/image.jpg")
    return Origin(
        service.port,
        "/tasks/9110/image",
        "/tasks/9111/image",
        head["ETag"],
        empty["ETag"],
        head["LastModified"].astimezone(UTC),
    )


def row_id(row: Row) -> str:
    return f"{row.number} {'; '.join(row.headers)[:60]}"


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_get_returns_the_status_of_its_row(downspout: Origin, row: Row) -> None:
    """GET returns the status, headers and body that its row states."""
    received = downspout.send_request("GET", row)
    assert received.status == row.status
    assert received.whole or row.status == 304
    expected = b"" if row.empty else BODY
    if row.status == 200:
        assert received.body == expected
        assert received.headers["accept-ranges"] == "bytes"
        assert "content-range" not in received.headers
    if row.status == 206 and row.content_range is None:
        assert received.body == multipart_body(received.headers["content-type"], [(0, 1), (5, 6)])
    elif row.status == 206:
        assert row.content_range is not None
        first, last = row.content_range.removeprefix("bytes ").split("/")[0].split("-")
        assert received.body == BODY[int(first) : int(last) + 1]
    if row.content_range:
        assert received.headers["content-range"] == row.content_range
    check_validators(downspout, row, received)


def multipart_body(content_type: str, parts: list[tuple[int, int]]) -> bytes:
    assert content_type.startswith("multipart/byteranges; boundary=")
    boundary = content_type.partition("boundary=")[2].encode()
    body = b""
    for first, last in parts:
        body += b"\r\n--" + boundary + b"\r\ncontent-type: image/png\r\n"
        body += f"content-range: {part(first, last)}\r\n\r\n".encode()
        body += BODY[first : last + 1]
    return body + b"\r\n--" + boundary + b"--\r\n"


def check_validators(origin: Origin, row: Row, received: Received) -> None:
    if received.status in (200, 206, 304):
        assert received.headers["etag"] == (origin.empty_etag if row.empty else origin.etag)
        assert "date" in received.headers
        if not row.empty:
            assert received.headers["cache-control"] == CACHE
            assert parsedate_to_datetime(received.headers["last-modified"]) == origin.modified
    if received.status == 304:
        assert received.body == b""
        assert "content-type" not in received.headers
        assert "content-length" not in received.headers
    if received.status in (412, 416):
        assert received.headers["content-type"] == "application/problem+json"
        assert BODY[:10] not in received.body


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_head_returns_the_status_of_its_row(downspout: Origin, row: Row) -> None:
    """HEAD evaluates conditions as GET does, ignores ranges, and has no body."""
    received = downspout.send_request("HEAD", row)
    conditional = [h for h in row.headers if h.split(":")[0] not in ("Range", "If-Range")]
    assert received.status == (row.status if conditional and row.status != 206 else 200)
    assert received.body == b""
    assert "content-range" not in received.headers
    if received.status == 200:
        assert received.headers["content-length"] == ("0" if row.empty else "1000")
        assert received.headers["accept-ranges"] == "bytes"
    check_validators(downspout, row, received)


@pytest.mark.parametrize("line", ['If-Match: "B"', "If-None-Match: *", "Range: bytes=5000-"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_missing_object_with_conditions_returns_404(
    service: RunningService, method: str, line: str
) -> None:
    """Conditions are ignored if the answer would be an error without them (row 51)."""
    name, _, value = line.partition(": ")
    answer = service.request(method, "/tasks/404/image", headers={name: value})
    assert answer.status_code == 404


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, downspout: Origin) -> Generator[Origin]:
    """Run nginx with the same object as a local file."""
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "object").write_bytes(BODY)
    (folder / "empty").write_bytes(b"")
    modified = downspout.modified
    for name in ("object", "empty"):
        os.utime(folder / name, (modified.timestamp(), modified.timestamp()))
    lines = ("default_type image/png;", f'add_header cache-control "{CACHE}";')
    with nginx_serving(folder, *lines) as port:
        origin = Origin(port, "/object", "/empty", "", "", modified)
        origin.etag = origin.send_request("GET", Row(0)).headers["etag"]
        origin.empty_etag = origin.send_request("GET", Row(0, empty=True)).headers["etag"]
        yield origin


@pytest.mark.parametrize("row", ROWS, ids=row_id)
def test_nginx_returns_the_same_answer(downspout: Origin, nginx: Origin, row: Row) -> None:
    """For the same file nginx returns the same answer, unless the row names a section."""
    ours, theirs = downspout.send_request("GET", row), nginx.send_request("GET", row)
    expected = row.nginx[0] if row.nginx else ours.status
    assert theirs.status == expected
    # nginx does not merge adjacent ranges; section 15.3.7.2 leaves that to the server.
    if theirs.status == ours.status == 206 and "content-range" in theirs.headers:
        assert theirs.headers["content-range"] == ours.headers["content-range"]
        assert theirs.body == ours.body
