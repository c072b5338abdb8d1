"""The S3 client, downspout's own or the host's, and presigned URLs that it makes."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ...errors import BadUpstream

_PAYER = "x-amz-request-payer"
_MARK = "downspout"


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
    client: S3Client, params: dict[str, str], lifetime: int, payer: str | None
) -> str:
    """Return the URL of a GetObject, valid for `lifetime` seconds; raise BadUpstream.

    `payer` is the value of x-amz-request-payer, or None. No request is sent, unless credentials
    must be fetched first.
    """
    events = client.meta.events
    events.register("before-parameter-build.s3.GetObject", _mark_ours, unique_id=_mark_ours)
    events.register("before-endpoint-resolution.s3", _keep_region, unique_id=_keep_region)
    events.register_first("choose-signer.s3.GetObject", _choose_v4, unique_id=_choose_v4)
    events.register("before-sign.s3.GetObject", _move_payer, unique_id=_move_payer)
    params = {**params, _MARK: "", **({"RequestPayer": payer} if payer else {})}
    try:
        url = await client.generate_presigned_url("get_object", Params=params, ExpiresIn=lifetime)
    except Exception as error:
        text = f"store: can't presign a URL: {type(error).__name__}: {error}"
        raise BadUpstream(text) from error
    if "X-Amz-Signature=" not in url:
        raise BadUpstream("store: can't presign a URL: the S3 client lacks a key or Signature V4")
    return url


def _mark_ours(params: dict[str, str], context: dict[str, Any], **_: object) -> None:
    """Mark a URL of ours, and presign for the regional host, as botocore does for requests.

    s3.amazonaws.com serves no regions opened since 2019, and for others it may redirect to a host
    for which the signature is invalid (boto/boto3#3015).
    """
    if _MARK in params:
        context[_MARK] = params.pop(_MARK)
        context["use_global_endpoint"] = False


def _keep_region(builtins: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    """Sign for the region that a redirect has told; botocore uses it for the host alone."""
    if _MARK in context and (region := builtins["AWS::Region"]) != "aws-global":
        context["signing"] = {"region": region}


def _choose_v4(signature_version: object, context: dict[str, Any], **_: object) -> str | None:
    """Use Signature V4: by default botocore presigns with V2, which S3 rejects in new buckets."""
    is_ours = _MARK in context and signature_version in ("v4-query", "s3v4-query")
    return "s3v4-query" if is_ours else None


def _move_payer(request: Any, **_: object) -> None:
    """Move x-amz-request-payer of a presigned URL to its query: a browser sends no such header."""
    if _MARK in request.context and _PAYER in request.headers:
        request.params[_PAYER] = request.headers[_PAYER]
        del request.headers[_PAYER]
