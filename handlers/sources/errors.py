"""Errors of aiohttp and error statuses of an upstream, translated into DownloadError."""

from http import HTTPStatus

import aiohttp

from ..errors import (
    BadUpstream,
    BrokenTransfer,
    DownloadError,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamTimeout,
)

ERROR_BY_STATUS: dict[int, type[DownloadError]] = {
    HTTPStatus.TOO_MANY_REQUESTS: UpstreamBusy,
    HTTPStatus.SERVICE_UNAVAILABLE: UpstreamBusy,
    HTTPStatus.INTERNAL_SERVER_ERROR: UpstreamFailed,
    HTTPStatus.BAD_GATEWAY: UpstreamFailed,
    HTTPStatus.GATEWAY_TIMEOUT: UpstreamTimeout,
}
"""Statuses that mean the same from every upstream."""


def translate_error(error: Exception, session: aiohttp.ClientSession, text: str) -> DownloadError:
    """Return the DownloadError for an error before the body, with `text` for the log."""
    is_silence = isinstance(error, BrokenTransfer) and error.outcome == "upstream_timeout"
    if is_silence or isinstance(error, TimeoutError):
        return UpstreamTimeout(text)
    if isinstance(error, aiohttp.ClientConnectionError | BrokenTransfer | OSError):
        close_idle(session)
        return UpstreamFailed(text)
    # aiohttp raises ValueError and others, too, for responses that it can't parse.
    return BadUpstream(text)


def close_idle(session: aiohttp.ClientSession) -> None:
    """Close a session's idle connections, after one of its connections was found dead.

    A router that has forgotten the connections drops their packets. aiohttp itself tries only one
    more idle connection, so the remaining ones would outlast every retry.
    """
    # No public way exists. Without this private attribute, each idle connection costs a retry.
    for connections in getattr(session.connector, "_conns", {}).values():
        for protocol, _ in connections:
            protocol.close()
