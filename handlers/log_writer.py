"""A logging handler that never blocks: a thread of its own writes the lines."""

import logging
import os
import queue
import threading
from collections.abc import Callable
from logging.handlers import QueueHandler
from typing import Any

# A line of a download has about 300 bytes, so the queue holds less than a mebibyte.
MAX_LINES = 2000

# For the lines that are queued at the end of the process. A pipe that nobody reads takes none.
CLOSE_SECONDS = 0.5

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
            if not self._try_write(line):
                self._missing += 1
                self.on_drop()
            if self._lines.empty():
                self._write_notice()
        self._write_notice()

    def _try_write(self, line: str) -> bool:
        rest = memoryview(line.encode(errors="backslashreplace"))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:  # The reader has closed the pipe, or the disk is full.
            return False
        return True

    def _write_notice(self) -> None:
        """Write how many lines are missing at this point of the output, if any are."""
        with self._lock:
            self._missing += self._dropped
            self._dropped = 0
        text = "%d log lines were dropped: standard output was not read or not writable"
        arguments = ("downspout", logging.WARNING, __file__, 0, text, (self._missing,), None)
        if self._missing and self._try_write(self.prepare(logging.LogRecord(*arguments))):
            self._missing = 0
