"""Error responses: problem documents (RFC 9457), the only form in which clients get errors."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from http.client import responses
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from ..errors import BrokenTransfer, DownloadError
from ..telemetry.request_id import get_request_id

logger = logging.getLogger("downspout")


class ProblemResponse(Response):
    """An application/problem+json response with Cache-Control: no-store."""

    media_type = "application/problem+json"

    def __init__(
        self,
        scope: Scope,
        *,
        status: int,
        kind: str,
        title: str,
        detail: str,
        retryable: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        problem = {
            "type": f"urn:downspout:problem:{kind}",
            "title": title,
            "status": status,
            "detail": detail,
            "request_id": get_request_id(scope),
            "retryable": retryable,
        }
        fixed = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        body = json.dumps(problem, indent=2) + "\n"
        super().__init__(body, status_code=status, headers={**(headers or {}), **fixed})


def refusal(scope: Scope, error: DownloadError | HTTPException) -> Response:
    """Return the response for an error of this service, of Starlette's router or of the host."""
    if isinstance(error, DownloadError):
        return ProblemResponse(
            scope,
            status=error.status,
            kind=error.kind,
            title=error.title,
            detail=error.detail,
            retryable=error.retryable,
            headers=error.headers,
        )
    phrase = responses.get(error.status_code, "Refused")
    title = detail = phrase.capitalize()
    if error.detail not in (None, "", phrase):  # The router repeats the status phrase.
        detail = str(error.detail)
    elif error.status_code == HTTPStatus.NOT_FOUND:
        detail = "There is no such path."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"This path does not answer {scope['method']}."
    return ProblemResponse(
        scope,
        status=error.status_code,
        kind=title.lower().replace(" ", "-"),
        title=title,
        detail=detail,
        headers=error.headers,
    )


async def _refused(request: Request, error: DownloadError | HTTPException) -> Response:
    return refusal(request.scope, error)


async def _unexpected(request: Request, error: Exception) -> Response:
    """Answer 500 to an unforeseen exception; Starlette raises it again, and the server logs it.

    Starlette also calls this for a BrokenTransfer, but discards the response: one has begun.
    """
    if not isinstance(error, BrokenTransfer):
        name, request_id = type(error).__name__, get_request_id(request.scope)
        logger.error("internal error: %s request_id=%s", name, request_id)
    return ProblemResponse(
        request.scope,
        status=500,
        kind="internal-error",
        title="Internal error",
        detail="Internal error. The log has details under this request id.",
    )


# Any: Starlette's type does not connect an exception class with the type of its handler.
EXCEPTION_HANDLERS: Mapping[type[Exception], Any] = {
    DownloadError: _refused,
    HTTPException: _refused,
    Exception: _unexpected,
}
