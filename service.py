"""Run the service: `python service.py`, or `service:app` with any ASGI server.

`python service.py --demo` also starts a demo store and upstream (scripts/demo).
`python service.py sign URL` prints a signed URL.
"""

import signal
import sys

if __name__ == "__main__":
    # Exit with 0, and without a traceback, if a signal arrives before the server starts.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))

import gc
import logging
import multiprocessing
import os
import resource
import shlex
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.types import Lifespan
from uvicorn.supervisors import Multiprocess

from handlers import chain_problem, cli, create_app, curl_lines
from handlers.env_file import load_env_file
from handlers.process_log import LogWriter, filter_uvicorn_record, logging_config
from handlers.server import CannotListen, DrainOnSignal, StandaloneProtocol, listening
from settings import ServerSettings, Settings, SettingsError

FLUSH_SECONDS = 2  # for uvicorn to send its buffered bytes after the last download
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - for metrics, if no temporary directory is writable
SPARE_DESCRIPTORS = 100  # for files, listening sockets and health probes

# A request makes hundreds of objects and no reference cycles. Python's default, a collection after
# every 700 new objects, takes several percent of a request's time.
GC_THRESHOLDS = (10_000, 10, 10)

ANNOUNCED_APP = "announced_app"  # `app` under serve(), which has already logged the warnings
LOOPBACK = ("127.0.0.1", "::1", "localhost")

EXIT_OK = 0
EXIT_CANNOT_LISTEN = 1
EXIT_SETTINGS = 2
EXIT_STARTUP = 3  # uvicorn's code; its supervisor restarts no worker that exits with it

logger = logging.getLogger("downspout")


def end_worker(ended_by: Any, number: int, _: FrameType | None) -> None:
    """Write the queued log lines, then let the signal handler `ended_by` end this process."""
    logging.shutdown()
    signal.signal(number, ended_by)
    signal.raise_signal(number)


if __name__ == "__mp_main__":
    # In a worker, uvicorn restores this handler at the end and raises the signal again.
    signal.signal(signal.SIGTERM, partial(end_worker, signal.getsignal(signal.SIGTERM)))


def main(arguments: list[str]) -> int:
    """Run the command in `arguments` (by default, serve); return the exit code."""
    try:
        if "PROMETHEUS_MULTIPROC_DIR" in load_env_file():
            # Start again: prometheus_client has read this variable when it was imported.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        if arguments == ["--demo"]:
            demo = Path(__file__).parent / "scripts" / "demo"
            os.execv(sys.executable, [sys.executable, str(demo)])
        if arguments[:1] == ["sign"]:
            cli.main(arguments, prog="service.py")
            return EXIT_OK
        if arguments:
            print("usage: python service.py [--demo | sign URL]", file=sys.stderr)
            return EXIT_SETTINGS
        settings = load_or_exit()
        directory = metrics_directory(settings)
        with listening(settings.host, settings.port) as sockets:
            return serve(settings, sockets, directory)
    except (SettingsError, CannotListen) as error:
        print(error, file=sys.stderr)
        return EXIT_SETTINGS if isinstance(error, SettingsError) else EXIT_CANNOT_LISTEN


def load_or_exit() -> ServerSettings:
    """Read the settings from the environment; print all problems and exit if any is wrong."""
    problems: list[str] = []
    try:
        settings = ServerSettings.from_environ()
    except SettingsError as error:
        problems += error.problems
    if problem := chain_problem():
        problems.append(f"AWS configuration: {problem}")
    if not problems:
        return settings
    # One write, because several workers may write to the same standard error at once.
    sys.stderr.write("\n".join(problems) + "\n")
    in_worker = multiprocessing.parent_process() is not None
    raise SystemExit(EXIT_STARTUP if in_worker else EXIT_SETTINGS)


def __getattr__(name: str) -> Starlette:
    """Create `app` when a server reads that attribute, not at import (PEP 562)."""
    if name not in ("app", ANNOUNCED_APP):
        raise AttributeError(name)
    return make_app(is_announced=name == ANNOUNCED_APP)


def make_app(*, is_announced: bool = False) -> Starlette:
    """Return a new app, for example for `hypercorn "service:make_app()"`.

    Log a warning if downloads need no credential, unless `is_announced`: then serve() has done it.
    """
    logging.getLogger("uvicorn.error").addFilter(filter_uvicorn_record)
    settings = load_or_exit()
    if not is_announced:
        log_open_access(settings, logging.WARNING)
    app = create_app(settings)
    for handler in logger.handlers:
        if isinstance(handler, LogWriter):
            handler.on_drop = app.state.runtime.metrics.drop_log_line
    app.router.lifespan_context = partial(with_frozen_gc, app.router.lifespan_context)
    DrainOnSignal(app)
    return app


@asynccontextmanager
async def with_frozen_gc(lifespan: Lifespan[Starlette], app: Starlette) -> AsyncIterator[Any]:
    """Enter the lifespan of `app`; after startup, the garbage collector skips all older objects.

    Modules and botocore's service descriptions are 100,000 objects; one collection of them
    would stop all downloads for 50 ms.
    """
    async with lifespan(app) as state:
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        yield state


