"""Probes of the undocumented parts of aiohttp that the raw client uses."""

import inspect
from collections.abc import Callable
from typing import Any

from aiohttp import BaseConnector, ClientRequest, StreamReader
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

_ATTRIBUTES: dict[type, str] = {
    Connection: "close protocol release transport",
    ResponseHandler: "connection_lost data_received is_eof read should_close start_timeout",
    StreamReader: "at_eof on_eof readany set_exception",
}
_PARAMETERS: dict[Callable[..., Any], str] = {
    BaseConnector.connect: "req traces timeout",
    ClientRequest: "method url session loop",
    ResponseHandler.set_response_params: (
        "skip_payload read_until_eof auto_decompress read_timeout read_bufsize"
    ),
}


def missing_raw_client_parts() -> list[str]:
    """Return the attributes and parameters that this version of aiohttp lacks."""
    missing = [
        f"{owner.__name__}.{name}"
        for owner, names in _ATTRIBUTES.items()
        for name in names.split()
        if not hasattr(owner, name)
    ]
    for function, names in _PARAMETERS.items():
        parameters = inspect.signature(function).parameters
        absent = [name for name in names.split() if name not in parameters]
        missing += [f"{function.__qualname__}({name})" for name in absent]
    return missing
