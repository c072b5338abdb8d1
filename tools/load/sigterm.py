"""SIGTERM during downloads, with a grace that is long enough and one that is not."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter

import uvloop

from .download import Download, all_answered, bytes_of, image_of
from .figures import MIB, Figures
from .objects import Version, task_of
from .processes import RunningService, running_service, running_store

DOWNLOADS = 20
SIZE = 20 * MIB
RECEIVE_BUFFER = 64 * 1024
RUNNING = 0.5  # seconds from the last one's head to SIGTERM
ENOUGH = 25
SHORT = 2
# Beyond the grace: what it takes to cut what is left, to close the clients, and to end Python.
ENDING = 5.0


def sigterm(figures: Figures) -> None:
    for workers in ("1", "2"):
        for grace in (ENOUGH, SHORT):
            case = f"sigterm, WEB_CONCURRENCY={workers}, grace {grace} s"
            environ = {"WEB_CONCURRENCY": workers, "SHUTDOWN_GRACE": str(grace)}
            with (
                running_store() as store,
                running_service(store, **environ) as service,
                running_service(store) as second,
            ):
                uvloop.run(_measure(case, figures, service, second, grace))


async def _measure(
    case: str, figures: Figures, service: RunningService, second: RunningService, grace: int
) -> None:
    downloads = [_download(service, n, grace) for n in range(DOWNLOADS)]
    running = asyncio.gather(*(download.run() for download in downloads))
    await all_answered(downloads)
    await asyncio.sleep(RUNNING)
    figures.add(case, "running at SIGTERM", DOWNLOADS - len(service.logged()))
    begun = time.monotonic()
    service.process.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(service.process.end)
    seconds = time.monotonic() - begun
    await running
    counted = Counter(download.verdict() for download in downloads)
    kept = not counted["wrong"] and (grace == SHORT or counted["whole"] == DOWNLOADS)
    value = f"{counted['whole']} / {counted['broken']} / {counted['wrong']}"
    figures.add(case, "whole / visibly cut / anything else", value, kept=kept)
    broken = [download for download in downloads if download.verdict() == "broken"]
    continued = [await _continued(download, second) for download in broken]
    value = f"{sum(continued)} of {len(broken)}"
    figures.add(case, "continued elsewhere, sha256 right", value, kept=all(continued))
    figures.add(case, "exit code", code, kept=code == 0)
    kept = seconds < grace + ENDING
    figures.add(case, "seconds from SIGTERM to exit", f"{seconds:.2f}", kept=kept)


def _download(service: RunningService, number: int, grace: int) -> Download:
    # By the second pace some are done within the short grace and some are not.
    pace = 6 * MIB if grace == ENOUGH else (number + 1) * MIB
    path = (image_of, bytes_of)[number % 2](task_of(number, SIZE))
    return Download(service.port, path, pace=pace, receive_buffer=RECEIVE_BUFFER)


async def _continued(cut: Download, second: RunningService) -> bool:
    rest = Download(second.port, cut.path, sha256=cut.sha256)
    etag = cut.headers["etag"]
    await rest.run({"range": f"bytes={cut.received}-", "if-range": etag})
    version = Version.of_etag(etag)
    assert version is not None
    return rest.status == 206 and rest.sha256.hexdigest() == version.sha256(SIZE)
