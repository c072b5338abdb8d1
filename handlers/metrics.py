"""Figures for Prometheus (``/metrics``)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ._metrics import CONTENT_TYPE, Metrics
from ._path import ExactRoute


async def metrics(request: Request) -> Response:
    """Answer with the figures of this application, all of its worker processes added up."""
    figures: Metrics = request.app.state.metrics
    headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store"}
    return Response(figures.text(), headers=headers)


routes = [ExactRoute("/metrics", metrics, methods=["GET", "HEAD"])]
