"""When the credentials of botocore's chain are fetched, by a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError

from handlers.errors import BadUpstream
from handlers.sources.s3 import credentials
from handlers.sources.s3.credentials import REFRESH_SECONDS, RETRY_SECONDS, RenewedCredentials


@dataclass
class Provider:
    """A provider of credentials, and the clock."""

    now: float = 1000.0
    key: str | None = "key 1"
    lifetime: float = 890.0
    error: Exception | None = None
    is_hanging: bool = False
    loads: int = 0
    fetches: int = 0

    def monotonic(self) -> float:
        return self.now

    async def load(self) -> Any:
        self.loads += 1
        if self.error:
            raise self.error
        return Source(self) if self.key else None


@dataclass
class Source:
    """botocore's credentials object: it asks the provider in its last 15 minutes."""

    provider: Provider
    expires_at: float = float("-inf")

    def refresh_needed(self, refresh_in: float | None = None) -> bool:
        seconds = 900 if refresh_in is None else refresh_in
        return self.expires_at - self.provider.now < seconds

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        provider = self.provider
        provider.fetches += 1
        if provider.is_hanging:
            await asyncio.Event().wait()
        if provider.error:
            raise provider.error
        self.expires_at = provider.now + provider.lifetime
        return ReadOnlyCredentials(provider.key, "secret", None)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    """Return a provider whose clock is the one of the code under test."""
    provider = Provider()
    monkeypatch.setattr(credentials, "time", provider)
    return provider


@pytest.fixture
async def renewed(provider: Provider) -> AsyncIterator[RenewedCredentials]:
    """Return credentials of the provider."""
    found = RenewedCredentials(provider.load, lambda: False)
    yield found
    await found.aclose()


async def get_key(renewed: RenewedCredentials) -> str:
    """Return the current access key; let a fetch that has been started go on."""
    async with asyncio.timeout(10):
        key = (await renewed.get_frozen_credentials()).access_key
    for _ in range(10):
        await asyncio.sleep(0)
    return key


async def test_short_sessions_are_refreshed_once_a_minute(
    provider: Provider, renewed: RenewedCredentials
) -> None:
    """Within botocore's last 15 minutes the provider is asked once in REFRESH_SECONDS."""
    await renewed.start()
    for _ in range(100):
        assert await get_key(renewed) == "key 1"
    assert provider.fetches == 1
    provider.now += REFRESH_SECONDS
    provider.key = "key 2"
    assert await get_key(renewed) == "key 1"  # It does not wait.
    assert await get_key(renewed) == "key 2"
    assert provider.fetches == 2


async def test_last_minute_is_refreshed_beside_the_requests(
    provider: Provider, renewed: RenewedCredentials
) -> None:
    """Before the credentials expire, the provider is asked even if it was asked just now."""
    provider.lifetime = 30
    assert await get_key(renewed) == "key 1"
    provider.now += RETRY_SECONDS
    provider.key = "key 2"
    assert await get_key(renewed) == "key 1"
    assert await get_key(renewed) == "key 2"
    provider.lifetime, provider.key = 1, "key 3"
    provider.now += 31
    assert await get_key(renewed) == "key 3"
    provider.now += 1.5
    provider.key = "key 4"
    assert await get_key(renewed) == "key 4"  # The last fetch did not fail.


async def test_long_sessions_are_not_refreshed_early(
    provider: Provider, renewed: RenewedCredentials
) -> None:
    """Credentials with more than 15 minutes left are not fetched again."""
    provider.lifetime = 3600
    assert await get_key(renewed) == "key 1"
    provider.now += 2600
    assert await get_key(renewed) == "key 1"
    assert provider.fetches == 1
    provider.now += 200
    await get_key(renewed)
    assert provider.fetches == 2


async def test_hanging_provider_delays_no_request_with_valid_credentials(
    provider: Provider, renewed: RenewedCredentials
) -> None:
    """A fetch that hangs runs beside the requests, and no second one is started."""
    assert await get_key(renewed) == "key 1"
    provider.is_hanging = True
    for _ in range(10):
        provider.now += REFRESH_SECONDS
        assert await get_key(renewed) == "key 1"
    assert provider.fetches == 2
    provider.now += 900
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await renewed.get_frozen_credentials()


