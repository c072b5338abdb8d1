"""A runtime without clients, for tests of the download scope; limits that have no setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from starlette.applications import Starlette

from handlers import create_app
from handlers.body.read_ahead import Budget
from handlers.download.admission import Admission
from handlers.download.handle import Download
from handlers.runtime import Runtime, Serving
from settings import Settings

NONE: Any = None


def app_with(admission: Admission, **hooks: Any) -> Starlette:
    """Return an application as its lifespan leaves it, but without clients."""
    app = create_app(Settings(s3_image_bucket="photos"), **hooks)
    runtime: Runtime = app.state.runtime
    serving = Serving(
        buckets=NONE, http=NONE, admission=admission, read_ahead=Budget(0), readiness=NONE
    )
    app.state.runtime = replace(runtime, serving=serving)
    return app


def delay_retries(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set the delay before the second upstream request (0.1 seconds by default)."""
    policy = Download.retry_policy
    patch.setattr(
        Download, "retry_policy", lambda self: replace(policy(self), first_delay=seconds)
    )


def limit_silence(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set how long a body may be silent while it is resumed (45 seconds by default)."""
    resumer = Download.body_resumer
    patch.setattr(
        Download, "body_resumer", lambda self: replace(resumer(self), max_silence=seconds)
    )
