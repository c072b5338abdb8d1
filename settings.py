"""Settings of the process, and `load()`, which reads them and the application's from one place."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.settings import Settings
from handlers.variables import Checked, SettingsError, matching, setting, whole_number

__all__ = ["ServerSettings", "Settings", "SettingsError", "load"]


@dataclass(frozen=True, kw_only=True)
class ServerSettings(Checked):
    """What only the process needs: where and how it listens, and its log."""

    host: str = setting(
        "127.0.0.1",
        matching(r"[A-Za-z0-9.:_-]+", "must be an address or a host name", "0.0.0.0"),  # noqa: S104
    )
    """Address to listen on. The Procfile sets `0.0.0.0`."""
    port: int = setting(8000, whole_number(0, 65535))
    """Port to listen on; 0 takes a free one."""
    web_concurrency: int = setting(1, whole_number(1, 256))
    """Processes that serve. The limits of downloads and of memory hold for each of them."""
    forwarded_allow_ips: str = setting(
        "127.0.0.1,::1",
        matching(r"\*|[0-9A-Fa-f.:/, ]+", "must be * or addresses, separated by commas", "*"),
    )
    """Proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted; `*` trusts all."""
    log_format: str | None = setting(None, matching("text|json", "must be text or json"))
    """Format of log lines: `text` or `json`. Default: `text` on a terminal, else `json`."""
    log_level: str = setting(
        "info", matching("debug|info|warning|error", "must be debug, info, warning or error")
    )
    """Minimum log level. Successful downloads log at `info`."""


def load(environ: Mapping[str, str] = os.environ) -> tuple[Settings, ServerSettings]:
    """Read both kinds of settings; raises SettingsError with all problems of both."""
    problems: list[str] = []
    loaded: list[Any] = []
    for kind in (Settings, ServerSettings):
        try:
            loaded.append(kind.from_environ(environ))
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(problems)
    settings, server = loaded
    return settings, server
