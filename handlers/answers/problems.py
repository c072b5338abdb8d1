"""Errors as problem documents (RFC 9457), the only form in which a client gets them."""

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
    """An application/problem+json answer that no cache keeps."""

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
    """Return the answer to a request that is refused, by us, by the router or by the host."""
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
    if error.detail not in (None, "", phrase):  # The router gives no text of its own.
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
    """Answer an error that nothing foresaw; Starlette raises it again, and the server logs it.

    Starlette also calls this for a broken transfer, which has no answer left to give.
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


# Any: Starlette's type does not say which handler belongs to which exception.
EXCEPTION_HANDLERS: Mapping[type[Exception], Any] = {
    DownloadError: _refused,
    HTTPException: _refused,
    Exception: _unexpected,
}
