"""Probes: whether this aiohttp has the undocumented parts that the raw client uses."""

import inspect
from collections.abc import Callable
from typing import Any

from aiohttp import BaseConnector, ClientRequest, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

_ATTRIBUTES: dict[type, tuple[str, ...]] = {
    Connection: ("close", "protocol", "release", "transport"),
    ResponseHandler: (
        "__len__",
        "connection_lost",
        "data_received",
        "is_eof",
        "read",
        "should_close",
        "start_timeout",
    ),
    StreamReader: ("at_eof", "on_eof", "readany", "set_exception"),
}

_CALLS: dict[Callable[..., Any], tuple[str, ...]] = {
    BaseConnector.connect: ("req", "traces", "timeout"),
    ClientRequest: ("method", "url", "session", "loop"),
    ResponseHandler.set_response_params: (
        "skip_payload",
        "read_until_eof",
        "auto_decompress",
        "read_timeout",
        "read_bufsize",
    ),
}


def missing_raw_client_parts() -> list[str]:
    """Return the parts of aiohttp that the raw client needs and this version lacks."""
    attributes = [(owner, name) for owner, names in _ATTRIBUTES.items() for name in names]
    parameters = [(call, name) for call, names in _CALLS.items() for name in names]
    return [
        *(f"{owner.__name__}.{name}" for owner, name in attributes if not hasattr(owner, name)),
        *(
            f"{call.__qualname__}({name})"
            for call, name in parameters
            if name not in inspect.signature(call).parameters
        ),
    ]
