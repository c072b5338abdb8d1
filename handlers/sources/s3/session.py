"""The botocore session: AWS's configuration from the environment and from files."""

from collections.abc import Callable
from functools import partial
from typing import Any

from aiobotocore.session import AioSession, get_session
from botocore import exceptions
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
    """Return a session and the credentials of its clients; None if the settings have the key.

    `is_unsent` returns whether the request that asks for credentials will not be sent.
    """
    session = AioSession(_VARIABLES)
    key_id, secret = settings.aws_access_key_id, settings.aws_secret_access_key
    if key_id and secret:
        session.set_credentials(key_id, secret, settings.aws_session_token)
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


def tls_verify(settings: Settings, session: AioSession) -> bool | str:
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
