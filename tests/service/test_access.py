"""Who may download: tokens, signed addresses, and what those without are told."""

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
from handlers.access.signed_url import SigningKey, rejection_reason
from handlers.access.tokens import Tokens
from handlers.answers.headers import private_cache_control
from settings import Settings
from tests.support.client import ask, connect, fetch
from tests.support.components import Store, settings_for
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


def bearing(token: str) -> Headers:
    return {"authorization": f"Bearer {token}"}


def signed(path: str = IMAGE, key: str = KEYS[0], lifetime: float = 60) -> str:
    return sign_url(path, key, lifetime=lifetime)


@pytest.fixture(scope="module")
def guarded(store: Store) -> Generator[RunningService]:
    """The service with both ways in, before a store that has one image."""
    store.put("test/7/image.jpg", b"picture", ContentType="image/jpeg")
    settings = settings_for(
        store.url, access_tokens=TOKENS, url_signing_keys=KEYS, metrics_tokens=("figures" * 3,)
    )
    with serving(settings) as running:
        yield running


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_token_lets_in(guarded: RunningService, token: str, scheme: str) -> None:
    """Any of the tokens will do, so that they can be changed one by one."""
    answer = guarded.get(IMAGE, headers={"authorization": f"{scheme} {token}"})
    assert answer.content == b"picture"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_signed_address_lets_in(guarded: RunningService, key: str, method: str) -> None:
    """So does an address signed by any of the keys; it holds for GET and HEAD."""
    answer = guarded.request(method, signed(key=key))
    assert answer.status_code == 200
    assert answer.headers["content-length"] == "7"


def test_signed_address_holds_for_parts_and_its_name(guarded: RunningService) -> None:
    """A download that was cut can be continued by it; the name is the one that was signed."""
    address = signed(f"{IMAGE}?download=a b.jpg")
    answer = guarded.get(address, headers={"range": "bytes=3-"})
    assert answer.content == b"ture"
    assert answer.headers["content-disposition"] == 'attachment; filename="a b.jpg"'
    assert guarded.get(address.replace("a+b", "c+d")).status_code == 401


def test_token_opens_where_a_signature_has_expired(guarded: RunningService) -> None:
    """Either is enough."""
    assert guarded.get(IMAGE + "?expires=1&key=new&signature=x").status_code == 401
    opened = guarded.get(IMAGE + "?expires=1&key=new&signature=x", headers=bearing(TOKENS[0]))
    assert opened.status_code == 200
    both = guarded.get(signed(), headers=bearing("none-of-the-tokens"))
    assert both.status_code == 200


REFUSED: list[tuple[str, Headers]] = [
    (IMAGE, {}),
    (IMAGE, {"authorization": ""}),
    (IMAGE, {"authorization": TOKENS[0]}),
    (IMAGE, {"authorization": f"Basic {TOKENS[0]}"}),
    (IMAGE, {"authorization": "Bearer"}),
    (IMAGE, bearing(TOKENS[0][:-1])),
    (IMAGE, bearing(TOKENS[0] + "x")),
    (IMAGE, bearing(TOKENS[0].upper())),
    (IMAGE, bearing(", ".join(TOKENS))),
    (IMAGE, bearing(f"{TOKENS[0]} {TOKENS[0]}")),
    (f"{IMAGE}?access_token={TOKENS[0]}", {}),
    (f"{IMAGE}?expires=2000000000&key=new&signature=%00", {}),
]


