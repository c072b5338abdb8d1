"""Run origins and peers; each starts when a measurement first needs it."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import NamedTuple, Self

from . import nginx
from .certificate import Certificate
from .load import BadAnswerError, Connection
from .peer import Peer, Place
from .process import Process
from .scale import MIB, SMALL, Scale

CACHE = Path(__file__).parent / ".cache"
RATE = 40 * MIB  # bytes a second of a capped connection; S3 gives 50 to 100

# Below those that the kernel gives to clients: one of theirs could be in use.
_PORTS = range(21_000, 32_000)
_START = 20.0  # seconds


@dataclass(frozen=True)
class Running:
    """A running peer."""

    peer: Peer
    port: int
    process: Process
    certificate: Certificate | None = None
    """That of the origin itself, if it speaks TLS; every other peer speaks plain HTTP."""

    start: float = 0.0
    """Seconds from its command to its first image."""

    def path(self, task: int) -> str:
        """Return the path of the image of a task."""
        return self.peer.path(task)

    @property
    def url(self) -> str:
        """Its URL, without a path."""
        return f"{'https' if self.certificate else 'http'}://127.0.0.1:{self.port}"

    def connect(self) -> Connection:
        """Open a connection to it."""
        return Connection(self.port, self.certificate and self.certificate.client())

    def answers(self) -> bool:
        """Return whether it answers with a small image."""
        try:
            with self.connect() as connection:
                connection.get(self.path(SMALL))
        except (OSError, BadAnswerError):
            return False
        return True


class Origin(NamedTuple):
    """What an origin is like; with a `latency` it caps its connections."""

    latency: float | None = None
    tls: bool = False
    keeps_connections: bool = True


class Lab:
    """All running origins and peers; leaving the context ends them."""

    def __init__(self, directory: Path, scale: Scale) -> None:
        self._directory = directory
        self._objects = _bucket(directory, scale)
        self._ports = _free_ports()
        self._numbers = count()
        self._origins: dict[Origin, Running] = {}
        self._peers: dict[tuple[str, Origin, int], Running] = {}

    def running(
        self, peer: Peer, origin: Origin, *, workers: int = 1, fresh: bool = False
    ) -> Running:
        """Return a peer before an origin, started anew if that is wanted or it answers no more.

        The peer without a command is the origin.
        """
        before = self._origin(origin)
        if peer.command is None:
            return replace(before, peer=peer)
        key = (peer.name, origin, workers)
        running = self._peers.get(key)
        if running and not fresh and running.answers():
            return running
        if running:
            self._peers.pop(key).process.end()
        directory = self._path("peer")
        place = Place(next(self._ports), before.port, workers, directory, before.certificate)
        environ = {**place.environ(), **peer.environ}
        process = Process(peer.command(place), environ, self._path("log"))
        self._peers[key] = _started(Running(peer, place.port, process))
        return self._peers[key]

    @cached_property
    def _certificate(self) -> Certificate:
        return Certificate.made_in(self._directory)

    def _origin(self, origin: Origin) -> Running:
        if origin not in self._origins:
            port = next(self._ports)
            certificate = self._certificate if origin.tls else None
            if origin.latency is None:
                command = nginx.origin(
                    self._path("origin"),
                    port,
                    self._objects,
                    certificate,
                    keeps_connections=origin.keeps_connections,
                )
            else:
                told = [str(port), str(self._objects), str(RATE), str(origin.latency)]
                told += map(str, certificate or ())
                command = [sys.executable, "-m", "tools.benchmarks.capped", *told]
            process = Process(command, {}, self._path("log"))
            running = Running(Peer("the origin", None), port, process, certificate)
            self._origins[origin] = _started(running)
        return self._origins[origin]

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}-{next(self._numbers)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for running in (*self._peers.values(), *self._origins.values()):
            running.process.end()


def _started(running: Running) -> Running:
    begun = time.monotonic()
    while not running.answers():
        if not running.process.alive() or time.monotonic() > begun + _START:
            running.process.end()
            raise RuntimeError(f"{running.peer.name} did not start:\n{running.process.log()}")
        time.sleep(0.005)
    return replace(running, start=time.monotonic() - begun)


def _bucket(directory: Path, scale: Scale) -> Path:
    """Lay out the objects of the tasks as links to random files, which are kept for the next."""
    bucket = directory / "objects"
    for task, size in scale.sizes.items():
        link = bucket / "photos" / "test" / str(task) / "image.jpg"
        link.parent.mkdir(parents=True)
        link.symlink_to(_random_file(size))
    return bucket


def _random_file(size: int) -> Path:
    CACHE.mkdir(exist_ok=True)
    path = CACHE / f"{size}.bin"
    if path.exists():
        # Out of the page cache like those that are new: no disk is measured here.
        with path.open("rb", buffering=0) as file:
            while file.read(MIB):
                pass
    else:
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            for written in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size - written)))
        part.rename(path)
    return path


def _free_ports() -> Iterator[int]:
    for port in _PORTS:
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port
