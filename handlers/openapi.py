"""The OpenAPI 3.1 document (``/openapi.json``): the file openapi.json, adapted to the settings."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from .runtime import get_runtime

Json = dict[str, Any]


async def openapi(request: Request) -> JSONResponse:
    """Answer with openapi.json, adapted to the application's URL and settings."""
    runtime = get_runtime(request.app)
    document: Json = json.loads(_read_document())
    document["servers"] = [{"url": request.scope.get("root_path") or "/"}]
    components = document["components"]
    components["parameters"]["size"]["schema"]["maximum"] = runtime.settings.bytes_max_size
    if not runtime.settings.s3_objects:
        del document["paths"]["/objects/{key}"]
    for path in document["paths"].values():
        get = path["get"]
        if runtime.access.is_open:
            get.pop("security", None)
        path["head"] = _head_operation(get, components["responses"])
        if runtime.settings.delivery != "redirect":
            get["responses"].pop("307", None)
    return JSONResponse(document)


@cache
def _read_document() -> str:
    return Path(__file__).with_name("openapi.json").read_text(encoding="utf-8")


def _head_operation(get: Json, shared_responses: Json) -> Json:
    """Return the HEAD operation for a GET operation: no response content, no 206 and 307."""
    responses = {}
    for status, response in get["responses"].items():
        _, _, name = response.get("$ref", "").rpartition("/")
        found = shared_responses[name] if name else response
        responses[status] = {key: value for key, value in found.items() if key != "content"}
    for status in ("206", "307"):
        responses.pop(status, None)
    name = get["operationId"].replace("get_", "head_", 1)
    return {**get, "operationId": name, "responses": responses}
