"""Metrics for Prometheus (``/metrics``)."""

from starlette.requests import Request
from starlette.responses import Response

from .runtime import get_runtime
from .telemetry.metrics import CONTENT_TYPE


async def metrics(request: Request) -> Response:
    """Answer with the metrics of this application, summed over its worker processes."""
    runtime = get_runtime(request.app)
    runtime.access.check_metrics(request.scope)
    if runtime.serving is not None:
        runtime.metrics.set_counts(*runtime.serving.admission.counts())
    headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store"}
    return Response(runtime.metrics.text(), headers=headers)
