"""The botocore session: AWS's configuration from the environment and from files."""

from collections.abc import Callable
from functools import partial
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore import UNSIGNED, exceptions
from botocore.session import Session

from ...kinds import TLS_VERIFY
from ...settings import Settings
from .credentials import RenewedCredentials

# In the form of botocore's own variables: name in the profile, environment, default, conversion.
_VARIABLES = {"requests_ca_bundle": (None, "REQUESTS_CA_BUNDLE", None, None)}


def chain_problem() -> str | None:
    """Return the text of the error in botocore's configuration files or profile, or None."""
    try:
        Session().get_scoped_config()
    except exceptions.BotoCoreError as error:
        return str(error)
    return None


def create_session(
    settings: Settings, *, is_unsent: Callable[[], bool]
) -> tuple[AioSession, RenewedCredentials | None]:
    """Return a session and the credentials of its clients; None if they are not needed.

    `is_unsent` returns whether the request that asks for credentials will not be sent.
    """
    session = AioSession(_VARIABLES)
    key_id, secret = settings.aws_access_key_id, settings.aws_secret_access_key
    if key_id and secret:
        session.set_credentials(key_id, secret, settings.aws_session_token)
        return session, None
    if settings.s3_unsigned:
        return session, None
    chain = RenewedCredentials(partial(_load_chain, settings.s3_region), is_unsent)
    session.register_component("credential_provider", chain)
    return session, chain


async def _load_chain(region: str | None) -> Any:
    """Return botocore's credentials from its chain, or None; requests to STS use `region`.

    A session remembers the files that it has read; a new one reads them again.
    """
    session = get_session()
    if region:
        session.set_config_variable("region", region)
    return await session.get_credentials()


def create_client(settings: Settings, session: AioSession, **pool: Any) -> Any:
    """Return a context manager that opens an S3 client; `pool` are arguments of AioConfig."""
    style = settings.s3_addressing_style or ("path" if settings.s3_endpoint_url else "auto")
    config = AioConfig(
        # Many S3-compatible stores support neither newer signatures nor S3's checksums.
        signature_version=UNSIGNED if settings.s3_unsigned else "s3v4",
        response_checksum_validation="when_required",
        request_checksum_calculation="when_required",
        s3={"addressing_style": style},
        connect_timeout=settings.upstream_connect_timeout,
        read_timeout=settings.upstream_read_timeout,
        retries={"mode": "standard", "total_max_attempts": 1},  # RetryPolicy retries.
        # Read botocore's data files in a thread, not on the event loop (aiobotocore#1023).
        warm_up_loader_caches=True,
        **pool,
    )
    return session.create_client(
        "s3",
        region_name=settings.s3_region,
        endpoint_url=settings.s3_endpoint_url,
        verify=_tls_verify(settings, session),
        config=config,
    )


def _tls_verify(settings: Settings, session: AioSession) -> bool | str:
    """Return AWS_TLS_VERIFY, else the CA bundle that every AWS tool uses, else True."""
    if settings.s3_tls_verify is not None:
        return settings.s3_tls_verify
    found = map(session.get_config_variable, ("ca_bundle", "requests_ca_bundle"))
    bundle = next((path for path in found if path), True)
    try:
        TLS_VERIFY.check(bundle)
    except ValueError:
        raise exceptions.InvalidConfigError(
            error_msg="AWS_CA_BUNDLE, the profile's ca_bundle or REQUESTS_CA_BUNDLE must be the "
            "path of a readable CA bundle"
        ) from None
    return bundle
