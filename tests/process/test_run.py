"""scripts/run and scripts/venv: what they say, and what to do when a step fails."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.components import Store
from tests.support.serving import ROOT, ServiceProcess

TOOLS = ("bash", "cat", "cksum", "dirname", "env", "find", "touch", "tr")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout with the .venv of the tests, and a scripts/venv that does nothing."""
    for name in ("service.py", "settings.py", "handlers"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "demo").symlink_to(ROOT / "scripts" / "demo")
    shutil.copy(ROOT / "scripts" / "run", tmp_path / "scripts" / "run")
    (tmp_path / "scripts" / "venv").write_text("#!/bin/sh\n")
    (tmp_path / "scripts" / "venv").chmod(0o755)
    return tmp_path


@contextmanager
def running(checkout: Path, environ: dict[str, str]) -> Generator[ServiceProcess]:
    """Run scripts/run; ServiceProcess starts Python programs, so Python starts the script."""
    script = "import os; os.execv('scripts/run', ['scripts/run'])"
    with ServiceProcess(environ, "-c", script, cwd=checkout) as process:
        yield process


@contextmanager
def taken_ports(*ports: int) -> Generator[None]:
    """Listen on these ports of loopback, unless another process does."""
    with ExitStack() as stack:
        for port in ports:
            try:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
        yield


def test_run_takes_the_next_free_port(store: Store, checkout: Path) -> None:
    """If 8000 is taken and PORT is not set, scripts/run takes the next port and says so."""
    with taken_ports(8000, 8001), running(checkout, {**store.environ, "PORT": ""}) as process:
        port = int(process.url().rpartition(":")[2])
        assert 8001 < port < 8100
        told = f"downspout: port 8000 is taken: using port {port}; to choose another, set PORT"
        process.wait_for_line(told)
        process.wait_for_line("downspout: starting the service for the bucket in S3_IMAGE_BUCKET")


def test_run_keeps_the_port_that_is_set(store: Store, checkout: Path) -> None:
    """If PORT is set, also in ENV_FILE, and taken, scripts/run ends with the next step."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (checkout / "service.env").write_text(f"PORT={port}\n")
        environ = {**store.environ, "ENV_FILE": "service.env"}
        start = "import os; del os.environ['PORT']; os.execv('scripts/run', ['scripts/run'])"
        with ServiceProcess(environ, "-c", start, cwd=checkout) as process:
            assert process.end() == 1
            assert process.saw(f"can't listen on HOST 127.0.0.1, PORT {port}: ")
            assert process.saw("stop it, or set PORT to another")


def test_run_without_a_bucket_starts_the_demo(checkout: Path) -> None:
    """Without a bucket scripts/run says so and starts the demo."""
    with running(checkout, {}) as process:
        process.url()
        process.wait_for_line("downspout: no bucket is set (S3_IMAGE_BUCKET): starting the demo")


def test_run_with_a_wrong_env_file_is_one_line(checkout: Path) -> None:
    """A wrong line of ENV_FILE ends scripts/run with one line."""
    (checkout / "service.env").write_text("wrong\n")
    with running(checkout, {"ENV_FILE": "service.env"}) as process:
        assert process.end() == 1
        [line] = process.lines
    assert line.startswith("service.env:1: must be NAME=VALUE")


def run_venv(tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/venv for a new .venv, where the PATH has only the tools that it needs."""
    shutil.copytree(
        ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("objects")
    )
    for name in ("examples", "tests"):
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / name / "requirements.txt", tmp_path / name)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    return subprocess.run(
        ["scripts/venv", "requirements.txt"],
        cwd=tmp_path,
        env={"HOME": os.environ["HOME"], "PATH": str(tmp_path / "bin"), **environ},
        check=False,
        capture_output=True,
        text=True,
    )


def test_venv_without_python_says_how_to_install_it(tmp_path: Path) -> None:
    """If there is no Python 3.11, scripts/venv is one line with the next step."""
    done = run_venv(tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("downspout: Python 3.11 or later was not found: install it")


def test_venv_without_the_venv_module_says_how_to_install_it(tmp_path: Path) -> None:
    """If Python has no venv module, scripts/venv names the package that has it."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" != -m ] || exit 1\n[ "$1" = -c ] || echo Python 3.11.0\n')
    python.chmod(0o755)
    done = run_venv(tmp_path, PYTHON=str(python))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"downspout: {python} can't make .venv: ")
    assert "apt-get install python3-venv" in done.stderr


def test_venv_without_network_says_what_to_check(tmp_path: Path) -> None:
    """If PyPI can't be reached, scripts/venv says so, and a second run tries again."""
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
    }
    done = run_venv(tmp_path, PYTHON=sys.executable, VENV=".venv-test", **nowhere)
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert told[0].startswith("downspout: making .venv-test with Python 3.")
    assert told[1] == "downspout: installing requirements.txt into .venv-test ..."
    assert told[-1].startswith(
        "downspout: the packages could not be installed (see above): check "
    )
    assert not list((tmp_path / ".venv-test").glob("installed-*"))
