"""The outgoing HTTP proxies of the environment, for downspout's own HTTP session."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from ..errors import BadUpstream


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies in HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as botocore reads them for the store.

    aiohttp's own way (`trust_env`) would read credentials from .netrc, too.
    """

    by_scheme: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environ(cls) -> Self:
        """Read the variables."""
        return cls(getproxies())

    def proxy_for(self, url: URL) -> str | None:
        """Return the URL of the proxy for a request to `url`, or None; raise BadUpstream."""
        proxy = self.by_scheme.get(url.scheme)
        if not proxy or proxy_bypass(url.raw_authority.rpartition("@")[2]):
            return None
        if "://" not in proxy:
            return f"http://{proxy}"
        if not proxy.lower().startswith(("http://", "https://")):
            name = f"{url.scheme.upper()}_PROXY"
            raise BadUpstream(f"{name}: must be an http:// or https:// URL; fix or unset it")
        return proxy
