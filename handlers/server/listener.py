"""The listening socket: a TCP port, a Unix socket (unix:/path), or an inherited one (fd:3)."""

import errno
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BACKLOG = 2048
UNSENT_BYTES = 128 * 1024
UNIX_UMASK = 0o117  # A Unix socket gets mode 0660: its user and its group may connect.

PORT_HINTS = {
    errno.EADDRINUSE: "another process uses this port; stop it, or set PORT to another",
    errno.EACCES: "this user may not use this port; set PORT to 1024 or more",
}
HOST_HINT = (
    "HOST must be an address or a name of this machine; conda and csh set HOST to something else; "
    "set it to 127.0.0.1 or 0.0.0.0, or unset it"
)
UNIX_HINTS = {
    errno.EADDRINUSE: "another process listens on this socket; stop it, or set HOST to another",
    errno.EEXIST: "the path is not a socket; remove it, or set HOST to another",
    errno.ENOENT: "create the directory, or set HOST to a socket in another",
    errno.ENOTDIR: "the path goes through a file; set HOST to a socket in a directory",
    errno.EACCES: "this user may not write there; set HOST to a socket in another directory",
}
UNIX_HINT = "set HOST to unix: and a shorter path in an existing directory"
FD_HINT = "HOST=fd:3 needs a listening stream socket that is open as descriptor 3 (systemd.socket)"


class CannotListen(OSError):
    """The text names HOST, the problem and the next step."""


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that listens on HOST and PORT, and close it; raises CannotListen.

    The end removes a Unix socket's file, unless another process has replaced it.
    """
    path = Path(host.removeprefix("unix:")) if host.startswith("unix:") else None
    where, hints, hint = f"HOST {host}, PORT {port}", PORT_HINTS, HOST_HINT
    try:
        if path is not None:
            where, hints, hint = f"HOST {host}", UNIX_HINTS, UNIX_HINT
            listener = _listen_unix(path)
        elif re.fullmatch("fd:[0-9]+", host):
            where, hints, hint = f"HOST {host}", {}, FD_HINT
            listener = _inherit(int(host.removeprefix("fd:")))
        else:
            listener = _listen_tcp(host, port)
    except OSError as error:
        text = f"can't listen on {where}: {error}: {hints.get(error.errno or 0, hint)}"
        raise CannotListen(text) from error
    try:
        yield listener
    finally:
        listener.close()
        with suppress(OSError):
            if path is not None:
                _remove_stale(path)


def _listen_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = (host, port)
    return _limit_unsent(
        socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=host == "::")
    )


def _limit_unsent(listener: socket.socket) -> socket.socket:
    # Limit the unsent bytes that the kernel buffers per accepted connection, by default megabytes:
    # the service has fetched them in vain if the client leaves. A Unix socket has 208 KiB.
    if hasattr(socket, "TCP_NOTSENT_LOWAT") and listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return listener


def _listen_unix(path: Path) -> socket.socket:
    """Return a listening Unix socket; replace the file of a process that has ended."""
    listener = socket.socket(socket.AF_UNIX)
    umask = os.umask(UNIX_UMASK)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(umask)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket file on which no process listens; raises FileExistsError for other files."""
    # If the queue of connections is full, connect raises BlockingIOError: a process listens.
    with suppress(FileNotFoundError, BlockingIOError), socket.socket(socket.AF_UNIX) as probe:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _inherit(descriptor: int) -> socket.socket:
    """Return the listening socket that the parent process has opened as `descriptor`."""
    listener = socket.socket(fileno=descriptor)
    is_stream = listener.type == socket.SOCK_STREAM
    if not is_stream or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise OSError(errno.EINVAL, "not a listening socket")
    return _limit_unsent(listener)
