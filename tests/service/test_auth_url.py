"""AUTH_URL: the request that the application gets, and what its answers mean."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from handlers import create_app, sign_url
from settings import Settings, SettingsError
from tests.support.application import (
    IMAGE,
    PICTURE,
    PRIVATE_LINES,
    TARGET,
    allow,
    answer_privately,
    auth_url,
    fetch_logged,
    send_picture,
)
from tests.support.client import Received, connect, fetch, read_answer
from tests.support.components import settings_for, store_environ, store_settings
from tests.support.misbehaving import Exchange, Misbehaving, answer_with
from tests.support.serving import (
    RunningService,
    ServiceProcess,
    ServiceWith,
    entering,
    serving,
    serving_app,
    wait_until,
)

TOKEN = "token-of-a-player"
KEY = "new:0123456789abcdef"

# Headers that every HTTP client sends, whatever the request is for.
CLIENT_HEADERS = {"accept", "accept-encoding", "connection", "user-agent"}


@pytest.fixture
def store(upstream: Misbehaving) -> Misbehaving:
    """Return the store, which has every object."""
    upstream.behaviour = send_picture
    return upstream


@pytest.fixture
def service(
    service_with: ServiceWith, store: Misbehaving, application: Misbehaving
) -> RunningService:
    """Run the service with AUTH_URL alone."""
    return service_with(auth_url=auth_url(application))


def send_raw(port: int, *lines: bytes, method: str = "GET") -> Received:
    """Send a request line and header lines byte for byte; return the answer."""
    with closing(connect(port)) as connection:
        connection.sendall(b"\r\n".join([*lines, b"connection: close", b"", b""]))
        return read_answer(connection, method=method)


def read_problem(received: Received) -> dict[str, Any]:
    """Return the problem document of an answer, which no cache may store."""
    assert received.headers["content-type"] == "application/problem+json"
    assert received.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = json.loads(received.body)
    assert problem["status"] == received.status
    return problem


# The request to the application


def test_application_gets_exactly_the_documented_headers(
    service: RunningService, application: Misbehaving
) -> None:
    """The application gets the credentials and the X- headers, and no other header of a client."""
    sent = {
        "authorization": "Basic YTpi",
        "cookie": 'a=1;b="2,3";  c',
        "x-request-id": "request-1",
        "accept": "image/avif",
        "if-none-match": '"x"',
        "origin": "https://page.test",
        "range": "bytes=0-2",
        "referer": "https://page.test/",
        "user-agent": "a-client/1",
        "x-api-key": "of-a-client",
    }
    path = "/tasks/%37/image?download=a%2Fb+c&x=%C3%BC%7E~&&y"
    assert fetch(service.port, path, headers=sent).body == PICTURE[:3]
    [exchange] = application.exchanges
    assert (exchange.method, exchange.path) == ("GET", TARGET)
    received = {n: v for n, v in exchange.headers.items() if n not in CLIENT_HEADERS}
    assert received == {
        "host": f"127.0.0.1:{application.port}",
        "authorization": "Basic YTpi",
        "cookie": 'a=1;b="2,3";  c',
        "x-original-method": "GET",
        "x-original-uri": path,
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "downspout.test",
        "x-request-id": "request-1",
    }
    assert len(exchange.lines) == len(exchange.headers)
    assert not {"a-client/1", "image/avif"} & set(exchange.headers.values())


def test_application_gets_no_credentials_that_the_client_did_not_send(
    service: RunningService, application: Misbehaving
) -> None:
    """Without credentials the request has neither Authorization nor Cookie."""
    answer = fetch(service.port, IMAGE)
    [exchange] = application.exchanges
    assert not {"authorization", "cookie"} & exchange.headers.keys()
    assert exchange.headers["x-request-id"] == answer.headers["x-request-id"]


def test_application_gets_no_credentials_of_netrc(
    service_with: ServiceWith,
    store: Misbehaving,
    application: Misbehaving,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    """Credentials of the machine would authorize every client."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login netrc-user password netrc-secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    service = service_with(auth_url=auth_url(application))
    assert fetch(service.port, IMAGE).status == 200
    assert "authorization" not in application.exchanges[0].headers


