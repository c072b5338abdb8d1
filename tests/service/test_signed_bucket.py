"""Requests that are signed and sent without botocore, and requests that need botocore."""

from __future__ import annotations

import itertools

import httpx
import pytest

from settings import Settings
from tests.support.client import fetch
from tests.support.components import BUCKET, Store, settings_for, store_settings
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import RunningService, serving

REQUESTS: tuple[dict[str, str], ...] = (
    {},
    {"range": "bytes=2-4"},
    {"if-none-match": "*"},
    {"if-match": "x"},
)


def test_redirect_without_region_returns_502(
    upstream: Misbehaving, troubled_store: RunningService
) -> None:
    """A redirect without x-amz-bucket-region is a 502 after at most three requests."""

    async def send_redirect(exchange: Exchange) -> None:
        await exchange.answer(307, b"", f"location: {upstream.url}/elsewhere")

    upstream.behaviour = send_redirect
    assert troubled_store.get("/tasks/1/image").status_code == 502
    assert len(upstream.requests) <= 3


def comparable_answer(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """Return an answer's status, body and headers, without headers that always differ."""
    own = ("date", "x-request-id", "server-timing")
    headers = {n: v for n, v in answer.headers.items() if n not in own}
    return answer.status_code, answer.content if answer.is_success else b"", headers


def test_signed_bucket_gives_the_answers_of_botocore(
    store: Store, service: RunningService
) -> None:
    """Status, headers and body are the same with S3_DIRECT on and off."""
    key, other = "test/88/image.jpg", "a b/ü+%?#&=~/88"
    store.put(key, b"0123456789", ContentType="image/png", Metadata={"owner": "me"})
    store.put(other, b"0123456789")
    direct = Settings(**store.settings, s3_metadata_headers=("owner",))
    full = Settings(**store.settings, s3_metadata_headers=("owner",), s3_direct=False)
    with (
        serving(direct) as a,
        serving(full) as b,
        serving(Settings(**store.settings, s3_image_key="a b/ü+%?#&=~/{task_id}")) as c,
    ):
        asked = itertools.product(
            ("GET", "HEAD"), ("/tasks/88/image", "/tasks/404/image"), REQUESTS
        )
        for method, path, headers in asked:
            answers = [s.request(method, path, headers=headers) for s in (a, b)]
            assert comparable_answer(answers[0]) == comparable_answer(answers[1])
        assert c.get("/tasks/88/image").content == b"0123456789"


@pytest.mark.parametrize("status", [301, 307, 400])
def test_bucket_in_another_region_uses_botocore(upstream: Misbehaving, status: int) -> None:
    """A redirect or an error that names another region sends the request through botocore."""

    async def send_redirect(exchange: Exchange) -> None:
        if "downspout" not in exchange.headers.get("user-agent", "") or exchange.method == "HEAD":
            await exchange.answer(200, b"12345", "x-amz-bucket-region: eu-west-1")
        else:
            await exchange.answer(status, b"", "x-amz-bucket-region: eu-west-1")

    upstream.behaviour = send_redirect
    with serving(settings_for(upstream.url)) as service:
        assert fetch(service.port, "/tasks/1/image").body == b"12345"


def test_request_is_signed_with_host_date_and_range(upstream: Misbehaving) -> None:
    """The URL has the bucket, and the signature covers host, date and range."""

    async def answering(exchange: Exchange) -> None:
        await exchange.answer(206, b"12", "content-range: bytes 0-1/5")

    upstream.behaviour = answering
    with serving(Settings(**store_settings(upstream.url))) as service:
        fetch(service.port, "/tasks/1/image", headers={"range": "bytes=0-1"})
    [exchange] = upstream.exchanges
    assert exchange.path == f"/{BUCKET}/test/1/image.jpg"
    assert (
        "SignedHeaders=host;range;x-amz-checksum-mode;x-amz-content-sha256;x-amz-date,"
        in exchange.headers["authorization"]
    )
