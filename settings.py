"""Settings of the process: host, port, workers, trusted proxies, log, and the application's."""

from dataclasses import dataclass

from handlers.kinds import matching, whole_number
from handlers.settings import Settings, SettingsError, setting

__all__ = ["ServerSettings", "Settings", "SettingsError"]

LOG_LEVEL = matching("debug|info|warning|error", "must be debug, info, warning or error")
PROXIES = matching(r"\*|[0-9A-Fa-f.:/, ]+", "must be * or addresses, separated by commas", "*")


@dataclass(frozen=True, kw_only=True)
class ServerSettings(Settings):
    """The settings of the application, and those that only `python service.py` uses."""

    env_file: str | None = setting(None, matching(".+", "must be the path of a file"))
    """File of `NAME=VALUE` lines, as for `docker --env-file`; variables of the environment win."""
    host: str = setting(
        "127.0.0.1",
        matching(r"unix:.+|[A-Za-z0-9.:_-]+", "must be an address, a name, unix:/path or fd:3"),
    )
    """Address to listen on, `unix:/path` for a Unix socket (mode 0660), or `fd:3` for an inherited
    listening socket. The Procfile sets `0.0.0.0`."""
    port: int = setting(8000, whole_number(0, 65535))
    """Port to listen on, if HOST is an address; 0 takes a free one."""
    web_concurrency: int = setting(1, whole_number(1, 256))
    """Number of worker processes. Each has its own limits of downloads and read-ahead memory."""
    forwarded_allow_ips: str = setting("127.0.0.1,::1", PROXIES)
    """Proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted; `*` trusts all."""
    # Heroku keeps idle connections for 90 s, nginx for 60 and 75 s. If the service closed one
    # first, a request that the router has just sent on it would be lost.
    keep_alive_timeout: int = setting(95, whole_number(1, 7200))
    """Seconds that an idle connection stays open; more than the router keeps it."""
    log_format: str | None = setting(None, matching("text|json", "must be text or json"))
    """Format of log lines: `text` or `json`. Default: `text` on a terminal, else `json`."""
    log_level: str = setting("info", LOG_LEVEL)
    """Minimum log level. Successful downloads log at `info`."""