def serve(
    settings: ServerSettings, sockets: list[socket.socket], directory: AbstractContextManager[str]
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    config = uvicorn.Config(
        f"service:{ANNOUNCED_APP}",
        loop="uvloop",
        http=StandaloneProtocol,
        ws="none",
        lifespan="on",
        workers=settings.web_concurrency,
        log_config=logging_config(log_format(settings), settings.log_level),
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_timeout,
        timeout_graceful_shutdown=FLUSH_SECONDS,
        forwarded_allow_ips=settings.forwarded_allow_ips,
    )
    announce(settings, sockets[0], descriptors=raise_descriptor_limit())
    if config.workers > 1:
        return supervise(config, sockets, directory)
    running = uvicorn.Server(config)
    # From here on no signal handler may raise: the exception could stop asyncio from creating the
    # server's task. When uvicorn ends, it restores these handlers and raises the signal again;
    # Python's default handler would then kill the process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, running.handle_exit)
    try:
        running.run(sockets=sockets)
    except SystemExit as ended:
        return EXIT_SETTINGS if ended.code == EXIT_STARTUP else EXIT_OK
    return EXIT_OK


def supervise(
    config: uvicorn.Config, sockets: list[socket.socket], directory: AbstractContextManager[str]
) -> int:
    """Serve with worker processes that share metrics in `directory`; return the exit code."""
    with directory as shared:
        # prometheus_client reads this variable when a worker imports the package.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        # One socket: with 16, one of two workers got all of 64 new connections in 2 of 8 tries.
        supervisor = Multiprocess(config, sockets=sockets[:1])
        supervisor.run()
    failed = any(worker.exitcode == EXIT_STARTUP for worker in supervisor.processes)
    return EXIT_SETTINGS if failed else EXIT_OK


def metrics_directory(settings: ServerSettings) -> AbstractContextManager[str]:
    """Return PROMETHEUS_MULTIPROC_DIR, or a new directory for the metrics of several workers."""
    if settings.metrics_directory or settings.web_concurrency == 1:
        return nullcontext(settings.metrics_directory or "")
    try:
        parent = gettempdir()
    except FileNotFoundError:  # The root file system is read-only.
        parent = SHARED_MEMORY
    try:
        return TemporaryDirectory(prefix="downspout-metrics-", dir=parent)
    except OSError as error:
        text = "PROMETHEUS_MULTIPROC_DIR is not set, and no temporary directory is writable"
        raise SettingsError([f"{text}: set it to a writable directory ({error})"]) from error


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to its hard limit; return the limit in force."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS reports no hard limit, but has one.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return now if now != resource.RLIM_INFINITY else sys.maxsize


def announce(settings: ServerSettings, listener: socket.socket, *, descriptors: int) -> None:
    """Log the URL, the variables of bucket and access key, and risky or invalid settings."""
    base_url, where, curl = describe_listener(listener)
    bucket = settings.sources.get("s3_image_bucket", "the settings")
    key = settings.sources.get("aws_access_key_id", "botocore")
    logger.info("listening on %s, bucket from %s, access key from %s", where, bucket, key)
    is_local = urlsplit(base_url).hostname in LOOPBACK
    log_open_access(settings, logging.INFO if is_local else logging.WARNING)
    for name, root in settings.object_roots.items():
        path = f"/objects/{name}/" if name else "/objects/"
        keys = f"the keys that begin with {root.prefix}" if root.prefix else "all keys"
        source = f"bucket {root.bucket}" if root.bucket else f"bucket from {bucket}"
        logger.info("%s serves %s in the %s", path, keys, source)
    believes_no_proxy = settings.forwarded_allow_ips == ServerSettings.forwarded_allow_ips
    counts_clients = curl == "curl" and is_local
    if settings.max_downloads_per_client and believes_no_proxy and not counts_clients:
        logger.warning(
            "MAX_DOWNLOADS_PER_CLIENT: behind a router all clients count as one, and on a Unix "
            "socket none counts; set FORWARDED_ALLOW_IPS to the router's addresses, or to *"
        )
    if settings.s3_tls_verify is False:
        logger.warning(
            "AWS_TLS_VERIFY is false: others can pose as the store; set it to a CA bundle's path"
        )
    needed = settings.max_downloads + settings.store_connections + SPARE_DESCRIPTORS
    if descriptors < needed:
        text = "MAX_DOWNLOADS=%d needs %d file descriptors, the limit is %d: raise it (ulimit -n)"
        logger.warning(text, settings.max_downloads, needed, descriptors)
    if log_format(settings) == "text" and is_local:  # A developer may copy a command.
        # Not by print: the log is written from a thread, so these lines could come first.
        commands = curl_lines(base_url, settings)
        logger.info("\n  ".join(["try:", *(one.replace("curl", curl, 1) for one in commands)]))


def describe_listener(listener: socket.socket) -> tuple[str, str, str]:
    """Return the base URL, what the log calls it, and the curl command that connects there."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return "http://localhost/", f"unix:{address}", f"curl --unix-socket {shlex.quote(address)}"
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"http://{host}:{address[1]}/"
    return url, url, "curl"


def log_open_access(settings: Settings, level: int) -> None:
    """Log if downloads are open: task ids are numbers, so anyone can guess them."""
    if settings.auth_mode == "open":
        text = "downloads are open to anyone who reaches the port: %s"
        logger.log(level, text, "none of ACCESS_TOKENS, URL_SIGNING_KEYS and AUTH_URL is set")


def log_format(settings: ServerSettings) -> str:
    """Return LOG_FORMAT, or its default: text for a terminal, JSON for programs."""
    return settings.log_format or ("text" if sys.stdout.isatty() else "json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
