"""The process: `python service.py`, or `service:app` for any ASGI server.

`python service.py --demo` serves an embedded store and upstream (scripts/demo), and
`python service.py sign URL` prints a signed URL.
"""

import signal
import sys

if __name__ == "__main__":
    # Exit with 0, and without a traceback, if a signal arrives before the server starts.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))

import asyncio
import gc
import logging
import multiprocessing
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from pythonjsonlogger.core import RESERVED_ATTRS
from starlette.applications import Starlette
from starlette.types import Lifespan
from uvicorn.supervisors import Multiprocess

from handlers import BrokenTransfer, CannotStart, chain_problem, cli, create_app, curl_lines
from handlers.server import DrainOnSignal, StandaloneProtocol
from settings import ServerSettings, Settings, SettingsError, load

# Longer than routers keep idle connections (Heroku 90 s, nginx 60 and 75 s), so that the router
# closes them: if the service did, a request could already be on its way.
KEEP_ALIVE_SECONDS = 95
BACKLOG = 2048
UNSENT_BYTES = 128 * 1024
FLUSH_SECONDS = 2  # for the server's buffers, when the downloads have ended
SPARE_DESCRIPTORS = 100  # for files, listeners and probes

# A request makes hundreds of objects and no cycles. Collecting after every 700 of them, Python's
# default, takes some percent of its time.
GC_THRESHOLDS = (10_000, 10, 10)

ANNOUNCED_APP = "announced_app"  # the name of `app` for serve(), which has logged the warnings
LOOPBACK = ("127.0.0.1", "::1", "localhost")

EXIT_OK = 0
EXIT_CANNOT_LISTEN = 1
EXIT_SETTINGS = 2
EXIT_STARTUP = 3  # uvicorn's: its supervisor does not restart a worker that ends with it

FORMATTERS: dict[str, dict[str, Any]] = {
    "text": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
    "json": {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
        "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        "reserved_attrs": [*RESERVED_ATTRS, "color_message"],
    },
}

logger = logging.getLogger("downspout")


def main(arguments: list[str]) -> int:
    """Run the process as its command line says; return the exit code."""
    if arguments == ["--demo"]:
        demo = Path(__file__).parent / "scripts" / "demo"
        os.execv(sys.executable, [sys.executable, str(demo)])
    if arguments[:1] == ["sign"]:
        return cli.main(arguments, prog="service.py")
    if arguments:
        print("usage: python service.py [--demo | sign URL]", file=sys.stderr)
        return EXIT_SETTINGS
    return serve(*load_or_exit())


def load_or_exit() -> tuple[Settings, ServerSettings]:
    """Return the settings of the environment, or exit with a line for each problem."""
    problems: list[str] = []
    try:
        loaded = load()
    except SettingsError as error:
        problems += error.problems
    if problem := chain_problem():
        problems.append(f"AWS configuration: {problem}")
    if not problems:
        return loaded
    # One write, since workers that end at the same time share standard error.
    sys.stderr.write("\n".join(problems) + "\n")
    in_worker = multiprocessing.parent_process() is not None
    raise SystemExit(EXIT_STARTUP if in_worker else EXIT_SETTINGS)


def __getattr__(name: str) -> Starlette:
    """Make `app` when a server asks this module for it; an import makes nothing (PEP 562)."""
    if name not in ("app", ANNOUNCED_APP):
        raise AttributeError(name)
    return make_app(is_announced=name == ANNOUNCED_APP)


def make_app(*, is_announced: bool = False) -> Starlette:
    """Return a new `app`, for servers that take a factory: `hypercorn "service:make_app()"`."""
    logging.getLogger("uvicorn.error").addFilter(keep_server_record)
    settings, _ = load_or_exit()
    if not is_announced:
        log_open_access(settings, logging.WARNING)
    app = create_app(settings)
    app.router.lifespan_context = with_frozen_gc(app.router.lifespan_context)
    DrainOnSignal(app)
    return app


def with_frozen_gc(lifespan: Lifespan[Starlette]) -> Lifespan[Starlette]:
    """Return a lifespan in which garbage collection skips the objects made before it.

    Modules and botocore's service descriptions are 100,000 objects, and collecting them would
    stop all downloads for 50 ms.
    """

    @asynccontextmanager
    async def frozen(app: Starlette) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            yield state

    return frozen


