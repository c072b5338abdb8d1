"""The Grafana dashboard and its queries."""

from __future__ import annotations

import json

from .serving import ROOT

DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text())


def dashboard_queries() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    asked = [one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one]
    return [*found, *asked]
