"""The log of `python service.py`: its configuration, handler and filter.

It needs the package python-json-logger.
"""

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import QueueHandler
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS

from .errors import BrokenTransfer, CannotStart

FORMATTERS: dict[str, dict[str, Any]] = {
    "text": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
    "json": {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
        "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        "reserved_attrs": [*RESERVED_ATTRS, "color_message"],
    },
}

# A line of a download has about 300 bytes, so the queue holds less than a mebibyte.
MAX_LINES = 2000

# For the lines that are queued at the end of the process. A pipe that nobody reads takes none.
CLOSE_SECONDS = 0.25

# The thread sleeps this long once all lines are written. To wake it for each line takes a few
# percent of the CPU time of a small download.
PAUSE_SECONDS = 0.02

STANDARD_OUTPUT = 1


class LogWriter(QueueHandler):
    """Formats records, and writes them to a file descriptor from a thread.

    A write to a pipe that nobody reads blocks; on the event loop's thread it would stop all
    downloads, health checks and signals. Lines that do not fit into the queue are dropped.
    `QueueListener` is not used, since its `stop` waits for a blocked write without a limit.
    """

    def __init__(self, descriptor: int = STANDARD_OUTPUT, max_lines: int = MAX_LINES) -> None:
        self._lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        super().__init__(self._lines)
        self.on_drop: Callable[[], None] = lambda: None
        """Called for each dropped line."""
        # Not `sys.stdout`: at exit, Python would wait for the lock that a blocked write holds.
        self._descriptor = descriptor
        self._max_lines = max_lines
        self._dropped = 0
        """Lines that were not queued. Until the thread counts them, all further ones are dropped,
        so that its notice stands where the lines are missing."""
        self._missing = 0
        """Lines that the next notice counts; only the thread uses it."""
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def prepare(self, record: logging.LogRecord) -> Any:
        """Return the line for `record`, so that the thread keeps no traceback alive."""
        return self.format(record) + "\n"

    def enqueue(self, record: Any) -> None:
        """Queue a line, or drop it if the queue is full."""
        with self._lock:
            if not self._dropped and self._lines.qsize() < self._max_lines:
                self._lines.put_nowait(record)
                return
            self._dropped += 1
        self.on_drop()

    def close(self) -> None:
        """Write the queued lines, for at most CLOSE_SECONDS, and end the thread."""
        self._lines.put_nowait(None)
        self._thread.join(CLOSE_SECONDS)
        super().close()

    def _run(self) -> None:
        for line in iter(self._lines.get, None):
            if not self._write(line):
                self._missing += 1
                self.on_drop()
            if self._lines.empty():
                self._write_notice()
                time.sleep(PAUSE_SECONDS)
        self._write_notice()

    def _write(self, line: str) -> bool:
        rest = memoryview(line.encode(errors="backslashreplace"))
        with suppress(OSError):  # The reader has closed the pipe, or the disk is full.
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return not rest

    def _write_notice(self) -> None:
        """Write how many lines are missing at this point of the output, if any are."""
        with self._lock:
            self._missing += self._dropped
            self._dropped = 0
        text = "%d log lines were dropped: standard output was not read or not writable"
        arguments = ("downspout", logging.WARNING, __file__, 0, text, (self._missing,), None)
        if self._missing and self._write(self.prepare(logging.LogRecord(*arguments))):
            self._missing = 0


def logging_config(log_format: str, log_level: str) -> dict[str, Any]:
    """Return a logging configuration that sends all logs to standard output."""
    shared = {"handlers": ["stdout"], "level": log_level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": FORMATTERS,
        "handlers": {"stdout": {"()": LogWriter, "formatter": log_format}},
        "loggers": {"uvicorn": shared, "downspout": shared},
        "root": {"handlers": ["stdout"], "level": "WARNING"},
    }


def filter_uvicorn_record(record: logging.LogRecord) -> bool:
    """Return False to drop the traceback of a broken or drained download from uvicorn's log.

    downspout logs its own line for such a download. If the lifespan raises CannotStart, keep
    uvicorn's record, but replace the traceback in it by the text of the error.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, BrokenTransfer | asyncio.CancelledError):
        return False
    last_line = record.getMessage().rstrip().rpartition("\n")[2]
    _, is_settings_problem, problem = last_line.partition(f"{CannotStart.__name__}: ")
    if is_settings_problem:
        record.msg, record.args = problem, ()
    return not last_line.endswith(asyncio.CancelledError.__name__)
