"""The undocumented parts of aiohttp: each use is declared, and each is checked at start."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import aiohttp
import pytest

from handlers.sources import raw_client
from handlers.sources.pools import open_clients
from handlers.sources.raw_client import missing_parts
from handlers.sources.s3.botocore import BotocoreBucket
from tests.support.components import settings_for
from tests.support.serving import ROOT

# What the variables of RAW_FILES hold.
HOLDERS = {
    "self._connect_request": "ClientRequest",
    "payload": "StreamReader",
    "handler": "client_proto.ResponseHandler",
    "self._handler": "client_proto.ResponseHandler",
    "connection": "connector.Connection",
    "self._connection": "connector.Connection",
    "connector": "BaseConnector",
    "message": "http_parser.RawResponseMessage",
}
RAW_FILES = ("connectors.py", "raw_client.py", "raw_exchange.py")
FILES = (*RAW_FILES, "errors.py", "http.py", "pools.py")

DECLARED: defaultdict[str, set[str]] = defaultdict(set)
for path, names in raw_client._ATTRIBUTES.items():
    DECLARED[path] |= set(names.split())
for path in raw_client._PARAMETERS:
    owner, _, name = path.rpartition(".")
    DECLARED[owner].add(name)

ATTRIBUTES = [
    (path, name) for path, names in raw_client._ATTRIBUTES.items() for name in names.split()
]


def nodes(file: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse((ROOT / "handlers" / "sources" / file).read_text()))


def attributes(*files: str) -> Iterator[tuple[str, str]]:
    """Yield the object and the name of each attribute that the files use."""
    for file in files:
        for node in nodes(file):
            if isinstance(node, ast.Attribute):
                yield ast.unparse(node.value), node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "len":
                yield ast.unparse(node.args[0]), "__len__"


def used_parts() -> Iterator[tuple[str, str]]:
    """Yield the attributes that RAW_FILES use, also by `getattr`."""
    yield from attributes(*RAW_FILES)
    for file in RAW_FILES:
        for node in nodes(file):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
                yield ast.unparse(node.args[0]), ast.literal_eval(node.args[1])


def test_each_used_part_of_aiohttp_is_declared() -> None:
    """What RAW_FILES use of aiohttp's objects is in the lists that `missing_parts` checks."""
    used = list(used_parts())
    assert HOLDERS.keys() <= {holder for holder, _ in used}, "a variable has another name now"
    found = {(HOLDERS[holder], name) for holder, name in used if holder in HOLDERS}
    assert not {(owner, name) for owner, name in found if name not in DECLARED[owner]}


def test_each_declared_part_of_aiohttp_is_used() -> None:
    """The lists name no part that RAW_FILES do not use."""
    used = {(HOLDERS[holder], name) for holder, name in used_parts() if holder in HOLDERS}
    assert not set(ATTRIBUTES) - used


def test_only_public_names_of_aiohttp_are_used_without_a_check() -> None:
    """The files import no submodule of aiohttp, and use no private attribute of its objects."""
    public = {"aiohttp", "aiohttp.abc"}
    for file in FILES:
        for node in nodes(file):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                assert node.module in public or not node.module.startswith("aiohttp"), file
    for holder, name in attributes(*FILES):
        assert holder != "aiohttp" or name in aiohttp.__all__
        is_private = name.startswith("_") and not name.endswith("__")
        assert not is_private or holder == "self", f"{holder}.{name}"
    for file in FILES:
        for node in nodes(file):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
                assert len(node.args) == 3, f"{file}: {ast.unparse(node)} has no default"


@pytest.mark.parametrize(("path", "name"), ATTRIBUTES)
def test_missing_attribute_is_found(monkeypatch: pytest.MonkeyPatch, path: str, name: str) -> None:
    """An attribute that aiohttp no longer has is named."""
    owner = attrgetter(path)(aiohttp)
    without = type(
        "Without", (), {one: None for one in dir(owner) if one != name and one[0] != "_"}
    )
    module, _, class_name = f"aiohttp.{path}".rpartition(".")
    monkeypatch.setattr(sys.modules[module], class_name, without)
    assert f"{path}.{name}" in missing_parts()


class Later:
    """Functions as a later version of aiohttp may have them."""

    def __init__(self, method: str, url: str, *, session: Any, loop: Any, more: Any) -> None:
        """Require one more argument; aiohttp 4 requires 21."""

    def connect(self, request: Any, traces: Any, timeout: Any) -> None:
        """Take `request` instead of `req`."""

    def set_response_params(self, **options: Any) -> None:
        """Name no parameters."""


@pytest.mark.parametrize(
    ("path", "replacement"),
    [
        ("ClientRequest", Later),
        ("BaseConnector.connect", Later.connect),
        ("client_proto.ResponseHandler.set_response_params", Later.set_response_params),
    ],
)
def test_changed_parameters_are_found(
    monkeypatch: pytest.MonkeyPatch, path: str, replacement: Any
) -> None:
    """A parameter with another name, or one more that is required, is found."""
    monkeypatch.setattr(f"aiohttp.{path}", replacement)
    assert [one for one in missing_parts() if one.startswith(f"{path}(")]


async def test_renamed_module_of_aiohttp_uses_botocore(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If a class has another name or place, requests go through botocore, and the log says so."""
    monkeypatch.delattr(aiohttp, "client_proto")
    with caplog.at_level(logging.WARNING, "downspout"):
        async with open_clients(settings_for("http://127.0.0.1:9")) as clients:
            assert isinstance(clients.buckets.default, BotocoreBucket)
    [record] = caplog.records
    assert "no client_proto.ResponseHandler.__len__, client_proto" in record.getMessage()


def test_package_loads_without_the_undocumented_classes() -> None:
    """The package can be imported, and the check runs, if aiohttp has renamed its classes."""
    script = (
        "import aiohttp\n"
        "del aiohttp.client_proto.ResponseHandler, aiohttp.connector.Connection\n"
        "from handlers.sources.raw_client import missing_parts\n"
        "import handlers\n"
        "assert 'connector.Connection.release' in missing_parts()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
