"""Asks the application at AUTH_URL whether a download is allowed."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus

from .. import errors
from .http import RemoteBody
from .response import FIXED_HEADERS


@dataclass(frozen=True, slots=True)
class AuthClient:
    """Sends requests to AUTH_URL, on connections that no download uses."""

    application: RemoteBody
    timeout: float
    """Seconds until the application answers, with the wait for a connection."""

    async def ask(self, headers: dict[str, str]) -> None:
        """Return if the application answers 2xx to a GET with these headers.

        Raises NotAuthenticated for a 401, NotAuthorized for a 403, UpstreamTimeout, or BadUpstream
        for all else. The body of the answer is not read.
        """
        with ExitStack() as owner:
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await self.application.request(owner, "GET", headers | FIXED_HEADERS)
            except TimeoutError as error:
                text = f"AUTH_URL: no answer within {self.timeout:g} s"
                raise errors.UpstreamTimeout(text) from error
            except errors.DownloadError as error:
                raise type(error)(f"AUTH_URL: {error}") from error
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return
        kinds = {401: errors.NotAuthenticated, 403: errors.NotAuthorized}
        refusal = kinds.get(answer.status, errors.BadUpstream)(
            f"AUTH_URL answered {answer.status}"
        )
        challenge = answer.headers.get("www-authenticate", "")
        if (
            answer.status in kinds
            and challenge
            and challenge.isascii()
            and challenge.isprintable()
        ):
            refusal.headers["www-authenticate"] = challenge
        raise refusal
