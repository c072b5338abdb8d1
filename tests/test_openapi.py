"""The OpenAPI document against the routes, both ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from handlers import create_app
from handlers._errors import DownloadError
from handlers.openapi import BYTES_ERRORS, IMAGE_ERRORS
from settings import Settings

from .support.components import Store
from .support.serving import RunningService, serving
from .test_problems import subclasses


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


def test_answers_are_those_documented(troubled: RunningService, document: dict[str, Any]) -> None:
    """The headers of real answers are documented where they are ours to promise."""
    answer = troubled.get("/tasks/1/image")
    operation = document["paths"]["/tasks/{task_id}/image"]["get"]
    documented = operation["responses"][str(answer.status_code)]
    assert answer.headers["content-type"] in documented["content"]
    assert "X-Request-ID" in documented["headers"]
    schema = document["components"]["schemas"]["Problem"]
    assert set(answer.json()) == set(schema["required"])


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    """Generated clients need a name for each operation."""
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)


def test_schemathesis_finds_nothing(store: Store, httpbin_url: str) -> None:
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
        ran = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