async def test_failing_provider_leaves_valid_credentials(
    provider: Provider, renewed: RenewedCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    """An error is logged, and raised only after the credentials have expired."""
    assert await get_key(renewed) == "key 1"
    provider.error = CredentialRetrievalError(provider="agent", error_msg="answer 500")
    provider.now += REFRESH_SECONDS
    assert await get_key(renewed) == "key 1"
    assert "AWS credentials: can't be renewed" in caplog.text
    provider.now += 900
    with pytest.raises(BadUpstream, match="answer 500"):
        await renewed.get_frozen_credentials()
    provider.error, provider.key = None, "key 2"
    with pytest.raises(BadUpstream, match="answer 500"):
        await renewed.get_frozen_credentials()
    provider.now += RETRY_SECONDS
    assert await get_key(renewed) == "key 2"


async def test_chain_without_credentials_is_run_once_in_some_seconds(
    provider: Provider, renewed: RenewedCredentials
) -> None:
    """Without credentials the chain runs at most once in RETRY_SECONDS, for all requests."""
    provider.key = None
    await renewed.start()
    for _ in range(2):
        results = await asyncio.gather(
            *(renewed.get_frozen_credentials() for _ in range(20)), return_exceptions=True
        )
        assert all(isinstance(result, BadUpstream) for result in results)
    assert provider.loads == 2
    provider.now += RETRY_SECONDS
    provider.key = "key 1"
    assert await get_key(renewed) == "key 1"
    assert provider.loads == 3


async def test_rejected_key_runs_the_chain_once_in_some_seconds(
    provider: Provider, renewed: RenewedCredentials
) -> None:
    """Many rejected requests run the chain once, and all learn whether the key changed."""
    assert await get_key(renewed) == "key 1"
    assert (
        await asyncio.gather(*(renewed.renew(renewed.current) for _ in range(20))) == [False] * 20
    )
    assert provider.loads == 2
    provider.key = "key 2"
    assert not await renewed.renew(renewed.current)
    provider.now += RETRY_SECONDS
    assert (
        await asyncio.gather(*(renewed.renew(renewed.current) for _ in range(20))) == [True] * 20
    )
    assert provider.loads == 3
    assert await get_key(renewed) == "key 2"


async def test_late_rejection_of_an_old_key_uses_the_new_one(
    provider: Provider, renewed: RenewedCredentials
) -> None:
    """A request that was signed before another one renewed the key is sent again at once."""
    await get_key(renewed)
    old = renewed.current
    provider.key = "key 2"
    assert await renewed.renew(old)
    assert await renewed.renew(old)
    assert provider.loads == 2


@pytest.mark.parametrize("is_gone", [True, False])
async def test_failing_chain_keeps_a_rejected_key(
    provider: Provider, renewed: RenewedCredentials, is_gone: bool
) -> None:
    """If the chain fails or finds nothing after a rejection, the current key stays in use."""
    assert await get_key(renewed) == "key 1"
    provider.key = None if is_gone else "key 1"
    provider.error = None if is_gone else OSError("no agent")
    assert not await renewed.renew(renewed.current)
    assert await get_key(renewed) == "key 1"


async def test_cancelled_request_does_not_cancel_the_fetch(
    provider: Provider, renewed: RenewedCredentials
) -> None:
    """A client that leaves does not end the fetch that other requests wait for."""
    first, second = (asyncio.create_task(renewed.get_frozen_credentials()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    assert (await second).access_key == "key 1"
    assert provider.fetches == 1


async def test_error_of_the_configuration_is_raised_at_start(
    provider: Provider, renewed: RenewedCredentials, caplog: pytest.LogCaptureFixture
) -> None:
    """`start` raises errors of the configuration, and logs one of a provider that is down."""
    provider.error = ValueError("unsupported host")
    with pytest.raises(ValueError, match="unsupported host"):
        await renewed.start()
    provider.error = CredentialRetrievalError(provider="agent", error_msg="answer 500")
    await renewed.start()
    assert "none found yet (CredentialRetrievalError" in caplog.text


async def test_unsent_request_needs_no_credentials(provider: Provider) -> None:
    """A request that is signed for its URL only does not wait for credentials."""
    unsent = RenewedCredentials(provider.load, lambda: True)
    assert (await unsent.get_frozen_credentials()).access_key == "placeholder"
    assert not provider.loads
