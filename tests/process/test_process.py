"""The service as a process: start, log, signals and exit codes."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

import service as service_module
from handlers import BrokenTransfer
from handlers.process_log import filter_uvicorn_record
from handlers.server import listening
from settings import ServerSettings
from tests.support.client import ask, asked, connect, fetch, read_answer, read_slowly
from tests.support.components import Store, store_environ
from tests.support.main import RunMain
from tests.support.misbehaving import Behaviour, Exchange, Misbehaving
from tests.support.serving import ROOT, ServiceProcess, child_pids, http_get, wait_until

PICTURE = hashlib.shake_256(b"service").digest(200_000)

NOT_READY = "urn:downspout:problem:not-ready"

UVICORN = ("-m", "uvicorn", "service:app", "--port", "0")


def make_environ(upstream: Misbehaving, **changes: str) -> dict[str, str]:
    bytes_url = upstream.url + "/bytes/{size}"
    return {**store_environ(upstream.url), "BYTES_URL": bytes_url, **changes}


def parse_port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_service_on_sigterm_exits_with_0(store: Store, workers: str) -> None:
    """``python service.py`` serves, logs its URL, and exits with 0 on SIGTERM."""
    store.put("test/1/image.jpg", PICTURE)
    with ServiceProcess({**store.environ, "WEB_CONCURRENCY": workers}) as process:
        url = process.url()
        assert http_get(f"{url}/tasks/1/image").content == PICTURE
        process.wait_for_line("bucket from S3_IMAGE_BUCKET")
        process.wait_for_line(f"curl -fS -o image.jpg {url}/tasks/1/image")
        process.wait_for_line("GET /tasks/1/image 200 complete 200000/200000 bytes")
        assert process.stop() == 0
        assert not process.saw("Traceback")


def test_sigint_exits_with_0(store: Store) -> None:
    """Ctrl-C ends the process with exit code 0 and without a traceback."""
    with ServiceProcess(store.environ) as process:
        process.url()
        process.process.send_signal(signal.SIGINT)
        assert process.end() == 0
        assert not process.saw("Traceback")


def test_uvicorn_with_service_app_serves_downloads(store: Store) -> None:
    """``uvicorn service:app`` serves downloads."""
    store.put("test/1/image.jpg", PICTURE)
    with ServiceProcess(store.environ, *UVICORN) as process:
        url = wait_for_uvicorn_url(process)
        answer = http_get(f"{url}/tasks/1/image")
        assert answer.content == PICTURE
        assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    "command",
    [
        ("hypercorn", "service:make_app()", "--bind", "127.0.0.1:{port}"),
        ("granian", "service:app", "--interface", "asgi", "--port", "{port}"),
        ("uvicorn", "service:make_app", "--factory", "--port", "{port}"),
    ],
    ids=lambda command: command[0],
)
def test_other_server_with_service_app_serves_downloads(
    store: Store, unused_port: int, command: tuple[str, ...]
) -> None:
    """Hypercorn, Granian and a uvicorn factory serve downloads and exit cleanly."""
    store.put("test/1/image.jpg", PICTURE)
    url = f"http://127.0.0.1:{unused_port}/tasks/1/image"
    words = [word.format(port=unused_port) for word in command]

    def answer() -> httpx.Response | None:
        try:
            return http_get(url)
        except httpx.TransportError:
            return None

    with ServiceProcess(store.environ, "-m", *words) as process:
        found: httpx.Response = wait_until(answer)
        assert found.content == PICTURE
        assert found.request.headers["accept-encoding"]
        assert "content-encoding" not in found.headers
        # uvicorn raises the signal again after its shutdown.
        assert process.stop() in (0, -signal.SIGTERM)
        assert not process.saw("Traceback")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_waits_for_running_downloads(upstream: Misbehaving, workers: str) -> None:
    """A running download finishes after SIGTERM, and then the process exits with 0."""
    upstream.behaviour = half = HalfThenRest()
    with ServiceProcess(make_environ(upstream, WEB_CONCURRENCY=workers)) as process:
        with asked(parse_port(process.url()), "/tasks/1/image") as client:
            assert client.recv(1)
            process.process.send_signal(signal.SIGTERM)
            process.wait_for_line("draining")
            half.go_on.set()
            received = b"H" + read_rest(client)
        assert received.endswith(PICTURE)
        assert process.end() == 0


class HalfThenRest:
    """A store that sends the second half of the picture when `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {len(PICTURE)}")
        await exchange.body(PICTURE[:100_000])
        while not self.go_on.is_set():
            await exchange.pause(0.01)
        await exchange.body(PICTURE[100_000:])


@pytest.mark.parametrize("command", [(), UVICORN])
def test_draining_process_returns_503(upstream: Misbehaving, command: tuple[str, ...]) -> None:
    """While draining, /readyz and new downloads are a 503, and /healthz is a 200."""
    upstream.behaviour = half = HalfThenRest()
    with ServiceProcess(make_environ(upstream), *command) as process:
        url = wait_for_uvicorn_url(process) if command else process.url()
        with asked(parse_port(url), "/tasks/1/image") as client:
            assert client.recv(1)
            process.process.send_signal(signal.SIGTERM)
            ready = wait_until(lambda: get_readiness_503(url))
            assert ready.json()["type"] == NOT_READY
            assert "shutting down" in ready.json()["detail"]
            refused = http_get(f"{url}/tasks/1/image")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["type"] == "urn:downspout:problem:draining"
            assert http_get(f"{url}/healthz").status_code == 200
            half.go_on.set()
            assert read_rest(client).endswith(PICTURE)
        assert process.end() == (0 if not command else -signal.SIGTERM)
        assert process.saw("GET /tasks/1/image 503 shed (draining)")
        assert not process.saw("Traceback")


def get_readiness_503(url: str) -> httpx.Response | None:
    answer = http_get(f"{url}/readyz")
    return answer if answer.status_code == 503 else None


def test_second_sigint_ends_the_process_at_once(upstream: Misbehaving) -> None:
    """A second Ctrl-C ends the process without waiting for downloads."""
    upstream.behaviour = HalfThenRest()
    with ServiceProcess(make_environ(upstream)) as process:
        with asked(parse_port(process.url()), "/tasks/1/image") as client:
            assert client.recv(1)
            process.process.send_signal(signal.SIGINT)
            process.wait_for_line("draining")
            process.process.send_signal(signal.SIGINT)
            assert not read_answer(client).whole
        assert process.end() == 0
    upstream.behaviour.go_on.set()


def test_request_without_answer_at_end_of_grace_returns_503(upstream: Misbehaving) -> None:
    """A download without an answer when SHUTDOWN_GRACE ends is a 503."""
    upstream.behaviour = Exchange.hang
    with ServiceProcess(make_environ(upstream, SHUTDOWN_GRACE="0.5")) as process:
        with asked(parse_port(process.url()), "/tasks/1/image") as client:
            wait_until(lambda: upstream.exchanges)
            process.process.send_signal(signal.SIGTERM)
            assert read_answer(client).status == 503
        assert process.end() == 0


def test_log_format_without_terminal_is_json(upstream: Misbehaving) -> None:
    """Without LOG_FORMAT, the log to a pipe or a file is JSON."""
    with ServiceProcess(make_environ(upstream, LOG_FORMAT="")) as process:
        process.wait_for_line("listening on")
        process.stop()
        told = [json.loads(line) for line in process.lines]
        assert any(line["message"].startswith("listening on") for line in told)


def test_log_format_on_a_terminal_is_text(upstream: Misbehaving) -> None:
    """Without LOG_FORMAT, the log on a terminal is text, with curl commands."""
    ours, theirs = os.openpty()
    environ = make_environ(upstream, PATH=os.environ["PATH"], PORT="0")
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


def test_log_format_json_has_a_field_for_each_value(upstream: Misbehaving) -> None:
    """With LOG_FORMAT=json each line is an object with all values of the download."""

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, PICTURE)

    upstream.behaviour = stored
    with ServiceProcess(make_environ(upstream, LOG_FORMAT="json")) as process:
        url = process.url()
        http_get(f"{url}/tasks/1/image?secret=1", headers={"x-request-id": "7"})
        process.wait_for_line("bytes_sent")
        process.stop()
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


def wait_for_uvicorn_url(process: ServiceProcess) -> str:
    line = process.wait_for_line("Uvicorn running on ")
    return line.split("running on ")[1].split(" ")[0]


def read_rest(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(1 << 20):
        received += data
    return received


def test_download_at_end_of_grace_is_visibly_cut(upstream: Misbehaving) -> None:
    """A download that runs at the end of SHUTDOWN_GRACE is cut before its Content-Length."""

    async def half(exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {len(PICTURE)}")
        await exchange.body(PICTURE[:100_000])
        await exchange.hang()

    upstream.behaviour = half
    with ServiceProcess(make_environ(upstream, SHUTDOWN_GRACE="1")) as process:
        with asked(parse_port(process.url()), "/tasks/1/image") as client:
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
def test_wrong_configuration_exits_with_2(command: tuple[str, ...]) -> None:
    """Each wrong variable is one line without a traceback, and the exit code is 2."""
    environ = {"PORT": "eighty", "S3_ADDRESSING_STYLE": "up", "AWS_PROFILE": "nobody"}
    with ServiceProcess(environ, *command) as process:
        code = process.end()
        lines = process.lines
    # With --workers, uvicorn exits with 0 even if a worker fails to start.
    assert code == (0 if "--workers" in command else 2)
    assert not [line for line in lines if "Traceback" in line]
    names = {line.partition(" ")[0] for line in lines if " must be " in line or " not set" in line}
    assert names == {"S3_IMAGE_BUCKET", "PORT", "S3_ADDRESSING_STYLE"}
    assert "AWS configuration: The config profile (nobody) could not be found" in lines
    if not command:
        assert len(lines) == 4


# Runs service.py after making directories read-only, as a container's root file system may be.
READ_ONLY = """
import os, sys

binds = "; ".join(f"mount --bind {d} {d} && mount -o remount,bind,ro {d}" for d in sys.argv[1:])
command = ["sh", "-ec", binds + "; exec " + sys.executable + " service.py"]
os.execvp("unshare", ["unshare", "--map-root-user", "--mount", *command])
"""
TEMPORARY = ("/tmp", "/var/tmp", str(ROOT))


@pytest.fixture
def can_mount() -> None:
    """Skip the test where users may not mount."""
    command = ["unshare", "--map-root-user", "--mount", "mount", "--bind", "/tmp", "/tmp"]
    if not shutil.which("unshare") or subprocess.run(command, check=False).returncode:
        pytest.skip("a mount namespace is needed")


@pytest.fixture
def in_shared_memory() -> Generator[Path]:
    path = Path("/dev/shm") / f"downspout-test-{os.getpid()}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.usefixtures("can_mount")
@pytest.mark.parametrize("is_named", [True, False])
def test_workers_on_read_only_root_count_in_shared_memory(
    store: Store, in_shared_memory: Path, is_named: bool
) -> None:
    """Workers share metrics in PROMETHEUS_MULTIPROC_DIR, also a new one, or in /dev/shm."""
    store.put("test/1/image.jpg", PICTURE)
    environ = {**store.environ, "WEB_CONCURRENCY": "2", "COVERAGE_PROCESS_CONFIG": ""}
    if is_named:
        environ["PROMETHEUS_MULTIPROC_DIR"] = str(in_shared_memory)
    with ServiceProcess(environ, "-c", READ_ONLY, *TEMPORARY) as process:
        url = process.url()
        assert http_get(f"{url}/tasks/1/image").content == PICTURE
        metrics = http_get(f"{url}/metrics").text
        assert 'downspout_downloads_total{outcome="complete"' in metrics
        assert process.stop() == 0
        assert not process.saw("Traceback")
    assert in_shared_memory.exists() == is_named
    assert not list(Path("/dev/shm").glob("downspout-metrics-*"))


@pytest.mark.usefixtures("can_mount")
def test_workers_without_a_writable_directory_exit_with_2(store: Store) -> None:
    """If no directory is writable, several workers are one line, and one process serves."""
    environ = {**store.environ, "WEB_CONCURRENCY": "2", "COVERAGE_PROCESS_CONFIG": ""}
    with ServiceProcess(environ, "-c", READ_ONLY, *TEMPORARY, "/dev/shm") as process:
        assert process.end() == 2
        [line] = process.lines
    assert line.startswith("PROMETHEUS_MULTIPROC_DIR is not set, and no temporary directory is ")
    environ["WEB_CONCURRENCY"] = "1"
    with ServiceProcess(environ, "-c", READ_ONLY, *TEMPORARY, "/dev/shm") as process:
        process.url()


def test_port_in_use_is_one_line(store: Store) -> None:
    """A port in use is one line, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with ServiceProcess({**store.environ, "PORT": str(port)}) as process:
            assert process.end() == 1
            [line] = process.lines
    assert line.startswith(f"can't listen on HOST 127.0.0.1, PORT {port}: ")
    assert line.endswith("another process uses this port; stop it, or set PORT to another")


@pytest.mark.parametrize(
    "host",
    ["x86_64-conda-linux-gnu", "192.0.2.1", "2001:db8::1", "localhost:80", "a..b", "a" * 64],
)
def test_wrong_host_is_one_line_that_names_the_variable(run_main: RunMain, host: str) -> None:
    """A HOST that is not this machine's is one line with the next step; the exit code is 1."""
    ended = run_main(S3_IMAGE_BUCKET="photos", HOST=host, PORT="0")
    assert (ended.code, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"can't listen on HOST {host}, PORT 0: ")
    assert line.endswith("set it to 127.0.0.1 or 0.0.0.0, or unset it")


@pytest.mark.parametrize("late", [b"", b"1", b"12345"], ids=["idle", "part of a body", "body"])
def test_keep_alive_timeout_closes_an_idle_connection(upstream: Misbehaving, late: bytes) -> None:
    """KEEP_ALIVE_TIMEOUT also holds if a body, or a part of it, comes after its answer."""
    length = b"content-length: 5\r\n" if late else b""
    with (
        ServiceProcess(make_environ(upstream, KEEP_ALIVE_TIMEOUT="1")) as process,
        connect(parse_port(process.url())) as client,
    ):
        client.settimeout(10)  # By default a connection is kept for 95 seconds.
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + length + b"\r\n")
        assert client.recv(1 << 16).endswith(b"ok\n")
        client.sendall(late)
        assert client.recv(1) == b""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_invalid_aws_config_file_exits_with_2(store: Store, tmp_path: Path, workers: str) -> None:
    """An error in botocore's own files is one line, and the exit code is 2."""
    (tmp_path / "config").write_text("[default]\nregion = -bad-\n")
    environ = {**store.environ, "AWS_REGION": "", "AWS_CONFIG_FILE": str(tmp_path / "config")}
    with ServiceProcess({**environ, "WEB_CONCURRENCY": workers}) as process:
        assert process.end() == 2
        assert process.saw("AWS configuration: InvalidRegionError")
        assert not process.saw("Traceback")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_serving_exits_with_0(store: Store, number: signal.Signals) -> None:
    """A signal during the start gives exit code 0 and no traceback."""
    with ServiceProcess(store.environ) as process:
        process.wait_for_line("listening on")
        process.process.send_signal(number)
        assert process.end() == 0
        assert not process.saw("Traceback")


def test_unknown_argument_exits_with_2(store: Store) -> None:
    """An unknown argument prints the usage, and the exit code is 2."""
    with ServiceProcess(store.environ, "service.py", "--dmeo") as process:
        assert process.end() == 2
        assert process.lines[0].startswith("usage: python service.py ")


DEMO_OBJECTS = {
    "/objects/document.pdf": "application/pdf",
    "/objects/text.txt": "text/plain",
    "/objects/Gr%C3%BC%C3%9Fe%20vom%20See.txt": "text/plain",
    "/objects/videos/lake.webm": "video/webm",
    "/objects/videos/7/index.m3u8": "application/vnd.apple.mpegurl",
    "/objects/videos/7/segment2.ts": "application/octet-stream",
}


def test_demo_serves_picture_objects_and_bytes() -> None:
    """``--demo`` serves without configuration, and its child processes end with the service."""
    environ = {"S3_IMAGE_KEY": "elsewhere/{task_id}"}
    with ServiceProcess(environ, "service.py", "--demo") as process:
        port = parse_port(process.url())
        picture = Path(__file__).parent.parent.parent / "scripts" / "demo" / "picture.jpg"
        assert fetch(port, "/tasks/1/image").body == picture.read_bytes()
        assert len(fetch(port, "/tasks/1/bytes/100000").body) == 100_000
        for path, content_type in DEMO_OBJECTS.items():
            answer = fetch(port, path)
            assert (answer.status, answer.headers["content-type"]) == (200, content_type), path
        helpers = child_pids(process.process.pid)
        assert len(helpers) == 2
        # SIGKILL, because the child processes have to end without help of the service.
        process.process.kill()
        process.end()
        wait_until(lambda: not [pid for pid in helpers if Path(f"/proc/{pid}").exists()])


def test_broken_download_is_one_log_line(upstream: Misbehaving) -> None:
    """A broken download is one log line without a traceback."""

    async def half(exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {len(PICTURE)}")
        await exchange.body(PICTURE[:100_000])

    upstream.behaviour = half
    with ServiceProcess(make_environ(upstream)) as process:
        received = fetch(parse_port(process.url()), "/tasks/1/image")
        assert not received.whole
        told = "WARNING downspout: GET /tasks/1/image 200 truncated (store: connection lost, "
        process.wait_for_line(told)
        process.stop()
        assert not process.saw("Traceback")
        assert not process.saw("mistake of ours")


def test_server_log_drops_only_broken_transfers() -> None:
    """The filter of the server's log drops BrokenTransfer and keeps all other records."""
    hidden = logging.makeLogRecord({"exc_info": (BrokenTransfer, broken(), None)})
    shown = logging.makeLogRecord({"exc_info": (ValueError, ValueError(), None)})
    plain = logging.makeLogRecord({"msg": "Started"})
    keep = filter_uvicorn_record
    assert [keep(hidden), keep(shown), keep(plain)] == [False, True, True]


def broken() -> BrokenTransfer:
    return BrokenTransfer("truncated", "for a test")


async def endless(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 10000000000")
    await exchange.flood()


def test_stalled_client_is_reset(upstream: Misbehaving) -> None:
    """A client that takes nothing for CLIENT_STALL_TIMEOUT is reset."""
    upstream.behaviour = endless
    with ServiceProcess(make_environ(upstream, CLIENT_STALL_TIMEOUT="1")) as process:
        client = connect(parse_port(process.url()), receive_buffer=4096)
        ask(client, "/tasks/1/image")
        process.wait_for_line("GET /tasks/1/image 200 client_stalled (the client reads too slowly")
        wait_until(lambda: upstream.exchanges[0].is_over)
        with pytest.raises(ConnectionResetError):
            read_slowly(client, 1 << 20, rate=10**9)
        client.close()
        process.stop()
        assert not process.saw("Traceback")


async def send_half_and_hang(exchange: Exchange) -> None:
    await exchange.head(200, f"content-length: {len(PICTURE)}")
    await exchange.body(PICTURE[:100_000])
    await exchange.hang()


@pytest.mark.parametrize("behaviour", [endless, send_half_and_hang])
def test_client_disconnect_behind_pipelined_request_is_seen(
    upstream: Misbehaving, behaviour: Behaviour
) -> None:
    """A disconnect is seen behind a pipelined request."""
    upstream.behaviour = behaviour
    with ServiceProcess(make_environ(upstream, UPSTREAM_READ_TIMEOUT="60")) as process:
        client = connect(parse_port(process.url()))
        request = b"GET /tasks/1/image HTTP/1.1\r\nhost: x\r\n\r\n"
        client.sendall(request)
        received = 0
        while received <= 100_000:  # the head and the first half
            received += len(client.recv(1 << 20))
        client.sendall(request)
        client.close()
        process.wait_for_line("GET /tasks/1/image 200 client_gone")
        wait_until(lambda: upstream.exchanges[0].is_over)
        assert len(upstream.exchanges) == 1
        process.stop()
        assert not process.saw("Traceback")


def test_client_below_min_rate_is_reset(upstream: Misbehaving) -> None:
    """A client below CLIENT_MIN_RATE is reset, although it takes bytes all the time."""
    upstream.behaviour = endless
    environ = make_environ(upstream, CLIENT_STALL_TIMEOUT="1", CLIENT_MIN_RATE="1000000")
    with ServiceProcess(environ) as process:
        client = connect(parse_port(process.url()), receive_buffer=4096)
        ask(client, "/tasks/1/image")
        with pytest.raises(ConnectionResetError):
            read_slowly(client, 2000, rate=20_000)
        client.close()
        process.wait_for_line("GET /tasks/1/image 200 client_stalled")


@pytest.mark.parametrize("receive_buffer", [4096, 262_144])
def test_slow_client_above_min_rate_gets_the_full_body(
    upstream: Misbehaving, receive_buffer: int
) -> None:
    """A client above CLIENT_MIN_RATE gets the full body, with any receive buffer."""
    size = 600_000

    async def stored(exchange: Exchange) -> None:
        await exchange.answer(200, bytes(size))

    upstream.behaviour = stored
    with ServiceProcess(make_environ(upstream, CLIENT_STALL_TIMEOUT="1")) as process:
        client = connect(parse_port(process.url()), receive_buffer=receive_buffer)
        ask(client, "/tasks/1/image")
        received = read_slowly(client, 10_000, rate=100_000)
        client.close()
    assert received > size


def make_settings(**changes: Any) -> ServerSettings:
    return ServerSettings(s3_image_bucket="photos", port=0, **changes)


def test_start_with_tls_verify_off_logs_a_warning(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """AWS_TLS_VERIFY=false logs a warning at start, without curl commands."""
    settings = make_settings(s3_tls_verify=False, host="::", log_format="text")
    caplog.set_level(logging.INFO, "downspout")
    with listening(settings.host, settings.port) as sockets:
        service_module.announce(settings, sockets[0], descriptors=10_000)
    assert "AWS_TLS_VERIFY is false" in caplog.text
    assert "http://[::]:" in caplog.text
    assert capsys.readouterr().out == ""


def test_descriptor_limit_is_raised_to_the_hard_limit() -> None:
    """The process raises its soft limit of file descriptors to the hard limit."""
    script = (
        "import resource as r, service; most = r.getrlimit(r.RLIMIT_NOFILE)[1]; "
        "r.setrlimit(r.RLIMIT_NOFILE, (256, most)); "
        "assert service.raise_descriptor_limit() >= most; "
        "assert r.getrlimit(r.RLIMIT_NOFILE) == (most, most)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_too_few_descriptors_log_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """If MAX_DOWNLOADS needs more file descriptors than allowed, a warning is logged."""
    settings = make_settings(max_downloads=100)
    with listening(settings.host, settings.port) as sockets:
        service_module.announce(settings, sockets[0], descriptors=256)
    assert "MAX_DOWNLOADS=100 needs 364 file descriptors, the limit is 256" in caplog.text


def test_large_download_grows_memory_by_less_than_20_mib(upstream: Misbehaving) -> None:
    """A download of 256 MiB grows the process by less than 20 MiB."""
    size = 256 << 20

    async def large(exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {size}")
        block = bytes(1 << 20)
        for _ in range(size >> 20):
            await exchange.body(block)

    async def small(exchange: Exchange) -> None:
        await exchange.answer(200, b"small")

    with ServiceProcess(make_environ(upstream)) as process:
        port = parse_port(process.url())
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
def test_client_disconnect_behind_request_body_is_seen(
    upstream: Misbehaving, queued: bool
) -> None:
    """A disconnect is seen behind an unread request body, also while waiting for a slot."""

    async def silent(exchange: Exchange) -> None:
        await exchange.hang()

    upstream.behaviour = silent
    environ = make_environ(upstream, MAX_DOWNLOADS="1", QUEUE_TIMEOUT="20")
    with ServiceProcess(environ) as process:
        port = parse_port(process.url())
        with ExitStack() as others:
            if queued:
                others.enter_context(asked(port, "/tasks/1/image"))
                wait_until(lambda: len(upstream.exchanges) == 1)
            with connect(port) as client:
                client.sendall(b"GET /tasks/2/image HTTP/1.1\r\nhost: x\r\n")
                client.sendall(b"content-length: 10000000\r\n\r\n" + bytes(1_000_000))
                if not queued:
                    wait_until(lambda: len(upstream.exchanges) == 1)
            process.wait_for_line("GET /tasks/2/image - client_gone", seconds=5)


async def test_garbage_collector_ignores_objects_from_the_start() -> None:
    """Objects that exist at the start are frozen."""
    # A collection of all of botocore would take 50 ms, in which every download waits.
    entered: list[bool] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        entered.append(True)
        yield

    gc.unfreeze()
    try:
        async with service_module.with_frozen_gc(lifespan, Starlette()):
            assert entered
            assert gc.get_freeze_count() > len(gc.get_objects())
    finally:
        gc.unfreeze()


def test_unknown_service_attribute_raises() -> None:
    """An unknown attribute of service.py raises AttributeError."""
    with pytest.raises(AttributeError, match="application"):
        _ = service_module.application


def test_endless_header_does_not_grow_memory(upstream: Misbehaving) -> None:
    """A header field of 100 MB is a 431 that takes no memory and does not stop the service."""
    with ServiceProcess(make_environ(upstream)) as process:
        url = process.url()
        before = read_peak_memory(process.process.pid)
        with connect(parse_port(url)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nname: ")
            with suppress(ConnectionError):
                for _ in range(100):
                    client.sendall(b"x" * 1_000_000)
            assert read_answer(client).status == 431
        assert read_peak_memory(process.process.pid) - before < 10_000
        process.wait_for_line("refused a request with 431: ")
        assert http_get(f"{url}/healthz").status_code == 200


def read_peak_memory(pid: int) -> int:
    """Return the most memory in KiB that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
