"""Health of the process (``/healthz``) and of the store behind it (``/readyz``)."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from .answers.path import ExactRoute
from .answers.problems import NOT_READY, ProblemResponse
from .errors import DownloadError, Draining, NotStarted
from .runtime import Serving, get_runtime

_NO_STORE = {"cache-control": "no-store"}


async def healthz(_: Request) -> Response:
    """Answer 200 while the process lives, without asking the store."""
    return PlainTextResponse("ok\n", headers=_NO_STORE)


async def readyz(request: Request) -> Response:
    """Answer 200 when downloads would be served, otherwise 503."""
    failure = await _failure(get_runtime(request.app).serving)
    if failure is None:
        return PlainTextResponse("ready\n", headers=_NO_STORE)
    return ProblemResponse(
        request.scope,
        status=503,
        kind=NOT_READY,
        title="Not ready",
        detail=failure.detail,
        retryable=True,
        headers={"retry-after": "2"},
    )


async def _failure(serving: Serving | None) -> DownloadError | None:
    if serving is None:
        return NotStarted()
    if serving.admission.is_draining:
        return Draining()
    return await serving.readiness.failure()


routes = [ExactRoute("/healthz", healthz), ExactRoute("/readyz", readyz)]
