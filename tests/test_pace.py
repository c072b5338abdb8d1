"""Dead and dripping clients told from slow ones, in made-up time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from handlers._pace import MAX_BUFFERED, Pace

KIB = 1024


def took(pace: Pace, size: int, *, at: float, seconds: float) -> None:
    pace.hand_over(size, at)
    pace.taken(at + seconds)


def test_message_that_is_taken_at_once_is_never_too_slow() -> None:
    """A client that keeps up is left alone, however long its download takes."""
    pace = Pace(stall=30, min_rate=1024)
    for second in range(1000):
        took(pace, 100 * KIB, at=second, seconds=0)
        assert not pace.is_too_slow(second + 0.9)


def test_client_that_takes_nothing_is_too_slow_after_the_stall() -> None:
    """What lies in small buffers makes no difference to a stalled client."""
    pace = Pace(stall=30, min_rate=1024)
    pace.hand_over(10 * KIB, 0)
    assert not pace.is_too_slow(29)
    assert pace.is_too_slow(31)


def test_silent_upstream_is_no_slow_client() -> None:
    """While nothing is handed over, nothing is waited for."""
    pace = Pace(stall=30, min_rate=1024)
    took(pace, KIB, at=0, seconds=29)
    assert not pace.is_too_slow(10_000)


def test_dripping_client_is_too_slow_when_the_buffers_should_have_gone() -> None:
    """Less than the minimum rate is not waited for beyond what the buffers held."""
    pace = Pace(stall=30, min_rate=1024)
    pace.hand_over(100 * KIB, 0)
    assert not pace.is_too_slow(99)
    assert pace.is_too_slow(101)


def test_download_that_was_fast_is_not_waited_for_without_end() -> None:
    """However much went out without a wait, no more than buffers can hold is waited for."""
    pace = Pace(stall=30, min_rate=1024)
    pace.hand_over(10**12, 0)
    assert pace.is_too_slow(MAX_BUFFERED / 1024 + 1)


def test_no_minimum_rate_leaves_the_stall() -> None:
    """A rate of 0 is none."""
    pace = Pace(stall=30, min_rate=0)
    pace.hand_over(100 * KIB, 0)
    assert pace.is_too_slow(31)


@given(
    buffered=st.integers(min_value=1, max_value=3 << 20),
    room=st.floats(min_value=0.01, max_value=1),
    chunk=st.integers(min_value=1, max_value=256 * KIB),
    rate=st.integers(min_value=1100, max_value=10**7),
)
def test_client_above_the_rate_is_never_too_slow(
    buffered: int, room: float, chunk: int, rate: int
) -> None:
    """Whatever the buffers' size, and however late they tell of room, a slow client is served.

    The model: what is handed over is taken at once while there is room; else not before so
    much of the buffers is free again as they make room for at a time.
    """
    pace = Pace(stall=1, min_rate=1024)
    now, filled = 0.0, 0
    for _ in range(60):
        if filled + chunk > buffered:
            freed = max(room * buffered, filled + chunk - buffered)
            seconds = freed / rate
            pace.hand_over(chunk, now)
            assert not pace.is_too_slow(now + seconds * 0.99)
            now += seconds
            filled -= int(freed)
            pace.taken(now)
        else:
            took(pace, chunk, at=now, seconds=0)
        filled += chunk
