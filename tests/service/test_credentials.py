"""Credentials that appear late, change or expire while the service runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from settings import Settings
from tests.support.components import BUCKET
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving
from tests.support.serving import serving, wait_until

IMAGE = "/tasks/1/image"
AGENT_PATH = "/credentials"
ROLE_PATH = "/latest/meta-data/iam/security-credentials/"

both_paths = pytest.mark.parametrize("s3_direct", [True, False], ids=["direct", "botocore"])


def settings(upstream: Misbehaving, **changes: Any) -> Settings:
    """Return settings that leave the access key to botocore's chain."""
    return Settings(
        s3_image_bucket=BUCKET, s3_endpoint_url=upstream.url, s3_region="us-east-1", **changes
    )


@pytest.fixture(autouse=True)
def _no_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave botocore's chain no provider; a test then sets the variables of its own."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@dataclass
class Store:
    """A store that accepts one access key id, and rejects others as S3 does."""

    accepted: str = "key"
    rejection: tuple[int, str] = (403, "InvalidAccessKeyId")
    others: dict[str, Behaviour] = field(default_factory=dict)
    """Maps a path's beginning to what answers it instead of the store."""

    async def __call__(self, exchange: Exchange) -> None:
        for path, behaviour in self.others.items():
            if exchange.path.startswith(path):
                await behaviour(exchange)
                return
        if f"Credential={self.accepted}/" in exchange.headers.get("authorization", ""):
            await exchange.answer(200, b"12345", 'etag: "1"')
        else:
            await exchange.error(*self.rejection)


def provider_answer(minutes: float, key: str = "key", token: str = "token") -> bytes:
    """Return a provider's answer: credentials that expire in some minutes."""
    expires = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = {"AccessKeyId": key, "SecretAccessKey": "s", "Token": token}
    return json.dumps({**names, "Expiration": expires}).encode()


@both_paths
def test_role_that_appears_after_start_is_used(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, s3_direct: bool
) -> None:
    """Without a role /readyz is 503 and an image 502; with it, both are 200, without a restart."""
    has_role = False

    async def answer_metadata(exchange: Exchange) -> None:
        if exchange.method == "PUT":
            await exchange.answer(200, b"token")
        elif not has_role:
            await exchange.answer(404)
        elif exchange.path == ROLE_PATH:
            await exchange.answer(200, b"role")
        else:
            await exchange.answer(200, provider_answer(300))

    upstream.behaviour = Store(others={"/latest/": answer_metadata})
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", upstream.url)
    with serving(settings(upstream, s3_direct=s3_direct)) as service:
        assert service.get(IMAGE).status_code == 502
        assert service.get("/readyz").status_code == 503
        assert service.get("/healthz").status_code == 200
        has_role = True
        wait_until(lambda: service.get("/readyz").status_code == 200)
        assert service.get(IMAGE).content == b"12345"
        assert service.request("HEAD", IMAGE).status_code == 200


@both_paths
def test_agent_that_fails_at_start_does_not_end_the_service(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, s3_direct: bool
) -> None:
    """If a container's agent answers errors at start, the service asks it again later."""
    is_up = False

    async def answer_agent(exchange: Exchange) -> None:
        await exchange.answer(200, provider_answer(300) if is_up else b'{"code": "Starting"}')

    upstream.behaviour = Store(others={AGENT_PATH: answer_agent})
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", upstream.url + AGENT_PATH)
    with serving(settings(upstream, s3_direct=s3_direct)) as service:
        assert service.get(IMAGE).status_code == 502
        is_up = True
        wait_until(lambda: service.get(IMAGE).status_code == 200)


@both_paths
def test_credentials_file_that_appears_after_start_is_read(
    upstream: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_direct: bool
) -> None:
    """A shared credentials file that a sidecar writes after the start is read."""
    upstream.behaviour = Store()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with serving(settings(upstream, s3_direct=s3_direct)) as service:
        assert service.get(IMAGE).status_code == 502
        write_credentials_file(tmp_path / "credentials", "key")
        wait_until(lambda: service.get(IMAGE).status_code == 200)


@both_paths
def test_web_identity_token_that_appears_after_start_is_used(
    upstream: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_direct: bool
) -> None:
    """A role is assumed with a web identity token that is written after the start."""
    token = tmp_path / "token"

    async def answer_sts(exchange: Exchange) -> None:
        expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        answer = (
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
            "<AccessKeyId>key</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t</SessionToken><Expiration>{expires}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )
        await exchange.answer(200, answer.encode(), "connection: close")

    upstream.behaviour = Store(others={"/sts": answer_sts})
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"{upstream.url}/sts")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/downloads")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    with serving(settings(upstream, s3_direct=s3_direct)) as service:
        assert service.get(IMAGE).status_code == 502
        token.write_text("token")
        wait_until(lambda: service.get(IMAGE).status_code == 200)
        assert service.request("HEAD", IMAGE).status_code == 200
    assert upstream.requests.count("POST /sts") == 1


