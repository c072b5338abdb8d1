"""Asks the application at AUTH_URL whether a download is allowed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

from .. import errors
from .errors import translate_error
from .http import exact_url
from .proxies import Proxies
from .response import FIXED_HEADERS

_VALID_VALUE = re.compile(r"[\x21-\x7e][\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class AuthClient:
    """Sends requests to AUTH_URL, on connections that no download uses."""

    session: aiohttp.ClientSession
    url: str
    timeout: float
    """Seconds until the application answers, with the wait for a connection."""

    proxies: Proxies = field(default_factory=Proxies)

    async def ask(self, headers: Sequence[tuple[str, str]]) -> None:
        """Return if the application answers 2xx to a GET with these headers.

        Raises NotAuthenticated for a 401, NotAuthorized for a 403, BadUpstream for other answers,
        UpstreamFailed and UpstreamTimeout. The body of the answer is not read.
        """
        try:
            url = exact_url(self.url)
            response = await self.session.get(
                url,
                headers=[*headers, *FIXED_HEADERS.items()],
                proxy=self.proxies.proxy_for(url),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self.timeout),
            )
        except errors.DownloadError:
            raise
        except Exception as error:
            # Don't log the text: it may contain the URL.
            text = f"AUTH_URL: {type(error).__name__}"
            raise translate_error(error, self.session, self.url, text) from error
        response.release()  # It keeps the connection if the answer has no body, else closes it.
        if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            return
        challenges = [
            value
            for value in response.headers.getall("www-authenticate", [])
            if _VALID_VALUE.fullmatch(value)
        ]
        raise _refusal(response.status, ", ".join(challenges))


def _refusal(status: int, challenge: str) -> errors.DownloadError:
    text = f"AUTH_URL answered {status}"
    if status == HTTPStatus.UNAUTHORIZED:
        refusal: errors.DownloadError = errors.NotAuthenticated(text)
    elif status == HTTPStatus.FORBIDDEN:
        refusal = errors.NotAuthorized(text)
    else:
        return errors.BadUpstream(text)
    if challenge:
        refusal.headers["www-authenticate"] = challenge
    return refusal