def test_repeated_credentials_reach_application_in_their_order(
    service: RunningService, application: Misbehaving
) -> None:
    """The application sees all values: in several lines, or joined as HTTP joins them."""
    lines = [
        b"authorization: Basic YTpi",
        b"cookie: a=1",
        b"Authorization: Bearer x",
        b"Cookie: b=2",
    ]
    send_raw(service.port, f"GET {IMAGE} HTTP/1.1".encode(), b"host: a", *lines)
    [exchange] = application.exchanges
    assert ", ".join(exchange.values("authorization")) == "Basic YTpi, Bearer x"
    assert "; ".join(exchange.values("cookie")) == "a=1; b=2"


@pytest.mark.parametrize("name", ["authorization", "cookie"])
@pytest.mark.parametrize(
    ("value", "received"),
    [
        (b"caf\xc3\xa9", b"caf\xc3\xa9"),
        (b'"a"\t{b}', b'"a"\t{b}'),
        (b"caf\xe9\xff", b"caf" + 2 * "\ufffd".encode()),
    ],
)
def test_odd_bytes_of_credentials_reach_application(
    service: RunningService, application: Misbehaving, name: str, value: bytes, received: bytes
) -> None:
    """Credentials are sent on as they are; bytes that are not UTF-8 become U+FFFD."""
    line = name.encode() + b": " + value
    answer = send_raw(service.port, f"GET {IMAGE} HTTP/1.1".encode(), b"host: a", line)
    assert answer.status == 200
    [exchange] = application.exchanges
    assert exchange.headers[name].encode("latin-1") == received


@pytest.mark.parametrize("target", [b"/tasks/7/image?x=\xc3\xbc", b"/tasks/7/image?x=\xff"])
def test_unencoded_bytes_of_target_reach_application_unchanged_or_are_rejected(
    service: RunningService, application: Misbehaving, store: Misbehaving, target: bytes
) -> None:
    """The application decides about exactly the target that the client sent."""
    answer = send_raw(service.port, b"GET " + target + b" HTTP/1.1", b"host: a")
    if answer.status == 400:
        assert application.requests == store.requests == []
    else:
        assert application.exchanges[0].headers["x-original-uri"].encode("latin-1") == target


def test_head_request_asks_with_get_and_original_method(
    service: RunningService, application: Misbehaving, store: Misbehaving
) -> None:
    """A HEAD is authorized as GET is, by a GET that names HEAD."""
    answer = fetch(service.port, IMAGE, method="HEAD")
    assert (answer.status, answer.headers["content-length"]) == (200, "7")
    [exchange] = application.exchanges
    assert (exchange.method, exchange.headers["x-original-method"]) == ("GET", "HEAD")
    application.behaviour = answer_privately(403)
    assert fetch(service.port, IMAGE, method="HEAD").status == 403
    assert len(store.requests) == 1


def test_invalid_request_id_is_replaced_before_application_gets_it(
    service: RunningService, application: Misbehaving
) -> None:
    """The application, the log and the client have the same request id."""
    answer = fetch(service.port, IMAGE, headers={"x-request-id": "no id"})
    assert answer.headers["x-request-id"] != "no id"
    assert application.exchanges[0].headers["x-request-id"] == answer.headers["x-request-id"]


def test_request_without_host_is_authorized(
    service: RunningService, application: Misbehaving
) -> None:
    """HTTP/1.0 needs no Host; then there is no X-Forwarded-Host."""
    assert send_raw(service.port, f"GET {IMAGE} HTTP/1.0".encode()).body == PICTURE
    assert not application.exchanges[0].headers.get("x-forwarded-host")


