"""The listening socket: a TCP port, a Unix socket (unix:/path), or an inherited one (fd:3)."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

BACKLOG = 2048

# In an iteration of the event loop, uvloop accepts one connection from each listening socket.
# While 32 clients download, an iteration takes 10 ms: the last of 200 new clients waited 2 s.
SOCKETS = 16

UNSENT_BYTES = 128 * 1024
UNIX_MODE = 0o660  # The user and the group of the process may connect.

PORT_HINTS = {
    errno.EADDRINUSE: "another process uses this port; stop it, or set PORT to another",
    errno.EACCES: "this user may not use this port; set PORT to 1024 or more",
}
UNIX_HINTS = {
    errno.EADDRINUSE: "another process listens there, or the file is no socket; use another path",
    errno.ENOENT: "the directory does not exist; create it, or use another path",
}
HOST_HINT = (
    "HOST must be an address or a name of this machine, unix:/path, or fd:3 if a parent listens; "
    "conda and csh set HOST to something else; set it to 127.0.0.1 or 0.0.0.0, or unset it"
)


class CannotListen(OSError):
    """The text names HOST, the problem and the next step."""


@contextmanager
def listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Yield SOCKETS copies of a socket that listens on HOST and PORT; raises CannotListen.

    The end closes them. It removes the file of a Unix socket, unless another process listens on it
    by then.
    """
    path = Path(host[5:]) if host.startswith("unix:") else None
    try:
        listener = _listen(host, port) if path is None else _listen_unix(path)
    except OSError as error:
        hint = (UNIX_HINTS if path else PORT_HINTS).get(error.errno or 0, HOST_HINT)
        raise CannotListen(f"can't listen on HOST {host}, PORT {port}: {error}: {hint}") from error
    # Limit the unsent bytes that the kernel buffers per accepted connection, by default megabytes:
    # the service has fetched them in vain if the client leaves. A Unix socket buffers 208 KiB.
    if hasattr(socket, "TCP_NOTSENT_LOWAT") and listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    try:
        with ExitStack() as opened:
            opened.enter_context(listener)
            copies = [opened.enter_context(listener.dup()) for _ in range(SOCKETS - 1)]
            yield [listener, *copies]
    finally:
        if path is not None:
            _remove_stale(path)


def _listen(host: str, port: int) -> socket.socket:
    if not (host.startswith("fd:") and host[3:].isdecimal()):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::"
        )
    listener = socket.socket(fileno=int(host[3:]))
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError("not a listening socket")
    return listener


def _listen_unix(path: Path) -> socket.socket:
    _remove_stale(path)
    with socket.socket(socket.AF_UNIX) as listener:  # The copy stays open.
        listener.bind(str(path))
        path.chmod(UNIX_MODE)  # Before `listen`, when nobody can connect.
        listener.listen(BACKLOG)
        return listener.dup()


def _remove_stale(path: Path) -> None:
    """Remove the file of a Unix socket on which no process listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        if path.is_socket() and probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink(missing_ok=True)
