"""Errors as problem documents (RFC 9457), the only form in which they reach a client."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..download.scope import note_error
from ..errors import BrokenTransfer, DownloadError
from ..telemetry.request_id import get_request_id

logger = logging.getLogger("downspout")

# The kinds of problems that are of no download.
NOT_READY = "not-ready"
METHOD_NOT_ALLOWED = "method-not-allowed"
INTERNAL = "internal-error"

_KNOWN = frozenset(HTTPStatus)


def problem_type(kind: str) -> str:
    """Return the URI that a kind of problem has for its type (RFC 9457, 3.1.1)."""
    return f"urn:downspout:problem:{kind}"


class ProblemResponse(Response):
    """An application/problem+json answer that no cache keeps."""

    media_type = "application/problem+json"

    def __init__(
        self,
        request: Request,
        *,
        status: int,
        kind: str,
        title: str,
        detail: str,
        retryable: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        request_id = get_request_id(request.scope)
        problem = {
            "type": problem_type(kind),
            "title": title,
            "status": status,
            "detail": detail,
            "request_id": request_id,
            "retryable": retryable,
        }
        fixed = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        body = json.dumps(problem, indent=2) + "\n"
        super().__init__(body, status_code=status, headers={**(headers or {}), **fixed})


async def _download_error(request: Request, error: DownloadError) -> Response:
    note_error(request, error)
    return ProblemResponse(
        request,
        status=error.status,
        kind=error.kind,
        title=error.title,
        detail=error.detail,
        retryable=error.retryable,
        headers=error.headers,
    )


async def _http_exception(request: Request, error: HTTPException) -> Response:
    """Answer what the router refuses: no such route, or not with this method; or the host."""
    note_error(request, error)
    status = error.status_code
    phrase = HTTPStatus(status).phrase if status in _KNOWN else "Refused"
    title = phrase.capitalize()
    is_plain = error.detail in (None, "", phrase)  # the router's, or a host's without words
    ours: dict[int, str] = {
        HTTPStatus.NOT_FOUND: "There is nothing at this address.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not answered at this address.",
    }
    return ProblemResponse(
        request,
        status=status,
        kind=title.lower().replace(" ", "-"),
        title=title,
        detail=ours.get(status, title) if is_plain else str(error.detail),
        headers=error.headers,
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    """Answer a mistake of ours; Starlette raises it again, so that the server logs it.

    Starlette calls this for a broken transfer as well, to which nothing can be answered.
    """
    if not isinstance(error, BrokenTransfer):
        mistake, request_id = type(error).__name__, get_request_id(request.scope)
        logger.error("mistake of ours: %s request_id=%s", mistake, request_id)
    return ProblemResponse(
        request,
        status=500,
        kind=INTERNAL,
        title="Internal error",
        detail="This service made a mistake; its log knows more.",
    )


# Starlette's own type for these knows nothing of which handler is for which exception.
EXCEPTION_HANDLERS: Mapping[type[Exception], Any] = {
    DownloadError: _download_error,
    HTTPException: _http_exception,
    Exception: _unexpected,
}
