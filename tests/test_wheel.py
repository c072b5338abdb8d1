"""The installed package, beside a host that has the same names for its own modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .support.client import fetch
from .support.components import Store
from .support.serving import ROOT, ServiceProcess, wait_until

HOST = {
    "settings.py": "class Settings:\n    mine = True\n",
    "handlers/__init__.py": "mine = True\n",
    "service.py": """
import os
from contextlib import asynccontextmanager

import handlers
import settings
from starlette.applications import Starlette
from starlette.routing import Mount

from downspout import create_app
from downspout.settings import Settings

assert handlers.mine and settings.Settings.mine

downloads = create_app(Settings.from_environ(os.environ))


@asynccontextmanager
async def lifespan(app):
    async with downloads.router.lifespan_context(downloads):
        yield


app = Starlette(routes=[Mount("/media", downloads, name="media")], lifespan=lifespan)
""",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pip install .`` into a folder of its own; returns that."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--target", str(target)]
    subprocess.run([*pip, *options, str(ROOT)], check=True)
    return target


def test_wheel_holds_one_package(installed: Path) -> None:
    """Nothing but the package, its settings and its metadata is installed."""
    top = sorted(path.name for path in installed.iterdir())
    assert top == ["downspout", "downspout-0.1.0.dist-info"]
    files = {path.name for path in (installed / "downspout").iterdir()}
    expected = {path.name for path in (ROOT / "handlers").glob("*.*")} | {"settings.py"}
    assert files == expected


def test_host_with_the_same_names_for_its_own(
    installed: Path, store: Store, tmp_path: Path
) -> None:
    """A host's settings.py, handlers/ and service.py stay its own, and it serves downloads."""
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    for name, text in HOST.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    environ = {**store.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(installed)])}
    command = ["-m", "uvicorn", "service:app", "--port", "0", "--app-dir", str(tmp_path)]
    with ServiceProcess(environ, *command, cwd=tmp_path) as process:
        wait_until(lambda: process.saw("Uvicorn running on "))
        [line] = [line for line in process.lines if "Uvicorn running on " in line]
        port = int(line.split("127.0.0.1:")[1].split(" ")[0])
        assert fetch(port, "/media/tasks/1/image").body == b"picture"
        page = fetch(port, "/media/", headers={"accept": "text/html"})
        assert page.status == 200
