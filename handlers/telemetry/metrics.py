"""The figures of an application, for Prometheus; alone in knowing its client."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from .record import Record

# From a store in the same rack to the longest that the default budget allows.
FIRST_BYTE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)

CONTENT_TYPE = CONTENT_TYPE_LATEST

M = TypeVar("M", Counter, Histogram)


class Metrics:
    """The metrics of one application.

    `shared` is the directory through which several worker processes add theirs up (the
    client's multiprocess mode): an answer then tells of all of them.
    """

    def __init__(self, shared: str | None = None) -> None:
        self._shared = Path(shared) if shared else None
        self._labelled: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self._registry = registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self.downloads = counter(
            "downspout_downloads", "Downloads that have ended, by how.", ["route", "outcome"]
        )
        self.sent = counter("downspout_sent_bytes", "Bytes of bodies sent.", ["route"])
        self.first_byte = Histogram(
            "downspout_first_byte_seconds",
            "Seconds from a request to the beginning of its answer.",
            ["route"],
            buckets=FIRST_BYTE_SECONDS,
            registry=registry,
        )
        self.resumes = counter(
            "downspout_resumes", "Bodies continued after the upstream broke.", ["route"]
        )
        self.upstream_errors = counter(
            "downspout_upstream_errors",
            "Failed requests and broken bodies of upstreams, whether or not they were mended.",
            ["source", "kind"],
        )
        self.running = gauge("downspout_downloads_running", "Downloads that have a place.")
        self.waiting = gauge("downspout_downloads_waiting", "Downloads that wait for a place.")
        # A file of an earlier process may have been of this one's id.
        self.show(0, 0)

    def show(self, running: int, waiting: int) -> None:
        """Show how many downloads have a place, and how many wait for one."""
        self.running.set(running)
        self.waiting.set(waiting)

    def count(self, record: Record) -> None:
        """Count a download that has ended; its bytes are counted as they go."""
        self._of(self.downloads, record.route, record.outcome).inc()
        if record.first_byte is not None:
            self._of(self.first_byte, record.route).observe(record.first_byte)

    def count_sent(self, route: str, size: int) -> None:
        """Count bytes of bodies."""
        self._of(self.sent, route).inc(size)

    def _of(self, metric: M, *labels: str) -> M:
        """Return the metric of those labels, kept: its own way there takes as long as all else."""
        found: M | None = self._labelled.get((metric, labels))
        if found is None:
            found = self._labelled[metric, labels] = metric.labels(*labels)
        return found

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
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
        return True
    return True
