"""The metrics of an application; the only file that knows the Prometheus client."""

import os
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# From a store in the same rack to the default FIRST_BYTE_TIMEOUT.
FIRST_BYTE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one application.

    Worker processes add their values up in the directory `shared` (the client's multiprocess
    mode), so that each worker's /metrics shows the sums of all.
    """

    def __init__(self, shared: str | None = None) -> None:
        self._shared = Path(shared) if shared else None
        # Kept, because `labels()` costs as much as all the rest of counting.
        self._child = cache(lambda metric, *labels: metric.labels(*labels))
        self._registry = registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self._downloads = counter(
            "downspout_downloads", "Downloads that have ended, by outcome.", ["route", "outcome"]
        )
        self._sent = counter("downspout_sent_bytes", "Bytes of bodies sent.", ["route"])
        self._first_byte = Histogram(
            "downspout_first_byte_seconds",
            "Seconds from a request to the beginning of its answer.",
            ["route"],
            buckets=FIRST_BYTE_SECONDS,
            registry=registry,
        )
        self._resumes = counter(
            "downspout_resumes", "Bodies that were resumed after the upstream broke.", ["route"]
        )
        self._upstream_errors = counter(
            "downspout_upstream_errors",
            "Failed requests to upstreams and broken bodies, repaired later or not.",
            ["source", "kind"],
        )
        self._running = gauge("downspout_downloads_running", "Downloads that have a slot.")
        self._waiting = gauge("downspout_downloads_waiting", "Downloads that wait for a slot.")
        # An earlier process may have had the same id, and left its file in the directory.
        self.set_counts(0, 0)

    def set_counts(self, running: int, waiting: int) -> None:
        """Set how many downloads have a slot, and how many wait for one."""
        self._running.set(running)
        self._waiting.set(waiting)

    def count_download(self, route: str, outcome: str, first_byte: float | None) -> None:
        """Count a download that has ended; `count_sent` has counted its bytes."""
        self._child(self._downloads, route, outcome).inc()
        if first_byte is not None:
            self._child(self._first_byte, route).observe(first_byte)

    def count_sent(self, route: str, size: int) -> None:
        """Count bytes of bodies."""
        self._child(self._sent, route).inc(size)

    def count_resume(self, route: str) -> None:
        """Count a body that was resumed."""
        self._child(self._resumes, route).inc()

    def count_failure(self, source: str, kind: str) -> None:
        """Count a failure of an upstream."""
        self._child(self._upstream_errors, source, kind).inc()

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        if self._shared is None:
            return generate_latest(self._registry)
        _remove_dead_workers(self._shared)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _remove_dead_workers(shared: Path) -> None:
    """Take the gauges of workers that have ended out of the sums."""
    for file in shared.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            with suppress(FileNotFoundError):  # Another worker was faster.
                mark_process_dead(int(pid), path=str(shared))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
