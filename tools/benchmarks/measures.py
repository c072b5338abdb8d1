"""How it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from .lab import Running
from .load import Crowd, Timing, slow_readers
from .results import Figure
from .scale import GIB, LARGE, MEDIUM, MIB, SMALL, Scale
from .wrk import wrk

SPEED = Figure("MiB/s", less_is_better=False, compared=True)
CPU_GIB = Figure("CPU s/GiB", 2, compared=True)
SECONDS = Figure("seconds", 3, compared=True)
RATE = Figure("requests/s", less_is_better=False, compared=True)
CPU_REQUEST = Figure("CPU ms/request", 3, compared=True)
P50 = Figure("p50 ms", 2)
P99 = Figure("p99 ms", 2)
FAILED = Figure("failed")
OVER_DIRECT = Figure("over direct µs", compared=True)
FIRST_BYTE = Figure("first byte µs")
START = Figure("seconds to the first image", 2, compared=True)
IDLE = Figure("MiB then", 1)
RESIDENT = Figure("MiB of memory")
MEMORY = Figure("KiB/reader", compared=True)
LEFT = Figure("KiB/reader after they left")
SERVED = Figure("readers served")

Measured = dict[Figure, float]


def alone(task: int, running: Running, scale: Scale) -> Measured:
    """Download one after another on one connection."""
    _warm_up(running, SMALL, min(task, MEDIUM))
    with running.connect() as connection:
        return _speed(running, scale, lambda: [connection.get(running.path(task))])


def crowd(running: Running, scale: Scale) -> Measured:
    """Download on many connections at once, after as many downloads that do not count."""
    with Crowd([running.connect() for _ in range(scale.crowd)]) as connections:
        connections.get(running.path(MEDIUM))
        running.process.calm()
        return _speed(running, scale, lambda: connections.get(running.path(MEDIUM)))


def small(connections: int, running: Running, scale: Scale) -> Measured:
    """Ask for a small object over and over, by wrk."""
    if warm_up := scale.seconds // 3:
        wrk(running.url + running.path(SMALL), connections, warm_up)
        running.process.calm()
    cpu = running.process.cpu_seconds()
    measured = wrk(running.url + running.path(SMALL), connections, scale.seconds)
    used = running.process.cpu_seconds() - cpu
    if not measured.requests:
        return {FAILED: measured.failed}
    return {
        RATE: measured.requests / measured.seconds,
        CPU_REQUEST: used * 1e3 / measured.requests,
        P50: measured.p50 * 1e3,
        P99: measured.p99 * 1e3,
        FAILED: measured.failed,
        RESIDENT: running.process.resident_kib() / 1024,
    }


def first_byte(task: int, running: Running, scale: Scale) -> Measured:
    """Time the first byte of many downloads on one connection, each read to its end."""
    times: list[float] = []
    _warm_up(running, SMALL, min(task, MEDIUM))
    with running.connect() as connection:
        end = time.perf_counter() + scale.seconds
        while not times or (len(times) < scale.requests and time.perf_counter() < end):
            times.append(connection.get(running.path(task)).first_byte)
    return {FIRST_BYTE: median(times) * 1e6}


def start(running: Running, _: Scale) -> Measured:
    """Tell how long a fresh process took, and how large it is."""
    return {START: running.start, IDLE: running.process.resident_kib() / 1024}


def slow(running: Running, scale: Scale) -> Measured:
    """Weigh a fresh process before, with and after its slow readers."""
    _warm_up(running, SMALL, MEDIUM, MEDIUM)
    running.process.calm()
    before = running.process.resident_kib()
    with slow_readers(running.port, running.path(LARGE), scale.readers) as readers:
        readers.read(scale.settled)
        during, served = running.process.resident_kib(), readers.served()
    running.process.calm()
    after = running.process.resident_kib()
    if not served:
        return {SERVED: 0}
    return {MEMORY: (during - before) / served, LEFT: (after - before) / served, SERVED: served}


def _warm_up(running: Running, *tasks: int) -> None:
    with running.connect() as connection:
        for task in tasks:
            connection.get(running.path(task))


def _speed(running: Running, scale: Scale, download: Callable[[], list[Timing]]) -> Measured:
    """Repeat a download, or many at once, until the scale's volume or time is reached."""
    timings: list[Timing] = []
    size, cpu, begun = 0, running.process.cpu_seconds(), time.perf_counter()
    while not size or (size < scale.volume and time.perf_counter() < begun + scale.seconds):
        timings += download()
        size = sum(timing.size for timing in timings)
    seconds = time.perf_counter() - begun
    used = running.process.cpu_seconds() - cpu
    each = median(timing.seconds for timing in timings)
    return {
        SPEED: size / MIB / seconds,
        CPU_GIB: used * GIB / size,
        SECONDS: each,
        RESIDENT: running.process.resident_kib() / 1024,
    }
