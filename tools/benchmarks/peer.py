"""The peers: what they are called, and the command that each is started by."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import nginx
from .certificate import Certificate


@dataclass(frozen=True)
class Place:
    """Where a peer listens and fetches, and how many processes it may be."""

    port: int
    origin_port: int
    workers: int
    directory: Path
    certificate: Certificate | None = None
    """The origin's, if it speaks TLS."""

    @property
    def scheme(self) -> str:
        """The scheme of the origin's URLs."""
        return "https" if self.certificate else "http"

    def environ(self) -> dict[str, str]:
        """Return what points anything at the origin that knows the variables of AWS."""
        return {
            "AWS_ENDPOINT_URL_S3": f"{self.scheme}://127.0.0.1:{self.origin_port}",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "S3_IMAGE_BUCKET": "photos",
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(self.workers),
            **(self.certificate.environ() if self.certificate else {}),
        }


@dataclass(frozen=True)
class Peer:
    """A peer; one without a command is the origin itself."""

    name: str
    command: Callable[[Place], list[str]] | None
    environ: Mapping[str, str] = field(default_factory=dict)

    def path(self, task: int) -> str:
        """Return where it has the image of a task."""
        return f"/tasks/{task}/image" if self.command else f"/photos/test/{task}/image.jpg"


def _uvicorn(app: str, place: Place) -> list[str]:
    options = ["--port", str(place.port), "--workers", str(place.workers), "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", app, *options]


def _nginx(buffers: str, place: Place) -> list[str]:
    return nginx.proxy(place, buffers)


def _service(_: Place) -> list[str]:
    return [sys.executable, "service.py"]


def _python(name: str, module: str, **environ: str) -> Peer:
    return Peer(name, partial(_uvicorn, f"tools.benchmarks.peers.{module}:app"), environ)


DIRECT = "direct"
NGINX = "nginx default"
NGINX_TUNED = "nginx tuned"
ARTICLE = "article async"
ARTICLE_SYNC = "article sync"
NAIVE = "naive starlette"
TUNED = "aiobotocore tuned"
OBSTORE = "obstore"
OBSTORE_SMALL = "obstore 256 KiB"
BARE = "bare starlette"
DOWNSPOUT_UVICORN = "downspout, uvicorn"
DOWNSPOUT = "downspout, service.py"
ONE_STREAM = "downspout, one stream"

OTHER = "downspout, other checkout"

# None of the peers writes a line for each request.
QUIET = {"LOG_LEVEL": "warning"}
WITHOUT_READ_AHEAD = {**QUIET, "READ_AHEAD_CONNECTIONS": "1"}


def other_checkout(directory: Path) -> Peer:
    """Return the service of another checkout, started like ours; e.g. of an earlier commit."""
    service = str(directory.resolve() / "service.py")
    return Peer(OTHER, lambda _: [sys.executable, service], QUIET)


PEERS = {
    peer.name: peer
    for peer in (
        Peer(DIRECT, None),
        Peer(NGINX, partial(_nginx, "")),
        Peer(NGINX_TUNED, partial(_nginx, nginx.TUNED)),
        _python(ARTICLE, "article_async"),
        _python(ARTICLE_SYNC, "article_sync"),
        _python(NAIVE, "naive"),
        _python(TUNED, "tuned"),
        _python(OBSTORE, "rust"),
        _python(OBSTORE_SMALL, "rust", SMALL_CHUNKS="1"),
        _python(BARE, "bare"),
        Peer(DOWNSPOUT_UVICORN, partial(_uvicorn, "service:app")),
        Peer(DOWNSPOUT, _service, QUIET),
        Peer(ONE_STREAM, _service, WITHOUT_READ_AHEAD),
    )
}
