"""The metrics of an application; the only file that imports prometheus_client."""

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import prometheus_client as prometheus
from prometheus_client import multiprocess

from ..settings import SettingsError

# Histogram buckets: from a store in the same rack to the default FIRST_BYTE_TIMEOUT.
FIRST_BYTE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)

NOT_WRITTEN = (
    "metrics_directory: prometheus_client does not write to it: set the environment variable "
    "PROMETHEUS_MULTIPROC_DIR to this directory before the process starts, or leave both unset"
)

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one application, as in `metrics.downloads(route, outcome).inc()`.

    With the directory `shared`, /metrics of each worker process shows the sums over all workers
    that write to the directory (the multiprocess mode of prometheus_client). Raises SettingsError
    if this process does not write to it.
    """

    def __init__(self, shared: str | None = None) -> None:
        self._shared = _make(shared) if shared else None
        self._registry = registry = prometheus.CollectorRegistry()
        gauge = partial(prometheus.Gauge, registry=registry, multiprocess_mode="livesum")

        def counter(name: str, text: str, *labels: str) -> Callable[..., prometheus.Counter]:
            # Cached, because `labels` takes as long as all other steps of counting together.
            return cache(prometheus.Counter(name, text, labels, registry=registry).labels)

        self.downloads = counter(
            "downspout_downloads", "Downloads that have ended, by outcome.", "route", "outcome"
        )
        self.sent_bytes = counter("downspout_sent_bytes", "Bytes of bodies sent.", "route")
        self.resumes = counter(
            "downspout_resumes", "Bodies that were resumed after the upstream broke.", "route"
        )
        self.upstream_errors = counter(
            "downspout_upstream_errors",
            "Failed requests to upstreams and broken bodies, even if a retry succeeded.",
            "source",
            "kind",
        )
        first_byte = prometheus.Histogram(
            "downspout_first_byte_seconds",
            "Seconds from a request to the beginning of its answer.",
            ["route"],
            buckets=FIRST_BYTE_SECONDS,
            registry=registry,
        )
        self.first_byte = cache(first_byte.labels)
        dropped = prometheus.Counter(
            "downspout_log_lines_dropped", "Log lines that were not written.", registry=registry
        )
        self.drop_log_line = dropped.inc
        self._running = gauge("downspout_downloads_running", "Downloads that have a slot.")
        self._waiting = gauge("downspout_downloads_waiting", "Downloads that wait for a slot.")
        # An ended process with the same process id may have left its gauges in the directory.
        self.set_counts(0, 0)
        if self._shared and not any(self._shared.glob(f"gauge_*_{os.getpid()}.db")):
            raise SettingsError([NOT_WRITTEN])

    def set_counts(self, running: int, waiting: int) -> None:
        """Set how many downloads have a slot, and how many wait for one."""
        self._running.set(running)
        self._waiting.set(waiting)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        if self._shared is None:
            return prometheus.generate_latest(self._registry)
        _remove_dead_workers(self._shared)
        registry = prometheus.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=str(self._shared))  # type: ignore[no-untyped-call]
        return prometheus.generate_latest(registry)


def _make(directory: str) -> Path:
    path = Path(directory)
    path.mkdir(exist_ok=True)
    return path


def _remove_dead_workers(shared: Path) -> None:
    """Delete the gauges of ended workers, so that the sums leave them out."""
    for file in shared.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)  # Another worker may have deleted it.
        except (PermissionError, ValueError):
            continue  # The process of another user, or no process id.
