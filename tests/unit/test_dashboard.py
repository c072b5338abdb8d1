"""The dashboard compared with the outcomes of downloads."""

from __future__ import annotations

import re
from typing import get_args

from handlers.telemetry.record import Outcome
from tests.support.dashboard import dashboard_queries


def test_dashboard_queries_use_existing_outcomes() -> None:
    """Each outcome in a dashboard query exists."""
    outcomes = {one for part in get_args(Outcome) for one in get_args(part)}
    asked = re.findall(r'outcome=~"([^"]*)"', "".join(dashboard_queries()))
    assert asked
    assert {one for group in asked for one in group.split("|")} <= outcomes
