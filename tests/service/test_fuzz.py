"""Random requests to the running service.

scripts/test tests/service/test_fuzz.py --hypothesis-profile thorough    (5,000 of them)
"""

from __future__ import annotations

from collections.abc import Generator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.components import Store
from tests.support.serving import RunningService

ETAG = '"9a0364b9e99bb480dd25e1f0284c8555"'
DATES = ["Mon, 23 Nov 2026 08:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "0", "tomorrow"]
TAGS = [ETAG, f"W/{ETAG}", "*", '"x"', "x", '"', ",", f'"a", {ETAG}', "W/", ""]
RANGES = st.one_of(
    st.from_regex(r"bytes=[0-9]{0,3}-[0-9]{0,3}(,[0-9]{0,3}-[0-9]{0,3}){0,4}", fullmatch=True),
    st.sampled_from(["bytes=-0", "bytes=" + "9" * 400 + "-", "bytes=0-" + "9" * 400, "items=0-1"]),
)
JUNK = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60
).map(lambda text: text.strip(" \xa0\x85"))  # h11 in httpx refuses to send more
VALUES = {
    "range": st.one_of(RANGES, JUNK),
    "if-range": st.one_of(st.sampled_from(TAGS + DATES), JUNK),
    "if-match": st.one_of(st.sampled_from(TAGS), JUNK),
    "if-none-match": st.one_of(st.sampled_from(TAGS), JUNK),
    "if-modified-since": st.one_of(st.sampled_from(DATES), JUNK),
    "if-unmodified-since": st.one_of(st.sampled_from(DATES), JUNK),
    "x-request-id": JUNK,
    "accept-encoding": st.sampled_from(["gzip", "identity;q=0", "*"]),
    "origin": JUNK,
}
HEADERS = st.fixed_dictionaries({}, optional=VALUES)
PATHS = st.one_of(
    st.sampled_from(
        ["/tasks/70/image", "/tasks/71/image", "/tasks/72/image", "/tasks/70/bytes/1000"]
    ),
    JUNK.map(lambda text: f"/tasks/70/image?download={httpx.QueryParams({'a': text})}"),
)


@pytest.fixture(scope="module")
def client(store: Store, service: RunningService) -> Generator[httpx.Client]:
    store.put("test/70/image.jpg", bytes(1000), ContentType="image/jpeg")
    store.put("test/71/image.jpg", b"")
    with httpx.Client(base_url=service.url, timeout=30, trust_env=False, verify=False) as client:
        yield client


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["GET", "HEAD"]), PATHS, HEADERS)
def test_random_request_causes_no_5xx(
    client: httpx.Client,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    headers: dict[str, str],
) -> None:
    """No header causes a 5xx or a traceback, and every body has its Content-Length."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = client.request(method, path, headers=raw)
    assert answer.status_code in (200, 206, 304, 404, 412, 416)
    assert not [record for record in caplog.records if record.exc_info]
    if method == "GET" and answer.status_code in (200, 206):
        assert len(answer.content) == int(answer.headers["content-length"])
    if answer.status_code == 206 and "content-range" in answer.headers:
        first, last = answer.headers["content-range"].split(" ")[1].split("/")[0].split("-")
        assert len(answer.content) == int(last) - int(first) + 1
