"""A signal during the start, or while nobody reads the log, ends the process with 0."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.metrics import parse_samples
from tests.support.serving import ROOT, ServiceProcess

ENVIRON = {
    "S3_IMAGE_BUCKET": "photos",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}

# Runs service.py, and raises a signal when asyncio registers the task of the server: the task is
# scheduled by then, and nothing could cancel it.
SIGNAL_AT_TASK_CREATION = """
import asyncio, runpy, signal, sys
from _weakrefset import WeakSet

add = WeakSet.add

def add_interrupted(self, item):
    if isinstance(item, asyncio.Task):
        WeakSet.add = add
        print("interrupted", flush=True)
        signal.raise_signal({number})
    add(self, item)

WeakSet.add = add_interrupted
sys.argv = ["service.py"]
runpy.run_path("service.py", run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_the_first_step_of_the_server_exits_with_0(number: signal.Signals) -> None:
    """A signal while the server's task is created gives exit code 0 and no traceback."""
    script = SIGNAL_AT_TASK_CREATION.format(number=int(number))
    with ServiceProcess(ENVIRON, "-c", script) as process:
        assert process.end() == 0
        assert process.saw("interrupted")
        assert not process.saw("Traceback")
        assert not process.saw("ERROR")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("is_read", [True, False])
def test_unread_standard_output_stops_nothing(tmp_path: Path, workers: str, is_read: bool) -> None:
    """Downloads, health checks and SIGTERM work while nobody reads the log."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    environ = {**ENVIRON, "PATH": os.environ["PATH"], "PORT": "0", "LOG_FORMAT": "text"}
    with ExitStack() as stack:
        stderr = stack.enter_context((tmp_path / "stderr").open("w"))
        log = stack.enter_context(os.fdopen(read_end, "rb", buffering=0))
        process = subprocess.Popen(
            [sys.executable, "service.py"],
            cwd=ROOT,
            env={**environ, "WEB_CONCURRENCY": workers},
            stdout=write_end,
            stderr=stderr,
            start_new_session=True,
        )
        stack.callback(process.wait)
        stack.callback(kill_group, process.pid)
        os.close(write_end)
        output = b""
        while output.count(b"Application startup complete") < int(workers):
            output += log.read(4096)
        port = int(output.partition(b"listening on ")[2].partition(b"/,")[0].rpartition(b":")[2])
        # httpx would take more CPU for these thousands of requests than the service.
        with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as client:
            while not (dropped := count_dropped_lines(client)):
                for _ in range(100):
                    assert get(client, "/tasks/none/image")[0] == 404
            assert get(client, "/healthz")[0] == 200
            if is_read:
                while b"log lines were dropped" not in output:
                    output += log.read(4096)
                assert count_dropped_lines(client) >= dropped
        process.send_signal(signal.SIGTERM)
        if is_read:
            output += b"".join(iter(lambda: log.read(4096), b""))
        assert process.wait(20) == 0
    if is_read:
        assert output.count(b"INFO downspout: draining: ") == int(workers)
        assert output.count(b"Finished server process") == int(workers)
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def get(client: HTTPConnection, path: str) -> tuple[int, bytes]:
    """Send a GET request on a connection that is kept; return the status and the body."""
    client.request("GET", path)
    response = client.getresponse()
    return response.status, response.read()


def count_dropped_lines(client: HTTPConnection) -> float:
    text = get(client, "/metrics")[1].decode()
    return parse_samples(text)["downspout_log_lines_dropped_total"]


# Logs in a process that takes itself for a worker, and raises the signal as uvicorn does.
LAST_LINES = """
import logging, logging.config, runpy, signal

service = runpy.run_path("service.py", run_name="__mp_main__")
logging.config.dictConfig(service["logging_config"]("text", "info"))
for number in range(1000):
    logging.getLogger("downspout").info("line %d of the last", number)
signal.raise_signal(signal.SIGTERM)
"""


def test_worker_ended_by_sigterm_writes_its_last_lines() -> None:
    """The lines that are queued when uvicorn raises the signal again are written."""
    with ServiceProcess(ENVIRON, "-c", LAST_LINES) as process:
        assert process.end() == -signal.SIGTERM
        assert [line for line in process.lines if "line 999 of the last" in line]
        assert len(process.lines) == 1000