def test_mounted_application_sends_original_uri_with_mount_path(
    store: Misbehaving, application: Misbehaving
) -> None:
    """X-Original-URI is the target that the client sent, wherever the application is mounted."""
    downloads = create_app(settings_for(store.url, auth_url=auth_url(application)))
    host = Starlette(routes=[Mount("/me dia", downloads)], lifespan=entering(downloads))
    with serving_app(host) as port:
        assert fetch(port, "/me%20dia/tasks/7/image?a=%20+").body == PICTURE
    assert application.exchanges[0].headers["x-original-uri"] == "/me%20dia/tasks/7/image?a=%20+"


FORGED = {
    "x-forwarded-for": "203.0.113.9",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "forged.test",
    "x-original-method": "FORGED",
    "x-original-uri": "/forged",
    "x_original_uri": "/forged",
    "x-real-ip": "203.0.113.9",
    "forwarded": "for=203.0.113.9;host=forged.test",
}


@pytest.mark.parametrize(
    ("trusted", "client", "scheme"),
    [("192.0.2.1", "127.0.0.1", "http"), ("127.0.0.1", "203.0.113.9", "https")],
)
def test_forwarded_headers_of_client_count_only_from_trusted_proxy(
    store: Misbehaving, application: Misbehaving, trusted: str, client: str, scheme: str
) -> None:
    """FORWARDED_ALLOW_IPS decides on address and scheme; no request sets X-Original headers."""
    environ = {
        **store_environ(store.url),
        "AUTH_URL": auth_url(application),
        "FORWARDED_ALLOW_IPS": trusted,
    }
    with ServiceProcess(environ) as process:
        port = urlsplit(process.url()).port or 0
        assert fetch(port, IMAGE, headers=FORGED).body == PICTURE
    [exchange] = application.exchanges
    assert exchange.values("x-forwarded-for") == [client]
    assert exchange.values("x-forwarded-proto") == [scheme]
    assert exchange.values("x-original-method") == ["GET"]
    assert exchange.values("x-original-uri") == [IMAGE]
    assert not {"x_original_uri", "x-real-ip", "forwarded"} & exchange.headers.keys()
    if client == "127.0.0.1":
        assert exchange.values("x-forwarded-host") == ["downspout.test"]
        assert "forged" not in str(exchange.lines).lower()


# Answers that decide


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 205, 206, 226, 299])
def test_2xx_of_application_lets_request_in(
    service: RunningService, application: Misbehaving, status: int
) -> None:
    """Every 2xx authorizes, and no header of the application reaches the client."""

    async def answering(exchange: Exchange) -> None:
        await exchange.head(status, *PRIVATE_LINES, "content-length: 0")

    application.behaviour = answering
    answer = fetch(service.port, IMAGE)
    assert (answer.status, answer.body) == (200, PICTURE)
    assert "SECRET" not in str(answer.headers)
    assert not {"set-cookie", "x-user"} & answer.headers.keys()


LOG_IN = "You must log in, or send valid credentials, to download this."


@pytest.mark.parametrize(
    ("status", "kind", "detail"),
    [(401, "not-authenticated", LOG_IN), (403, "not-authorized", "You may not download this.")],
)
def test_401_and_403_of_application_refuse_request(
    service: RunningService,
    application: Misbehaving,
    store: Misbehaving,
    caplog: pytest.LogCaptureFixture,
    status: int,
    kind: str,
    detail: str,
) -> None:
    """The client gets the status as a problem, and the log a reason that names AUTH_URL."""
    application.behaviour = answer_privately(status)
    answer = fetch_logged(service.port, caplog)
    assert answer.status == status
    problem = read_problem(answer)
    assert problem["type"] == f"urn:downspout:problem:{kind}"
    assert problem["detail"] == detail
    assert problem["retryable"] is False
    assert f"{status} refused (AUTH_URL" in caplog.text
    assert store.requests == []


CHALLENGES = (
    'Basic realm="photos", charset="UTF-8"',
    'Bearer realm="photos", error="x"',
    "Digest",
)


