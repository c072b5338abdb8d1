"""ClientRateGuard: stalled and too slow clients, with simulated time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.download.client_rate import KERNEL, SERVER_ONLY, BufferVisibility, ClientRateGuard

KIB = 1024


def second_of_too_slow(guard: ClientRateGuard, taken: list[int]) -> int | None:
    """Return the second in which the guard reports a client as too slow, or None."""
    for second, so_far in enumerate(taken):
        if guard.is_too_slow(so_far, second):
            return second
    return None


def make_guard(
    *, stall: float = 30, min_rate: int = 1024, visibility: BufferVisibility = KERNEL
) -> ClientRateGuard:
    return ClientRateGuard(stall=stall, min_rate=min_rate, visibility=visibility)


def test_client_without_progress_is_too_slow_after_stall() -> None:
    """A client that takes only the first buffer is too slow after the stall timeout."""
    assert second_of_too_slow(make_guard(), [64 * KIB] * 100) == 32


def test_client_stalling_later_is_too_slow_after_its_step() -> None:
    """A client that stalls after a 50 KiB step may take 50 s for the step."""
    moving = [n * 50 * KIB for n in range(50)]
    assert second_of_too_slow(make_guard(), moving + moving[-1:] * 100) == 49 + 52


def test_client_below_min_rate_is_too_slow() -> None:
    """A client that takes some bytes each second, but below the minimum rate, is too slow."""
    assert second_of_too_slow(make_guard(), [n * 100 for n in range(100)]) == 63


def test_client_at_min_rate_is_never_too_slow() -> None:
    """A client at the minimum rate is never too slow."""
    assert second_of_too_slow(make_guard(), [n * 1024 for n in range(10_000)]) is None


def test_silent_upstream_does_not_make_client_too_slow() -> None:
    """Time without bytes to send does not count against the client."""
    guard = make_guard()
    for second in range(1000):
        assert not guard.is_too_slow(second, second)
        if second % 20 == 0:
            guard.rest()


@pytest.mark.parametrize(("visibility", "most"), [(KERNEL, 602), (SERVER_ONLY, 602)])
def test_client_stalling_after_fast_start_is_too_slow_in_ten_minutes(
    visibility: BufferVisibility, most: int
) -> None:
    """After any large step, ten minutes without a byte are too slow."""
    assert second_of_too_slow(make_guard(visibility=visibility), [10**12] * 10_000) == most


def test_min_rate_0_keeps_the_stall_timeout() -> None:
    """With a minimum rate of 0, only a stall makes a client too slow."""
    guard = make_guard(min_rate=0)
    assert second_of_too_slow(guard, [n // 25 for n in range(1000)]) is None
    assert second_of_too_slow(make_guard(min_rate=0), [5] * 1000) == 32


@settings(deadline=None)  # one call per second for simulated days
@given(
    visibility=st.sampled_from([KERNEL, SERVER_ONLY]),
    buffer=st.integers(min_value=1, max_value=600 << 10),
    rate=st.integers(min_value=1024, max_value=10**7),
    stall=st.integers(min_value=1, max_value=100),
)
def test_client_above_min_rate_is_never_too_slow(
    visibility: BufferVisibility, buffer: int, rate: int, stall: int
) -> None:
    """A client above the minimum rate is never too slow, with any size of its buffer."""
    step = max(int(buffer * visibility.step), 1)
    seconds = range(int(20 * (step / rate + stall)) + 2)
    taken = [buffer + step * int(second * rate / step) for second in seconds]
    assert all(b >= a for a, b in pairwise(taken))
    assert second_of_too_slow(make_guard(stall=stall, visibility=visibility), taken) is None
