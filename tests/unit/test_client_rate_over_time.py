"""What a client takes over time: a count that wobbles, and a client that slows down."""

from __future__ import annotations

import pytest

from handlers.download.client_rate import KERNEL, SERVER_ONLY, BufferVisibility, ClientRateGuard

KIB = 1024


def given_up_after(guard: ClientRateGuard, counts: list[int]) -> int | None:
    """Return the second in which a client is given up whose count is this, second by second."""
    for second, count in enumerate(counts):
        if guard.is_too_slow(count, second):
            return second
    return None


@pytest.mark.parametrize("visibility", [KERNEL, SERVER_ONLY])
@pytest.mark.parametrize("min_rate", [0, 1024])
@pytest.mark.parametrize("wobble", [1, 10 * KIB])
def test_stalled_client_whose_count_wobbles_is_given_up_as_one_whose_count_stands(
    visibility: BufferVisibility, min_rate: int, wobble: int
) -> None:
    """What was sent and what is in the buffers are read one after the other: they may disagree."""
    stands = [64 * KIB] * 200
    wobbles = [64 * KIB - wobble * (second % 2) for second in range(200)]
    expected, found = (
        given_up_after(ClientRateGuard(stall=30, min_rate=min_rate, visibility=visibility), counts)
        for counts in (stands, wobbles)
    )
    assert found == expected is not None


def test_client_at_the_rate_whose_count_wobbles_is_served_to_the_end() -> None:
    """A count that goes back now and then makes no slow client of one that is fast enough."""
    counts = [second * 2048 - 1500 * (second % 2) for second in range(2000)]
    assert (
        given_up_after(ClientRateGuard(stall=30, min_rate=1024, visibility=KERNEL), counts) is None
    )


def test_client_that_was_fast_and_drips_is_given_up_for_what_it_takes_now() -> None:
    """What a client took long ago does not count: the rate is measured anew time and again."""
    fast = [second * 2048 for second in range(600)]
    drips = [fast[-1] + second * 10 for second in range(1, 600)]
    guard = ClientRateGuard(stall=30, min_rate=1024, visibility=KERNEL)
    given_up = given_up_after(guard, fast + drips)
    assert given_up is not None
    assert 600 < given_up < 600 + 2 * 2 * (30 + 1) + 10