@pytest.mark.parametrize("status", [401, 403])
def test_challenges_of_application_reach_client(
    service: RunningService, application: Misbehaving, status: int
) -> None:
    """A browser or a player answers the application's own challenges, all of its lines."""
    lines = [f"WWW-Authenticate: {value}" for value in CHALLENGES]
    application.behaviour = answer_privately(status, *lines)
    answer = service.get(IMAGE)
    assert answer.status_code == status
    values = answer.headers.get_list("www-authenticate")
    assert ", ".join(values) == ", ".join(CHALLENGES)


def test_401_without_challenge_gets_default_and_403_gets_none(
    service: RunningService, application: Misbehaving
) -> None:
    """A 401 must have a challenge (RFC 9110, 11.6.1), a 403 need not."""
    application.behaviour = answer_privately(401)
    answer = fetch(service.port, IMAGE)
    assert answer.headers["www-authenticate"] == 'Bearer realm="downspout"'
    application.behaviour = answer_privately(403)
    assert "www-authenticate" not in fetch(service.port, IMAGE).headers


@pytest.mark.parametrize("odd", ['Basic realm="caf\xe9"', 'Basic realm="\xff"', "", " \t "])
def test_odd_challenge_of_application_is_dropped(
    service: RunningService, application: Misbehaving, odd: str
) -> None:
    """A challenge that is no text, or empty, does not reach the client; the others do."""
    application.behaviour = answer_privately(401, f"www-authenticate: {odd}")
    alone = fetch(service.port, IMAGE).headers["www-authenticate"]
    assert alone.startswith(("Basic", "Bearer"))
    assert alone.isascii()
    good = 'Basic realm="photos"'
    lines = (f"www-authenticate: {odd}", f"www-authenticate: {good}")
    application.behaviour = answer_privately(401, *lines)
    received = fetch(service.port, IMAGE)
    assert received.status == 401
    assert good in received.headers["www-authenticate"]
    assert received.headers["www-authenticate"].isascii()


@pytest.mark.parametrize("status", [401, 403])
def test_refusal_is_same_whether_or_not_path_could_name_object(
    service: RunningService, application: Misbehaving, store: Misbehaving, status: int
) -> None:
    """The application decides before the path is looked at."""
    application.behaviour = answer_privately(status)
    for path in (IMAGE, "/tasks/x/image", "/tasks/7/bytes/x", f"/tasks/{'9' * 400}/image"):
        assert fetch(service.port, path).status == status
    assert store.requests == []


def test_cookie_of_application_is_not_sent_with_later_requests(
    service: RunningService, application: Misbehaving
) -> None:
    """The connections to the application are shared, its cookies must not be."""
    application.behaviour = answer_with(200, b"", "set-cookie: session=of-ada; Path=/")
    for _ in range(2):
        assert fetch(service.port, IMAGE).status == 200
    assert "cookie" not in application.exchanges[1].headers


def test_each_request_to_application_has_its_own_connection(
    service: RunningService, application: Misbehaving
) -> None:
    """No answer that is left on a connection can be taken for another client's."""
    for _ in range(10):
        assert fetch(service.port, IMAGE).status == 200
    peers = {one.writer.get_extra_info("peername") for one in application.exchanges}
    assert (len(application.exchanges), len(peers)) == (10, 10)
    assert {one.headers["connection"] for one in application.exchanges} == {"close"}


# Which requests are authorized by it


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/nothing"]
)
def test_other_routes_do_not_ask_application(
    service: RunningService, application: Misbehaving, path: str
) -> None:
    """Only downloads are authorized by the application."""
    application.behaviour = answer_privately(403)
    for method in ("GET", "HEAD"):
        assert fetch(service.port, path, method=method).status == (404 if "no" in path else 200)
    assert application.requests == []


def test_other_methods_do_not_ask_application(
    service_with: ServiceWith, store: Misbehaving, application: Misbehaving
) -> None:
    """A preflight has no credentials, and POST downloads nothing."""
    service = service_with(auth_url=auth_url(application), cors_origins=("https://page.test",))
    headers = {"origin": "https://page.test", "access-control-request-method": "GET"}
    assert fetch(service.port, IMAGE, method="OPTIONS", headers=headers).status == 200
    assert fetch(service.port, IMAGE, method="POST").status == 405
    assert application.requests == []


