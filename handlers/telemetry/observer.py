"""What happens to the upstream of one download, counted in its record and in the metrics."""

import logging
from dataclasses import dataclass

from ..errors import BrokenTransfer, DownloadError
from .metrics import Metrics
from .record import Record


@dataclass(frozen=True, slots=True)
class DownloadObserver:
    """The `Observer` (body/observer.py) of one download."""

    record: Record
    metrics: Metrics

    def body_resumed(self) -> None:
        """Count a body that was re-opened at its next byte."""
        self.record.resumes += 1
        self.metrics.count_resume(self.record.route)

    def upstream_failed(self, error: BaseException) -> None:
        """Count a failed request or a broken body, repaired later or not.

        A missing object and other answers below the level of a warning are no failures.
        """
        if isinstance(error, DownloadError) and error.log_level < logging.WARNING:
            return
        kind = "upstream_timeout"  # of an attempt that the end of its time has cancelled
        if isinstance(error, BrokenTransfer):
            kind = error.outcome
        elif isinstance(error, DownloadError):
            kind = error.kind.replace("-", "_")
        self.metrics.count_failure(self.record.source, kind)
