"""ClientRateGuard: a byte count that goes up and down, and a client that slows down."""

from __future__ import annotations

import pytest

from handlers.download.client_rate import KERNEL, SERVER_ONLY, BufferVisibility, ClientRateGuard

KIB = 1024


def second_of_too_slow(guard: ClientRateGuard, counts: list[int]) -> int | None:
    """Return the second in which the guard reports a client as too slow, or None."""
    for second, count in enumerate(counts):
        if guard.is_too_slow(count, second):
            return second
    return None


@pytest.mark.parametrize("visibility", [KERNEL, SERVER_ONLY])
@pytest.mark.parametrize("min_rate", [0, 1024])
@pytest.mark.parametrize("wobble", [1, 10 * KIB])
def test_stalled_client_with_varying_count_is_too_slow_at_the_same_time(
    visibility: BufferVisibility, min_rate: int, wobble: int
) -> None:
    """A count that goes up and down does not change when a stalled client is too slow."""
    # The bytes sent and the bytes in buffers are read one after the other:
    # their difference varies.
    stands = [64 * KIB] * 200
    wobbles = [64 * KIB - wobble * (second % 2) for second in range(200)]
    expected, found = (
        second_of_too_slow(
            ClientRateGuard(stall=30, min_rate=min_rate, visibility=visibility), counts
        )
        for counts in (stands, wobbles)
    )
    assert found == expected is not None


def test_client_at_min_rate_with_varying_count_is_never_too_slow() -> None:
    """A count that sometimes goes back does not make a fast enough client too slow."""
    counts = [second * 2048 - 1500 * (second % 2) for second in range(2000)]
    assert (
        second_of_too_slow(ClientRateGuard(stall=30, min_rate=1024, visibility=KERNEL), counts)
        is None
    )


def test_client_below_min_rate_after_fast_start_is_too_slow() -> None:
    """The rate is measured over recent time, not from the beginning of the download."""
    fast = [second * 2048 for second in range(600)]
    drips = [fast[-1] + second * 10 for second in range(1, 600)]
    guard = ClientRateGuard(stall=30, min_rate=1024, visibility=KERNEL)
    too_slow_at = second_of_too_slow(guard, fast + drips)
    assert too_slow_at is not None
    assert 600 < too_slow_at < 600 + 2 * 2 * (30 + 1) + 10
