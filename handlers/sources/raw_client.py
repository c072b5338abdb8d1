"""Send requests to one origin on aiohttp's connections, without aiohttp's parser and copies.

aiohttp still provides the pool, its limits, DNS, TLS and the connect timeout.
"""

import asyncio
import inspect
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import aiohttp
from yarl import URL

from .raw_exchange import RawExchange
from .response import RawResponse, pause_below_tls

_LOST_CONNECTION = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)

# The undocumented parts of aiohttp that connectors.py, raw_client.py and raw_exchange.py use. The
# three files import none of the parts, so that the files load where a part is missing.
_ATTRIBUTES = {
    "ClientRequest": "url",
    "StreamReader": "at_eof on_eof readany set_exception",
    "client_proto.ResponseHandler": (
        "__len__ abort close connection_lost data_received is_eof read should_close start_timeout"
    ),
    "connector.Connection": "close protocol release transport",
    "http_parser.RawResponseMessage": "code raw_headers",
}
_PARAMETERS = {
    "BaseConnector.connect": "self req traces timeout",
    "ClientRequest": "method url session loop",
    "client_proto.ResponseHandler.set_response_params": (
        "self skip_payload read_until_eof auto_decompress read_timeout read_bufsize"
    ),
}


class RawClient:
    """Sends requests to one origin on the connections of a session."""

    def __init__(
        self, session: aiohttp.ClientSession, origin: str, *, read_timeout: float
    ) -> None:
        self.session = session
        self._read_timeout = read_timeout
        self._loop = asyncio.get_running_loop()
        # aiobotocore's session does not limit the wait for a free connection and for DNS.
        sock_connect = session.timeout.sock_connect
        connect = session.timeout.connect or read_timeout + (sock_connect or 0)
        self._connect_timeout = aiohttp.ClientTimeout(connect=connect, sock_connect=sock_connect)
        # The connector reads only host, port and TLS from this request, so one object is enough.
        self._connect_request = aiohttp.ClientRequest(
            "GET", URL(origin), session=session, loop=self._loop
        )

    async def request(self, method: str, target: str, headers: Mapping[str, str]) -> RawResponse:
        """Send a GET or HEAD; raise aiohttp's exceptions, or ValueError for an invalid header.

        If the connection is lost before the first byte, the request is sent once more on another
        one (RFC 9112, 9.3.1): a server may close an idle connection just when it is used again.
        """
        request = _encode_request(method, target, headers)
        is_last = False
        while True:
            connection = await self._connect()
            exchange = RawExchange(connection, method, self._read_timeout, self._loop)
            try:
                return await exchange.send(request)
            except BaseException as error:
                exchange.close()
                if is_last or exchange.has_begun or not isinstance(error, _LOST_CONNECTION):
                    raise
                is_last = True

    async def _connect(self) -> Any:
        connector = self.session.connector
        if connector is None:
            raise RuntimeError("Session is closed")
        try:
            timeout = self._connect_timeout
            connection: Any = await connector.connect(self._connect_request, [], timeout)
        except TimeoutError as error:
            text = f"Connection timeout to host {self._connect_request.url}"
            raise aiohttp.ConnectionTimeoutError(text) from error
        pause_below_tls(connection.transport)
        return connection


def _encode_request(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = "".join(lines)
    if "\r" in text or "\n" in text or "\0" in text:  # A regular expression is slower.
        raise ValueError("a header of the request has a line break or NUL")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def missing_parts() -> list[str]:
    """Return the undocumented parts that this version of aiohttp no longer has."""
    missing = [
        f"{path}.{name}"
        for path, names in _ATTRIBUTES.items()
        for name in names.split()
        if not hasattr(_find(path), name)
    ]
    for path, names in _PARAMETERS.items():
        if not _accepts(_find(path), names.split()):
            missing.append(f"{path}({names.removeprefix('self ')})")
    return missing


def _find(path: str) -> Any:
    try:
        return attrgetter(path)(aiohttp)
    except AttributeError:
        return None


def _accepts(function: Any, names: list[str]) -> bool:
    """Return whether a function has these parameters and requires no others."""
    if function is None:
        return False
    parameters = inspect.signature(function).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ordinary = [one for one in parameters if one.kind not in variable]
    required = {one.name for one in ordinary if one.default is one.empty}
    return required <= set(names) <= {one.name for one in ordinary}
