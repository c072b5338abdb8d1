"""Ranges of bytes: pure functions, against a slow reading of RFC 9110, section 14."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rfc9110.ranges import (
    HUGE,
    MAX_PARTS,
    Part,
    Spec,
    parse_content_range,
    parse_range,
    resolve_ranges,
)

NUMBERS = st.integers(min_value=0, max_value=60)
SPECS = st.one_of(
    st.builds(Spec, NUMBERS, st.none()),
    st.builds(lambda a, b: Spec(min(a, b), max(a, b)), NUMBERS, NUMBERS),
    st.builds(lambda n: Spec(None, None, n), NUMBERS),
)


def positions_of(spec: Spec, length: int) -> set[int]:
    """Return the positions of the bytes that a range is of, one by one (14.1.2)."""
    if spec.suffix is not None:
        return {n for n in range(length) if n >= length - spec.suffix}
    return {
        n
        for n in range(length)
        if n >= (spec.first or 0) and (spec.last is None or n <= spec.last)
    }


@given(st.lists(SPECS, min_size=1, max_size=6), st.integers(min_value=0, max_value=50))
def test_parts_are_the_bytes_asked_for(specs: list[Spec], length: int) -> None:
    """The parts hold the bytes asked for and no other, none of them twice, or it is the whole."""
    parts = resolve_ranges(specs, length)
    asked = set().union(*(positions_of(spec, length) for spec in specs))
    if parts is None:
        total = sum(len(positions_of(spec, length)) for spec in specs)
        assert length == 0 or (len(specs) > 1 and total > length)
        return
    sent = [n for part in parts for n in range(part.first, part.last + 1)]
    assert len(sent) == len(set(sent))
    assert set(sent) == asked
    for one, other in zip(sorted(parts), sorted(parts)[1:], strict=False):
        assert one.last + 1 < other.first


@given(st.lists(SPECS, min_size=1, max_size=6))
def test_header_is_parsed_as_it_is_written(specs: list[Spec]) -> None:
    """What is written as a Range header is read as the same ranges."""
    assert parse_range(["bytes=" + ", ".join(map(str, specs))]) == specs


@given(SPECS, st.integers(min_value=1, max_value=50))
def test_content_range_says_which_part(spec: Spec, length: int) -> None:
    """What a part says of itself is read as that part."""
    part = spec.within(length)
    if part is not None:
        assert parse_content_range(part.content_range(length)) == (part, length)
        assert part.length == len(positions_of(spec, length))
    else:
        assert positions_of(spec, length) == set()


@given(st.text(alphabet="bytes=-, \t0123456789x", max_size=40))
def test_no_text_is_too_odd(text: str) -> None:
    """Any text is either ranges or ignored, and what is ranges can be resolved."""
    specs = parse_range([text])
    if specs is not None:
        assert specs
        resolve_ranges(specs, 10)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["bytes"],
        ["bytes="],
        ["bytes=,"],
        ["bytes=-"],
        ["bytes=5-4"],
        ["bytes=0-1,5-4"],
        ["bytes=0-1;2-3"],
        ["bytes=\u0661-\u0662"],
        ["bytes=+1-2"],
        ["bytes=" + ",".join(["0-0"] * 257)],
        ["items=0-1"],
        ["bytes=0-1", "bytes=2-3"],
        ["bytes=100000000000000000000-99999999999999999999"],
    ],
)
def test_what_is_no_range_is_ignored(values: list[str]) -> None:
    """What is no set of byte ranges counts as if it were not there."""
    assert parse_range(values) is None


def test_large_numerals_are_clamped() -> None:
    """Numerals of any length are numbers; one beyond every object is as good as another."""
    nines = "9" * 5000
    assert parse_range([f"bytes={nines}-"]) == [Spec(HUGE, None)]
    assert parse_range([f"bytes=0-{nines}"]) == [Spec(0, HUGE)]
    assert parse_range([f"bytes=-{nines}"]) == [Spec(None, None, HUGE)]
    assert parse_range(["bytes=" + "0" * 5000 + "7-"]) == [Spec(7, None)]


def test_many_parts_are_the_whole() -> None:
    """More parts than any reader asks for at once are answered with the whole."""
    specs = [Spec(n * 10, n * 10) for n in range(MAX_PARTS + 1)]
    assert resolve_ranges(specs[:-1], 10_000) is not None
    assert resolve_ranges(specs, 10_000) is None


def test_joined_parts_stand_where_the_first_was_asked_for() -> None:
    """Parts keep the order of the request, but for those that are joined."""
    specs = [Spec(50, 59), Spec(0, 4), Spec(60, 69)]
    assert resolve_ranges(specs, 1000) == [Part(50, 69), Part(0, 4)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes */10",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "bytes 0-1/" + "9" * 19,
        "items 0-1/2",
    ],
)
def test_content_range_that_makes_no_sense(text: str) -> None:
    """A Content-Range of no bytes, or of bytes that can't be, is none."""
    assert parse_content_range(text) is None


def test_content_range_of_unknown_length() -> None:
    """A Content-Range need not tell the length of the whole."""
    assert parse_content_range("bytes 0-1/*") == (Part(0, 1), None)