@pytest.mark.parametrize("path", ["/tasks/8/image", "/tasks/x/image", "/tasks/1/bytes/10"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_without_right_nothing_is_told(guarded: RunningService, path: str, method: str) -> None:
    """Whether there is such an object, or could be, is no part of the answer."""
    headers = {"x-request-id": "r"}
    answer, other = (guarded.request(method, one, headers=headers) for one in (path, IMAGE))
    assert answer.status_code == 401
    for one in (answer, other):
        del one.headers["date"]
    assert answer.headers == other.headers
    assert answer.content == other.content


@pytest.mark.parametrize(("path", "headers"), REFUSED)
def test_wrong_right_is_none(guarded: RunningService, path: str, headers: Headers) -> None:
    """Bad, missing and expired are one answer, with the challenge of a 401."""
    answer = guarded.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="downspout"'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "type": "urn:downspout:problem:not-allowed",
        "title": "Not allowed",
        "status": 401,
        "detail": "This needs a valid access token, or a URL with a valid signature.",
        "request_id": answer.headers["x-request-id"],
        "retryable": False,
    }


def test_signature_of_something_else_is_none(guarded: RunningService) -> None:
    """One that is good for too long, for another path, or by another key."""
    for address in (
        signed(lifetime=1e9),
        signed("/tasks/8/image").replace("/8/", "/7/"),
        signed(key="none:0123456789abcdef"),
        signed(key="new:fedcba9876543210"),
    ):
        assert guarded.get(address).status_code == 401
    assert guarded.get(signed()).status_code == 200


def test_two_tokens_at_once_are_none(guarded: RunningService) -> None:
    """Of two headers, whoever stands before us may have read the other one."""
    headers = [("authorization", f"Bearer {token}") for token in (TOKENS[0], "x" * 16)]
    assert guarded.get(IMAGE, headers=headers).status_code == 401
    assert guarded.get(IMAGE, headers=headers[::-1]).status_code == 401


def test_token_that_is_not_ascii_is_wrong(guarded: RunningService) -> None:
    """Any bytes are compared: none makes an error of ours (hmac.compare_digest takes no é)."""
    for bad in (b"Bearer caf\xe9-0123456789abcdef", b"Bearer \xff\xfe", "Bearer é".encode()):
        assert guarded.get(IMAGE, headers={b"authorization": bad}).status_code == 401


def test_refused_before_store_and_place(upstream: Misbehaving) -> None:
    """Who may not is turned away when every place is taken, and nobody is asked about it."""

    async def never_answers(exchange: Exchange) -> None:
        await exchange.hang()

    upstream.behaviour = never_answers
    settings = settings_for(
        upstream.url, max_downloads=1, max_downloads_per_client=1, access_tokens=TOKENS
    )
    with serving(settings) as service, closing(connect(service.port)) as connection:
        ask(connection, IMAGE, headers=bearing(TOKENS[0]))
        wait_until(lambda: len(upstream.requests) == 1)
        assert service.get(IMAGE).status_code == 401
        assert len(upstream.requests) == 1
        assert service.get(IMAGE, headers=bearing(TOKENS[1])).status_code == 429


async def test_refused_where_nothing_has_been_started() -> None:
    """Nor is it told how the service is."""
    app = create_app(Settings(s3_image_bucket="photos", access_tokens=TOKENS))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://downspout.test") as client:
        assert (await client.get(IMAGE)).status_code == 401
        assert (await client.get(IMAGE, headers=bearing(TOKENS[0]))).status_code == 503


def test_query_without_end_is_not_taken_apart(guarded: RunningService) -> None:
    """It would hold up everybody, for a name to save by or a signature."""
    assert guarded.get(f"{IMAGE}?{'a&' * 30_000}").status_code == 414
    assert guarded.get(f"{IMAGE}?{'a&' * 50}").status_code == 401


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every token by hmac.compare_digest, whichever is right, and so is a signature."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    for token in (*TOKENS, "x", "x" * 300):
        headers = [(b"authorization", f"Bearer {token}".encode())]
        is_valid = Tokens(TOKENS).rejection_reason(headers) is None
        assert is_valid == (token in TOKENS)
        assert compared == [(32, 32)] * 2
        compared.clear()
    parameters = [("expires", "2000000000"), ("key", "a"), ("signature", "x")]
    assert rejection_reason([SigningKey.parse("a:" + "0" * 16)], "/", parameters, max_lifetime=1)
    assert compared == [(43, 1)]


def test_with_keys_alone_it_is_403(store: Store) -> None:
    """Where no token would do there is nothing to challenge with."""
    store.put("test/7/image.jpg", b"picture", ContentType="image/jpeg")
    with serving(settings_for(store.url, url_signing_keys=KEYS)) as service:
        assert service.get(signed()).content == b"picture"
        refused = service.get(IMAGE)
        assert refused.status_code == 403
        assert refused.json()["type"] == "urn:downspout:problem:not-signed"
        assert "www-authenticate" not in refused.headers
        assert service.get(IMAGE, headers=bearing(TOKENS[0])).status_code == 403


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json"])
def test_what_is_no_download_stays_open(guarded: RunningService, path: str) -> None:
    """Probes and people who look for the way in have no token."""
    assert guarded.get(path).status_code == 200


def test_metrics_have_tokens_of_their_own(guarded: RunningService) -> None:
    """Figures are for whom they are meant, who are not those that download."""
    refused = guarded.get("/metrics")
    assert refused.status_code == 401
    assert refused.json()["detail"] == "This needs a valid access token."
    assert guarded.get("/metrics", headers=bearing(TOKENS[0])).status_code == 401
    seen = guarded.get("/metrics", headers=bearing("figures" * 3))
    assert 'downspout_downloads_total{outcome="refused"' in seen.text


def test_metrics_are_open_by_default(store: Store) -> None:
    """Tokens for downloads alone do not close them."""
    with serving(settings_for(store.url, access_tokens=TOKENS)) as service:
        assert service.get("/metrics").status_code == 200


def test_mounted_application_checks_its_own_path(store: Store) -> None:
    """What is signed is the path within the application, wherever that is mounted."""
    store.put("test/7/image.jpg", b"picture", ContentType="image/jpeg")
    downloads = create_app(settings_for(store.url, url_signing_keys=KEYS))
    host = Starlette(routes=[Mount("/media", downloads)], lifespan=entering(downloads))
    with serving_app(host) as port:
        address = sign_url("/media" + IMAGE, KEYS[0], lifetime=60, root_path="/media")
        assert fetch(port, address).body == b"picture"
        assert fetch(port, "/media" + signed()).body == b"picture"
        assert fetch(port, "/media" + IMAGE).status == 403


def test_document_tells_how_to_get_in(guarded: RunningService, service: RunningService) -> None:
    """With access control downloads have their security schemes; without, none."""
    for running, expected in ((guarded, [{"token": []}, {"signature": []}]), (service, None)):
        document = running.get("/openapi.json").json()
        operation = document["paths"]["/tasks/{task_id}/image"]["get"]
        assert operation.get("security") == expected


# Caches


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("", "private"),
        ("public, max-age=60", "private, max-age=60"),
        ("max-age=60, s-maxage=600", "private, max-age=60"),
        ("Public,MAX-AGE=60", "private, MAX-AGE=60"),
        ("private, max-age=60", "private, max-age=60"),
        ('private="set-cookie, x", max-age=1', "private, max-age=1"),
        ('no-cache="a, public", max-age=1', 'private, no-cache="a, public", max-age=1'),
        ("no-store", "no-store"),
        ("no-store, public", "no-store"),
        ("public, must-understand, no-store, max-age=3600", "no-store"),
        ("No-Store=1, public", "no-store"),
        ("must-understand, max-age=1", "private, max-age=1"),
        ("s-maxage = 60, public =1", "private"),
        ("\tpublic\t,\tmax-age=1\t", "private, max-age=1"),
        ('x="no-store, public"', 'private, x="no-store, public"'),
        (r'x="\", no-store"', r'private, x="\", no-store"'),
        ("no-cache", "private, no-cache"),
        ("must-revalidate, proxy-revalidate", "private, must-revalidate"),
        (",, public ,", "private"),
        ('x="unended, public', 'private, x="unended, public'),
    ],
)
def test_cache_control_of_what_not_all_may_have(stored: str, sent: str) -> None:
    """Shared caches keep nothing; of the rest, what is stored holds."""
    assert private_cache_control(stored) == sent


