"""The process: ``python service.py``, or any ASGI server on ``service:app``.

``python service.py --demo`` serves an embedded store and upstream (``scripts/demo``),
``python service.py sign`` makes a signed address.
"""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":
    # Exit with 0, and without a traceback, if a signal arrives before the server starts.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))

import argparse
import asyncio
import gc
import logging
import multiprocessing
import os
import re
import resource
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from pythonjsonlogger.core import RESERVED_ATTRS
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from handlers import BrokenTransfer, CannotStart, chain_problem, create_app, curl_lines, sign_url
from handlers.server import DrainOnSignal, Protocol
from settings import Settings, SettingsError, signing_from_environ

# Above what routers keep an idle connection for (Heroku 90 s, nginx 60 s and 75 s), so that
# it is never we who close one that a request is already on its way over.
KEEP_ALIVE_SECONDS = 95
BACKLOG = 2048
UNSENT_BYTES = 128 * 1024

# A request makes hundreds of objects and leaves no cycles: to look for them after every 700, as is
# the default, costs some hundredths of its time.
THRESHOLDS = (10_000, 10, 10)

# For what lies in the server's buffers when the downloads are over.
FLUSH_SECONDS = 2

# Beside connections there are files, listeners, probes.
SPARE_DESCRIPTORS = 100

# `app` for our own server, which has said what there is to say of it.
_ANNOUNCED_APP = "announced_app"

LOOPBACK = ("127.0.0.1", "::1", "localhost")

EXIT_OK = 0
EXIT_CANNOT_LISTEN = 1
EXIT_SETTINGS = 2
# uvicorn's own code for "would fail again": its supervisor restarts a worker after any other.
EXIT_STARTUP = 3

FORMATTERS: dict[str, dict[str, Any]] = {
    "text": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
    "json": {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
        "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        "reserved_attrs": [*RESERVED_ATTRS, "color_message"],
    },
}


def logging_config(log_format: str, level: str = "info") -> dict[str, Any]:
    """Return how uvicorn is to set up logging: lines of `log_format` on standard output."""
    handler = {
        "class": "logging.StreamHandler",
        "stream": "ext://sys.stdout",
        "formatter": log_format,
    }
    logger = {"handlers": ["stdout"], "level": level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {log_format: FORMATTERS[log_format]},
        "handlers": {"stdout": handler},
        "loggers": {"uvicorn": logger, "downspout": logger},
    }


def tell_once(record: logging.LogRecord) -> bool:
    """Drop uvicorn's tracebacks of what has been told, or is told in one line.

    A download is broken on purpose when its body can't be completed, and cancelled at the end of
    the grace after SIGTERM: its own line says so. What Starlette says of a lifespan is the text
    of a traceback, whose last line tells what is wrong with the configuration.
    """
    error = record.exc_info[1] if record.exc_info else None
    last_line = record.getMessage().rstrip().rpartition("\n")[2]
    if isinstance(error, BrokenTransfer | asyncio.CancelledError):
        return False
    if f"{CannotStart.__name__}: " in last_line:
        record.msg, record.args = last_line.partition(f"{CannotStart.__name__}: ")[2], ()
    return not last_line.endswith(asyncio.CancelledError.__name__)


def load_settings() -> Settings:
    """Return the settings of the environment; exits with a line for each that is wrong."""
    problems: list[str] = []
    try:
        settings = Settings.from_environ()
    except SettingsError as error:
        problems += error.problems
    if problem := chain_problem():
        problems.append(f"AWS configuration: {problem}")
    if not problems:
        return settings
    # In one piece: workers that end at once have one standard error.
    sys.stderr.write("\n".join(problems) + "\n")
    in_worker = multiprocessing.parent_process() is not None
    raise SystemExit(EXIT_STARTUP if in_worker else EXIT_SETTINGS)


