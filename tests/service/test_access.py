"""Access control: tokens, signed URLs, rejections, and the sign command."""

from __future__ import annotations

import json
import logging
import random
import string
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Message

from handlers import create_app, sign_url
from settings import Settings
from tests.support.client import ask, connect, fetch
from tests.support.components import Store, settings_for
from tests.support.main import RunMain
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.serving import (
    ROOT,
    RunningService,
    ServiceProcess,
    entering,
    serving,
    serving_app,
    wait_until,
)

TOKENS = ("first-token-of-two", "second/token+of~two==")
KEYS = ("new:0123456789abcdef", "old:fedcba9876543210")
IMAGE = "/tasks/7/image"

Headers = dict[str, str]


def bearer_header(token: str) -> Headers:
    return {"authorization": f"Bearer {token}"}


def make_signed_url(path: str = IMAGE, key: str = KEYS[0], lifetime: float = 60) -> str:
    return sign_url(path, key, lifetime=lifetime)


@pytest.fixture(scope="module")
def guarded(store: Store) -> Generator[RunningService]:
    """The service with tokens and signing keys, and a store that has one image."""
    store.put("test/7/image.jpg", b"picture", ContentType="image/jpeg")
    settings = settings_for(
        store.url, access_tokens=TOKENS, url_signing_keys=KEYS, metrics_tokens=("metrics" * 3,)
    )
    with serving(settings) as running:
        yield running


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_valid_token_gets_download(guarded: RunningService, token: str, scheme: str) -> None:
    """Every configured token is valid, so operators can rotate tokens one by one."""
    answer = guarded.get(IMAGE, headers={"authorization": f"{scheme} {token}"})
    assert answer.content == b"picture"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_signed_url_gets_download(guarded: RunningService, key: str, method: str) -> None:
    """A URL signed with any of the keys is valid for GET and HEAD."""
    answer = guarded.request(method, make_signed_url(key=key))
    assert answer.status_code == 200
    assert answer.headers["content-length"] == "7"


def test_signed_url_allows_ranges_but_no_other_download_name(guarded: RunningService) -> None:
    """A client can resume with the same signed URL, but cannot change the signed name."""
    url = make_signed_url(f"{IMAGE}?download=a b.jpg")
    answer = guarded.get(url, headers={"range": "bytes=3-"})
    assert answer.content == b"ture"
    assert answer.headers["content-disposition"] == 'attachment; filename="a b.jpg"'
    assert guarded.get(url.replace("a+b", "c+d")).status_code == 401


def test_one_valid_credential_is_enough(guarded: RunningService) -> None:
    """A valid token or a valid signature is enough, even if the other one is invalid."""
    assert guarded.get(IMAGE + "?expires=1&key=new&signature=x").status_code == 401
    opened = guarded.get(
        IMAGE + "?expires=1&key=new&signature=x", headers=bearer_header(TOKENS[0])
    )
    assert opened.status_code == 200
    both = guarded.get(make_signed_url(), headers=bearer_header("none-of-the-tokens"))
    assert both.status_code == 200


INVALID_CREDENTIALS: list[tuple[str, Headers]] = [
    (IMAGE, {}),
    (IMAGE, {"authorization": ""}),
    (IMAGE, {"authorization": TOKENS[0]}),
    (IMAGE, {"authorization": f"Basic {TOKENS[0]}"}),
    (IMAGE, {"authorization": "Bearer"}),
    (IMAGE, bearer_header(TOKENS[0][:-1])),
    (IMAGE, bearer_header(TOKENS[0] + "x")),
    (IMAGE, bearer_header(TOKENS[0].upper())),
    (IMAGE, bearer_header(", ".join(TOKENS))),
    (IMAGE, bearer_header(f"{TOKENS[0]} {TOKENS[0]}")),
    (f"{IMAGE}?access_token={TOKENS[0]}", {}),
    (f"{IMAGE}?expires=2000000000&key=new&signature=%00", {}),
]


