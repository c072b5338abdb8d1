"""Limits to the unit: what is just within one, and what is just beyond."""

from __future__ import annotations

import pytest

from handlers.rfc9110.ranges import MAX_PARTS, Part, Spec, parse_range, resolve_ranges


def test_parts_that_sum_exactly_to_the_length_are_sent_as_parts() -> None:
    """All bytes in another order are no more bytes than the whole has."""
    assert resolve_ranges([Spec(8, 9), Spec(0, 3), Spec(5, 7)], 9 + 1) == [Part(5, 9), Part(0, 3)]
    assert resolve_ranges([Spec(5, 9), Spec(0, 4)], 10) == [Part(0, 9)]
    assert resolve_ranges([Spec(0, 3), Spec(8, 9), Spec(0, 3)], 10) == [Part(0, 3), Part(8, 9)]


def test_parts_that_sum_to_a_byte_more_are_the_whole() -> None:
    """Ranges that overlap that much are answered with all bytes, once (RFC 9110, 14.2)."""
    assert resolve_ranges([Spec(0, 3), Spec(8, 9), Spec(0, 4)], 10) is None


def test_one_part_of_all_bytes_is_a_part() -> None:
    """A single range that covers the object is answered with a 206."""
    assert resolve_ranges([Spec(0, 99)], 10) == [Part(0, 9)]
    assert resolve_ranges([Spec(None, None, 10)], 10) == [Part(0, 9)]


def test_parts_that_touch_become_one_and_parts_with_a_gap_do_not() -> None:
    """Bytes 0 to 3 and 4 to 5 are one part; between 0 to 3 and 5 to 6 one byte is missing."""
    assert resolve_ranges([Spec(0, 3), Spec(4, 5)], 10) == [Part(0, 5)]
    assert resolve_ranges([Spec(0, 3), Spec(5, 6)], 10) == [Part(0, 3), Part(5, 6)]
    assert resolve_ranges([Spec(5, 6), Spec(0, 4)], 10) == [Part(0, 6)]


@pytest.mark.parametrize("number", [MAX_PARTS, MAX_PARTS + 1])
def test_number_of_parts_at_the_limit(number: int) -> None:
    """So many parts are sent, and one more is the whole."""
    parts = resolve_ranges([Spec(n * 10, n * 10) for n in range(number)], 10_000)
    assert (parts is None) == (number > MAX_PARTS)


@pytest.mark.parametrize(("number", "is_read"), [(256, True), (257, False)])
def test_number_of_ranges_at_the_limit(number: int, is_read: bool) -> None:
    """So many ranges are read, and a header of one more is ignored."""
    assert (parse_range(["bytes=" + ",".join(["0-0"] * number)]) is not None) is is_read
