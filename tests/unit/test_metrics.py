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


@pytest.mark.parametrize("variable", [None, "other"])
def test_metrics_directory_that_cannot_count_is_refused(
    tmp_path: Path, variable: str | None
) -> None:
    """A directory given in code is refused if prometheus_client does not write to it."""
    (tmp_path / "other").mkdir()
    script = (
        "import sys; from handlers import Settings, SettingsError, create_app\n"
        "try: create_app(Settings(s3_image_bucket='photos', metrics_directory=sys.argv[1]))\n"
        "except SettingsError as error: print(error)"
    )
    environ = {"PYTHONPATH": "."}
    if variable:
        environ["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / variable)
    command = [sys.executable, "-c", script, str(tmp_path / "shared")]
    shown = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    [line] = shown.stdout.splitlines()
    assert line.startswith("metrics_directory: prometheus_client does not write to it: set ")
    assert "PROMETHEUS_MULTIPROC_DIR" in line


def test_missing_metrics_directory_is_created(tmp_path: Path) -> None:
    """A directory given in code and in the environment is created, and counts."""
    script = (
        "import sys; from handlers import Settings, create_app\n"
        "app = create_app(Settings(s3_image_bucket='photos', metrics_directory=sys.argv[1]))\n"
        "app.state.runtime.metrics.resumes('r').inc()\n"
        "print(app.state.runtime.metrics.text().decode())"
    )
    shared = str(tmp_path / "new")
    environ = {"PROMETHEUS_MULTIPROC_DIR": shared, "PYTHONPATH": "."}
    command = [sys.executable, "-c", script, shared]
    text = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
    assert parse_samples(text)["downspout_resumes_total r"] == 1