def serve(settings: Settings, server: ServerSettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    try:
        listener = listen(server)
    except OSError as error:
        print(f"can't listen on HOST {server.host}, PORT {server.port}: {error}", file=sys.stderr)
        return EXIT_CANNOT_LISTEN
    config = uvicorn.Config(
        f"service:{ANNOUNCED_APP}",
        loop="uvloop",
        http=StandaloneProtocol,
        ws="none",
        lifespan="on",
        workers=server.web_concurrency,
        log_config=logging_config(server),
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FLUSH_SECONDS,
        forwarded_allow_ips=server.forwarded_allow_ips,
    )
    announce(settings, server, listener, descriptors=raise_descriptor_limit())
    if config.workers > 1:
        return supervise(config, listener, settings)
    running = uvicorn.Server(config)
    # From here on no handler may raise: it could interrupt asyncio while it creates the server's
    # task, which then fails to start. uvicorn restores these handlers at its end and raises the
    # signal again, which would kill the process by default.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, running.handle_exit)
    try:
        running.run(sockets=[listener])
    except SystemExit as ended:
        return EXIT_SETTINGS if ended.code == EXIT_STARTUP else EXIT_OK
    return EXIT_OK


def supervise(config: uvicorn.Config, listener: socket.socket, settings: Settings) -> int:
    """Serve with several worker processes, which add up their metrics; return the exit code."""
    with TemporaryDirectory(prefix="downspout-metrics-") as shared:
        # Prometheus' client reads it when a worker imports it.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = settings.metrics_directory or shared
        supervisor = Multiprocess(config, sockets=[listener])
        supervisor.run()
    failed = any(worker.exitcode == EXIT_STARTUP for worker in supervisor.processes)
    return EXIT_SETTINGS if failed else EXIT_OK


def listen(server: ServerSettings) -> socket.socket:
    """Return the listening socket; accepted connections inherit its options."""
    listener = socket.create_server(
        (server.host, server.port),
        family=socket.AF_INET6 if ":" in server.host else socket.AF_INET,
        backlog=BACKLOG,
        dualstack_ipv6=server.host == "::",
    )
    # By default the kernel buffers megabytes per connection beyond what is on its way: bytes
    # fetched in vain if the client leaves.
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return listener


def raise_descriptor_limit() -> int:
    """Raise the limit of open files and sockets as far as it goes; return it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS reports no limit, and has one.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return now if now != resource.RLIM_INFINITY else sys.maxsize


def announce(
    settings: Settings, server: ServerSettings, listener: socket.socket, *, descriptors: int
) -> None:
    """Log the URL, where bucket and access key come from, and warnings about the settings."""
    host, port = listener.getsockname()[:2]
    base_url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    bucket = settings.sources.get("s3_image_bucket", "the settings")
    key = settings.sources.get("aws_access_key_id", "botocore")
    logger.info("listening on %s, bucket from %s, access key from %s", base_url, bucket, key)
    is_local = server.host in LOOPBACK
    log_open_access(settings, logging.INFO if is_local else logging.WARNING)
    believes_no_proxy = server.forwarded_allow_ips == ServerSettings.forwarded_allow_ips
    if settings.max_downloads_per_client and believes_no_proxy and not is_local:
        logger.warning(
            "MAX_DOWNLOADS_PER_CLIENT: behind a router all clients count as one; "
            "set FORWARDED_ALLOW_IPS to the router's addresses"
        )
    if settings.s3_tls_verify is False:
        logger.warning(
            "AWS_TLS_VERIFY is false: others can pose as the store; set it to a CA bundle's path"
        )
    needed = settings.max_downloads + settings.store_connections + SPARE_DESCRIPTORS
    if descriptors < needed:
        text = "MAX_DOWNLOADS=%d needs %d file descriptors, the limit is %d: raise it (ulimit -n)"
        logger.warning(text, settings.max_downloads, needed, descriptors)
    if log_format(server) == "text" and is_local:  # A person reads the log, who may copy a line.
        print("Try:", *curl_lines(base_url, settings.auth_mode), sep="\n  ", flush=True)


def log_open_access(settings: Settings, level: int) -> None:
    """Log that downloads are open, if they are: task ids are numbers, which are easy to guess."""
    if settings.auth_mode == "open":
        text = "downloads are open to anyone who reaches the port: %s"
        logger.log(level, text, "neither ACCESS_TOKENS nor URL_SIGNING_KEYS is set")


def log_format(server: ServerSettings) -> str:
    """Return LOG_FORMAT, or its default: text for a terminal, JSON for programs."""
    return server.log_format or ("text" if sys.stdout.isatty() else "json")


def logging_config(server: ServerSettings) -> dict[str, Any]:
    """Return a configuration for uvicorn that logs on standard output."""
    stdout = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
    shared = {"handlers": ["stdout"], "level": server.log_level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": FORMATTERS,
        "handlers": {"stdout": {**stdout, "formatter": log_format(server)}},
        "loggers": {"uvicorn": shared, "downspout": shared},
    }


def keep_server_record(record: logging.LogRecord) -> bool:
    """Filter uvicorn's tracebacks of errors that have a log line of their own.

    Broken and drained downloads have one. Starlette reports a failed lifespan as the text of a
    traceback; if CannotStart is its last line, the record keeps only the text of that.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, BrokenTransfer | asyncio.CancelledError):
        return False
    last_line = record.getMessage().rstrip().rpartition("\n")[2]
    _, is_settings_problem, problem = last_line.partition(f"{CannotStart.__name__}: ")
    if is_settings_problem:
        record.msg, record.args = problem, ()
    return not last_line.endswith(asyncio.CancelledError.__name__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
