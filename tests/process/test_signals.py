"""A signal during the start or a log write drains the process, which exits with 0."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.client import ask, connect
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


def test_signal_during_a_log_write_drains(tmp_path: Path) -> None:
    """A signal that interrupts a log write starts the drain without a traceback."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    environ = {**ENVIRON, "PATH": os.environ["PATH"], "PORT": "0", "LOG_FORMAT": "text"}
    with (
        (tmp_path / "stderr").open("w") as stderr,
        os.fdopen(read_end, "rb", buffering=0) as log,
        subprocess.Popen(
            [sys.executable, "service.py"], cwd=ROOT, env=environ, stdout=write_end, stderr=stderr
        ) as process,
        ExitStack() as clients,
    ):
        os.close(write_end)
        output = b""
        while b"Application startup complete" not in output:
            output += log.read(4096)
        port = int(output.partition(b"listening on ")[2].partition(b"/,")[0].rpartition(b":")[2])
        while not is_blocked_in_write(process.pid):
            ask(clients.enter_context(connect(port)), "/tasks/none/image")
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        output = b"".join(iter(lambda: log.read(4096), b""))
        assert process.wait(20) == 0
    assert b"INFO downspout: draining: " in output
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def is_blocked_in_write(pid: int) -> bool:
    """Return whether the main thread of a process is blocked in write(2) to standard output."""
    call = Path(f"/proc/{pid}/syscall").read_text().split()
    return (
        call[0] in {"1", "64"} and call[1] == "0x1"
    )  # the number of write(2) on x86-64 and on ARM
