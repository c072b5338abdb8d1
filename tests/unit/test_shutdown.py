"""The seconds from SIGTERM to the end of the process, in the worst case."""

from __future__ import annotations

from typing import Any

import anyio

import service
from handlers import process_log
from handlers.download import admission
from handlers.sources import pools
from settings import Settings

KILLED_AFTER = 30.0  # seconds that Heroku, Render and Kubernetes wait between SIGTERM and SIGKILL

UVICORN_SUPERVISOR = 0.5  # its supervisor looks for signals so often
UVICORN_SERVER = (
    0.2  # its main loop looks for signals every 0.1 s; it waits for as long at its end
)
PYTHON_EXIT = 0.3  # two interpreters end, the worker's and the supervisor's


def test_all_waits_after_sigterm_take_less_than_30_seconds() -> None:
    """Supervisor, grace, stopped downloads, flush, clients and two logs: less than 30 seconds."""
    waits = {
        "the supervisor": UVICORN_SUPERVISOR,
        "SHUTDOWN_GRACE": Settings(s3_image_bucket="photos").shutdown_grace,
        "stopped downloads": admission.END_SECONDS,
        "uvicorn's loops": UVICORN_SERVER,
        "uvicorn's buffers": service.FLUSH_SECONDS,
        "the clients": pools.CLOSE_SECONDS,
        "the logs of worker and supervisor": 2 * process_log.CLOSE_SECONDS,
        "Python": PYTHON_EXIT,
    }
    assert sum(waits.values()) < KILLED_AFTER, waits


async def test_second_drain_does_not_wait_again_for_stopped_downloads() -> None:
    """A download that ignores its stop is waited for once, although the lifespan drains again."""

    class Stubborn:
        stopped = 0

        def stop(self, reason: str) -> None:
            self.stopped += 1

    slots, stubborn = admission.Admission(1, wait=0), Stubborn()
    running: Any = stubborn
    await slots.acquire(running, 0)
    with anyio.fail_after(1.8 * admission.END_SECONDS):
        await slots.drain(0)
        await slots.drain(0)
    assert stubborn.stopped == 2