@pytest.mark.parametrize(
    ("changes", "sent"),
    [({}, "public, max-age=9"), ({"access_tokens": TOKENS}, "private, max-age=9")],
)
def test_answers_are_private_with_access_control(
    store: Store, changes: dict[str, Any], sent: str
) -> None:
    """Else a cache before the service would hand them to anybody; 304 says the same."""
    store.put("test/7/image.jpg", b"picture", CacheControl="public, max-age=9")
    with serving(settings_for(store.url, **changes)) as service:
        headers = bearing(TOKENS[0])
        assert service.get(IMAGE, headers=headers).headers["cache-control"] == sent
        known = service.get(IMAGE, headers={**headers, "if-none-match": "*"})
        assert known.status_code == 304
        assert known.headers["cache-control"] == sent


def test_answer_without_a_cache_control_is_private(store: Store) -> None:
    """Caches keep such an answer as long as they like: shared ones must not."""
    store.put("test/9/image.jpg", b"picture")
    with serving(settings_for(store.url, access_tokens=TOKENS)) as service:
        answer = service.get("/tasks/9/image", headers=bearing(TOKENS[0]))
        assert answer.headers["cache-control"] == "private"


def test_bytes_are_private_too(upstream: Misbehaving) -> None:
    """What the upstream says of shared caches does not hold for what it is guarded by here."""

    async def public(exchange: Exchange) -> None:
        await exchange.answer(200, b"12345", "cache-control: public, max-age=9")

    upstream.behaviour = public
    with serving(settings_for(upstream.url, access_tokens=TOKENS)) as service:
        answer = service.get("/tasks/1/bytes/5", headers=bearing(TOKENS[1]))
        assert answer.headers["cache-control"] == "private, max-age=9"


