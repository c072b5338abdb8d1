"""The process: how it starts, what it says, how it ends."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette

import service as service_module
from handlers import BrokenTransfer
from handlers.download.admission import Admission
from handlers.server import DrainOnSignal
from settings import ServerSettings, Settings
from tests.support.client import ask, asked, connect, fetch, read_answer, read_slowly
from tests.support.components import Store
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving
from tests.support.runtime import app_with
from tests.support.serving import ROOT, ServiceProcess, wait_until

PICTURE = hashlib.shake_256(b"service").digest(200_000)

NOT_READY = "urn:downspout:problem:not-ready"

UVICORN = ("-m", "uvicorn", "service:app", "--port", "0")


def environ_for(upstream: Misbehaving, **changes: str) -> dict[str, str]:
    return {
        "S3_IMAGE_BUCKET": "photos",
        "AWS_ENDPOINT_URL": upstream.url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "BYTES_URL": upstream.url + "/bytes/{size}",
        **changes,
    }


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_process_serves_and_exits_with_0_on_sigterm(store: Store, workers: str) -> None:
    """``python service.py`` serves by its environment, says where, and ends well."""
    store.put("test/1/image.jpg", PICTURE)
    with ServiceProcess({**store.environ, "WEB_CONCURRENCY": workers}) as process:
        url = process.url()
        assert httpx.get(f"{url}/tasks/1/image", trust_env=False).content == PICTURE
        assert process.saw("bucket from S3_IMAGE_BUCKET")
        assert process.saw(f"curl -fS -o image.jpg {url}/tasks/1/image")
        wait_until(lambda: process.saw("GET /tasks/1/image 200 complete 200000/200000 bytes"))
        process.process.send_signal(signal.SIGTERM)
        assert process.end() == 0
        assert not process.saw("Traceback")


def test_interrupt_from_the_keyboard_ends_it_well(store: Store) -> None:
    """Ctrl-C ends the process without a traceback."""
    with ServiceProcess(store.environ) as process:
        process.url()
        process.process.send_signal(signal.SIGINT)
        assert process.end() == 0
        assert not process.saw("Traceback")


def test_uvicorn_serves_the_module(store: Store) -> None:
    """``uvicorn service:app`` serves the same."""
    store.put("test/1/image.jpg", PICTURE)
    with ServiceProcess(store.environ, *UVICORN) as process:
        url = url_of_uvicorn(process)
        assert httpx.get(f"{url}/tasks/1/image", trust_env=False).content == PICTURE


@pytest.mark.parametrize(
    "command",
    [
        ("hypercorn", "service:make_app()", "--bind", "127.0.0.1:{port}"),
        ("granian", "service:app", "--interface", "asgi", "--port", "{port}"),
        ("uvicorn", "service:make_app", "--factory", "--port", "{port}"),
    ],
    ids=lambda command: command[0],
)
def test_other_servers_serve_the_module(
    store: Store, unused_port: int, command: tuple[str, ...]
) -> None:
    """Whatever serves ASGI finds the application in it, and ends well."""
    store.put("test/1/image.jpg", PICTURE)
    url = f"http://127.0.0.1:{unused_port}/tasks/1/image"
    words = [word.format(port=unused_port) for word in command]

    def answer() -> httpx.Response | None:
        try:
            return httpx.get(url, trust_env=False)
        except httpx.TransportError:
            return None

    with ServiceProcess(store.environ, "-m", *words) as process:
        found: httpx.Response = wait_until(answer)
        assert found.content == PICTURE
        process.process.terminate()
        # uvicorn raises the signal once more, when all is done.
        assert process.end() in (0, -signal.SIGTERM)
        assert not process.saw("Traceback")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_lets_running_downloads_finish(upstream: Misbehaving, workers: str) -> None:
    """A download that runs when SIGTERM comes arrives whole, and then the process ends with 0."""
    upstream.behaviour = half = HalfThenRest()
    with ServiceProcess(environ_for(upstream, WEB_CONCURRENCY=workers)) as process:
        with asked(port_of(process.url()), "/tasks/1/image") as client:
            assert client.recv(1)
            process.process.send_signal(signal.SIGTERM)
            wait_until(lambda: process.saw("draining"))
            half.go_on.set()
            received = b"H" + rest_of(client)
        assert received.endswith(PICTURE)
        assert process.end() == 0


class HalfThenRest:
    """A store that gives the second half of the picture when it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {len(PICTURE)}")
        await exchange.body(PICTURE[:100_000])
        while not self.go_on.is_set():
            await exchange.pause(0.01)
        await exchange.body(PICTURE[100_000:])


