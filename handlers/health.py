"""Health of the process (``/healthz``) and of the store behind it (``/readyz``)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from .answers.path import ExactRoute
from .answers.problems import NOT_READY, ProblemResponse
from .download.admission import Admission
from .errors import DownloadError, Draining, NotStarted
from .sources.readiness import Readiness

_NO_STORE = {"cache-control": "no-store"}


async def healthz(_: Request) -> Response:
    """Answer 200 while the process lives; the store is not asked and nothing is waited for."""
    return PlainTextResponse("ok\n", headers=_NO_STORE)


async def readyz(request: Request) -> Response:
    """Answer 200 when downloads would be served, else 503."""
    failure = await _failure_of(request)
    if failure is None:
        return PlainTextResponse("ready\n", headers=_NO_STORE)
    return ProblemResponse(
        request,
        status=503,
        kind=NOT_READY,
        title="Not ready",
        detail=failure.detail,
        retryable=True,
        headers={"retry-after": "2"},
    )


async def _failure_of(request: Request) -> DownloadError | None:
    admission: Admission | None = getattr(request.app.state, "admission", None)
    if admission is None:
        return NotStarted("")
    if admission.is_draining:
        return Draining()
    readiness: Readiness = request.app.state.readiness
    return await readiness.failure()


routes = [
    ExactRoute("/healthz", healthz, methods=["GET", "HEAD"]),
    ExactRoute("/readyz", readyz, methods=["GET", "HEAD"]),
]
