"""The S3 client, downspout's own or the host's, and presigned URLs that it makes."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ...errors import BadUpstream

_PAYER = "x-amz-request-payer"


class S3Client(Protocol):
    """An entered S3 client; types-aiobotocore-s3's S3Client is one for a type checker."""

    @property
    def get_object(self) -> Callable[..., Awaitable[Any]]:
        """Send a GetObject."""

    @property
    def head_object(self) -> Callable[..., Awaitable[Any]]:
        """Send a HeadObject."""

    @property
    def generate_presigned_url(self) -> Callable[..., Awaitable[str]]:
        """Return a presigned URL."""

    @property
    def meta(self) -> Any:
        """The client's event handlers, in `meta.events`."""


async def presign_get(
    client: S3Client, parameters: dict[str, str], lifetime: int, payer: str | None
) -> str:
    """Return the URL of a GetObject, valid for `lifetime` seconds; raise BadUpstream.

    `payer` is the value of x-amz-request-payer, or None. Only a client that fetches credentials
    sends a request.
    """
    if payer:
        parameters = {**parameters, "RequestPayer": payer}
        events = client.meta.events
        events.register("before-sign.s3.GetObject", _move_payer, unique_id="downspout payer")
    try:
        return await client.generate_presigned_url(
            "get_object", Params=parameters, ExpiresIn=lifetime
        )
    except Exception as error:
        text = f"store: can't presign a URL: {type(error).__name__}: {error}"
        raise BadUpstream(text) from error


def _move_payer(request: Any, signature_version: object, **_: object) -> None:
    """Move x-amz-request-payer of a presigned URL to its query: a browser sends no such header."""
    if str(signature_version).endswith("-query") and _PAYER in request.headers:
        request.params[_PAYER] = request.headers[_PAYER]
        del request.headers[_PAYER]