@pytest.mark.parametrize("command", [(), UVICORN])
def test_draining_process_says_so(upstream: Misbehaving, command: tuple[str, ...]) -> None:
    """While downloads finish, readiness and new downloads are a 503, and health is well."""
    upstream.behaviour = half = HalfThenRest()
    with ServiceProcess(environ_for(upstream), *command) as process:
        url = url_of_uvicorn(process) if command else process.url()
        with asked(port_of(url), "/tasks/1/image") as client:
            assert client.recv(1)
            process.process.send_signal(signal.SIGTERM)
            ready = wait_until(lambda: refused_readiness(url))
            assert ready.json()["type"] == NOT_READY
            assert "about to end" in ready.json()["detail"]
            refused = httpx.get(f"{url}/tasks/1/image", trust_env=False)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["type"] == "urn:downspout:problem:draining"
            assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
            half.go_on.set()
            assert rest_of(client).endswith(PICTURE)
        assert process.end() == (0 if not command else -signal.SIGTERM)
        assert process.saw("GET /tasks/1/image 503 shed (draining)")
        assert not process.saw("Traceback")


def refused_readiness(url: str) -> httpx.Response | None:
    answer = httpx.get(f"{url}/readyz", trust_env=False)
    return answer if answer.status_code == 503 else None


