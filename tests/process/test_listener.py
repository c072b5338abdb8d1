"""HOST: a TCP port, a Unix socket or an inherited socket, and the clients that connect there."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import uvloop

from handlers.server import CannotListen, listening
from tests.support.client import ask, asked, fetch, read_answer, read_slowly
from tests.support.components import Store, store_environ
from tests.support.misbehaving import Exchange, Misbehaving
from tests.support.nginx import nginx_serving
from tests.support.serving import (
    ROOT,
    ServiceProcess,
    child_pids,
    http_get,
    open_descriptors,
    wait_until,
)

IMAGE = "/tasks/1/image"
PICTURE = bytes(range(256)) * 1000


def make_environ(upstream: Misbehaving, **changes: str) -> dict[str, str]:
    return {**store_environ(upstream.url), **changes}


@contextmanager
def connected(path: Path) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        yield client


def wait_for_unix(process: ServiceProcess, path: Path) -> None:
    """Wait until the process answers on its Unix socket."""

    def is_answering() -> bool:
        with suppress(OSError), connected(path) as client:
            ask(client, "/healthz")
            return read_answer(client).status == 200
        assert process.process.poll() is None, process.lines
        return False

    wait_until(is_answering)


@contextmanager
def unix_service(path: Path, environ: dict[str, str], **changes: str) -> Generator[ServiceProcess]:
    """Run the service on a Unix socket, until it answers."""
    with ServiceProcess({**environ, "HOST": f"unix:{path}", **changes}) as process:
        wait_for_unix(process, path)
        yield process


def get_unix(path: Path, target: str, **headers: str) -> httpx.Response:
    transport = httpx.HTTPTransport(uds=str(path), verify=False)
    with httpx.Client(transport=transport, trust_env=False, verify=False) as client:
        return client.get(f"http://localhost{target}", headers=headers)


async def stored(exchange: Exchange) -> None:
    await exchange.answer(200, PICTURE)


async def endless(exchange: Exchange) -> None:
    await exchange.head(200, "content-length: 10000000000")
    await exchange.flood()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_unix_socket_serves_and_is_removed_at_exit(
    store: Store, tmp_path: Path, workers: str
) -> None:
    """HOST=unix:/path serves, replaces a stale socket, has mode 0660, and is removed at exit."""
    store.put("test/1/image.jpg", PICTURE)
    path = tmp_path / "a socket"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    environ = {**store.environ, "HOST": f"unix:{path}", "WEB_CONCURRENCY": workers}
    with ServiceProcess(environ) as process:
        wait_for_unix(process, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert get_unix(path, IMAGE).content == PICTURE
        process.wait_for_line(f"listening on unix:{path}, bucket from S3_IMAGE_BUCKET")
        line = process.wait_for_line("-o image.jpg")
        subprocess.run(shlex.split(line), cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / "image.jpg").read_bytes() == PICTURE
        assert process.stop() == 0
        assert not process.saw("Traceback")
    assert not path.exists()


def test_unix_socket_in_use_is_one_line(store: Store, tmp_path: Path) -> None:
    """A Unix socket on which another process listens is one line, and it stays."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with ServiceProcess({**store.environ, "HOST": f"unix:{path}"}) as process:
            assert process.end() == 1
            [line] = process.lines
    assert line.startswith(f"can't listen on HOST unix:{path}, PORT 0: ")
    assert line.endswith(
        "another process listens there, or the file is no socket; use another path"
    )
    assert path.is_socket()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("file", "another process listens there, or the file is no socket; use another path"),
        ("missing/socket", "the directory does not exist; create it, or use another path"),
        ("file/socket", "set it to 127.0.0.1 or 0.0.0.0, or unset it"),
        ("s" * 200, "set it to 127.0.0.1 or 0.0.0.0, or unset it"),
    ],
)
def test_wrong_unix_path_is_one_line(store: Store, tmp_path: Path, name: str, hint: str) -> None:
    """A path where no socket can be made is one line, and a file there stays."""
    (tmp_path / "file").write_text("kept")
    host = f"unix:{tmp_path / name}"
    with ServiceProcess({**store.environ, "HOST": host}) as process:
        assert process.end() == 1
        [line] = process.lines
    assert line.startswith(f"can't listen on HOST {host}, PORT 0: ")
    assert line.endswith(hint)
    assert (tmp_path / "file").read_text() == "kept"


