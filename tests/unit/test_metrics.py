"""The metrics of one process and of several workers, and their names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.telemetry.metrics import Metrics
from tests.support.metrics import parse_samples


def test_gauges_of_dead_worker_are_not_summed(tmp_path: Path) -> None:
    """The counters of a dead worker stay in the sum; its gauges do not."""
    script = (
        "from handlers.telemetry.metrics import Metrics; import os, sys; "
        "m = Metrics(sys.argv[1]); m.set_counts(3, 1); m.resumes('r').inc(); "
        "print(m.text().decode(), flush=True); os._exit(0)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    environ = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": "."}
    for times in (1, 2):
        text = subprocess.run(command, env=environ, check=True, capture_output=True).stdout
        found = parse_samples(text.decode())
        assert found["downspout_downloads_running"] == 3
        assert found["downspout_resumes_total r"] == times


@pytest.mark.parametrize("name", [m.name for m in Metrics()._registry.collect()])
def test_metric_has_help_text_and_valid_name(name: str) -> None:
    """The help text is a sentence, and the name follows Prometheus' conventions."""
    [family] = [m for m in Metrics()._registry.collect() if m.name == name]
    assert family.documentation.endswith(".")
    assert re.fullmatch(r"downspout_[a-z]+(_[a-z]+)*", name)
