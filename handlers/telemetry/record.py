"""Records a download in the metrics, and in one log line at its end."""

import logging
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote

from starlette.exceptions import HTTPException

from ..body.upstream import Observer
from ..errors import Broken, BrokenTransfer, DownloadError, Draining, NoSlot
from .metrics import Metrics

logger = logging.getLogger("downspout")

Outcome = Broken | Literal["complete", "resumed", "client_gone", "refused", "shed", "failed"]

INFO_OUTCOMES = ("complete", "resumed", "refused", "client_gone")

MAX_LOGGED = 500  # characters of a path or a reason, so that a log line fits on a screen


@dataclass(kw_only=True, slots=True)
class Record(Observer):
    """The state of one download for log and metrics; its upstream calls the Observer methods."""

    metrics: Metrics
    method: str
    path: str
    route: str
    source: str
    request_id: str
    # It stays "drained" if the server cancels the request when its graceful shutdown ends.
    outcome: Outcome = "drained"
    status: int = 0
    sent: int = 0
    """Bytes of the body that were handed to the server."""

    expected: int | None = None
    """Content-Length of the answer; None without one."""

    slot_seconds: float = 0.0
    """Seconds from the request to the slot."""

    first_byte: float | None = None
    """Seconds from the request to the start of the answer; None if it has not begun."""

    resumes: int = 0
    error: Exception | None = None
    began: float = field(default_factory=time.monotonic)
    _counted: int = field(default=0, init=False)

    def body_resumed(self) -> None:
        """Count one resume: the upstream's body was opened again at the next byte."""
        self.resumes += 1
        self.metrics.resumes(self.route).inc()

    def upstream_failed(self, error: BaseException) -> None:
        """Count a failed upstream attempt, unless it logs below WARNING (a missing object)."""
        if isinstance(error, DownloadError) and error.log_level < logging.WARNING:
            return
        kind = "upstream_timeout"  # for an attempt that the deadline has cancelled
        if isinstance(error, BrokenTransfer):
            kind = error.outcome
        elif isinstance(error, DownloadError):
            kind = error.kind.replace("-", "_")
        self.metrics.upstream_errors(self.source, kind).inc()

    def refuse(self, error: DownloadError | HTTPException) -> None:
        """Record that a problem document answers the request."""
        self.error = error
        status = error.status if isinstance(error, DownloadError) else error.status_code
        is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        is_shed = isinstance(error, NoSlot | Draining)
        self.outcome = "shed" if is_shed else "failed" if is_ours else "refused"

    def complete(self) -> None:
        """Record that the whole answer was handed to the server."""
        if self.error is None:
            self.outcome = "resumed" if self.resumes else "complete"

    def server_timing(self) -> tuple[bytes, bytes]:
        """Return the Server-Timing header of an answer that begins now, in milliseconds."""
        elapsed = time.monotonic() - self.began
        slot, upstream = self.slot_seconds * 1000, (elapsed - self.slot_seconds) * 1000
        return b"server-timing", b"slot;dur=%.1f, upstream;dur=%.1f" % (slot, upstream)

    def count_sent(self) -> None:
        """Count the bytes that were sent since the last call."""
        if size := self.sent - self._counted:
            self._counted = self.sent
            self.metrics.sent_bytes(self.route).inc(size)

    def finish(self) -> None:
        """Log and count the download at its end."""
        self._log()
        self.error = None  # Its traceback keeps frames and the last chunks alive.
        try:
            self.count_sent()
            self.metrics.downloads(self.route, self.outcome).inc()
            if self.first_byte is not None:
                self.metrics.first_byte(self.route).observe(self.first_byte)
        except OSError:  # The directory that workers share may fail; the download must not.
            logger.exception("can't write metrics to PROMETHEUS_MULTIPROC_DIR")

    def _log(self) -> None:
        level = logging.INFO if self.outcome in INFO_OUTCOMES else logging.WARNING
        level = max(level, getattr(self.error, "log_level", level))
        if not logger.isEnabledFor(level):
            return
        fields = self._fields()
        # All fields are in the attribute `download`, so that none clashes with a host's own.
        # makeRecord is faster than Logger.log, which looks for its caller.
        extra, text = {"download": fields}, self._text(fields)
        line = logger.makeRecord(logger.name, level, __file__, 0, text, (), None, "log", extra)
        logger.handle(line)

    def _text(self, fields: dict[str, Any]) -> str:
        reason = f" ({fields['reason']})" if fields["reason"] else ""
        expected = "?" if self.expected is None else self.expected
        first_byte = "-" if self.first_byte is None else f"{self.first_byte:.3f}"
        return (
            f"{self.method} {fields['path']} {self.status or '-'} {self.outcome}{reason}"
            f" {self.sent}/{expected} bytes in {fields['duration']:.3f} s first_byte={first_byte}"
            f" resumes={self.resumes} request_id={self.request_id}"
        )

    def _fields(self) -> dict[str, Any]:
        """Return the fields of the log line, without the query: it may have a signature."""
        return {
            "method": self.method,
            "path": quote(self.path)[:MAX_LOGGED],
            "route": self.route,
            "source": self.source,
            "status": self.status or None,
            "outcome": self.outcome,
            "reason": _one_line(str(self.error)) if self.error else None,
            "bytes_sent": self.sent,
            "bytes_expected": self.expected,
            "first_byte": None if self.first_byte is None else round(self.first_byte, 6),
            "duration": round(time.monotonic() - self.began, 6),
            "resumes": self.resumes,
            "request_id": self.request_id,
        }


def _one_line(text: str) -> str:
    """Return `text` without line breaks and controls, cut to MAX_LOGGED characters."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:MAX_LOGGED]