def test_bytes_route_asks_application(
    service: RunningService, application: Misbehaving, store: Misbehaving
) -> None:
    """The bytes route is authorized as the image route is."""
    path = "/tasks/1/bytes/7?x=%20"
    answer = fetch(service.port, path)
    assert (answer.status, answer.body) == (200, PICTURE)
    assert answer.headers["cache-control"] == "private, max-age=9"
    assert application.exchanges[0].headers["x-original-uri"] == path
    application.behaviour = answer_privately(403)
    assert fetch(service.port, path).status == 403
    assert len(store.requests) == 1


def test_objects_route_asks_application(
    service_with: ServiceWith, application: Misbehaving, store: Misbehaving
) -> None:
    """The application gets the key as the client encoded it."""
    service = service_with(auth_url=auth_url(application), s3_objects=("public/",))
    path = "/objects/a%20b//%C3%BC+%2B.txt?download"
    answer = fetch(service.port, path)
    assert (answer.status, answer.body) == (200, PICTURE)
    assert answer.headers["cache-control"] == "private, max-age=9"
    assert application.exchanges[0].headers["x-original-uri"] == path
    application.behaviour = answer_privately(401)
    assert fetch(service.port, path).status == 401
    assert len(store.requests) == 1


def test_answers_with_auth_url_are_private(
    service: RunningService, application: Misbehaving
) -> None:
    """A shared cache would serve a public answer to clients that the application refuses."""
    for headers in ({}, {"range": "bytes=0-2"}, {"if-none-match": "*"}):
        answer = fetch(service.port, IMAGE, headers=headers)
        assert answer.status in (200, 206, 304)
        assert answer.headers["cache-control"] == "private, max-age=9"


@pytest.fixture
def guarded(
    service_with: ServiceWith, store: Misbehaving, application: Misbehaving
) -> RunningService:
    """Run the service with AUTH_URL, a token and a signing key."""
    application.behaviour = answer_privately(403)
    return service_with(
        auth_url=auth_url(application), access_tokens=(TOKEN,), url_signing_keys=(KEY,)
    )


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_token_or_signed_url_lets_in_without_asking(
    guarded: RunningService, application: Misbehaving, method: str
) -> None:
    """A valid token or signature is enough; the application is not asked."""
    bearer = {"authorization": f"Bearer {TOKEN}"}
    signed = sign_url(IMAGE, KEY, lifetime=60)
    assert fetch(guarded.port, IMAGE, method=method, headers=bearer).status == 200
    assert fetch(guarded.port, signed, method=method).status == 200
    assert application.requests == []


def test_invalid_token_or_signature_asks_application(
    guarded: RunningService, application: Misbehaving, store: Misbehaving
) -> None:
    """The Authorization header of a request may be meant for the application."""
    wrong = {"authorization": f"Bearer {TOKEN}x"}
    forged = sign_url(IMAGE, KEY, lifetime=60)[:-1]
    assert fetch(guarded.port, IMAGE, headers=wrong).status == 403
    assert fetch(guarded.port, forged).status == 403
    assert store.requests == []
    first, second = application.exchanges
    assert first.headers["authorization"] == wrong["authorization"]
    assert second.headers["x-original-uri"] == forged
    application.behaviour = allow
    assert fetch(guarded.port, IMAGE, headers=wrong).status == 200


def test_authorize_of_host_lets_in_beside_application(
    store: Misbehaving, application: Misbehaving
) -> None:
    """A host's `authorize` is enough; if it refuses, the application decides."""

    async def authorize(request: Request) -> bool:
        return "member" in request.query_params

    settings = settings_for(store.url, auth_url=auth_url(application))
    with serving_app(create_app(settings, authorize=authorize)) as port:
        assert fetch(port, f"{IMAGE}?member").status == 200
        assert application.requests == []
        assert fetch(port, IMAGE).status == 200
        application.behaviour = answer_privately(401)
        assert fetch(port, IMAGE).status == 401
        assert len(application.requests) == 2