def __getattr__(name: str) -> Starlette:
    """Make `app` when a server asks this module for it; importing it does nothing (PEP 562)."""
    if name not in ("app", _ANNOUNCED_APP):
        raise AttributeError(name)
    return make_app(is_announced=name == _ANNOUNCED_APP)


def make_app(*, is_announced: bool = False) -> Starlette:
    """Return what `app` is, for servers that find none: `hypercorn "service:make_app()"`."""
    logging.getLogger("uvicorn.error").addFilter(tell_once)
    settings = load_settings()
    if not is_announced:
        tell_who_may_download(settings, logging.WARNING)
    app = create_app(settings)
    app.router.lifespan_context = with_frozen_gc(app.router.lifespan_context)
    if threading.current_thread() is threading.main_thread():
        DrainOnSignal(app)
    return app


Lifespan = Callable[[Starlette], AbstractAsyncContextManager[Any]]


def with_frozen_gc(lifespan: Lifespan) -> Lifespan:
    """Return a lifespan within which the collector leaves alone what was there at its beginning.

    Modules and botocore's descriptions are a hundred thousand objects; to go through them takes
    50 ms, in which all downloads wait.
    """

    @asynccontextmanager
    async def frozen(app: Starlette) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            gc.collect()
            gc.freeze()
            gc.set_threshold(*THRESHOLDS)
            yield state

    return frozen


def listen(settings: Settings) -> socket.socket:
    """Return the listening socket, whose options every accepted connection inherits."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server(
        (settings.host, settings.port),
        family=family,
        backlog=BACKLOG,
        dualstack_ipv6=settings.host == "::",
    )
    # Whatever a kernel buffers beyond what is on its way was fetched for a client that may be
    # gone, or slow: by default some megabytes for each.
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return listener


def announce(settings: Settings, listener: socket.socket, *, descriptors: int) -> None:
    """Say what is served, where, and what is worth knowing about how."""
    host, port = listener.getsockname()[:2]
    base_url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    logger = logging.getLogger("downspout")
    bucket_variable = settings.sources.get("s3_image_bucket", "the settings")
    logger.info("listening on %s, bucket from %s", base_url, bucket_variable)
    is_local = settings.host in LOOPBACK
    tell_who_may_download(settings, logging.INFO if is_local else logging.WARNING)
    if settings.max_downloads_per_client and settings.believes_no_proxy and not is_local:
        logger.warning(
            "MAX_DOWNLOADS_PER_CLIENT: behind a router all clients are one, unless "
            "FORWARDED_ALLOW_IPS names it"
        )
    if settings.s3_tls_verify is False:
        logger.warning("AWS_TLS_VERIFY is false: whoever is on the way can pose as the store")
    needed = settings.max_downloads + settings.store_connections + SPARE_DESCRIPTORS
    if descriptors < needed:
        logger.warning(
            "%d downloads need %d descriptors, of %d", settings.max_downloads, needed, descriptors
        )
    is_read = log_format_of(settings) == "text"  # by a person, who may copy a line
    if is_read and is_local:
        print("Try:", *curl_lines(base_url, settings.auth_mode), sep="\n  ", flush=True)


def tell_who_may_download(settings: Settings, level: int) -> None:
    """Say so where everybody may: task ids are numbers, which anybody can guess."""
    if settings.auth_mode == "open":
        logging.getLogger("downspout").log(
            level,
            "downloads are open to anyone who reaches the port: "
            "neither ACCESS_TOKENS nor URL_SIGNING_KEYS is set",
        )


def log_format_of(settings: Settings) -> str:
    """Return the format of the log: for people on a terminal, for programs elsewhere."""
    return settings.log_format or ("text" if sys.stdout.isatty() else "json")


def raise_descriptor_limit() -> int:
    """Let the process open as many files and sockets as it may; returns how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says that there is no limit, and has one.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return now if now != resource.RLIM_INFINITY else sys.maxsize


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    try:
        listener = listen(settings)
    except OSError as error:
        print(f"can't listen on {settings.host} port {settings.port}: {error}", file=sys.stderr)
        return EXIT_CANNOT_LISTEN
    config = uvicorn.Config(
        f"service:{_ANNOUNCED_APP}",
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        workers=settings.web_concurrency,
        log_config=logging_config(log_format_of(settings), settings.log_level),
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FLUSH_SECONDS,
        forwarded_allow_ips=settings.forwarded_allow_ips,
    )
    announce(settings, listener, descriptors=raise_descriptor_limit())
    if config.workers > 1:
        return supervise(config, listener, settings.metrics_directory)
    server = uvicorn.Server(config)
    # From here on no handler may raise: it could interrupt asyncio just as it creates the server's
    # task, which then runs while its loop shuts down, and fails to start. uvicorn restores these
    # handlers at its end and raises the signal again: by default, SIGTERM would kill the process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    try:
        server.run(sockets=[listener])
    except SystemExit as ended:
        return EXIT_SETTINGS if ended.code == EXIT_STARTUP else EXIT_OK
    return EXIT_OK


