"""Byte ranges, compared with a literal implementation of RFC 9110, section 14."""

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


def positions(spec: Spec, length: int) -> set[int]:
    """Return the positions of the bytes in a range, one by one (14.1.2)."""
    if spec.suffix is not None:
        return {n for n in range(length) if n >= length - spec.suffix}
    return {
        n
        for n in range(length)
        if n >= (spec.first or 0) and (spec.last is None or n <= spec.last)
    }


@given(st.lists(SPECS, min_size=1, max_size=6), st.integers(min_value=0, max_value=50))
def test_resolved_parts_are_the_requested_bytes(specs: list[Spec], length: int) -> None:
    """The parts have every requested byte once and no other byte, or the result is None."""
    parts = resolve_ranges(specs, length)
    asked = set().union(*(positions(spec, length) for spec in specs))
    if parts is None:
        total = sum(len(positions(spec, length)) for spec in specs)
        assert length == 0 or (len(specs) > 1 and total > length)
        return
    sent = [n for part in parts for n in range(part.first, part.last + 1)]
    assert len(sent) == len(set(sent))
    assert set(sent) == asked
    for one, other in zip(sorted(parts), sorted(parts)[1:], strict=False):
        assert one.last + 1 < other.first


@given(st.lists(SPECS, min_size=1, max_size=6))
def test_formatted_range_header_parses_to_same_specs(specs: list[Spec]) -> None:
    """Parsing a formatted Range header returns the original ranges."""
    assert parse_range(["bytes=" + ", ".join(map(str, specs))]) == specs


@given(SPECS, st.integers(min_value=1, max_value=50))
def test_formatted_content_range_parses_to_same_part(spec: Spec, length: int) -> None:
    """Parsing a formatted Content-Range returns the original part."""
    part = spec.within(length)
    if part is not None:
        assert parse_content_range(part.content_range(length)) == (part, length)
        assert part.length == len(positions(spec, length))
    else:
        assert positions(spec, length) == set()


@given(st.text(alphabet="bytes=-, \t0123456789x", max_size=40))
def test_random_range_header_is_parsed_or_ignored(text: str) -> None:
    """Any text in Range is parsed to ranges that can be resolved, or is ignored."""
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
def test_invalid_range_is_ignored(values: list[str]) -> None:
    """An invalid Range header counts as absent."""
    assert parse_range(values) is None


def test_large_numbers_are_clamped() -> None:
    """A number of any length is valid and is clamped to HUGE."""
    nines = "9" * 5000
    assert parse_range([f"bytes={nines}-"]) == [Spec(HUGE, None)]
    assert parse_range([f"bytes=0-{nines}"]) == [Spec(0, HUGE)]
    assert parse_range([f"bytes=-{nines}"]) == [Spec(None, None, HUGE)]
    assert parse_range(["bytes=" + "0" * 5000 + "7-"]) == [Spec(7, None)]


def test_too_many_parts_resolve_to_none() -> None:
    """More than MAX_PARTS parts resolve to None, which means a full 200."""
    specs = [Spec(n * 10, n * 10) for n in range(MAX_PARTS + 1)]
    assert resolve_ranges(specs[:-1], 10_000) is not None
    assert resolve_ranges(specs, 10_000) is None


def test_merged_parts_keep_the_position_of_the_first() -> None:
    """Parts keep the requested order, and a merged part has the position of its first."""
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
def test_invalid_content_range_returns_none(text: str) -> None:
    """A Content-Range without bytes, or with bytes past the end, is None."""
    assert parse_content_range(text) is None


def test_content_range_with_unknown_length_is_parsed() -> None:
    """The complete length in a Content-Range may be `*`."""
    assert parse_content_range("bytes 0-1/*") == (Part(0, 1), None)
