"""The installed package, beside a host that has the same names for its own modules."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import handlers
from tests.support.client import fetch
from tests.support.components import Store
from tests.support.serving import ROOT, ServiceProcess, wait_until

STUB = ROOT / "stubs" / "downspout.pyi"

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
    """Return the paths of all files in a package, without those that Python makes itself."""
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {path for path in paths if "__pycache__" not in path}


def test_wheel_holds_one_package(installed: Path) -> None:
    """Nothing but the package, its settings and its metadata is installed."""
    top = sorted(path.name for path in installed.iterdir())
    assert top == ["downspout", "downspout-0.1.0.dist-info"]
    files = files_below(installed / "downspout")
    expected = files_below(ROOT / "handlers")
    assert files == expected | {"settings.py", "__init__.pyi"}


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


def functions_of(path: Path) -> dict[str, str]:
    """Return the signatures of a module's functions, as they are written."""
    found: dict[str, str] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Expr(ast.Constant(...))]
            found[node.name] = ast.unparse(node)
    return found


def test_stub_says_what_the_code_does() -> None:
    """What a host's type checker reads has the signatures of the code, type for type."""
    code = {
        name: text
        for path in (ROOT / "handlers").rglob("*.py")
        for name, text in functions_of(path).items()
        if name in handlers.__all__
    }
    assert functions_of(STUB) == code
    assert f"CONNECTION: Final = {ast.unparse(ast.Constant(handlers.CONNECTION))}" in (
        STUB.read_text().replace('"', "'")
    )


TYPED = f"""
from downspout import {", ".join(handlers.__all__)}, __all__
from downspout.settings import Settings

settings = Settings(s3_image_bucket="photos")
create_app(settings, authorize=lambda request: True, locate=lambda task_id: ("photos", "key"))
create_app(5)  # wrong
create_app(Settings(s3_image_bucket=5))  # wrong
create_app(settings, locate=lambda request: 5)  # wrong
create_app(settings, http=5)  # wrong
stream_object(create_app(settings), 5)  # wrong
raise BrokenTransfer("unheard of", "text")  # wrong
"""


def test_types_of_the_installed_package(installed: Path, tmp_path: Path) -> None:
    """A host is checked against the real types: the examples are right, what is wrong is found."""
    host = tmp_path / "host.py"
    host.write_text(TYPED)
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\nignore_missing_imports = true\n")
    options = ["--config-file", str(config), "--cache-dir", str(tmp_path / "cache")]
    files = [host, *(ROOT / "examples").rglob("*.py")]
    mypy = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, files)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in mypy.stdout.splitlines() if ": error: " in line]
    found = {line.partition(": error: ")[0] for line in errors}
    lines = TYPED.splitlines()
    wrong = {f"host.py:{number}" for number, line in enumerate(lines, 1) if "# wrong" in line}
    assert found == wrong, mypy.stdout + mypy.stderr