def write_credentials_file(path: Path, key: str) -> None:
    """Write a shared credentials file with an access key."""
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = s\n")


@pytest.fixture
def credentials_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a shared credentials file with the access key "old"."""
    path = tmp_path / "credentials"
    write_credentials_file(path, "old")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    return path


@both_paths
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "rejection",
    [(403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken")],
)
def test_rewritten_credentials_file_is_read_when_the_store_rejects_the_key(
    upstream: Misbehaving,
    credentials_file: Path,
    s3_direct: bool,
    method: str,
    rejection: tuple[int, str],
) -> None:
    """The first request after the file has changed succeeds, with the file's new key."""
    upstream.behaviour = store = Store("old", rejection)
    with serving(settings(upstream, s3_direct=s3_direct)) as service:
        assert service.request(method, IMAGE).status_code == 200
        store.accepted = "new"
        write_credentials_file(credentials_file, "new")
        answer = service.request(method, IMAGE)
        assert answer.status_code == 200
        assert answer.headers["content-length"] == "5"
        assert service.get("/readyz").status_code == 200


@both_paths
def test_unchanged_credentials_file_is_not_tried_twice(
    upstream: Misbehaving, credentials_file: Path, s3_direct: bool
) -> None:
    """If the file has the rejected key, or is half-written, the client gets the first answer."""
    upstream.behaviour = store = Store("old")
    with serving(settings(upstream, s3_direct=s3_direct)) as service:
        assert service.get(IMAGE).status_code == 200
        store.accepted = "new"
        credentials_file.write_text("[default]\naws_access_key_id = new\n")
        upstream.exchanges.clear()
        assert service.get(IMAGE).status_code == 502
        assert len(upstream.exchanges) == 1
        write_credentials_file(credentials_file, "new")
        wait_until(lambda: service.get(IMAGE).status_code == 200)


async def answer_500(exchange: Exchange) -> None:
    await exchange.answer(500)


async def hang(exchange: Exchange) -> None:
    await exchange.hang()


@both_paths
@pytest.mark.parametrize("minutes", [5, 12], ids=["mandatory", "advisory"])
@pytest.mark.parametrize("trouble", [answer_500, hang])
def test_valid_credentials_are_used_while_the_agent_fails(
    upstream: Misbehaving,
    monkeypatch: pytest.MonkeyPatch,
    s3_direct: bool,
    minutes: float,
    trouble: Callable[[Exchange], Any],
) -> None:
    """Downloads with valid credentials succeed, and do not wait for an agent that fails."""

    async def answer_agent(exchange: Exchange) -> None:
        await exchange.answer(200, provider_answer(minutes))

    upstream.behaviour = store = Store(others={AGENT_PATH: answer_agent})
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", upstream.url + AGENT_PATH)
    with serving(settings(upstream, s3_direct=s3_direct)) as service:
        assert service.get(IMAGE).status_code == 200
        store.others[AGENT_PATH] = trouble
        for method in ("GET", "HEAD"):
            assert service.request(method, IMAGE).status_code == 200
        assert service.get("/readyz").status_code == 200


@both_paths
def test_agent_with_short_sessions_is_not_asked_for_each_download(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, s3_direct: bool
) -> None:
    """Ten downloads within a session of 15 minutes ask the agent at most twice."""

    async def answer_agent(exchange: Exchange) -> None:
        await exchange.answer(200, provider_answer(15))

    upstream.behaviour = Store(others={AGENT_PATH: answer_agent})
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", upstream.url + AGENT_PATH)
    with serving(settings(upstream, s3_direct=s3_direct)) as service:
        for _ in range(10):
            assert service.get(IMAGE).status_code == 200
    assert upstream.requests.count(f"GET {AGENT_PATH}") <= 2


@both_paths
def test_expired_credentials_are_replaced(
    upstream: Misbehaving, monkeypatch: pytest.MonkeyPatch, s3_direct: bool
) -> None:
    """Requests are signed with the agent's next credentials when the first have expired."""

    async def answer_agent(exchange: Exchange) -> None:
        number = upstream.requests.count(f"GET {AGENT_PATH}")
        await exchange.answer(200, provider_answer(1 / 20, token=f"token {number}"))

    def tokens() -> set[str]:
        found = [exchange.headers.get("x-amz-security-token") for exchange in upstream.exchanges]
        return {token for token in found if token}

    upstream.behaviour = Store(others={AGENT_PATH: answer_agent})
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", upstream.url + AGENT_PATH)
    with serving(settings(upstream, s3_direct=s3_direct)) as service:
        while len(tokens()) < 2:
            assert service.get(IMAGE).status_code == 200