def test_socket_of_a_full_queue_stays(store: Store, tmp_path: Path) -> None:
    """A Unix socket whose queue of connections is full counts as in use."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(0)
        waiting.connect(str(path))
        with ServiceProcess({**store.environ, "HOST": f"unix:{path}"}) as process:
            assert process.end() == 1
            assert process.saw("another process listens there")
        assert path.is_socket()


def test_socket_of_the_next_process_stays_at_exit(tmp_path: Path) -> None:
    """A process that ends does not remove the socket of the one that has replaced it."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as following:
        with listening(f"unix:{path}", 0) as sockets:
            for one in sockets:
                one.close()
            path.unlink()
            following.bind(str(path))
            following.listen()
        assert path.is_socket()


def test_unix_socket_that_cannot_listen_is_closed(tmp_path: Path) -> None:
    """If `listening` raises, it leaves no file descriptor open."""
    before = open_descriptors()
    # `caught` refers to all local variables, so that no socket is closed by being forgotten.
    with pytest.raises(CannotListen) as caught, listening(f"unix:{tmp_path}/none/socket", 0):
        pass
    assert open_descriptors() == before, caught


def test_socket_that_cannot_be_copied_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If `listening` cannot copy its socket, it leaves no file descriptor open."""

    def dup(_: socket.socket) -> socket.socket:
        raise OSError("too many open files")

    monkeypatch.setattr(socket.socket, "dup", dup)
    before = open_descriptors()
    with pytest.raises(OSError, match="too many") as caught, listening("127.0.0.1", 0):
        pass
    assert open_descriptors() == before, caught


@pytest.mark.parametrize("workers", ["1", "2"])
def test_inherited_tcp_socket_serves(store: Store, workers: str) -> None:
    """HOST=fd:N serves on an inherited TCP socket, and logs its URL."""
    store.put("test/1/image.jpg", PICTURE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        environ = {**store.environ, "HOST": f"fd:{number}", "WEB_CONCURRENCY": workers}
        with ServiceProcess(environ, pass_fds=(number,)) as process:
            url = process.url()
            assert url == f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert http_get(url + IMAGE).content == PICTURE
            process.wait_for_line(f"curl -fS -o image.jpg {url}{IMAGE}")
            assert process.stop() == 0


def test_inherited_unix_socket_serves_and_stays(store: Store, tmp_path: Path) -> None:
    """HOST=fd:N serves on an inherited Unix socket; its owner removes it, not downspout."""
    store.put("test/1/image.jpg", PICTURE)
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        number = listener.fileno()
        environ = {**store.environ, "HOST": f"fd:{number}"}
        with ServiceProcess(environ, pass_fds=(number,)) as process:
            wait_for_unix(process, path)
            assert get_unix(path, IMAGE).content == PICTURE
            process.wait_for_line(f"listening on unix:{path}, ")
            assert process.stop() == 0
    assert path.is_socket()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd is needed")
def test_systemd_socket_activation_serves(store: Store, tmp_path: Path) -> None:
    """HOST=fd:3 serves the socket that systemd-socket-activate passes on."""
    path = tmp_path / "socket"
    script = "import os, sys; os.execvp('systemd-socket-activate', sys.argv)"
    names = (*store.environ, "HOST", "PATH", "HOME", "LOG_FORMAT")
    command = ("-l", str(path), *(f"-E{name}" for name in names), sys.executable, "service.py")
    with ServiceProcess({**store.environ, "HOST": "fd:3"}, "-c", script, *command) as process:
        wait_until(path.is_socket)
        wait_for_unix(process, path)
        process.wait_for_line(f"listening on unix:{path}, ")


@pytest.mark.parametrize("kind", ["closed", "file", "udp", "connected", "unix"])
def test_descriptor_that_does_not_listen_is_one_line(
    store: Store, tmp_path: Path, kind: str
) -> None:
    """A HOST=fd:N that is no listening socket is one line, and the exit code is 1."""
    one, other = socket.socketpair()
    made = {
        "closed": None,
        "file": (tmp_path / "file").open("w"),
        "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "connected": one,
        "unix": socket.socket(socket.AF_UNIX),
    }
    given = made[kind]
    number = 99 if given is None else given.fileno()
    environ = {**store.environ, "HOST": f"fd:{number}"}
    with ServiceProcess(environ, pass_fds=() if given is None else (number,)) as process:
        assert process.end() == 1
        [line] = process.lines
    assert line.startswith(f"can't listen on HOST fd:{number}, PORT 0: ")
    assert line.endswith("set it to 127.0.0.1 or 0.0.0.0, or unset it")
    for opened in (other, *made.values()):
        if opened is not None:
            opened.close()


def test_tcp_socket_has_reuseaddr_and_notsent_lowat() -> None:
    """The TCP socket sets SO_REUSEADDR and TCP_NOTSENT_LOWAT."""
    with listening("127.0.0.1", 0) as (listener, *_):
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        unsent = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        assert unsent == 128 * 1024


def test_host_double_colon_accepts_ipv4_and_ipv6() -> None:
    """HOST=:: accepts IPv4 and IPv6 connections."""
    with listening("::", 0) as (listener, *_):
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        socket.create_connection(("::1", port)).close()


def test_uvloop_accepts_several_connections_in_an_iteration() -> None:
    """New clients wait for few iterations of the event loop, which take long in a busy process."""
    accepted: list[asyncio.BaseTransport] = []

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport)

    async def count_iterations(sockets: list[socket.socket]) -> int:
        loop, iterations = asyncio.get_running_loop(), 0
        servers = [await loop.create_server(Accepting, sock=one) for one in sockets]
        with ExitStack() as clients:
            for _ in range(64):
                clients.enter_context(socket.create_connection(sockets[0].getsockname()))
            while len(accepted) < 64:
                iterations += 1
                await asyncio.sleep(0)
        for transport in accepted:
            transport.close()
        for server in servers:
            server.close()
        return iterations

    with listening("127.0.0.1", 0) as sockets:
        assert uvloop.run(count_iterations(sockets)) <= 10


def listening_file(pid: int) -> Path:
    """Return the open file of a process that has the most descriptors: its listening socket."""
    links = Counter(one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir())
    return links.most_common(1)[0][0]


def count_watched(pid: int, file: Path) -> int:
    """Return how many descriptors of an open file the event loop of a process watches."""
    process = Path(f"/proc/{pid}")
    with suppress(OSError):  # The process is just starting, and closes files.
        text = "".join(one.read_text() for one in (process / "fdinfo").iterdir())
        watched = re.findall(r"tfd: +(\d+)", text)
        return sum((process / "fd" / fd).readlink() == file for fd in watched)
    return 0


@pytest.mark.parametrize(("workers", "sockets"), [(1, 16), (2, 1)])
def test_service_accepts_on_its_sockets(store: Store, workers: int, sockets: int) -> None:
    """A single process watches all sockets of `listening`; each of several workers watches one."""
    with ServiceProcess({**store.environ, "WEB_CONCURRENCY": str(workers)}) as process:
        process.url()
        parent = process.process.pid
        pids, listener = (parent, *child_pids(parent)), listening_file(parent)
        wait_until(
            lambda: [count_watched(pid, listener) for pid in pids].count(sockets) == workers
        )


@pytest.mark.parametrize("leave", ["close", "shutdown", "close behind a pipelined request"])
def test_gone_unix_client_stops_its_download(
    upstream: Misbehaving, tmp_path: Path, leave: str
) -> None:
    """A client that leaves a Unix socket is seen, even while the server has paused reading."""

    async def half(exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {len(PICTURE)}")
        await exchange.body(PICTURE[:1000])
        await exchange.hang()

    upstream.behaviour = half
    path = tmp_path / "socket"
    with unix_service(path, make_environ(upstream, UPSTREAM_READ_TIMEOUT="60")) as process:
        with connected(path) as client:
            client.sendall(f"GET {IMAGE} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            assert client.recv(1 << 16)
            if leave == "shutdown":
                client.shutdown(socket.SHUT_WR)
            else:
                if leave != "close":
                    client.sendall(f"GET {IMAGE} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                    time.sleep(0.5)
                client.close()
            process.wait_for_line(f"GET {IMAGE} 200 client_gone")
        wait_until(lambda: upstream.exchanges[0].is_over)
        process.stop()
        assert not process.saw("Traceback")


def test_stalled_unix_client_is_closed(upstream: Misbehaving, tmp_path: Path) -> None:
    """A client that reads nothing for CLIENT_STALL_TIMEOUT is cut after the kernel's buffer."""
    upstream.behaviour = endless
    path = tmp_path / "socket"
    with unix_service(path, make_environ(upstream, CLIENT_STALL_TIMEOUT="1")) as process:
        with connected(path) as client:
            ask(client, IMAGE)
            process.wait_for_line(f"GET {IMAGE} 200 client_stalled")
            wait_until(lambda: upstream.exchanges[0].is_over)
            assert not read_answer(client).whole
        process.stop()
        assert not process.saw("Traceback")


