"""Downloads from a store that cuts one body in three, or replaces its objects."""

from __future__ import annotations

import random
import time
from collections import Counter

import uvloop

from .download import Download, bytes_of, image_of, run_all
from .figures import MIB, Figures
from .objects import task_of
from .processes import RunningService, running_service, running_store

AT_ONCE = 16
DOWNLOADS = 1000
REPLACED = 300
# Several downloads at once are of one object, so that a replacement meets some in their midst.
REPLACED_OBJECTS = 40


def cuts(figures: Figures) -> None:
    rng = random.Random(1)
    tasks = [task_of(n, rng.randint(MIB, 20 * MIB)) for n in range(DOWNLOADS)]
    paths = [(image_of, bytes_of)[n % 2](task) for n, task in enumerate(tasks)]
    with running_store("--cut", "3") as store, running_service(store) as service:
        counted = _measure("cuts", figures, service, paths)
    # Nothing here is replaced, so that there is nothing that could not be continued.
    figures.add("cuts", "all whole", counted["whole"], kept=counted["whole"] == DOWNLOADS)


def replaced(figures: Figures) -> None:
    rng = random.Random(2)
    tasks = [task_of(n, rng.randint(MIB, 20 * MIB)) for n in range(REPLACED_OBJECTS)]
    paths = [image_of(rng.choice(tasks)) for _ in range(REPLACED)]
    options = ("--cut", "3", "--replace", "3")
    with running_store(*options) as store, running_service(store) as service:
        _measure("replaced", figures, service, paths)


def _measure(
    case: str, figures: Figures, service: RunningService, paths: list[str]
) -> Counter[str]:
    downloads = [Download(service.port, path) for path in paths]
    begun = time.monotonic()
    uvloop.run(run_all(downloads, at_once=AT_ONCE))
    seconds = time.monotonic() - begun
    counted = Counter[str](download.verdict() for download in downloads)
    logged = service.outcomes(downloads=len(downloads))
    versions = {download.headers.get("etag") for download in downloads}
    figures.add(case, "downloads", f"{len(downloads)}, {AT_ONCE} at a time")
    figures.add(case, "versions seen", len(versions))
    figures.add(case, "whole, sha256 that of one version", counted["whole"])
    figures.add(case, "visibly broken, prefix of one version", counted["broken"])
    figures.add(case, "anything else", counted["wrong"], kept=not counted["wrong"])
    figures.add(case, "outcomes in the log", dict(logged))
    figures.add(case, "seconds", f"{seconds:.1f}")
    size = sum(download.received for download in downloads)
    figures.add(case, "MiB/s", f"{size / MIB / seconds:.0f}")
    return counted