def test_metrics_count_refusals_and_failures_of_application(
    store: Misbehaving, application: Misbehaving
) -> None:
    """A refusal is no failure, an application that is down is one; no label has a secret."""
    with serving(settings_for(store.url, auth_url=auth_url(application))) as service:
        for status in (401, 403, 500):
            application.behaviour = answer_privately(status)
            fetch(service.port, IMAGE)

        def count(outcome: str) -> bool:
            labels = f'outcome="{outcome}",route="/tasks/{{task_id}}/image"'
            return f"downspout_downloads_total{{{labels}}}" in service.get("/metrics").text

        wait_until(lambda: count("refused") and count("failed"))
        text = service.get("/metrics").text
        assert 'outcome="refused",route="/tasks/{task_id}/image"} 2.0' in text
        assert 'outcome="failed",route="/tasks/{task_id}/image"} 1.0' in text
        assert "SECRET" not in text


def test_query_with_too_many_parameters_is_rejected_without_asking(
    service: RunningService, application: Misbehaving
) -> None:
    """The request for the application has a bounded size."""
    assert fetch(service.port, f"{IMAGE}?{'a&' * 1000}").status == 414
    assert application.requests == []


# Settings

ENVIRON = {"S3_IMAGE_BUCKET": "photos"}


def load_problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ({**ENVIRON, **environ})
    return list(raised.value.problems)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "  ",
        "may-download",
        "//app.example/",
        "ftp://app.example/",
        "http://",
        "http:///may",
        "http://app.example:99999/",
        "http://ada:hunter2@app.example/",
        "http://hunter2@app.example/",
        "http://app.example/ hunter2",
        "http://app.example/\x7f",
    ],
)
def test_invalid_auth_url_is_one_line_without_its_value(value: str) -> None:
    """A blank AUTH_URL would open all downloads; a URL with a password is no place for it."""
    [problem] = load_problems(AUTH_URL=value)
    assert problem.startswith("AUTH_URL ")
    assert "for example AUTH_URL=http" in problem
    assert "hunter2" not in problem
    with pytest.raises(SettingsError):
        Settings(**store_settings("http://store.test"), auth_url=value)


@pytest.mark.parametrize("value", ["-1", "3601", "nan", "inf", "soon"])
def test_invalid_auth_cache_seconds_is_one_line(value: str) -> None:
    """AUTH_CACHE_SECONDS is from 0 to 3600."""
    url = "http://127.0.0.1:9000/may-download"
    [problem] = load_problems(AUTH_URL=url, AUTH_CACHE_SECONDS=value)
    assert problem.startswith("AUTH_CACHE_SECONDS ")


def test_auth_url_is_read_and_hidden() -> None:
    """The URL may have a secret in its path or query, so that `repr` hides it."""
    url = "https://app.example:9000/may/hunter2?x=%2F"
    settings = Settings.from_environ({**ENVIRON, "AUTH_URL": url, "AUTH_CACHE_SECONDS": "2.5"})
    assert (settings.auth_url, settings.auth_cache_seconds) == (url, 2.5)
    assert settings.auth_mode == "application"
    assert "hunter2" not in repr(settings)
    unset = Settings.from_environ(ENVIRON)
    assert (unset.auth_url, unset.auth_cache_seconds, unset.auth_mode) == (None, 0, "open")


def test_open_downloads_are_not_logged_with_auth_url(
    store: Misbehaving, application: Misbehaving
) -> None:
    """AUTH_URL closes access, so the start logs neither that it is open nor the URL."""
    environ = {
        "S3_IMAGE_BUCKET": "photos",
        "AWS_ENDPOINT_URL_S3": store.url,
        "AWS_REGION": "us-east-1",
        "HOST": "0.0.0.0",
        "AUTH_URL": auth_url(application),
    }
    with ServiceProcess(environ) as process:
        process.wait_for_line("listening on")
        process.stop()
        assert not process.saw("open to anyone")
        assert not process.saw("SECRET")
