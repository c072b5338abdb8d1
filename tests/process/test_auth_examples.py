"""The example applications for AUTH_URL, each in a process of its own beside the service."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.client import Received, fetch
from tests.support.components import Store
from tests.support.serving import ROOT, ServiceProcess, wait_until

EXAMPLES = ROOT / "examples"
COMMANDS = {
    "auth_starlette.py": [sys.executable, "-m", "uvicorn", "auth_starlette:app", "--port"],
    "auth_node.mjs": ["node", "auth_node.mjs"],
}
PICTURE = b"picture"

ADA = {"cookie": "theme=dark; session=session-of-ada"}
GRACE = {"authorization": "Bearer token-of-grace"}


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running_application(file: str, port: int) -> Generator[None]:
    """Run an example as its first lines say."""
    command = COMMANDS[file]
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    arguments = [*command, str(port)] if command[-1] == "--port" else command
    environ = {"PATH": os.environ["PATH"], "PORT": str(port)}
    process = subprocess.Popen(arguments, cwd=EXAMPLES, env=environ, start_new_session=True)
    with process:
        try:
            wait_until(lambda: process.poll() is not None or listens(port))
            assert process.poll() is None, f"{file} did not start"
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(params=COMMANDS)
def port(request: pytest.FixtureRequest, unused_port: int, store: Store) -> Generator[int]:
    """Run the service with an example as its application; return the service's port."""
    for key in ("test/1/image.jpg", "test/2/image.jpg", "public/videos/a b.txt", "public/eve.txt"):
        store.put(key, PICTURE)
    environ = {
        **store.environ,
        "AUTH_URL": f"http://127.0.0.1:{unused_port}/may-download",
        "S3_OBJECTS": "public/",
    }
    with running_application(request.param, unused_port), ServiceProcess(environ) as service:
        yield urlsplit(service.url()).port or 0


def test_example_application_decides_about_downloads(port: int) -> None:
    """A session may download its paths, a token all, and others nothing."""

    def get(path: str, headers: dict[str, str] | None = None) -> Received:
        return fetch(port, path, headers=headers)

    for path in ("/tasks/1/image", "/tasks/1/image?download", "/objects/videos/a%20b.txt"):
        assert (get(path, ADA).status, get(path, ADA).body) == (200, PICTURE)
        assert get(path, GRACE).body == PICTURE
        refused = get(path)
        assert refused.status == 401
        assert refused.headers["www-authenticate"] == 'Bearer realm="photos"'
    for path in ("/tasks/2/image", "/objects/eve.txt"):
        assert get(path, ADA).status == 403
        assert get(path, GRACE).body == PICTURE
        assert fetch(port, path, method="HEAD", headers=GRACE).headers["content-length"] == "7"
    for headers in (
        {"cookie": "session=session-of-eve"},
        {"cookie": "session=token-of-grace-of-eve"},
        {"authorization": "Bearer"},
        {"authorization": "Basic token-of-grace"},
        {"cookie": "xsession=session-of-ada"},
    ):
        assert get("/tasks/1/image", headers).status == 401
    assert get("/healthz").status == 200


def test_example_application_refuses_odd_encodings_of_a_path(port: int) -> None:
    """No encoding of a path gets more than the path itself, and none stops the application."""
    for path in (
        "/tasks/%32/image",
        "/tasks/1/../2/image",
        "/tasks/1/%2e%2e/2/image",
        "/objects/videos/../eve.txt",
        "/objects/videos/%2e%2e/eve.txt",
        "/objects/videos/..%2Feve.txt",
        "/objects/videos%2F..%2Feve.txt",
        "/objects//videos/../eve.txt",
        "/objects/%zz",
    ):
        answer = fetch(port, path, headers=ADA)
        assert answer.status in (403, 404), path
        assert PICTURE not in answer.body
    assert fetch(port, "/tasks/1/image", headers=ADA).body == PICTURE


def test_example_application_is_short_and_in_readme() -> None:
    """Each example has about ten lines of code, and the README says how to start it."""
    files = {path.name: path for path in EXAMPLES.iterdir() if path.name.startswith("auth_")}
    assert set(files) == set(COMMANDS)
    readme = (EXAMPLES / "README.md").read_text()
    for name, path in files.items():
        assert f"[`{name}`]({name})" in readme
        assert count_statements(path) <= 16
    assert "uvicorn --app-dir examples auth_starlette:app --port 9000" in readme
    assert "node examples/auth_node.mjs" in readme


def count_statements(path: Path) -> int:
    """Return the number of lines that are no import, comment, docstring or empty line."""
    text = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
    ignored = ("#", "//", "import ", "from ")
    lines = [line.strip() for line in text.splitlines()]
    return sum(bool(line) and not line.startswith(ignored) for line in lines)
