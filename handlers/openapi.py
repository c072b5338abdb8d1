"""The OpenAPI 3.1 document of all routes (``/openapi.json``)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from . import errors as _errors
from .answers.path import MAX_DIGITS, ExactRoute
from .answers.problems import INTERNAL, METHOD_NOT_ALLOWED, NOT_READY, problem_type
from .runtime import get_runtime
from .telemetry.request_id import SANE_REQUEST_ID

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_REF_ID = {"$ref": "#/components/headers/X-Request-ID"}
_REQUEST_ID = {
    "description": "The request's own id, or one made for it.",
    "schema": {"type": "string", "pattern": f"^{SANE_REQUEST_ID}$"},
}
_SECURITY_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer"},
    "signature": {
        "type": "apiKey",
        "in": "query",
        "name": "signature",
        "description": "With `expires` and `key`, as `service.py sign` makes them.",
    },
}


def _text(description: str) -> Json:
    return {"description": description, "schema": _STRING}


_ETAG = _text("Entity tag of this version.")
_DATE = _text("When this version was stored.")
_LENGTH = {"description": "Bytes of the body.", "schema": {"type": "integer", "minimum": 0}}
_CONTENT_RANGE = _text("Which bytes of how many these are.")
_RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
_CHALLENGE = _text("`Bearer`, where there are tokens.")
_NOSNIFF = _text("`nosniff`.")
_CACHE_CONTROL = _text("As stored, or as set.")
_ALWAYS = {"X-Request-ID": _REF_ID}
_TIMING = _text("Milliseconds: `slot`, until it had a place; `upstream`, from there to here.")
_VALIDATORS = _ALWAYS | {
    "Server-Timing": _TIMING,
    "ETag": _ETAG,
    "Last-Modified": _DATE,
    "Cache-Control": _CACHE_CONTROL,
    "Expires": _text("As stored."),
}
_BODY_HEADERS = _VALIDATORS | {
    "Content-Length": _LENGTH,
    "Accept-Ranges": _text("`bytes`: a part can be asked for."),
    "Content-Disposition": _text("Where it is to be saved."),
    "Content-Encoding": _text("As stored."),
    "Content-Language": _text("As stored."),
    "Repr-Digest": _text("Checksum of the whole, where the store has one (RFC 9530)."),
    "Content-Security-Policy": _text("A sandbox, for what a browser could run."),
    "X-Content-Type-Options": _NOSNIFF,
}
_REQUEST_HEADERS = {
    "Range": "Ranges of bytes; one is a 206, several are one multipart body.",
    "If-Range": "Entity tag or date: the range counts for that version alone.",
    "If-Match": "Entity tags: 412 for any other version.",
    "If-None-Match": "Entity tags: 304 for any of these versions.",
    "If-Modified-Since": "Date: 304 for a version not newer.",
    "If-Unmodified-Since": "Date: 412 for a newer version.",
    "X-Request-ID": "An id to go by; one is made where none is sent.",
}
_QUERY = {
    "download": "Have it saved as a file of this name.",
    "expires": "Of a signed address: until when it is good, in seconds since 1970.",
    "key": "Of a signed address: the id of the key.",
    "signature": "Of a signed address.",
}

# Which errors a download can end with before its first byte.
_OF_STORE = (_errors.BadUpstream, _errors.UpstreamTimeout)
_OF_REQUEST = (
    _errors.NotAllowed,
    _errors.NotSigned,
    _errors.NotAuthorized,
    _errors.QueryTooLong,
    _errors.ClientLimitReached,
    _errors.NotFound,
    _errors.PreconditionFailed,
    _errors.RangeNotSatisfiable,
    _errors.HeaderTooLarge,
)
_OF_SERVICE = (_errors.UpstreamBusy, _errors.NoSlot, _errors.Draining, _errors.NotStarted)
IMAGE_ERRORS: tuple[type[_errors.DownloadError], ...] = (*_OF_REQUEST, *_OF_STORE, *_OF_SERVICE)
BYTES_ERRORS: tuple[type[_errors.DownloadError], ...] = (_errors.SizeTooLarge, *IMAGE_ERRORS)


async def openapi(request: Request) -> JSONResponse:
    """Answer with the document, its server being wherever this application is mounted."""
    runtime = get_runtime(request.app)
    found = document(
        request.scope.get("root_path", ""),
        largest_size=runtime.settings.bytes_max_size,
        guarded=not runtime.access.is_open,
    )
    return JSONResponse(found)


def document(root_path: str, *, largest_size: int, guarded: bool) -> Json:
    """Return the OpenAPI document of an application at `root_path`."""
    task_id = _in_path("task_id", "Number of the task.", most=10**MAX_DIGITS - 1)
    size = _in_path("size", "How many bytes.", most=largest_size)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "downspout",
            "version": "1",
            "description": "Streams downloads out of S3 and other HTTP services. Every other "
            "method is answered with a problem of status 405 and an Allow header; with CORS set, "
            "every answer has its headers.",
        },
        "servers": [{"url": root_path or "/"}],
        "paths": {
            "/tasks/{task_id}/image": _download(
                "image", "The image of a task, out of S3.", [task_id], IMAGE_ERRORS, guarded
            ),
            "/tasks/{task_id}/bytes/{size}": _download(
                "bytes",
                "So many bytes, out of another service.",
                [task_id, size],
                BYTES_ERRORS,
                guarded,
            ),
            "/healthz": _plain("health", "Whether the process lives.", "text/plain"),
            "/readyz": _plain("readiness", "Whether the store answers.", "text/plain", ready=True),
            "/metrics": _plain("metrics", "Figures for Prometheus.", "text/plain", closed=True),
            "/openapi.json": _plain("document", "This document.", "application/json"),
            "/": _plain("landing", "Commands to copy, or a page.", "text/plain", "text/html"),
        },
        "components": {
            "headers": {"X-Request-ID": _REQUEST_ID},
            "schemas": {"Problem": _problem_schema()},
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _in_path(name: str, description: str, *, most: int) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "integer", "minimum": 0, "maximum": most},
    }


def _download(
    name: str,
    summary: str,
    in_path: list[Json],
    errors: tuple[type[_errors.DownloadError], ...],
    guarded: bool,
) -> Json:
    given = [
        {"name": header, "in": "header", "description": description, "schema": _STRING}
        for header, description in _REQUEST_HEADERS.items()
    ]
    given += [
        {"name": parameter, "in": "query", "description": description, "schema": _STRING}
        for parameter, description in _QUERY.items()
    ]
    whole = {"description": "The whole.", "headers": _BODY_HEADERS, "content": {"*/*": {}}}
    part = {
        "description": "The part that was asked for, or several of them.",
        "headers": _BODY_HEADERS | {"Content-Range": _CONTENT_RANGE},
        "content": {"*/*": {}, "multipart/byteranges": {}},
    }
    known = {"description": "The client has this version.", "headers": _VALIDATORS}
    responses = {"200": whole, "304": known, **_problems(errors)}
    operations = _operations(
        name, summary, [*in_path, *given], {**responses, "206": part}, responses
    )
    if guarded:
        for operation in operations.values():
            operation["security"] = [{"token": []}, {"signature": []}]
    return operations


def _plain(
    name: str, summary: str, *media_types: str, ready: bool = False, closed: bool = False
) -> Json:
    fine = {
        "description": summary,
        "headers": _ALWAYS
        | {
            "Content-Length": _LENGTH,
            "Cache-Control": _CACHE_CONTROL,
            "Vary": _text("`accept`, of the landing page."),
            "Content-Security-Policy": _text(
                "Of the landing page: its own style and script alone."
            ),
            "Referrer-Policy": _text("`no-referrer`, of the landing page."),
            "X-Content-Type-Options": _NOSNIFF,
        },
        "content": {media_type: {} for media_type in media_types},
    }
    not_ready = {"503": _problem("Not ready.", {"Retry-After": _RETRY_AFTER})}
    not_allowed = {"401": _problem_of([_errors.NoToken])}
    responses = {"200": fine} | (not_ready if ready else {}) | (not_allowed if closed else {})
    return _operations(name, summary, [], responses, responses)


def _operations(name: str, summary: str, parameters: list[Json], get: Json, head: Json) -> Json:
    # The router's own refusal of a path, and whatever was not foreseen.
    common = {"404": _problem("No such path.", {}), "500": _problem("A mistake of ours.", {})}
    without_body = {
        status: {name: value for name, value in response.items() if name != "content"}
        for status, response in (common | head).items()
    }
    return {
        method: {
            "operationId": f"{method}_{name}",
            "summary": summary,
            "parameters": parameters,
            "responses": responses,
        }
        for method, responses in (("get", common | get), ("head", without_body))
    }


def _problems(errors: Iterable[type[_errors.DownloadError]]) -> Json:
    by_status = groupby(sorted(errors, key=attrgetter("status")), key=attrgetter("status"))
    return {str(status): _problem_of(list(group)) for status, group in by_status}


def _problem_of(errors: list[type[_errors.DownloadError]]) -> Json:
    described = " Or: ".join(f"`{error.kind}`: {error.detail}" for error in errors)
    headers: Json = {"Server-Timing": _TIMING}
    if any(error.retryable and error.status in (429, 503) for error in errors):
        headers["Retry-After"] = _RETRY_AFTER
    if any(error.status == 401 for error in errors):  # noqa: PLR2004
        headers["WWW-Authenticate"] = _CHALLENGE
    if _errors.RangeNotSatisfiable in errors:
        headers["Content-Range"] = _CONTENT_RANGE
    return _problem(described, headers)


def _problem(description: str, headers: Json) -> Json:
    return {
        "description": description,
        "headers": _ALWAYS
        | {
            "Content-Length": _LENGTH,
            "Cache-Control": _text("`no-store`."),
            "X-Content-Type-Options": _NOSNIFF,
            **headers,
        },
        "content": {"application/problem+json": {"schema": _REF_PROBLEM}},
    }


_REF_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def _problem_schema() -> Json:
    kinds = {error.kind for error in BYTES_ERRORS} | {NOT_READY, METHOD_NOT_ALLOWED, INTERNAL}
    properties = {
        "type": {"type": "string", "format": "uri", "enum": sorted(map(problem_type, kinds))},
        "title": _STRING,
        "status": {"type": "integer"},
        "detail": _STRING,
        "request_id": _STRING,
        "retryable": {"type": "boolean"},
    }
    return {
        "type": "object",
        "description": "RFC 9457.",
        "properties": properties,
        "required": list(properties),
    }


routes = [ExactRoute("/openapi.json", openapi)]
