"""The cases that each host has to pass on each server."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import md5
from itertools import product
from typing import NamedTuple

from tests.support.behaviours import BODY
from tests.support.client import abort, ask, connect
from tests.support.components import Store
from tests.support.misbehaving import Exchange
from tests.support.serving import wait_until

from .running import HEADERS, HOSTS, ROOT_PATH, SERVERS, Process, Running

IMAGE = "/media/tasks/1/image"
PICTURE = BODY * 300  # More than one piece.
ETAG = f'"{md5(PICTURE, usedforsecurity=False).hexdigest()}"'
CLIENTS = 50


def fill(store: Store) -> None:
    """Store the objects that the cases request."""
    store.client.create_bucket(Bucket="archive")
    store.client.put_object(Bucket="archive", Key="archive/1", Body=b"archived")
    store.put("test/1/image.jpg", PICTURE, ContentType="image/jpeg")
    store.put("reports/1.pdf", BODY, ContentType="application/pdf")
    store.put("reports/ada/1.pdf", BODY, ContentType="application/pdf")


def whole(running: Running) -> None:
    """A GET returns all bytes, with the length and the ETag of the stored object."""
    answer = running.fetch(IMAGE)
    assert (answer.status, answer.body, answer.whole) == (200, PICTURE, True)
    assert answer.headers["content-length"] == str(len(PICTURE))
    assert answer.headers["etag"] == ETAG
    assert answer.headers["content-type"] == "image/jpeg"


def part(running: Running) -> None:
    """A range is answered with 206 and its bytes."""
    answer = running.fetch(IMAGE, range="bytes=1000-1999")
    assert (answer.status, answer.body) == (206, PICTURE[1000:2000])
    assert answer.headers["content-range"] == f"bytes 1000-1999/{len(PICTURE)}"


def head(running: Running) -> None:
    """HEAD has the headers of GET, and no body."""
    answer = running.fetch(IMAGE, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(PICTURE))
    assert answer.headers["etag"] == ETAG


def problem(running: Running) -> None:
    """A missing object or route below the mount is a 404 problem of downspout's."""
    for path in ("/media/tasks/404/image", "/media/nothing", "/media/tasks/x/image"):
        answer = running.fetch(path)
        assert answer.status == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["type"] == "urn:downspout:problem:not-found"


def openapi(running: Running) -> None:
    """The OpenAPI document names the mount path as its server."""
    answer = running.fetch("/media/openapi.json")
    assert answer.status == 200
    assert json.loads(answer.body)["servers"] == [{"url": "/media"}]


def own_route(running: Running) -> None:
    """The host's own routes still answer, also where the path starts like the mount path."""
    answer = running.fetch("/hello")
    assert answer.status == 200
    assert b"hello" in answer.body
    elsewhere = running.fetch("/mediation")
    assert elsewhere.status == 404


def access(running: Running) -> None:
    """The host's users can download; others get the host's text as a 401 problem."""
    answer = running.fetch(IMAGE, cookie="session=of-nobody")
    assert (answer.status, json.loads(answer.body)["detail"]) == (401, "Log in first.")
    assert running.fetch("/reports/1", cookie="session=of-nobody").status == 401


def side_by_side(running: Running) -> None:
    """Two instances in one host serve two buckets."""
    assert running.fetch("/archive/tasks/1/image").body == b"archived"
    assert running.fetch(IMAGE).body == PICTURE
    assert running.fetch("/archive/tasks/2/image").status == 404


def in_handler(running: Running) -> None:
    """A handler of the host returns an object with `stream_object`, with ranges."""
    answer = running.fetch("/reports/1")
    assert (answer.status, answer.body, answer.whole) == (200, BODY, True)
    some = running.fetch("/reports/1", range="bytes=-24")
    assert (some.status, some.body) == (206, BODY[1000:])
    assert running.fetch("/reports/2").status == 404


async def _known(exchange: Exchange) -> None:
    await exchange.answer(200, BODY, "content-type: image/png")


def url_in_handler(running: Running) -> None:
    """A handler of the host returns the body of another service with `stream_url`."""
    running.between.behaviour = _known
    answer = running.fetch("/logo")
    assert (answer.status, answer.body, answer.whole) == (200, BODY, True)


