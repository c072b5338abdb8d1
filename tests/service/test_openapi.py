"""The OpenAPI document against the routes, both ways."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from handlers import create_app
from handlers.errors import DownloadError
from handlers.openapi import BYTES_ERRORS, IMAGE_ERRORS
from settings import Settings
from tests.service.test_problems import subclasses
from tests.support.components import Store
from tests.support.serving import RunningService, serving


@pytest.fixture(scope="module")
def document(troubled: RunningService) -> dict[str, Any]:
    found: dict[str, Any] = troubled.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def test_routes_and_document_are_the_same(document: dict[str, Any]) -> None:
    """Every route and method is in the document, and nothing else."""
    app = create_app(Settings(s3_image_bucket="photos"))
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    documented = {(path, method) for path, item in document["paths"].items() for method in item}
    assert routes == documented


def test_figures_may_be_closed(document: dict[str, Any]) -> None:
    """What /metrics answers without a token is told, as it is for downloads."""
    assert "401" in document["paths"]["/metrics"]["get"]["responses"]
    assert "401" not in document["paths"]["/healthz"]["get"]["responses"]


def test_every_error_is_documented() -> None:
    """Each kind of error that a download can end with is told at its status."""
    told = set(IMAGE_ERRORS) | set(BYTES_ERRORS)
    kinds = {error.kind for error in subclasses(DownloadError)}
    assert {error.kind for error in told} == kinds


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    """Every reference is to a component that exists."""

    def references(node: Any) -> list[str]:
        if isinstance(node, list):
            return [found for item in node for found in references(item)]
        if not isinstance(node, dict):
            return []
        here = [node["$ref"]] if "$ref" in node else []
        return here + [found for item in node.values() for found in references(item)]

    for reference in references(document):
        _, components, section, name = reference.split("/")
        assert name in document[components][section]


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
def test_answers_have_no_header_that_is_not_documented(
    store: Store, service: RunningService, method: str, path: str, headers: dict[str, str]
) -> None:
    """Every status and header of real answers stands in the document."""
    stored = {"ContentEncoding": "x-own", "ContentLanguage": "de", "CacheControl": "max-age=1"}
    expires = {"Expires": datetime(2030, 1, 1, tzinfo=UTC)}
    store.put("test/31/image.jpg", bytes(1000), ContentType="image/png", **stored, **expires)
    store.put("test/32/image.jpg", bytes(1000), ContentType="text/html")
    number = {"page": "32", "missing": "404"}.get(path, "31")
    kind = "bytes/{size}" if path.startswith("bytes") else "image"
    target = path if path.startswith("bytes") else "image"
    answer = service.request(method, f"/tasks/{number}/{target}", headers=headers)
    paths = service.get("/openapi.json").json()["paths"]
    operation = paths[f"/tasks/{{task_id}}/{kind}"][method.lower()]
    documented = operation["responses"][str(answer.status_code)]
    # Date is the server's, and Content-Type is told by the content.
    undocumented = set(answer.headers) - {name.lower() for name in documented["headers"]}
    assert undocumented <= {"date", "content-type"}
    if method == "GET" and answer.content and answer.status_code >= 400:
        assert answer.headers["content-type"] in documented["content"]


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/"])
def test_plain_answers_are_documented(service: RunningService, path: str, accept: str) -> None:
    """So does that of the routes that are no downloads."""
    answer = service.get(path, headers={"accept": accept})
    documented = service.get("/openapi.json").json()["paths"][path]["get"]["responses"]["200"]
    undocumented = set(answer.headers) - {name.lower() for name in documented["headers"]}
    assert undocumented <= {"date", "content-type"}
    assert answer.headers["content-type"].split(";")[0] in documented["content"]


def test_problem_is_of_a_documented_type(
    troubled: RunningService, document: dict[str, Any]
) -> None:
    """A problem's members and type are those of the schema, whatever the route."""
    schema = document["components"]["schemas"]["Problem"]
    for method, path in (("GET", "/tasks/1/image"), ("POST", "/"), ("GET", "/nothing")):
        problem = troubled.request(method, path).json()
        assert set(problem) == set(schema["required"])
        assert problem["type"] in schema["properties"]["type"]["enum"]


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    """Generated clients need a name for each operation."""
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)


def test_schemathesis_finds_nothing(store: Store, httpbin_url: str, tmp_path: Path) -> None:
    """Made-up requests, right and wrong ones, get what the document says they get."""
    store.put("one.jpg", bytes(1000), ContentType="image/jpeg")
    settings = Settings(
        **store.settings,
        s3_image_key="one.jpg",
        bytes_url=httpbin_url + "/stream-bytes/{size}",
        bytes_max_size=102_400,  # more httpbin does not give
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
