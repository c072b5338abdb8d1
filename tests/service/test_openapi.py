"""The OpenAPI document compared with the routes, their answers and their errors."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
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
from tests.service.test_problems import subclasses
from tests.support.components import Store
from tests.support.serving import RunningService, serving

IMAGE, BYTES = "/tasks/{task_id}/image", "/tasks/{task_id}/bytes/{size}"


def resolve(node: Any, document: dict[str, Any]) -> Any:
    """Return a node of the document with every $ref replaced by its component."""
    if isinstance(node, list):
        return [resolve(item, document) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        _, components, section, name = node["$ref"].split("/")
        return resolve(document[components][section][name], document)
    return {name: resolve(item, document) for name, item in node.items()}


def documented(service: RunningService) -> dict[str, Any]:
    raw = service.get("/openapi.json").json()
    found: dict[str, Any] = resolve(raw, raw)
    return found


@pytest.fixture(scope="module")
def document(troubled: RunningService) -> dict[str, Any]:
    return documented(troubled)


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [path[method] for path in document["paths"].values() for method in ("get", "head")]


def error_kinds(operation: dict[str, Any]) -> set[tuple[int, str]]:
    """Return each status and kind that the descriptions of an operation's responses name."""
    return {
        (int(status), kind)
        for status, response in operation["responses"].items()
        for kind in re.findall(r"`([a-z-]+)`: ", response["description"])
    }


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


async def test_other_route_documents_its_statuses(document: dict[str, Any]) -> None:
    """Each other route documents the status that it returns without lifespan and token."""
    app = create_app(Settings(s3_image_bucket="photos", metrics_tokens=("0" * 16,)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://downspout.test") as client:
        for path in document["paths"].keys() - {IMAGE, BYTES}:
            answer = await client.get(path)
            operation = document["paths"][path]["get"]
            assert set(operation["responses"]) == {"200", "404", "500", str(answer.status_code)}
            response = operation["responses"][str(answer.status_code)]
            check_headers(answer, response)
            if answer.status_code >= 400:
                kind = answer.json()["type"].rpartition(":")[2]
                assert (answer.status_code, kind) in error_kinds(operation)


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


def test_component_is_always_referenced(troubled: RunningService) -> None:
    """Every reference has a component, and every component has a reference."""
    raw = troubled.get("/openapi.json").json()
    references = set(
        re.findall(r'"#/components/(\w+/[\w-]+)"', troubled.get("/openapi.json").text)
    )
    components = {
        f"{section}/{name}"
        for section, found in raw["components"].items()
        if section != "securitySchemes"
        for name in found
    }
    assert references == components


def check_headers(answer: httpx.Response, response: dict[str, Any]) -> None:
    """Check that the document has every header of an answer."""
    # Date comes from the server, and the keys of `content` are the values of Content-Type.
    undocumented = set(answer.headers) - {name.lower() for name in response["headers"]}
    assert undocumented <= {"date", "content-type"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("image", {}),
        ("image", {"range": "bytes=0-1"}),
        ("image", {"range": "bytes=0-1,5-6"}),
        ("image", {"range": "bytes=5000-"}),
        ("image", {"if-none-match": "*"}),
        ("image", {"if-match": '"x"'}),
        ("image", {"range": "bytes=" + "0-0," * 20_000}),
        ("page", {}),
        ("missing", {}),
        ("bytes/5", {}),
        ("bytes/999999999999", {}),
    ],
)
def test_download_headers_are_documented(
    store: Store, service: RunningService, method: str, path: str, headers: dict[str, str]
) -> None:
    """Every status and header of real download answers is in the document."""
    stored = {"ContentEncoding": "x-own", "ContentLanguage": "de", "CacheControl": "max-age=1"}
    expires = {"Expires": datetime(2030, 1, 1, tzinfo=UTC)}
    store.put("test/31/image.jpg", bytes(1000), ContentType="image/png", **stored, **expires)
    store.put("test/32/image.jpg", bytes(1000), ContentType="text/html")
    number = {"page": "32", "missing": "404"}.get(path, "31")
    kind = "bytes/{size}" if path.startswith("bytes") else "image"
    target = path if path.startswith("bytes") else "image"
    answer = service.request(method, f"/tasks/{number}/{target}", headers=headers)
    operation = documented(service)["paths"][f"/tasks/{{task_id}}/{kind}"][method.lower()]
    response = operation["responses"][str(answer.status_code)]
    check_headers(answer, response)
    if method == "GET" and answer.content and answer.status_code >= 400:
        assert answer.headers["content-type"] in response["content"]


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/"])
def test_other_route_headers_are_documented(
    service: RunningService, path: str, accept: str
) -> None:
    """Every header and content type of the other routes is in the document."""
    answer = service.get(path, headers={"accept": accept})
    response = documented(service)["paths"][path]["get"]["responses"]["200"]
    check_headers(answer, response)
    assert answer.headers["content-type"].split(";")[0] in response["content"]


def test_problem_matches_the_schema(troubled: RunningService, document: dict[str, Any]) -> None:
    """A problem document has the members and a type of the schema, on every route."""
    schema = document["components"]["schemas"]["Problem"]
    for method, path in (("GET", "/tasks/1/image"), ("POST", "/"), ("GET", "/nothing")):
        problem = troubled.request(method, path).json()
        assert set(problem) == set(schema["required"])
        assert problem["type"] in schema["properties"]["type"]["enum"]


def test_operation_id_is_unique(document: dict[str, Any]) -> None:
    """Every operation has its own operationId."""
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)


def test_schemathesis_run_finds_no_failure(store: Store, httpbin_url: str, tmp_path: Path) -> None:
    """Generated requests, valid and invalid, get documented answers."""
    store.put("one.jpg", bytes(1000), ContentType="image/jpeg")
    settings = Settings(
        **store.settings,
        s3_image_key="one.jpg",
        bytes_url=httpbin_url + "/stream-bytes/{size}",
        bytes_max_size=102_400,  # httpbin's own limit
    )
    schemathesis = str(Path(sys.executable).with_name("schemathesis"))
    config = str(Path(__file__).with_name("schemathesis.toml"))
    command = [schemathesis, "--config-file", config, "run", "--max-examples", "25"]
    with serving(settings) as service:
        url = f"{service.url}/openapi.json"
        ran = subprocess.run(
            [*command, url], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert ran.returncode == 0, ran.stdout
