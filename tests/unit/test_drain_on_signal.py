"""DrainOnSignal: it drains at a signal, then calls the server's own handler."""

from __future__ import annotations

import signal
from collections.abc import Generator
from typing import Any

import anyio
import pytest

from handlers.download.admission import Admission
from handlers.server import DrainOnSignal
from tests.support.runtime import app_with


@pytest.fixture
def received_signals() -> Generator[list[int]]:
    """Install signal handlers, and return the list of the signals that they receive."""
    reached: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _: reached.append(number))
    yield reached
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("again", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
async def test_drain_passes_sigterm_on_after_the_last_download(
    received_signals: list[int], again: list[signal.Signals]
) -> None:
    """The server gets SIGTERM after the drain; a second SIGTERM is ignored, SIGINT is not."""
    admission = Admission(1, wait=0)
    app = app_with(admission)
    running: Any = object()
    await admission.acquire(running, 0)
    drain_on_signal = DrainOnSignal(app)
    for number in (signal.SIGTERM, *again):
        signal.raise_signal(number)
        await anyio.wait_all_tasks_blocked()
    assert received_signals == [number for number in again if number == signal.SIGINT]
    admission.release(running)
    assert drain_on_signal._draining is not None
    await drain_on_signal._draining
    assert received_signals[-1] == signal.SIGTERM
