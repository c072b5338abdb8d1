"""Limits of ranges: a request exactly at each limit, and a request one beyond it."""

from __future__ import annotations

import pytest

from handlers.rfc9110.ranges import MAX_PARTS, Part, Spec, parse_range, resolve_ranges


def test_parts_as_long_as_the_object_stay_parts() -> None:
    """Parts that are together as long as the object are sent as parts."""
    assert resolve_ranges([Spec(8, 9), Spec(0, 3), Spec(5, 7)], 9 + 1) == [Part(5, 9), Part(0, 3)]
    assert resolve_ranges([Spec(5, 9), Spec(0, 4)], 10) == [Part(0, 9)]
    assert resolve_ranges([Spec(0, 3), Spec(8, 9), Spec(0, 3)], 10) == [Part(0, 3), Part(8, 9)]


def test_parts_longer_than_the_object_resolve_to_none() -> None:
    """Parts that are together one byte longer than the object get the full 200."""
    assert resolve_ranges([Spec(0, 3), Spec(8, 9), Spec(0, 4)], 10) is None


def test_single_range_of_all_bytes_stays_a_part() -> None:
    """A single range that covers the whole object gets a 206."""
    assert resolve_ranges([Spec(0, 99)], 10) == [Part(0, 9)]
    assert resolve_ranges([Spec(None, None, 10)], 10) == [Part(0, 9)]


def test_adjacent_parts_are_merged_and_others_are_not() -> None:
    """Adjacent ranges are merged, and ranges with a gap of one byte are not."""
    assert resolve_ranges([Spec(0, 3), Spec(4, 5)], 10) == [Part(0, 5)]
    assert resolve_ranges([Spec(0, 3), Spec(5, 6)], 10) == [Part(0, 3), Part(5, 6)]
    assert resolve_ranges([Spec(5, 6), Spec(0, 4)], 10) == [Part(0, 6)]


@pytest.mark.parametrize("number", [MAX_PARTS, MAX_PARTS + 1])
def test_parts_above_max_parts_resolve_to_none(number: int) -> None:
    """MAX_PARTS parts are sent, and one more gets the full 200."""
    parts = resolve_ranges([Spec(n * 10, n * 10) for n in range(number)], 10_000)
    assert (parts is None) == (number > MAX_PARTS)


@pytest.mark.parametrize(("number", "is_read"), [(256, True), (257, False)])
def test_ranges_above_256_are_ignored(number: int, is_read: bool) -> None:
    """A Range header with 256 ranges is parsed, and one with 257 is ignored."""
    assert (parse_range(["bytes=" + ",".join(["0-0"] * number)]) is not None) is is_read
