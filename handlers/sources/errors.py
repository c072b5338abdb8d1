"""Translate exceptions of aiohttp and error statuses of an upstream into DownloadError."""

from http import HTTPStatus

import aiohttp
from yarl import URL

from .. import errors

ERROR_BY_STATUS: dict[int, type[errors.DownloadError]] = {
    HTTPStatus.TOO_MANY_REQUESTS: errors.UpstreamBusy,
    HTTPStatus.SERVICE_UNAVAILABLE: errors.UpstreamBusy,
    HTTPStatus.INTERNAL_SERVER_ERROR: errors.UpstreamFailed,
    HTTPStatus.BAD_GATEWAY: errors.UpstreamFailed,
    HTTPStatus.GATEWAY_TIMEOUT: errors.UpstreamTimeout,
}
"""The errors for statuses that have one meaning, whichever upstream sends them."""


def translate_error(
    error: Exception, session: aiohttp.ClientSession, url: str, text: str
) -> errors.DownloadError:
    """Return the DownloadError for an exception before the body; `text` is for the log.

    `url` is that of the request, or its origin.
    """
    is_silence = isinstance(error, errors.BrokenTransfer) and error.outcome == "upstream_timeout"
    if is_silence or isinstance(error, TimeoutError):
        return errors.UpstreamTimeout(text)
    if isinstance(error, aiohttp.ClientConnectionError | errors.BrokenTransfer | OSError):
        close_idle(session, url, error)
        return errors.UpstreamFailed(text)
    # aiohttp raises ValueError and others, too, for responses that it can't parse.
    return errors.BadUpstream(text)


def close_idle(session: aiohttp.ClientSession, url: str, error: Exception) -> None:
    """Close the idle connections to the origin of `url` after `error` on one that was reused.

    A NAT router that has forgotten the connections drops their packets. Each retry would use one
    more dead connection, until no retry is left.
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        return  # A new connection failed, so no idle one was left.
    origin = URL(url)
    target = (origin.host, origin.port, origin.scheme == "https")
    # aiohttp has no public method for it. Without `_conns`, each dead connection costs a retry.
    for key, connections in getattr(session.connector, "_conns", {}).items():
        if (key.host, key.port, key.is_ssl) == target:
            for protocol, _ in connections:
                protocol.close()
