"""What is told of a download at its end: one line in the log."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from ..errors import Broken

logger = logging.getLogger("downspout")

Outcome = Broken | Literal["complete", "resumed", "client_gone", "refused", "shed", "failed"]

FINE = ("complete", "resumed", "refused", "client_gone")

MAX_LOGGED = 500  # characters of a path or of a reason: no line of the log is longer than a screen


@dataclass(kw_only=True, slots=True)
class Record:
    """One download, as it is going and as it ended."""

    method: str
    path: str
    route: str
    source: str
    request_id: str
    # What it stays when the server cancels the request at the end of a grace of its own.
    outcome: Outcome = "drained"
    status: int = 0
    sent: int = 0
    expected: int | None = None
    """Bytes of the body as its Content-Length has it; None where that is not told."""

    placed: float = 0.0
    """Seconds until it had a place."""

    first_byte: float | None = None
    """Seconds until the answer began."""

    resumes: int = 0
    error: Exception | None = None
    begun: float = field(default_factory=time.monotonic)

    def timing(self) -> tuple[bytes, bytes]:
        """Return what an answer that begins now has for a Server-Timing, in milliseconds."""
        passed = time.monotonic() - self.begun
        slot, upstream = self.placed * 1000, (passed - self.placed) * 1000
        return b"server-timing", b"slot;dur=%.1f, upstream;dur=%.1f" % (slot, upstream)

    def log(self) -> None:
        """Write the one line that says how the download ended; never the query string."""
        level = logging.INFO if self.outcome in FINE else logging.WARNING
        level = max(level, getattr(self.error, "log_level", level))
        if not logger.isEnabledFor(level):
            return
        fields = self._fields()
        # For formatters that write fields, as JSON does; in one, since a host's log may have some
        # of its own. Not by Logger.log, which would look for the caller.
        extra = {"download": fields}
        text = self._text(fields)
        logger.handle(
            logger.makeRecord(logger.name, level, __file__, 0, text, (), None, "log", extra)
        )

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
            "duration": round(time.monotonic() - self.begun, 6),
            "resumes": self.resumes,
            "request_id": self.request_id,
        }


def _one_line(text: str) -> str:
    """Return a text that can't be taken for another line of the log, nor fill it."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:MAX_LOGGED]
