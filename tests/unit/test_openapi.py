"""The OpenAPI document compared with the routes, the errors and the limits in the code."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from handlers import create_app
from handlers.answers.path import MAX_DIGITS
from handlers.errors import DownloadError, SizeTooLarge
from handlers.rfc9110.conditions import CONDITIONS
from handlers.telemetry.request_id import SANE_REQUEST_ID
from settings import Settings
from tests.support.openapi import BYTES, IMAGE, error_kinds, resolve
from tests.unit.test_errors import subclasses


async def get_raw_document() -> Any:
    app = create_app(Settings(s3_image_bucket="photos"))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://downspout.test") as client:
        return (await client.get("/openapi.json")).json()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    raw = asyncio.run(get_raw_document())
    found: dict[str, Any] = resolve(raw, raw)
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [path[method] for path in document["paths"].values() for method in ("get", "head")]


def test_document_lists_exactly_the_routes(document: dict[str, Any]) -> None:
    """The OpenAPI document has every route and method, and no others."""
    app = create_app(Settings(s3_image_bucket="photos"))
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    documented = {
        (path, method)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert routes == documented


@pytest.mark.parametrize("method", ["get", "head"])
def test_download_route_documents_every_error(document: dict[str, Any], method: str) -> None:
    """Each download route documents the status and type of every error, and no others."""
    errors = {(error.status, error.kind) for error in subclasses(DownloadError)}
    errors.add((500, "internal-error"))
    assert error_kinds(document["paths"][BYTES][method]) == errors
    size_too_large = (SizeTooLarge.status, SizeTooLarge.kind)
    assert error_kinds(document["paths"][IMAGE][method]) == errors - {size_too_large}


def test_problem_schema_lists_every_type(document: dict[str, Any]) -> None:
    """The Problem schema has the type of every error, and no others."""
    kinds = {error.kind for error in subclasses(DownloadError)}
    kinds |= {"not-ready", "method-not-allowed", "internal-error"}
    types = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    assert sorted(types) == sorted(f"urn:downspout:problem:{kind}" for kind in kinds)


def test_download_documents_only_its_success_statuses(document: dict[str, Any]) -> None:
    """Besides errors, a download documents 200, 304 and, for GET, 206."""
    for path in (IMAGE, BYTES):
        for method, expected in (("get", {200, 206, 304}), ("head", {200, 304})):
            operation = document["paths"][path][method]
            statuses = set(map(int, operation["responses"]))
            content = [one for one in operation["responses"].values() if "content" in one]
            assert bool(content) == (method == "get")
            assert statuses - {status for status, _ in error_kinds(operation)} == expected


def test_limits_in_the_document_equal_the_code(document: dict[str, Any]) -> None:
    """Numbers, patterns and header names in the document equal the ones in the code."""
    parameters = document["components"]["parameters"]
    assert parameters["task_id"]["schema"]["maximum"] == 10**MAX_DIGITS - 1
    default = Settings(s3_image_bucket="photos").bytes_max_size
    assert parameters["size"]["schema"]["maximum"] == default
    header = document["components"]["headers"]["X-Request-ID"]
    assert header["schema"]["pattern"] == f"^{SANE_REQUEST_ID}$"
    for path in (IMAGE, BYTES):
        given = document["paths"][path]["parameters"]
        headers = {one["name"].lower() for one in given if one["in"] == "header"}
        assert headers == {"range", "if-range", *CONDITIONS, "x-request-id"}
        in_path = {one["name"] for one in given if one["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path))


def test_operation_id_is_unique(document: dict[str, Any]) -> None:
    """Every operation has its own operationId."""
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)