# The log


def test_log_tells_why_and_no_secret(
    guarded: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator sees what was wrong; no token and no signature is ever written."""
    caplog.set_level(logging.INFO, "downspout")
    address = signed("/tasks/8/image").replace("/8/", "/7/")
    guarded.get(address, headers={**bearing(TOKENS[0][:-1]), "x-request-id": "why"})
    wait_until(lambda: "request_id=why" in caplog.text)
    assert "401 refused (wrong token, wrong signature)" in caplog.text
    assert TOKENS[0][:-1] not in caplog.text
    assert urlsplit(address).query not in caplog.text


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, "INFO"),
        ({"HOST": "0.0.0.0"}, "WARNING"),
        ({"ACCESS_TOKENS": TOKENS[0]}, None),
        ({"URL_SIGNING_KEYS": KEYS[0]}, None),
    ],
)
def test_open_downloads_are_told_once(
    store: Store, environ: dict[str, str], told: str | None
) -> None:
    """Without access control one line at start says so, louder where others reach the port."""
    with ServiceProcess({**store.environ, "WEB_CONCURRENCY": "2", **environ}) as process:
        port = urlsplit(wait_until(lambda: where(process))).port
        assert fetch(port or 0, "/healthz").status == 200
        lines = [line for line in process.lines if "open to anyone" in line]
    assert [line.partition(told)[1] for line in lines if told] == ([told] if told else [])
    assert bool(lines) == bool(told)


def where(process: ServiceProcess) -> str:
    return next((line.split()[6] for line in process.lines if "listening on" in line), "")


def test_open_downloads_are_told_under_other_servers(store: Store) -> None:
    """Whoever serves `service:app` hears it too."""
    code = "import service; service.app"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, cwd=ROOT, env=store.environ, capture_output=True, text=True, check=True
    )
    assert "open to anyone who reaches the port" in ran.stderr


# Forgeries


def forgeries(seed: int) -> Iterator[tuple[str, Headers]]:
    """Yield what is nearly right, and what is not right at all."""
    dice = random.Random(seed)
    alphabet = string.ascii_letters + string.digits + "-_~+/=.%&?"

    def changed(text: str) -> str:
        at = dice.randrange(len(text))
        return text[:at] + dice.choice(alphabet.replace(text[at], "")) + text[at + 1 :]

    def anything(size: int) -> str:
        return "".join(dice.choice(alphabet) for _ in range(size))

    while True:
        address, token = signed(key=dice.choice(KEYS)), dice.choice(TOKENS)
        path, _, query = address.partition("?")
        at = dice.randrange(1, len(token))
        yield IMAGE, bearing(changed(token))
        yield IMAGE, bearing(token[:at])
        yield IMAGE, bearing(token[at:])
        yield IMAGE, bearing(token + anything(dice.randrange(1, 9)))
        yield IMAGE, bearing(anything(dice.randrange(200)))
        yield f"{path}?{query[: dice.randrange(len(query))]}", {}
        yield f"{path}?{query.partition('&')[2]}", {}
        yield f"{path}?{query[:-1]}{dice.choice('ABCDEFGHIJ=')}x", {}
        yield f"{path}?{query.rpartition('=')[0]}={anything(43)}", {}
        yield f"/tasks/{dice.randrange(8, 10**9)}/image?{query}", {}
        yield f"/tasks/7/bytes/7?{query}", {}
        yield f"{path}?{query}&download={anything(3)}x", {}
        yield signed(key=f"new:{anything(5).replace('&', '_')}0123456789ab"), {}
        yield signed(lifetime=8 * 86_400 + dice.randrange(10**8)), {}
        yield sign_url_of_the_past(dice), {}


def sign_url_of_the_past(dice: random.Random) -> str:
    """Return an address that was good once, as it would be replayed."""
    expires = 1_700_000_000 + dice.randrange(10**7)
    signature = SigningKey.parse(KEYS[0]).signature(IMAGE, expires, None)
    return f"{IMAGE}?expires={expires}&key=new&signature={signature}"


async def test_ten_thousand_forgeries_are_refused(upstream: Misbehaving) -> None:
    """Nothing forged, truncated, replayed or expired is let in, and the store hears of none."""
    app = create_app(settings_for(upstream.url, access_tokens=TOKENS, url_signing_keys=KEYS))
    statuses: list[int] = []

    async def receive() -> Message:
        raise AssertionError("there is nothing to receive")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    attempts = forgeries(seed=1)
    async with app.router.lifespan_context(app):
        for _ in range(10_000):
            path, headers = next(attempts)
            await app(scope_of(path, headers), receive, send)
    assert statuses == [401] * 10_000
    assert upstream.requests == []


def scope_of(path: str, headers: Headers) -> dict[str, Any]:
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


# The command that signs


def run_sign(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "service.py", "sign", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_signs(guarded: RunningService) -> None:
    """`service.py sign` makes an address that lets in, with nothing set but the keys."""
    keys = ",".join(KEYS)
    for options in ([], ["--expires", "7d"], ["--key", "old"], ["--expires=90"]):
        ran = run_sign(guarded.url + IMAGE, *options, URL_SIGNING_KEYS=keys)
        assert ran.returncode == 0, ran.stderr
        assert guarded.get(ran.stdout.strip()).content == b"picture"


def test_command_signs_for_no_longer_than_allowed(guarded: RunningService) -> None:
    """Where an hour is too long, what is not told is as long as may be."""
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
def test_command_says_what_is_wrong(
    arguments: list[str], environ: dict[str, str], problem: str
) -> None:
    """Exit code 2 and one line that names it, without the secret."""
    ran = run_sign(*arguments, **environ)
    assert ran.returncode == 2
    assert problem in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "0123456789abcdef" not in ran.stderr
    assert ran.stdout == ""


def test_problem_is_json_for_programs(guarded: RunningService) -> None:
    """What a program reads of a refusal is a problem document."""
    answer = guarded.get(IMAGE)
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.text)["status"] == 401