def test_unix_client_below_min_rate_is_closed(upstream: Misbehaving, tmp_path: Path) -> None:
    """A Unix client below CLIENT_MIN_RATE is closed, although it reads all the time."""
    upstream.behaviour = endless
    path = tmp_path / "socket"
    environ = make_environ(upstream, CLIENT_STALL_TIMEOUT="1")
    with unix_service(path, environ, CLIENT_MIN_RATE="1000000") as process:
        with connected(path) as client:
            ask(client, IMAGE)
            read_slowly(client, 20_000, rate=200_000)
        process.wait_for_line(f"GET {IMAGE} 200 client_stalled")


def test_slow_unix_client_gets_the_full_body(upstream: Misbehaving, tmp_path: Path) -> None:
    """A client of a Unix socket above CLIENT_MIN_RATE gets the full body."""
    size = 600_000

    async def zeros(exchange: Exchange) -> None:
        await exchange.answer(200, bytes(size))

    upstream.behaviour = zeros
    path = tmp_path / "socket"
    with unix_service(path, make_environ(upstream, CLIENT_STALL_TIMEOUT="1")) as process:
        with connected(path) as client:
            ask(client, IMAGE)
            assert read_slowly(client, 10_000, rate=100_000) > size
        process.wait_for_line(f"GET {IMAGE} 200 complete {size}/{size} bytes")