def supervise(
    config: uvicorn.Config, listener: socket.socket, metrics_directory: str | None
) -> int:
    """Serve by several worker processes, which add up their metrics; returns the exit code."""
    with TemporaryDirectory(prefix="downspout-metrics-") as shared:
        # For the workers: Prometheus' client looks for it there, when it is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics_directory or shared
        supervisor = Multiprocess(config, sockets=[listener])
        supervisor.run()
    failed = any(worker.exitcode == EXIT_STARTUP for worker in supervisor.processes)
    return EXIT_SETTINGS if failed else EXIT_OK


USAGE = """\
usage: python service.py           serve what the environment says
       python service.py --demo    serve an embedded store
       python service.py sign URL  print a signed address (sign --help)"""

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def main(arguments: list[str]) -> int:
    """Run the process as told on the command line; returns the exit code."""
    if arguments == ["--demo"]:
        demo = Path(__file__).parent / "scripts" / "demo"
        os.execv(sys.executable, [sys.executable, str(demo)])
    if arguments[:1] == ["sign"]:
        return sign(arguments[1:])
    if arguments:
        print(USAGE, file=sys.stderr)
        return EXIT_SETTINGS
    return serve(load_settings())


def sign(arguments: list[str]) -> int:
    """Print a signed address; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="service.py sign",
        description="Print an address, signed with a key of URL_SIGNING_KEYS.",
    )
    parser.add_argument("url", help="a whole one or a path, with ?download=NAME if it has a name")
    parser.add_argument(
        "--expires", help="how long it is good for: 90s, 30m, 1h (if not told), 7d"
    )
    parser.add_argument("--key", metavar="ID", help="which key; the first if not told")
    parser.add_argument("--root-path", default="", help="where the application is mounted in it")
    given = parser.parse_args(arguments)
    try:
        keys, longest = signing_from_environ()
        key, lifetime = key_of(given.key, keys), seconds_of(given.expires, longest)
        print(sign_url(given.url, key, lifetime=lifetime, root_path=given.root_path))
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_SETTINGS
    return EXIT_OK


def key_of(key_id: str | None, keys: Sequence[str]) -> str:
    """Return the key of that id, the first where none is told; raises ValueError."""
    for key in keys:
        if key_id in (None, key.partition(":")[0]):
            return key
    raise ValueError(f"--key {key_id}: URL_SIGNING_KEYS has no such id")


def seconds_of(text: str | None, longest: float) -> float:
    """Return the seconds that a number with a unit stands for; raises ValueError."""
    if text is None:
        return min(UNITS["h"], longest)
    parsed = re.fullmatch("([0-9]{1,10})([smhd]?)", text)
    if parsed is None:
        raise ValueError(f"--expires {text}: must be a number with s, m, h or d; for example 1h")
    seconds = int(parsed[1]) * UNITS[parsed[2]]
    if seconds > longest:
        raise ValueError(f"--expires {text}: URL_MAX_LIFETIME is {longest:g} seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