@pytest.mark.parametrize("path", ["/tasks/8/image", "/tasks/x/image", "/tasks/1/bytes/10"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_rejection_is_same_whether_or_not_object_exists(
    guarded: RunningService, path: str, method: str
) -> None:
    """The 401 does not tell whether the object exists, or whether the path could name one."""
    headers = {"x-request-id": "r"}
    answer, other = (guarded.request(method, one, headers=headers) for one in (path, IMAGE))
    assert answer.status_code == 401
    for one in (answer, other):
        del one.headers["date"]
    assert answer.headers == other.headers
    assert answer.content == other.content


@pytest.mark.parametrize(("path", "headers"), INVALID_CREDENTIALS)
def test_invalid_credential_returns_401_with_challenge(
    guarded: RunningService, path: str, headers: Headers
) -> None:
    """Every wrong, missing or expired credential gets the same 401 with a challenge."""
    answer = guarded.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="downspout"'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "type": "urn:downspout:problem:not-allowed",
        "title": "Not allowed",
        "status": 401,
        "detail": "The request needs a valid access token, or a URL with a valid signature.",
        "request_id": answer.headers["x-request-id"],
        "retryable": False,
    }


def test_signature_for_another_url_returns_401(guarded: RunningService) -> None:
    """A signature for another path, by another key or with too long a lifetime is a 401."""
    for url in (
        make_signed_url(lifetime=1e9),
        make_signed_url("/tasks/8/image").replace("/8/", "/7/"),
        make_signed_url(key="none:0123456789abcdef"),
        make_signed_url(key="new:fedcba9876543210"),
    ):
        assert guarded.get(url).status_code == 401
    assert guarded.get(make_signed_url()).status_code == 200


def test_two_authorization_headers_return_401(guarded: RunningService) -> None:
    """A proxy in front of the service may have checked the other of the two headers."""
    headers = [("authorization", f"Bearer {token}") for token in (TOKENS[0], "x" * 16)]
    assert guarded.get(IMAGE, headers=headers).status_code == 401
    assert guarded.get(IMAGE, headers=headers[::-1]).status_code == 401


def test_non_ascii_token_returns_401(guarded: RunningService) -> None:
    """Tokens are compared as bytes: hmac.compare_digest raises for a str with é."""
    for bad in (b"Bearer caf\xe9-0123456789abcdef", b"Bearer \xff\xfe", "Bearer é".encode()):
        assert guarded.get(IMAGE, headers={b"authorization": bad}).status_code == 401


def test_rejected_request_takes_no_slot_and_sends_no_store_request(upstream: Misbehaving) -> None:
    """While all slots are taken, a request without a credential gets 401, not 503."""

    async def never_answers(exchange: Exchange) -> None:
        await exchange.hang()

    upstream.behaviour = never_answers
    settings = settings_for(
        upstream.url, max_downloads=1, max_downloads_per_client=1, access_tokens=TOKENS
    )
    with serving(settings) as service, closing(connect(service.port)) as connection:
        ask(connection, IMAGE, headers=bearer_header(TOKENS[0]))
        wait_until(lambda: len(upstream.requests) == 1)
        assert service.get(IMAGE).status_code == 401
        assert len(upstream.requests) == 1
        assert service.get(IMAGE, headers=bearer_header(TOKENS[1])).status_code == 429


async def test_rejection_without_lifespan_returns_401() -> None:
    """A request without a credential does not learn that the lifespan is not entered."""
    app = create_app(Settings(s3_image_bucket="photos", access_tokens=TOKENS))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://downspout.test") as client:
        assert (await client.get(IMAGE)).status_code == 401
        assert (await client.get(IMAGE, headers=bearer_header(TOKENS[0]))).status_code == 503


def test_query_with_too_many_parameters_returns_414(guarded: RunningService) -> None:
    """Parsing thousands of parameters would block the event loop."""
    assert guarded.get(f"{IMAGE}?{'a&' * 30_000}").status_code == 414
    assert guarded.get(f"{IMAGE}?{'a&' * 50}").status_code == 401


def test_rejection_without_tokens_returns_403(store: Store) -> None:
    """If only signing keys are set, no challenge could help the client."""
    store.put("test/7/image.jpg", b"picture", ContentType="image/jpeg")
    with serving(settings_for(store.url, url_signing_keys=KEYS)) as service:
        assert service.get(make_signed_url()).content == b"picture"
        refused = service.get(IMAGE)
        assert refused.status_code == 403
        assert refused.json()["type"] == "urn:downspout:problem:not-signed"
        assert "www-authenticate" not in refused.headers
        assert service.get(IMAGE, headers=bearer_header(TOKENS[0])).status_code == 403


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json"])
def test_other_routes_need_no_credential(guarded: RunningService, path: str) -> None:
    """Health probes have no token, and the documentation explains how to get one."""
    assert guarded.get(path).status_code == 200


def test_metrics_without_metrics_token_return_401(guarded: RunningService) -> None:
    """METRICS_TOKENS are valid for /metrics, ACCESS_TOKENS are not."""
    refused = guarded.get("/metrics")
    assert refused.status_code == 401
    assert refused.json()["detail"] == "The request needs a valid access token."
    assert guarded.get("/metrics", headers=bearer_header(TOKENS[0])).status_code == 401
    assert guarded.get(IMAGE).status_code == 401

    def refused_downloads() -> bool:  # counted after the client has its answer
        seen = guarded.get("/metrics", headers=bearer_header("metrics" * 3))
        return 'downspout_downloads_total{outcome="refused"' in seen.text

    wait_until(refused_downloads)


def test_metrics_are_open_by_default(store: Store) -> None:
    """ACCESS_TOKENS do not protect /metrics."""
    with serving(settings_for(store.url, access_tokens=TOKENS)) as service:
        assert service.get("/metrics").status_code == 200


def test_mounted_application_verifies_path_without_its_prefix(store: Store) -> None:
    """The signed path is the path within the application, wherever it is mounted."""
    store.put("test/7/image.jpg", b"picture", ContentType="image/jpeg")
    downloads = create_app(settings_for(store.url, url_signing_keys=KEYS))
    host = Starlette(routes=[Mount("/media", downloads)], lifespan=entering(downloads))
    with serving_app(host) as port:
        url = sign_url("/media" + IMAGE, KEYS[0], lifetime=60, root_path="/media")
        assert fetch(port, url).body == b"picture"
        assert fetch(port, "/media" + make_signed_url()).body == b"picture"
        assert fetch(port, "/media" + IMAGE).status == 403


def test_openapi_has_security_only_with_access_control(
    guarded: RunningService, service: RunningService
) -> None:
    """The OpenAPI document has security schemes only if access control is set."""
    for running, expected in ((guarded, [{"token": []}, {"signature": []}]), (service, None)):
        document = running.get("/openapi.json").json()
        operation = document["paths"]["/tasks/{task_id}/image"]["get"]
        assert operation.get("security") == expected


# Cache-Control


@pytest.mark.parametrize(
    ("changes", "sent"),
    [({}, "public, max-age=9"), ({"access_tokens": TOKENS}, "private, max-age=9")],
)
def test_responses_with_access_control_are_private(
    store: Store, changes: dict[str, Any], sent: str
) -> None:
    """A shared cache would serve a public response to everybody; a 304 equals its 200."""
    store.put("test/7/image.jpg", b"picture", CacheControl="public, max-age=9")
    with serving(settings_for(store.url, **changes)) as service:
        headers = bearer_header(TOKENS[0])
        assert service.get(IMAGE, headers=headers).headers["cache-control"] == sent
        known = service.get(IMAGE, headers={**headers, "if-none-match": "*"})
        assert known.status_code == 304
        assert known.headers["cache-control"] == sent


def test_response_without_stored_cache_control_is_private(store: Store) -> None:
    """A shared cache may store a response without Cache-Control."""
    store.put("test/9/image.jpg", b"picture")
    with serving(settings_for(store.url, access_tokens=TOKENS)) as service:
        answer = service.get("/tasks/9/image", headers=bearer_header(TOKENS[0]))
        assert answer.headers["cache-control"] == "private"


def test_bytes_with_access_control_are_private(upstream: Misbehaving) -> None:
    """With access control, the upstream's `public` becomes `private`."""

    async def public(exchange: Exchange) -> None:
        await exchange.answer(200, b"12345", "cache-control: public, max-age=9")

    upstream.behaviour = public
    with serving(settings_for(upstream.url, access_tokens=TOKENS)) as service:
        answer = service.get("/tasks/1/bytes/5", headers=bearer_header(TOKENS[1]))
        assert answer.headers["cache-control"] == "private, max-age=9"


# The log


def test_log_has_reason_of_rejection_and_no_secret(
    guarded: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells the operator the reason, and contains no token and no signature."""
    caplog.set_level(logging.INFO, "downspout")
    url = make_signed_url("/tasks/8/image").replace("/8/", "/7/")
    guarded.get(url, headers={**bearer_header(TOKENS[0][:-1]), "x-request-id": "why"})
    wait_until(lambda: "request_id=why" in caplog.text)
    assert "401 refused (wrong token, wrong signature)" in caplog.text
    assert TOKENS[0][:-1] not in caplog.text
    assert urlsplit(url).query not in caplog.text


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, "INFO"),
        ({"HOST": "0.0.0.0"}, "WARNING"),
        ({"ACCESS_TOKENS": TOKENS[0]}, None),
        ({"URL_SIGNING_KEYS": KEYS[0]}, None),
    ],
)
def test_open_downloads_are_logged_once_at_start(
    store: Store, environ: dict[str, str], level: str | None
) -> None:
    """One line says that there is no access control: a warning if others reach the port."""
    with ServiceProcess({**store.environ, "WEB_CONCURRENCY": "2", **environ}) as process:
        port = urlsplit(process.wait_for_line("listening on").split()[6]).port
        assert fetch(port or 0, "/healthz").status == 200
        process.stop()
        lines = [line for line in process.lines if "open to anyone" in line]
    assert [line.partition(level)[1] for line in lines if level] == ([level] if level else [])
    assert bool(lines) == bool(level)


def test_open_downloads_are_logged_under_other_servers(store: Store) -> None:
    """A server that imports `service:app` also logs that downloads are open."""
    code = "import service; service.app"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, cwd=ROOT, env=store.environ, capture_output=True, text=True, check=True
    )
    assert "open to anyone who reaches the port" in ran.stderr


# Forgeries


def make_forgeries(seed: int) -> Iterator[tuple[str, Headers]]:
    """Yield requests with nearly valid and with random credentials."""
    dice = random.Random(seed)
    alphabet = string.ascii_letters + string.digits + "-_~+/=.%&?"

    def change_one_character(text: str) -> str:
        at = dice.randrange(len(text))
        return text[:at] + dice.choice(alphabet.replace(text[at], "")) + text[at + 1 :]

    def random_text(size: int) -> str:
        return "".join(dice.choice(alphabet) for _ in range(size))

    while True:
        url, token = make_signed_url(key=dice.choice(KEYS)), dice.choice(TOKENS)
        path, _, query = url.partition("?")
        at = dice.randrange(1, len(token))
        yield IMAGE, bearer_header(change_one_character(token))
        yield IMAGE, bearer_header(token[:at])
        yield IMAGE, bearer_header(token[at:])
        yield IMAGE, bearer_header(token + random_text(dice.randrange(1, 9)))
        yield IMAGE, bearer_header(random_text(dice.randrange(200)))
        yield f"{path}?{query[: dice.randrange(len(query))]}", {}
        yield f"{path}?{query.partition('&')[2]}", {}
        yield f"{path}?{query[:-1]}{dice.choice('ABCDEFGHIJ=')}x", {}
        yield f"{path}?{query.rpartition('=')[0]}={random_text(43)}", {}
        yield f"/tasks/{dice.randrange(8, 10**9)}/image?{query}", {}
        yield f"/tasks/7/bytes/7?{query}", {}
        yield f"{path}?{query}&download={random_text(3)}x", {}
        yield make_signed_url(key=f"new:{random_text(5).replace('&', '_')}0123456789ab"), {}
        yield make_signed_url(lifetime=8 * 86_400 + dice.randrange(10**8)), {}
        yield make_expired_url(dice), {}


def make_expired_url(dice: random.Random) -> str:
    """Return a URL that has expired, as a client would replay it."""
    signed_at = 1_700_000_000 + dice.randrange(10**7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: signed_at)
        return make_signed_url()


async def test_forged_credentials_return_401(upstream: Misbehaving) -> None:
    """Forged, cut, replayed and expired credentials are rejected without a store request."""
    app = create_app(settings_for(upstream.url, access_tokens=TOKENS, url_signing_keys=KEYS))
    statuses: list[int] = []

    async def receive() -> Message:
        raise AssertionError("there is nothing to receive")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    attempts = make_forgeries(seed=1)
    async with app.router.lifespan_context(app):
        for _ in range(10_000):
            path, headers = next(attempts)
            await app(make_scope(path, headers), receive, send)
    assert statuses == [401] * 10_000
    assert upstream.requests == []


def make_scope(path: str, headers: Headers) -> dict[str, Any]:
    parts = urlsplit(path)
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "root_path": "",
        "query_string": parts.query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "extensions": {},
        "state": {},
    }


# The sign command


def run_sign(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "service.py", "sign", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_sign_command_prints_valid_url(guarded: RunningService, run_main: RunMain) -> None:
    """The command `service.py sign` needs no setting except URL_SIGNING_KEYS."""
    keys = ",".join(KEYS)
    for options in ([], ["--expires", "7d"], ["--key", "old"], ["--expires=90"]):
        ended = run_main("sign", guarded.url + IMAGE, *options, URL_SIGNING_KEYS=keys)
        assert ended.code == 0, ended.stderr
        assert guarded.get(ended.stdout.strip()).content == b"picture"


def test_sign_command_without_expires_keeps_max_lifetime(guarded: RunningService) -> None:
    """The default lifetime of one hour is shortened to URL_MAX_LIFETIME."""
    ran = run_sign(guarded.url + IMAGE, URL_SIGNING_KEYS=KEYS[0], URL_MAX_LIFETIME="60")
    assert ran.returncode == 0, ran.stderr
    assert guarded.get(ran.stdout.strip()).content == b"picture"


@pytest.mark.parametrize(
    ("arguments", "environ", "problem"),
    [
        ([IMAGE], {}, "URL_SIGNING_KEYS is not set"),
        ([IMAGE], {"URL_SIGNING_KEYS": "a:short"}, "URL_SIGNING_KEYS must be id:secret"),
        ([IMAGE, "--expires", "8d"], {"URL_SIGNING_KEYS": KEYS[0]}, "--expires 8d"),
        ([IMAGE, "--expires", "soon"], {"URL_SIGNING_KEYS": KEYS[0]}, "--expires soon"),
        ([IMAGE, "--expires", "0s"], {"URL_SIGNING_KEYS": KEYS[0]}, "lifetime must be"),
        ([IMAGE, "--key", "gone"], {"URL_SIGNING_KEYS": KEYS[0]}, "--key gone"),
        (["tasks/7/image"], {"URL_SIGNING_KEYS": KEYS[0]}, "must be the URL of a download"),
        ([], {"URL_SIGNING_KEYS": KEYS[0]}, "usage:"),
    ],
)
def test_sign_command_with_error_returns_2_and_one_line(
    run_main: RunMain, arguments: list[str], environ: dict[str, str], problem: str
) -> None:
    """The line names the error and contains no secret."""
    code, stdout, stderr = run_main("sign", *arguments, **environ)
    assert (code, stdout) == (2, "")
    assert problem in stderr
    assert "Traceback" not in stderr
    assert "0123456789abcdef" not in stderr


def test_sign_process_with_error_exits_with_2() -> None:
    """`python service.py sign` without URL_SIGNING_KEYS is one line, and the exit code is 2."""
    ran = run_sign(IMAGE)
    assert (ran.returncode, ran.stdout) == (2, "")
    [line] = ran.stderr.splitlines()
    assert "URL_SIGNING_KEYS is not set" in line


def test_rejection_is_a_problem_document(guarded: RunningService) -> None:
    """Programs read a rejection as application/problem+json."""
    answer = guarded.get(IMAGE)
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.text)["status"] == 401