@pytest.mark.parametrize(("trusted", "status"), [("127.0.0.1", 200), ("*", 429)])
def test_unix_client_has_the_address_of_a_trusted_proxy_alone(
    upstream: Misbehaving, tmp_path: Path, trusted: str, status: int
) -> None:
    """On a Unix socket MAX_DOWNLOADS_PER_CLIENT needs X-Forwarded-For and trust in all."""
    upstream.behaviour = endless
    path = tmp_path / "socket"
    environ = make_environ(upstream, MAX_DOWNLOADS_PER_CLIENT="1")
    with unix_service(path, environ, FORWARDED_ALLOW_IPS=trusted), connected(path) as first:
        ask(first, IMAGE, headers={"x-forwarded-for": "192.0.2.7"})
        assert first.recv(1)
        upstream.behaviour = stored
        second = get_unix(path, IMAGE, **{"x-forwarded-for": "192.0.2.7"})
        assert second.status_code == status
        other = get_unix(path, IMAGE, **{"x-forwarded-for": "192.0.2.8"})
        assert other.status_code == 200


def test_limit_per_client_on_a_unix_socket_logs_a_warning(store: Store, tmp_path: Path) -> None:
    """MAX_DOWNLOADS_PER_CLIENT on a Unix socket without a trusted proxy logs a warning."""
    path = tmp_path / "socket"
    environ = {**store.environ, "MAX_DOWNLOADS_PER_CLIENT": "2"}
    with unix_service(path, environ, LOG_FORMAT="json") as process:
        process.stop()
        lines = [json.loads(line) for line in process.lines]
    [warned] = [one["message"] for one in lines if one["level"] == "WARNING"]
    assert warned.startswith("MAX_DOWNLOADS_PER_CLIENT: ")
    assert "on a Unix socket none counts" in warned


def test_nginx_in_front_of_a_unix_socket(upstream: Misbehaving, tmp_path: Path) -> None:
    """With the documented nginx lines, clients are told apart, and a client that left is seen."""
    page = (ROOT / "docs" / "start-anywhere.md").read_text()
    [lines] = re.findall(r"^location / \{.*?^\}", page, re.MULTILINE | re.DOTALL)
    path, folder = tmp_path / "socket", tmp_path / "nginx"
    folder.mkdir()
    upstream.behaviour = endless
    environ = make_environ(upstream, HOST=f"unix:{path}", MAX_DOWNLOADS_PER_CLIENT="1")
    with (
        ServiceProcess({**environ, "FORWARDED_ALLOW_IPS": "*"}) as process,
        nginx_serving(folder, lines.replace("/run/downspout/socket", str(path))) as port,
    ):
        wait_for_unix(process, path)
        with asked(port, IMAGE) as client:
            assert client.recv(1)
            forged = fetch(port, IMAGE, headers={"x-forwarded-for": "192.0.2.9"})
            assert forged.status == 429
        process.wait_for_line(f"GET {IMAGE} 200 client_gone")
        upstream.behaviour = stored
        assert fetch(port, IMAGE).body == PICTURE


def test_broken_download_over_a_unix_socket_is_visible_behind_nginx(
    upstream: Misbehaving, tmp_path: Path
) -> None:
    """A download that breaks on a Unix socket is cut before its Content-Length, also by nginx."""

    async def half(exchange: Exchange) -> None:
        await exchange.head(200, f"content-length: {len(PICTURE)}")
        await exchange.body(PICTURE[:100_000])

    upstream.behaviour = half
    path, folder = tmp_path / "socket", tmp_path / "nginx"
    folder.mkdir()
    line = f"location / {{ proxy_pass http://unix:{path}; }}"
    with (
        ServiceProcess(make_environ(upstream, HOST=f"unix:{path}", MAX_RESUMES="0")) as process,
        nginx_serving(folder, line) as port,
    ):
        wait_for_unix(process, path)
        received = fetch(port, IMAGE)
        assert received.status == 200
        assert not received.whole
        assert PICTURE.startswith(received.body)
        process.wait_for_line(f"GET {IMAGE} 200 truncated")
