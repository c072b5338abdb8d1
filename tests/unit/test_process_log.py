"""The log writer: lines to a pipe that is read, that is not read, and that nobody can read."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Generator

import pytest

from handlers.process_log import LogWriter
from tests.support.serving import wait_until

PAGE = 4096  # the smallest pipe


@pytest.fixture
def pipe() -> Generator[tuple[int, int]]:
    """Return the read end and the write end of a pipe of one page."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PAGE)
    yield read_end, write_end
    for descriptor in (read_end, write_end):
        try:
            os.close(descriptor)
        except OSError:
            continue  # The test has closed it.


def log(writer: LogWriter, text: str, level: int = logging.INFO) -> None:
    writer.handle(logging.LogRecord("downspout", level, __file__, 0, text, (), None))


def read_lines(read_end: int, last: str) -> list[str]:
    """Read until the line `last`."""
    received = b""
    while not received.endswith(f"{last}\n".encode()):
        received += os.read(read_end, 1 << 16)
    return received.decode().splitlines()


def test_lines_keep_their_order_and_their_tracebacks(pipe: tuple[int, int]) -> None:
    """All lines arrive in order, also those that are longer than the pipe."""
    writer = LogWriter(pipe[1])
    expected = [f"{number} {'x' * 3000}" for number in range(20)]
    for line in expected:
        log(writer, line)
    log(writer, "\udcff")
    assert read_lines(pipe[0], "\\udcff") == [*expected, "\\udcff"]
    writer.close()


def test_blocked_pipe_drops_lines_and_counts_them(pipe: tuple[int, int]) -> None:
    """Lines that do not fit are dropped; one line tells how many, where they are missing."""
    writer, counted = LogWriter(pipe[1], max_lines=10), []
    writer.on_drop = lambda: counted.append(1)
    for number in range(500):
        log(writer, f"{number} {'x' * 500}")
    # The pipe holds less than 4096 bytes, the thread one line, and the queue ten.
    assert 400 < len(counted) < 500
    written = 500 - len(counted)
    notice = f"{len(counted)} log lines were dropped: standard output was not read or not writable"
    lines = read_lines(pipe[0], notice)
    assert [int(line.split()[0]) for line in lines[:-1]] == list(range(written))
    log(writer, "room again")
    assert read_lines(pipe[0], "room again") == ["room again"]
    assert len(counted) == 500 - written
    writer.close()


def test_close_writes_queued_lines_and_the_notice(pipe: tuple[int, int]) -> None:
    """Lines that are logged just before the end arrive."""
    writer = LogWriter(pipe[1])
    for number in range(20):
        log(writer, str(number))
    writer.close()
    os.close(pipe[1])
    assert os.read(pipe[0], PAGE).decode().split() == [str(number) for number in range(20)]


def test_close_with_blocked_pipe_returns(pipe: tuple[int, int]) -> None:
    """A blocked pipe does not keep the process from ending."""
    writer = LogWriter(pipe[1])
    for _ in range(20):
        log(writer, "x" * 1000)
    log(writer, "end")
    writer.close()
    assert writer._thread.is_alive()
    read_lines(pipe[0], "end")
    writer._thread.join(10)


def test_failed_write_is_counted_and_later_lines_are_written(pipe: tuple[int, int]) -> None:
    """A line that can't be written is counted; the thread goes on with the next one."""
    writer, counted = LogWriter(pipe[1]), []
    writer.on_drop = lambda: counted.append(1)
    os.set_blocking(pipe[1], False)
    os.write(pipe[1], b"x" * PAGE)
    log(writer, "lost")
    wait_until(lambda: counted)
    assert os.read(pipe[0], PAGE) == b"x" * PAGE
    log(writer, "next")
    writer.close()  # The notice may stand before or behind the line.
    lines = os.read(pipe[0], PAGE).decode().splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == ["1 log lines were dropped", "next"]


def test_closed_pipe_drops_all_lines(pipe: tuple[int, int]) -> None:
    """If nobody can read the pipe, all lines are counted, and nothing is raised."""
    writer, counted = LogWriter(pipe[1]), []
    writer.on_drop = lambda: counted.append(1)
    os.close(pipe[0])
    for _ in range(3):
        log(writer, "lost")
    wait_until(lambda: len(counted) == 3)
    writer.close()
