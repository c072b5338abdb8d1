"""Stalled and dripping clients told from slow ones, in made-up time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.download.client_rate import KERNEL, SERVER_ONLY, BufferVisibility, ClientRateGuard

KIB = 1024


def given_up_after(pace: ClientRateGuard, taken: list[int]) -> int | None:
    """Return the second in which a client is given up that has taken so much by each second."""
    for second, so_far in enumerate(taken):
        if pace.is_too_slow(so_far, second):
            return second
    return None


def make_guard(
    *, stall: float = 30, min_rate: int = 1024, visibility: BufferVisibility = KERNEL
) -> ClientRateGuard:
    return ClientRateGuard(stall=stall, min_rate=min_rate, visibility=visibility)


def test_client_that_takes_nothing_is_given_up_after_the_stall() -> None:
    """What its kernel took at first, in a buffer of the usual size, changes nothing."""
    assert given_up_after(make_guard(), [64 * KIB] * 100) == 32


def test_client_that_stalls_later_is_given_up_after_its_step() -> None:
    """It may have taken a step of 50 KiB, which a slow one needs 50 s for."""
    moving = [n * 50 * KIB for n in range(50)]
    assert given_up_after(make_guard(), moving + moving[-1:] * 100) == 49 + 52


def test_dripping_client_is_given_up() -> None:
    """Some bytes every second are not enough when they are too few."""
    assert given_up_after(make_guard(), [n * 100 for n in range(100)]) == 63


def test_client_at_the_rate_is_served_to_the_end() -> None:
    """Who takes the minimum rate is never given up."""
    assert given_up_after(make_guard(), [n * 1024 for n in range(10_000)]) is None


def test_waiting_is_what_counts() -> None:
    """An upstream that is silent, or slow, is no slow client."""
    pace = make_guard()
    for second in range(1000):
        assert not pace.is_too_slow(second, second)
        if second % 20 == 0:
            pace.rest()


@pytest.mark.parametrize(("visibility", "most"), [(KERNEL, 602), (SERVER_ONLY, 602)])
def test_client_that_was_fast_is_not_waited_for_without_end(
    visibility: BufferVisibility, most: int
) -> None:
    """However much was taken at once, ten minutes without a byte are enough."""
    assert given_up_after(make_guard(visibility=visibility), [10**12] * 10_000) == most


def test_no_minimum_rate_leaves_the_stall() -> None:
    """A rate of 0 is none: any byte counts as taking."""
    pace = make_guard(min_rate=0)
    assert given_up_after(pace, [n // 25 for n in range(1000)]) is None
    assert given_up_after(make_guard(min_rate=0), [5] * 1000) == 32


@settings(deadline=None)  # it goes through days, second by second
@given(
    visibility=st.sampled_from([KERNEL, SERVER_ONLY]),
    buffer=st.integers(min_value=1, max_value=600 << 10),
    rate=st.integers(min_value=1024, max_value=10**7),
    stall=st.integers(min_value=1, max_value=100),
)
def test_client_above_the_rate_is_never_given_up(
    visibility: BufferVisibility, buffer: int, rate: int, stall: int
) -> None:
    """Whatever the size of its buffer, and so of its steps, a slow client is served."""
    step = max(int(buffer * visibility.step), 1)
    seconds = range(int(20 * (step / rate + stall)) + 2)
    taken = [buffer + step * int(second * rate / step) for second in seconds]
    assert all(b >= a for a, b in pairwise(taken))
    assert given_up_after(make_guard(stall=stall, visibility=visibility), taken) is None
