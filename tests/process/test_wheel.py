"""The installed package, also in a host that has modules with the same names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import handlers
from tests.support.client import fetch
from tests.support.components import Store
from tests.support.serving import ROOT, UNMEASURED, ServiceProcess

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


def files_below(folder: Path) -> set[str]:
    """Return the paths of all files in a package, without `__pycache__`."""
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {path for path in paths if "__pycache__" not in path}


def test_wheel_has_one_package(installed: Path) -> None:
    """The wheel has handlers/ as `downspout`, the command and the metadata."""
    top = sorted(path.name for path in installed.iterdir())
    assert top == ["bin", "downspout", "downspout-0.1.0.dist-info"]
    assert [path.name for path in (installed / "bin").iterdir()] == ["downspout"]
    assert files_below(installed / "downspout") == files_below(ROOT / "handlers")


def test_editable_wheel_imports_the_checkout(tmp_path: Path) -> None:
    """After `pip install -e .`, `downspout` is imported from the checkout."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel:editable", "-d"]
    environ = {**os.environ, **UNMEASURED}
    subprocess.run([*build, str(tmp_path)], cwd=ROOT, env=environ, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = [name for name in opened.namelist() if ".dist-info/" not in name]
        assert names == ["_downspout.pth"]
        folder = opened.read("_downspout.pth").decode().strip()
    script = "import downspout; print(downspout.__file__, downspout.Settings.__module__)"
    environ["PYTHONPATH"] = folder
    command = [sys.executable, "-c", script]
    output = subprocess.check_output(command, cwd=tmp_path, env=environ, text=True).split()
    assert Path(output[0]).samefile(ROOT / "handlers" / "__init__.py")
    assert output[1] == "downspout.settings"


def test_sign_command_prints_a_signed_url(installed: Path, tmp_path: Path) -> None:
    """`downspout sign` prints a signed URL."""
    environ = {
        "PYTHONPATH": str(installed),
        "URL_SIGNING_KEYS": "a:0123456789abcdef",
        "PATH": os.environ["PATH"],
    }
    command = [sys.executable, str(installed / "bin" / "downspout"), "sign", "/tasks/1/image"]
    output = subprocess.check_output(command, cwd=tmp_path, env=environ, text=True)
    assert re.fullmatch(r"/tasks/1/image\?expires=[0-9]+&key=a&signature=[\w-]{43}\n", output)


def test_package_annotations_resolve_at_run_time(installed: Path, tmp_path: Path) -> None:
    """`typing.get_type_hints` resolves the types of all public functions."""
    script = """
import typing, downspout, downspout.server
for name in downspout.__all__:
    value = getattr(downspout, name)
    if callable(value):
        typing.get_type_hints(value)
hints = typing.get_type_hints(downspout.create_app)
assert hints["settings"] is downspout.Settings
assert downspout.Settings.__module__ == "downspout.settings"
"""
    environ = {**os.environ, **UNMEASURED, "PYTHONPATH": str(installed)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environ, check=True)


def test_host_with_modules_of_the_same_names_serves_downloads(
    installed: Path, store: Store, tmp_path: Path
) -> None:
    """A host with its own settings.py, handlers/ and service.py serves downloads."""
    store.put("test/1/image.jpg", b"picture", ContentType="image/jpeg")
    for name, text in HOST.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    folders = os.pathsep.join([str(tmp_path), str(installed)])
    environ = {**store.environ, **UNMEASURED, "PYTHONPATH": folders}
    command = ["-m", "uvicorn", "service:app", "--port", "0", "--app-dir", str(tmp_path)]
    with ServiceProcess(environ, *command, cwd=tmp_path) as process:
        line = process.wait_for_line("Uvicorn running on ")
        port = int(line.split("127.0.0.1:")[1].split(" ")[0])
        assert fetch(port, "/media/tasks/1/image").body == b"picture"
        page = fetch(port, "/media/", headers={"accept": "text/html"})
        assert page.status == 200


TYPED = f"""
from downspout import {", ".join(handlers.__all__)}, __all__
from downspout.server import DrainOnSignal, Protocol
from downspout.settings import Settings as SameSettings
from types_aiobotocore_s3 import S3Client
import aiohttp
import uvicorn

settings: Settings = SameSettings(s3_image_bucket="photos")


def with_clients(s3: S3Client, http: aiohttp.ClientSession) -> None:
    app = create_app(settings, s3=s3, http=http)
    uvicorn.run(app, http=Protocol)
    uvicorn.Config(app, http=Protocol)
    DrainOnSignal(app)
    DrainOnSignal(5)  # wrong


create_app(settings, authorize=lambda request: True, locate=lambda task_id: ("photos", "key"))
create_app(5)  # wrong
create_app(Settings(s3_image_bucket=5))  # wrong
create_app(settings, locate=lambda request: 5)  # wrong
create_app(settings, http=5)  # wrong
create_app(settings, s3=5)  # wrong
stream_object(create_app(settings), 5)  # wrong
raise BrokenTransfer("unheard of", "text")  # wrong
"""


def test_installed_package_types_reject_wrong_calls(installed: Path, tmp_path: Path) -> None:
    """The examples pass mypy, and each wrong call is a type error."""
    host = tmp_path / "host.py"
    host.write_text(TYPED)
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\nignore_missing_imports = true\n")
    options = ["--config-file", str(config), "--cache-dir", str(tmp_path / "cache")]
    files = [host, *(ROOT / "examples").rglob("*.py")]
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, files)],
        cwd=tmp_path,
        env={**os.environ, **UNMEASURED, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in mypy.stdout.splitlines() if ": error: " in line]
    found = {line.partition(": error: ")[0] for line in errors}
    lines = TYPED.splitlines()
    wrong = {f"host.py:{number}" for number, line in enumerate(lines, 1) if "# wrong" in line}
    assert found == wrong, mypy.stdout + mypy.stderr