@pytest.fixture
def servers_signals() -> Generator[list[int]]:
    """The signals that reach the handlers of a server, with those handlers in place."""
    reached: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _: reached.append(number))
    yield reached
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("again", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
async def test_server_is_told_when_the_downloads_are_over(
    servers_signals: list[int], again: list[signal.Signals]
) -> None:
    """A second SIGTERM, as some platforms send to all processes, hastens nothing; Ctrl-C does."""
    admission = Admission(1, wait=0)
    app = app_with(admission)
    running: Any = object()
    await admission.acquire(running, 0)
    ending = DrainOnSignal(app)
    for number in (signal.SIGTERM, *again):
        signal.raise_signal(number)
        await anyio.wait_all_tasks_blocked()
    assert servers_signals == [number for number in again if number == signal.SIGINT]
    admission.release(running)
    assert ending._draining is not None
    await ending._draining
    assert servers_signals[-1] == signal.SIGTERM


def test_second_interrupt_does_not_wait(upstream: Misbehaving) -> None:
    """Ctrl-C twice ends the process though a download runs."""
    upstream.behaviour = HalfThenRest()
    with ServiceProcess(environ_for(upstream)) as process:
        with asked(port_of(process.url()), "/tasks/1/image") as client:
            assert client.recv(1)
            process.process.send_signal(signal.SIGINT)
            wait_until(lambda: process.saw("draining"))
            process.process.send_signal(signal.SIGINT)
            assert not read_answer(client).whole
        assert process.end() == 0
    upstream.behaviour.go_on.set()


def test_request_that_waits_when_the_grace_ends_is_told(upstream: Misbehaving) -> None:
    """A download that has not begun when the process ends is a 503, not a cut connection."""
    upstream.behaviour = Exchange.hang
    with ServiceProcess(environ_for(upstream, SHUTDOWN_GRACE="0.5")) as process:
        with asked(port_of(process.url()), "/tasks/1/image") as client:
            wait_until(lambda: upstream.exchanges)
            process.process.send_signal(signal.SIGTERM)
            assert read_answer(client).status == 503
        assert process.end() == 0


def test_log_is_of_objects_where_no_person_reads_it(upstream: Misbehaving) -> None:
    """Without LOG_FORMAT, what goes to a pipe or a file is for programs."""
    with ServiceProcess(environ_for(upstream, LOG_FORMAT="")) as process:
        wait_until(lambda: process.saw("listening on"))
        told = [json.loads(line) for line in process.lines]
        assert any(line["message"].startswith("listening on") for line in told)


def test_log_is_of_lines_on_a_terminal(upstream: Misbehaving) -> None:
    """Without LOG_FORMAT, what goes to a terminal is for a person, with commands to copy."""
    ours, theirs = os.openpty()
    environ = environ_for(upstream, PATH=os.environ["PATH"], PORT="0")
    with subprocess.Popen(
        [sys.executable, "service.py"], cwd=ROOT, env=environ, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        while b"curl -fsS" not in seen:
            seen += os.read(ours, 4096)
        process.terminate()
        assert process.wait(20) == 0
    os.close(ours)
    assert b"INFO downspout: listening on http://127.0.0.1:" in seen


def test_log_in_json(upstream: Misbehaving) -> None:
    """With LOG_FORMAT=json every line is an object, with a field for each figure of a download."""

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, PICTURE)

    upstream.behaviour = stored
    with ServiceProcess(environ_for(upstream, LOG_FORMAT="json")) as process:
        url = process.url()
        httpx.get(f"{url}/tasks/1/image?secret=1", headers={"x-request-id": "7"}, trust_env=False)
        wait_until(lambda: process.saw("bytes_sent"))
        process.process.terminate()
        process.end()
        lines = [json.loads(line) for line in process.lines]
        assert not process.saw("\\u001b")
    [line] = [line for line in lines if "download" in line]
    assert (line["level"], line["logger"]) == ("INFO", "downspout")
    told = line["download"]
    assert told.pop("duration") > told.pop("first_byte") > 0
    assert told == {
        "method": "GET",
        "path": "/tasks/1/image",
        "route": "/tasks/{task_id}/image",
        "source": "s3",
        "status": 200,
        "outcome": "complete",
        "reason": None,
        "bytes_sent": len(PICTURE),
        "bytes_expected": len(PICTURE),
        "resumes": 0,
        "request_id": "7",
    }


def url_of_uvicorn(process: ServiceProcess) -> str:
    wait_until(lambda: process.saw("Uvicorn running on "))
    line = next(line for line in process.lines if "Uvicorn running on " in line)
    return line.split("running on ")[1].split(" ")[0]


def rest_of(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(1 << 20):
        received += data
    return received


def test_sigterm_breaks_visibly_what_does_not_finish(upstream: Misbehaving) -> None:
    """At the end of the grace a download is cut short of its length, and the process ends."""

    async def half(exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {len(PICTURE)}")
        await exchange.body(PICTURE[:100_000])
        await exchange.hang()

    upstream.behaviour = half
    with ServiceProcess(environ_for(upstream, SHUTDOWN_GRACE="1")) as process:
        with asked(port_of(process.url()), "/tasks/1/image") as client:
            assert client.recv(1, socket.MSG_PEEK)
            process.process.send_signal(signal.SIGTERM)
            received = read_answer(client)
        assert not received.whole
        assert PICTURE.startswith(received.body)
        assert process.end() == 0
        told = "GET /tasks/1/image 200 drained (the process shuts down) 100000/200000 bytes"
        assert process.saw(told)
        assert not process.saw("Traceback")


@pytest.mark.parametrize("command", [(), UVICORN, (*UVICORN, "--workers", "2")])
def test_wrong_configuration_is_a_line_each(command: tuple[str, ...]) -> None:
    """Each wrong variable is one line, the exit code is 2, and there is no traceback."""
    environ = {"PORT": "eighty", "S3_ADDRESSING_STYLE": "up", "AWS_PROFILE": "nobody"}
    with ServiceProcess(environ, *command) as process:
        code = process.end()
        lines = process.lines
    # Under its supervisor, uvicorn gives a worker's failure to start no exit code of its own.
    assert code == (0 if "--workers" in command else 2)
    assert not [line for line in lines if "Traceback" in line]
    names = {line.partition(" ")[0] for line in lines if " must be " in line or " not set" in line}
    assert names == {"S3_IMAGE_BUCKET", "PORT", "S3_ADDRESSING_STYLE"}
    assert "AWS configuration: The config profile (nobody) could not be found" in lines
    if not command:
        assert len(lines) == 4


def test_port_that_is_taken_is_one_line(store: Store) -> None:
    """A port in use is said plainly."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with ServiceProcess({**store.environ, "PORT": str(port)}) as process:
            assert process.end() == 1
            [line] = process.lines
    assert line.startswith(f"can't listen on HOST 127.0.0.1, PORT {port}: ")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_file_of_botocore_that_is_wrong_is_one_line(
    store: Store, tmp_path: Path, workers: str
) -> None:
    """What is wrong in botocore's own files ends the process with a line and a code of its own."""
    (tmp_path / "config").write_text("[default]\nregion = -bad-\n")
    environ = {**store.environ, "AWS_REGION": "", "AWS_CONFIG_FILE": str(tmp_path / "config")}
    with ServiceProcess({**environ, "WEB_CONCURRENCY": workers}) as process:
        assert process.end() == 2
        assert process.saw("AWS configuration: InvalidRegionError")
        assert not process.saw("Traceback")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_while_it_starts(store: Store, number: signal.Signals) -> None:
    """To be stopped before serving is no error and no traceback."""
    with ServiceProcess(store.environ) as process:
        wait_until(lambda: process.saw("listening on"))
        process.process.send_signal(number)
        assert process.end() == 0
        assert not process.saw("Traceback")


def test_unknown_argument_is_one_line(store: Store) -> None:
    """A mistyped argument is not ignored."""
    with ServiceProcess(store.environ, "service.py", "--dmeo") as process:
        assert process.end() == 2
        assert process.lines[0].startswith("usage: python service.py ")


def test_demo_serves_a_picture_and_bytes_by_itself() -> None:
    """``--demo`` needs no configuration; its helpers end when the service does."""
    environ = {"S3_IMAGE_KEY": "elsewhere/{task_id}"}
    with ServiceProcess(environ, "service.py", "--demo") as process:
        port = port_of(process.url())
        picture = Path(__file__).parent.parent.parent / "scripts" / "demo" / "picture.jpg"
        assert fetch(port, "/tasks/1/image").body == picture.read_bytes()
        assert len(fetch(port, "/tasks/1/bytes/100000").body) == 100_000
        helpers = children_of(process.process.pid)
        assert len(helpers) == 2
        # Not a signal that it could act on: nothing of it may be needed to end the helpers.
        process.process.kill()
        process.end()
        wait_until(lambda: not [pid for pid in helpers if Path(f"/proc/{pid}").exists()])


def children_of(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in tasks.split()]


def test_broken_download_is_one_line_in_the_log(upstream: Misbehaving) -> None:
    """What a person sees when a download breaks is its line, not a traceback."""

    async def half(exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {len(PICTURE)}")
        await exchange.body(PICTURE[:100_000])

    upstream.behaviour = half
    with ServiceProcess(environ_for(upstream)) as process:
        received = fetch(port_of(process.url()), "/tasks/1/image")
        assert not received.whole
        told = "WARNING downspout: GET /tasks/1/image 200 truncated (store: connection lost, "
        wait_until(lambda: process.saw(told))
        process.process.terminate()
        process.end()
        assert not process.saw("Traceback")
        assert not process.saw("mistake of ours")


def test_other_errors_keep_their_traceback() -> None:
    """The server's log loses nothing but what has been told."""
    hidden = logging.makeLogRecord({"exc_info": (BrokenTransfer, broken(), None)})
    shown = logging.makeLogRecord({"exc_info": (ValueError, ValueError(), None)})
    plain = logging.makeLogRecord({"msg": "Started"})
    keep = service_module.filter_uvicorn_record
    assert [keep(hidden), keep(shown), keep(plain)] == [False, True, True]


def broken() -> BrokenTransfer:
    return BrokenTransfer("truncated", "for a test")


async def endless(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 10000000000")
    await exchange.flood()


def test_stalled_client_loses_its_connection(upstream: Misbehaving) -> None:
    """A client that takes nothing is given up after CLIENT_STALL_TIMEOUT, its socket included."""
    upstream.behaviour = endless
    with ServiceProcess(environ_for(upstream, CLIENT_STALL_TIMEOUT="1")) as process:
        client = connect(port_of(process.url()), receive_buffer=4096)
        ask(client, "/tasks/1/image")
        wait_until(lambda: process.saw("GET /tasks/1/image 200 client_stalled (the client took"))
        wait_until(lambda: upstream.open_connections == 0)
        with pytest.raises(ConnectionResetError):
            read_slowly(client, 1 << 20, rate=10**9)
        client.close()
        assert not process.saw("Traceback")


async def half_and_silence(exchange: Exchange) -> None:
    await exchange.head(200, f"content-length: {len(PICTURE)}")
    await exchange.body(PICTURE[:100_000])
    await exchange.hang()


@pytest.mark.parametrize("behaviour", [endless, half_and_silence])
def test_client_that_leaves_with_another_request_behind(
    upstream: Misbehaving, behaviour: Behaviour
) -> None:
    """A pipelined request does not hide that its client has gone, nor does it make a whole."""
    upstream.behaviour = behaviour
    with ServiceProcess(environ_for(upstream, UPSTREAM_READ_TIMEOUT="60")) as process:
        client = connect(port_of(process.url()))
        request = b"GET /tasks/1/image HTTP/1.1\r\nhost: x\r\n\r\n"
        client.sendall(request)
        received = 0
        while received <= 100_000:  # of the first half, and of its head
            received += len(client.recv(1 << 20))
        client.sendall(request)
        client.close()
        wait_until(lambda: process.saw("GET /tasks/1/image 200 client_gone"))
        wait_until(lambda: upstream.open_connections == 0)
        assert len(upstream.exchanges) == 1
        assert not process.saw("Traceback")


def test_dripping_client_loses_its_connection(upstream: Misbehaving) -> None:
    """A client below CLIENT_MIN_RATE is given up, though it always takes something."""
    upstream.behaviour = endless
    environ = environ_for(upstream, CLIENT_STALL_TIMEOUT="1", CLIENT_MIN_RATE="1000000")
    with ServiceProcess(environ) as process:
        client = connect(port_of(process.url()), receive_buffer=4096)
        ask(client, "/tasks/1/image")
        with pytest.raises(ConnectionResetError):
            read_slowly(client, 2000, rate=20_000)
        client.close()
        wait_until(lambda: process.saw("GET /tasks/1/image 200 client_stalled"))


@pytest.mark.parametrize("receive_buffer", [4096, 262_144])
def test_slow_client_gets_all_of_it(upstream: Misbehaving, receive_buffer: int) -> None:
    """A client above the rate is served to the end, however its own buffer makes it look."""
    size = 600_000

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, bytes(size))

    upstream.behaviour = stored
    with ServiceProcess(environ_for(upstream, CLIENT_STALL_TIMEOUT="1")) as process:
        client = connect(port_of(process.url()), receive_buffer=receive_buffer)
        ask(client, "/tasks/1/image")
        received = read_slowly(client, 10_000, rate=100_000)
        client.close()
    assert received > size


def listener_of(**changes: object) -> socket.socket:
    return service_module.listen(ServerSettings(port=0, **changes))  # type: ignore[arg-type]


def test_listening_socket_is_ready_for_restarts_and_slow_clients() -> None:
    """The socket can be bound again at once, and its connections buffer little in vain."""
    with listener_of() as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        unsent = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        assert unsent == service_module.UNSENT_BYTES


def test_every_address_of_both_families() -> None:
    """HOST=:: listens on IPv4 too, as platforms with private IPv6 networks need it."""
    with listener_of(host="::") as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        socket.create_connection(("::1", port)).close()


def test_announcement_warns_of_a_store_that_is_not_verified(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A switched-off verification is warned about at start; commands are for a laptop only."""
    settings = Settings(s3_image_bucket="photos", s3_tls_verify=False)
    server = ServerSettings(host="::", port=0, log_format="text")
    caplog.set_level(logging.INFO, "downspout")
    with service_module.listen(server) as listener:
        service_module.announce(settings, server, listener, descriptors=10_000)
    assert "AWS_TLS_VERIFY is false" in caplog.text
    assert "http://[::]:" in caplog.text
    assert capsys.readouterr().out == ""


def test_process_opens_as_many_descriptors_as_it_may() -> None:
    """A soft limit made for laptops does not bound the downloads at once."""
    script = (
        "import resource as r, service; most = r.getrlimit(r.RLIMIT_NOFILE)[1]; "
        "r.setrlimit(r.RLIMIT_NOFILE, (256, most)); "
        "assert service.raise_descriptor_limit() >= most; "
        "assert r.getrlimit(r.RLIMIT_NOFILE) == (most, most)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_too_few_descriptors_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """Where more downloads are allowed than there are descriptors, the log says so at start."""
    settings, server = (
        Settings(s3_image_bucket="photos", max_downloads=100),
        ServerSettings(port=0),
    )
    with service_module.listen(server) as listener:
        service_module.announce(settings, server, listener, descriptors=256)
    assert "MAX_DOWNLOADS=100 needs 364 file descriptors, the limit is 256" in caplog.text


def test_large_download_needs_little_memory(upstream: Misbehaving) -> None:
    """A quarter of a gibibyte goes through in less than 20 MiB of growth."""
    size = 256 << 20

    async def large(exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {size}")
        block = bytes(1 << 20)
        for _ in range(size >> 20):
            await exchange.body(block)

    async def small(exchange: Exchange) -> None:
        await exchange.answer(200, b"small")

    with ServiceProcess(environ_for(upstream)) as process:
        port = port_of(process.url())
        upstream.behaviour = small
        fetch(port, "/tasks/1/image")
        before = peak_memory(process.process.pid)
        upstream.behaviour = large
        for path in ("/tasks/1/image", f"/tasks/1/bytes/{size}"):
            received = fetch_length(port, path)
            assert received == size
        assert peak_memory(process.process.pid) - before < 20 << 20


def peak_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [kibibytes] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(kibibytes) * 1024


def fetch_length(port: int, path: str) -> int:
    with asked(port, path) as client:
        received = bytearray()
        while b"\r\n\r\n" not in received:
            received += client.recv(4096)
        length = len(received) - received.index(b"\r\n\r\n") - 4
        while data := client.recv(1 << 20):
            length += len(data)
    return length


@pytest.mark.parametrize("queued", [False, True])
def test_leaving_is_seen_behind_the_body_of_a_request(upstream: Misbehaving, queued: bool) -> None:
    """Who sends a large body with a GET, and leaves, is gone, waiting for a place or not."""

    async def silent(exchange: Exchange) -> None:
        await exchange.hang()

    upstream.behaviour = silent
    environ = environ_for(upstream, MAX_DOWNLOADS="1", QUEUE_TIMEOUT="20")
    with ServiceProcess(environ) as process:
        port = port_of(process.url())
        with ExitStack() as others:
            if queued:
                others.enter_context(asked(port, "/tasks/1/image"))
                wait_until(lambda: len(upstream.exchanges) == 1)
            with connect(port) as client:
                client.sendall(b"GET /tasks/2/image HTTP/1.1\r\nhost: x\r\n")
                client.sendall(b"content-length: 10000000\r\n\r\n" + bytes(1_000_000))
                if not queued:
                    wait_until(lambda: len(upstream.exchanges) == 1)
            wait_until(lambda: process.saw("GET /tasks/2/image - client_gone"), seconds=5)


async def test_collector_leaves_alone_what_was_there_at_the_start() -> None:
    """To go through all of botocore takes 50 ms, in which every download would wait."""
    entered: list[bool] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        entered.append(True)
        yield

    gc.unfreeze()
    try:
        async with service_module.with_frozen_gc(lifespan)(Starlette()):
            assert entered
            assert gc.get_freeze_count() > len(gc.get_objects())
    finally:
        gc.unfreeze()


def test_module_has_nothing_else_to_give() -> None:
    """Only `app` is made on demand; a mistyped name is an error as ever."""
    with pytest.raises(AttributeError, match="application"):
        _ = service_module.application
