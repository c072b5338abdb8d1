"""Figures for Prometheus (``/metrics``)."""

from __future__ import annotations

from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from .access.authorization import check_metrics
from .answers.path import ExactRoute
from .download.admission import Admission
from .telemetry.metrics import CONTENT_TYPE, Metrics


async def metrics(request: Request) -> Response:
    """Answer with the figures of this application, all of its worker processes added up."""
    check_metrics(request.app.state.metrics_tokens, request)
    show_counts(request.app.state)
    figures: Metrics = request.app.state.metrics
    headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store"}
    return Response(figures.text(), headers=headers)


def show_counts(state: State) -> None:
    """Have the figures tell how many downloads there are now.

    Not at every change, of which there are thousands in a second: other processes show theirs in
    the directory that they share, and look once in a while.
    """
    admission: Admission | None = getattr(state, "admission", None)
    if admission is not None:
        state.metrics.show(*admission.counts())


routes = [ExactRoute("/metrics", metrics, methods=["GET", "HEAD"])]
