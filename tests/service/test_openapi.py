"""The OpenAPI document compared with the answers of the routes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from starlette.routing import Route

from handlers import create_app
from settings import Settings
from tests.support.components import Store
from tests.support.openapi import BYTES, IMAGE, OBJECTS, VARIANTS, error_kinds, resolve, statuses
from tests.support.serving import UNMEASURED, RunningService, ServiceWith, serving


def settings_of(service: RunningService) -> Settings:
    """Return the settings of a running service."""
    settings: Settings = service.app.state.runtime.settings
    return settings


def documented(service: RunningService) -> dict[str, Any]:
    raw = service.get("/openapi.json").json()
    found: dict[str, Any] = resolve(raw, raw)
    return found


@pytest.fixture
def document(troubled: RunningService) -> dict[str, Any]:
    return documented(troubled)


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


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, service_with: ServiceWith) -> RunningService:
    """Run the service with each of the settings that change the document."""
    return service_with(**VARIANTS[request.param])


def test_document_lists_exactly_the_routes_of_the_settings(variant: RunningService) -> None:
    """The document has every path of the application, `/objects/{key}` only with S3_OBJECTS."""
    paths = documented(variant)["paths"]
    routes = {route.path for route in variant.app.routes if isinstance(route, Route)}
    assert set(paths) == routes
    assert (OBJECTS in paths) == bool(settings_of(variant).s3_objects)


def test_delivery_decides_the_success_statuses_of_the_document(variant: RunningService) -> None:
    """With DELIVERY=redirect a GET of an object may also be a 307; a HEAD is a 200."""
    is_redirect = settings_of(variant).delivery == "redirect"
    for path, item in documented(variant)["paths"].items():
        successes = {200, 206} if path in (IMAGE, BYTES, OBJECTS) else {200}
        if is_redirect and path in (IMAGE, OBJECTS):
            successes = {200, 206, 307}
        assert statuses(item["get"]) & {200, 206, 307} == successes, path
        assert statuses(item["head"]) & {200, 206, 307} == {200}, path
        assert (304 in statuses(item["get"])) == (path in (IMAGE, BYTES, OBJECTS))


@pytest.mark.parametrize("variant", ["objects", "both", "guarded"], indirect=True)
def test_objects_route_documents_what_the_image_route_documents(variant: RunningService) -> None:
    """Both routes have the same responses and credentials, and headers in their parameters."""
    paths = documented(variant)["paths"]
    for method in ("get", "head"):
        image, objects = paths[IMAGE][method], paths[OBJECTS][method]
        assert objects["responses"] == image["responses"]
        assert objects.get("security") == image.get("security")
    named = {
        path: {(p["in"], p["name"]) for p in paths[path]["parameters"]}
        for path in paths
        if path in (IMAGE, OBJECTS)
    }
    assert named[OBJECTS] - named[IMAGE] == {("path", "key"), ("query", "prefix")}
    assert named[IMAGE] - named[OBJECTS] == {("path", "task_id")}


def test_operation_id_is_unique_in_each_variant(variant: RunningService) -> None:
    """Every operation has its own operationId."""
    items = documented(variant)["paths"].values()
    names = [item[method]["operationId"] for item in items for method in ("get", "head")]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("variant", ["both"], indirect=True)
def test_component_is_always_referenced(variant: RunningService) -> None:
    """With all features, every reference has a component, and every component a reference."""
    raw = variant.get("/openapi.json").json()
    references = set(re.findall(r'"#/components/(\w+/[\w-]+)"', variant.get("/openapi.json").text))
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


@pytest.mark.parametrize("delivery", ["proxy", "redirect"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("a.png", {}),
        ("a.png?download=b.png", {}),
        ("a.png", {"range": "bytes=0-1"}),
        ("a.png", {"range": "bytes=0-1,5-6"}),
        ("a.png", {"range": "bytes=5000-"}),
        ("a.png", {"if-none-match": "*"}),
        ("a.png", {"if-match": '"x"'}),
        ("a.html", {}),
        ("missing", {}),
        ("%ff", {}),
        ("", {}),
    ],
)
def test_object_headers_are_documented(
    store: Store,
    service_with: ServiceWith,
    method: str,
    delivery: str,
    target: str,
    headers: dict[str, str],
) -> None:
    """Every status and header of the objects route and of a redirect is in the document."""
    stored = {"ContentEncoding": "x-own", "ContentLanguage": "de", "CacheControl": "max-age=1"}
    store.put("documented/a.png", bytes(1000), ContentType="image/png", **stored)
    store.put("documented/a.html", bytes(1000), ContentType="text/html")
    service = service_with(store.url, s3_objects=("documented/",), delivery=delivery)
    answer = service.request(method, f"/objects/{target}", headers=headers)
    operation = documented(service)["paths"][OBJECTS][method.lower()]
    response = operation["responses"][str(answer.status_code)]
    check_headers(answer, response)
    is_required = {"Location", "Cache-Control"} if answer.status_code == 307 else set()
    assert is_required <= set(response["headers"])
    if answer.status_code == 307:
        assert "content" not in response
    if method == "GET" and answer.content and answer.status_code >= 400:
        assert answer.headers["content-type"] in response["content"]


def test_problem_matches_the_schema(troubled: RunningService, document: dict[str, Any]) -> None:
    """A problem document has the members and a type of the schema, on every route."""
    schema = document["components"]["schemas"]["Problem"]
    for method, path in (("GET", "/tasks/1/image"), ("POST", "/"), ("GET", "/nothing")):
        problem = troubled.request(method, path).json()
        assert set(problem) == set(schema["required"])
        assert problem["type"] in schema["properties"]["type"]["enum"]


@pytest.mark.parametrize("delivery", ["proxy", "redirect"])
def test_schemathesis_run_finds_no_failure(
    store: Store, httpbin_url: str, tmp_path: Path, delivery: Literal["proxy", "redirect"]
) -> None:
    """Generated requests, valid and invalid, get documented answers."""
    store.put("one.jpg", bytes(1000), ContentType="image/jpeg")
    settings = Settings(
        **store.settings,
        s3_image_key="one.jpg",
        s3_objects=("/",),
        delivery=delivery,
        bytes_url=httpbin_url + "/stream-bytes/{size}",
        bytes_max_size=102_400,  # httpbin's own limit
    )
    schemathesis = str(Path(sys.executable).with_name("schemathesis"))
    config = str(Path(__file__).with_name("schemathesis.toml"))
    command = [schemathesis, "--config-file", config, "run", "--max-examples", "25"]
    if delivery == "redirect":
        # The document describes the redirect, not the store's answer to the next request.
        command += ["--max-redirects", "0", "--include-path-regex", "image|objects"]
    with serving(settings) as service:
        url = f"{service.url}/openapi.json"
        ran = subprocess.run(
            [*command, url],
            cwd=tmp_path,
            env={**os.environ, **UNMEASURED},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout
