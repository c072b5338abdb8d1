"""Quick downloads beside 500 slow readers, and the memory of a slow reader."""

from __future__ import annotations

import asyncio
from collections import Counter

import uvloop

from .download import Download, all_answered, image_of, run_all
from .figures import MIB, Figures, milliseconds
from .objects import task_of
from .processes import RunningService, running_service, running_store, tcp_memory_kib

READERS = 500
PACE = 50_000  # bytes a second
RECEIVE_BUFFER = 64 * 1024
SEND_BUFFER = "65536"
LARGE = task_of(1, 50 * MIB)
QUICK = task_of(2, 100_000)
QUICK_DOWNLOADS = 50
# Each failure may take QUEUE_TIMEOUT: so many in a row are enough to know.
FAILURES = 5
MOST_KIB = 1024  # of memory for a download of any size
SETTLED = 5.0  # seconds until all buffers on the way are full


def slow(figures: Figures) -> None:
    # More places than readers, fewer by the default, and fewer still.
    for places in ("1000", "256", "200"):
        # Of the kernel's buffers on the way, which are not the service's stay small.
        with (
            running_store("--send-buffer", SEND_BUFFER) as store,
            running_service(store, MAX_DOWNLOADS=places) as service,
        ):
            uvloop.run(_measure(f"slow, MAX_DOWNLOADS={places}", figures, service))


async def _measure(case: str, figures: Figures, service: RunningService) -> None:
    await _quick(f"{case}, no reader yet", figures, service)
    idle, idle_tcp = service.resident_kib(), tcp_memory_kib()
    readers = [
        Download(service.port, image_of(LARGE), pace=PACE, receive_buffer=RECEIVE_BUFFER)
        for _ in range(READERS)
    ]
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    await all_answered(readers)
    answered = Counter(reader.status for reader in readers)
    await asyncio.sleep(SETTLED)
    settled, settled_tcp = service.resident_kib(), tcp_memory_kib()
    await _quick(case, figures, service)
    after = service.resident_kib()
    running = sum(not task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    figures.add(case, "slow readers answered 200 / 503", f"{answered[200]} / {answered[503]}")
    figures.add(case, "of those still running", running, kept=running == answered[200])
    rss = " / ".join(f"{kib / 1024:.0f}" for kib in (idle, settled, after))
    figures.add(case, "RSS idle / with slow readers / and quick ones, MiB", rss)
    each = (settled - idle) / answered[200]
    each_tcp = (settled_tcp - idle_tcp) / answered[200]
    figures.add(case, "TCP's memory in the kernel per slow reader, KiB", f"{each_tcp:.0f}")
    # Those that are refused need some, too, as long as they wait.
    kept = each < MOST_KIB if not answered[503] else None
    figures.add(case, "RSS per slow reader, KiB", f"{each:.0f}", kept=kept)


async def _quick(case: str, figures: Figures, service: RunningService) -> None:
    one_by_one = _downloads(service)
    failed_in_a_row = 0
    for tried, download in enumerate(one_by_one, start=1):
        await download.run()
        failed_in_a_row = 0 if download.verdict() == "whole" else failed_in_a_row + 1
        if failed_in_a_row == FAILURES:
            one_by_one = one_by_one[:tried]
            break
    _add(figures, case, "one after another", one_by_one)
    at_once = _downloads(service)
    await run_all(at_once, at_once=QUICK_DOWNLOADS)
    _add(figures, case, "at once", at_once)


def _downloads(service: RunningService) -> list[Download]:
    return [Download(service.port, image_of(QUICK)) for _ in range(QUICK_DOWNLOADS)]


def _add(figures: Figures, case: str, how: str, quick: list[Download]) -> None:
    whole = [download.seconds for download in quick if download.verdict() == "whole"]
    failed = Counter(download.status for download in quick if download.verdict() != "whole")
    figures.add(case, f"quick {how}, p50 / p99 / max ms", milliseconds(whole))
    figures.add(
        case,
        f"quick {how}, failed",
        f"{failed.total()} of {len(quick)} {dict(failed) or ''}",
        kept=not failed,
    )
