"""Health of the process (``/healthz``) and of the store behind it (``/readyz``)."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from .answers.problems import ProblemResponse
from .errors import DownloadError, Draining, NotStarted
from .runtime import get_runtime

_NO_STORE = {"cache-control": "no-store"}


async def healthz(_: Request) -> Response:
    """Answer 200 as long as the process runs; the store is not asked."""
    return PlainTextResponse("ok\n", headers=_NO_STORE)


async def readyz(request: Request) -> Response:
    """Answer 200 if the store answers and new downloads are accepted, else 503."""
    serving = get_runtime(request.app).serving
    failure: DownloadError | None = NotStarted()
    if serving is not None:
        is_draining = serving.admission.is_draining
        failure = Draining() if is_draining else await serving.readiness.failure()
    if failure is None:
        return PlainTextResponse("ready\n", headers=_NO_STORE)
    return ProblemResponse(
        request.scope,
        status=503,
        kind="not-ready",
        title="Not ready",
        detail=failure.detail,
        retryable=True,
        headers={"retry-after": "2"},
    )