async def _breaks(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 10240", 'etag: "1"')
    await exchange.body(BODY)
    exchange.reset()


async def _breaks_chunked(exchange: Exchange) -> None:
    await exchange.head(200, "transfer-encoding: chunked")
    await exchange.raw(b"400\r\n" + BODY + b"\r\n")


def broken_visibly(running: Running) -> None:
    """A body that breaks and cannot be resumed ends visibly short, on both routes."""
    running.between.behaviour = _breaks
    for path in (IMAGE, "/media/tasks/1/bytes/10240"):
        answer = running.fetch(path)
        assert (answer.status, answer.whole) == (200, False), path
        assert answer.headers["content-length"] == "10240"
        assert len(answer.body) < 10240
    if running.process.host in HOSTS_OF[url_in_handler]:
        running.between.behaviour = _breaks_chunked
        assert not running.fetch("/logo").whole
    wait_until(running.is_idle)


async def _floods(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 1000000000", 'etag: "1"')
    await exchange.flood()


def aborts(running: Running) -> None:
    """After clients leave in the middle, no connection stays open on either side."""
    wait_until(running.is_idle)
    before = running.sockets()
    running.between.behaviour = _floods
    for _ in range(CLIENTS):
        connection = connect(running.port)
        ask(connection, IMAGE, headers=HEADERS)
        assert connection.recv(1000)
        abort(connection)
    wait_until(running.is_idle)
    wait_until(lambda: running.sockets() <= before)
    assert len(running.between.exchanges) >= CLIENTS


def below_root_path(running: Running) -> None:
    """Under a `root_path` downloads work, and the document names the full path."""
    path = "" if running.process.server.startswith("uvicorn") else ROOT_PATH
    answer = running.fetch(path + IMAGE)
    assert (answer.status, answer.body, answer.whole) == (200, PICTURE, True)
    document = json.loads(running.fetch(f"{path}/media/openapi.json").body)
    assert document["servers"] == [{"url": f"{ROOT_PATH}/media"}]
    assert running.fetch(f"{path}/hello").status == 200


SILENT = ("Unclosed", "Traceback", "never retrieved", "was destroyed", "never awaited")


def sigterm(running: Running) -> None:
    """SIGTERM ends the process without a warning about anything left open."""
    assert running.fetch(IMAGE).whole
    told = len(running.started.lines)
    running.started.process.terminate()
    assert running.started.end() in (0, -15)
    last = running.started.lines[told:]
    assert not [line for line in last if any(word in line for word in SILENT)], last


Case = Callable[[Running], None]

CASES: dict[str, Case] = {
    "whole, with its length and ETag": whole,
    "a range": part,
    "HEAD": head,
    "404 is our problem": problem,
    "`openapi.json` names its server": openapi,
    "the host's own route": own_route,
    "`authorize`": access,
    "two instances side by side": side_by_side,
    "`stream_object` in a handler": in_handler,
    "`stream_url` in a handler": url_in_handler,
    "a broken body is broken visibly": broken_visibly,
    "50 aborts leave nothing open": aborts,
    "below a `root_path`": below_root_path,
    "SIGTERM ends it, all closed": sigterm,
}

# What not every host shows, or can do.
HOSTS_OF: dict[Case, tuple[str, ...]] = {
    access: ("fastapi",),
    side_by_side: ("starlette",),
    in_handler: ("starlette", "fastapi", "litestar", "django"),
    url_in_handler: ("starlette", "fastapi"),
}
# What is tried with every host on every server; all else with one of them the first.
EVERYWHERE = (whole, broken_visibly, aborts, sigterm)


class Combination(NamedTuple):
    """A case of a host on a server."""

    host: str
    server: str
    name: str

    @property
    def case(self) -> Case:
        return CASES[self.name]

    @property
    def process(self) -> Process:
        return Process(self.host, self.server, below_root_path=self.case is below_root_path)


def combinations() -> list[Combination]:
    """Return all combinations, sorted so that those of one process are adjacent."""
    found = [Combination(*one) for one in product(HOSTS, SERVERS, CASES) if _is_tried(*one)]
    return sorted(found, key=lambda one: one.process.below_root_path)


def _is_tried(host: str, server: str, name: str) -> bool:
    case = CASES[name]
    first = host == HOSTS[0] or server == next(iter(SERVERS))
    return host in HOSTS_OF.get(case, HOSTS) and (first or case in EVERYWHERE)
