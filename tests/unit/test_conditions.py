"""Conditional requests, compared with a literal implementation of RFC 9110, section 13."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.rfc9110.conditions import (
    CONDITIONS,
    Validators,
    entity_tag,
    evaluate_conditions,
    forwardable_conditions,
    if_range_holds,
    single_strong_tag,
)
from handlers.rfc9110.dates import http_date

MODIFIED = datetime(2026, 11, 23, 8, 0, 0, tzinfo=UTC)


def date(seconds: int) -> str:
    return format_datetime(MODIFIED + timedelta(seconds=seconds), usegmt=True)


TAGS = ['"a"', '"b"', 'W/"a"', 'W/"b"', '"a,b"', '""']
LISTS = st.one_of(
    st.just("*"), st.lists(st.sampled_from(TAGS), min_size=1, max_size=3).map(", ".join)
)
SECONDS = st.integers(min_value=-2, max_value=2)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "if-match": LISTS,
        "if-none-match": LISTS,
        "if-modified-since": SECONDS,
        "if-unmodified-since": SECONDS,
    },
)


def evaluate_step_by_step(headers: dict[str, str | int], etag: str) -> HTTPStatus | None:
    """Evaluate the steps of RFC 9110, section 13.2.2, literally and in order."""

    def tags(name: str) -> list[str]:
        text = str(headers[name])
        return ["*"] if text == "*" else text.split(", ")

    def strong(one: str, other: str) -> bool:
        return one == other and not one.startswith("W/")

    def opaque(tag: str) -> str:
        return tag.removeprefix("W/")

    # 1. and 2.
    if "if-match" in headers:
        if not any(tag == "*" or strong(tag, etag) for tag in tags("if-match")):
            return HTTPStatus.PRECONDITION_FAILED
    elif "if-unmodified-since" in headers and int(headers["if-unmodified-since"]) < 0:
        return HTTPStatus.PRECONDITION_FAILED
    # 3. and 4., for GET and HEAD
    if "if-none-match" in headers:
        if any(tag == "*" or opaque(tag) == opaque(etag) for tag in tags("if-none-match")):
            return HTTPStatus.NOT_MODIFIED
    elif "if-modified-since" in headers and int(headers["if-modified-since"]) >= 0:
        return HTTPStatus.NOT_MODIFIED
    return None


@given(HEADERS, st.sampled_from(TAGS))
def test_condition_result_follows_rfc_9110_section_13_2_2(
    headers: dict[str, str | int], etag: str
) -> None:
    """Every combination of conditions has the result of RFC 9110, section 13.2.2."""
    written = {n: date(v) if isinstance(v, int) else v for n, v in headers.items()}
    assert evaluate_conditions(written, Validators(etag, date(0))) is evaluate_step_by_step(
        headers, etag
    )


@given(st.dictionaries(st.sampled_from(CONDITIONS), st.text(max_size=30)))
def test_random_conditions_return_none_304_or_412(headers: dict[str, str]) -> None:
    """Any text in the conditions gives None, 304 or 412."""
    for current in (Validators('"a"', date(0)), Validators(None, None)):
        assert evaluate_conditions(headers, current) in (None, 304, 412)


@given(st.text(max_size=30))
def test_random_if_range_without_validators_does_not_match(value: str) -> None:
    """Any If-Range does not match an object without validators."""
    assert not if_range_holds(value, Validators(None, None), now=None)


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        ('"a"', True),
        (' "a" ', True),
        ('"b"', False),
        ('W/"a"', False),
        ('"a", "b"', False),
        ("*", False),
        ("a", False),
        (date(0), True),
        (date(-1), False),
        (date(1), False),
        ("Monday, 23-Nov-26 08:00:00 GMT", True),
        ("Mon Nov 23 08:00:00 2026", True),
        ("", False),
    ],
)
def test_if_range_matches_only_strong_etag_or_exact_date(value: str, holds: bool) -> None:
    """If-Range matches the strong ETag, or the exact date in any of its three forms."""
    later = MODIFIED + timedelta(seconds=1)
    assert if_range_holds(value, Validators('"a"', date(0)), now=later) is holds


def test_if_range_with_weak_etag_does_not_match() -> None:
    """If-Range with a weak ETag does not match, even if the weak ETag is equal."""
    assert not if_range_holds('W/"a"', Validators('W/"a"', None), now=None)
    assert Validators('W/"a"', None).strong_etag is None


def test_if_range_with_date_of_this_second_does_not_match() -> None:
    """If-Range with the date of the current second does not match."""
    current = Validators(None, date(0))
    assert not if_range_holds(date(0), current, now=MODIFIED)
    assert if_range_holds(date(0), current, now=MODIFIED + timedelta(seconds=1))


def test_invalid_conditions_are_not_forwarded() -> None:
    """Invalid dates and long ETags are dropped, and an invalid If-Match matches nothing."""
    given = {
        "if-match": '"' + "a" * 5000 + '"',
        "if-none-match": '"caf\xe9"',
        "if-modified-since": "garbage",
        "if-unmodified-since": date(0),
    }
    forwarded = forwardable_conditions(given)
    assert forwarded == {"if-match": '"none"', "if-unmodified-since": date(0)}
    sane = {"if-match": "*", "if-none-match": 'W/"a", "b"', "if-modified-since": date(0)}
    assert forwardable_conditions(sane) == sane


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ('"abc"', '"abc"'),
        ('W/"abc"', 'W/"abc"'),
        ("abc", '"abc"'),
        ("d41d8-2", '"d41d8-2"'),
        ("", None),
        ('a"b', None),
        ("a b", None),
        ("caf\xe9", None),
        ('"a\nb"', None),
    ],
)
def test_entity_tag_without_quotes_gets_quotes(stored: str, sent: str | None) -> None:
    """An ETag without quotes gets quotes, and an invalid ETag is None."""
    assert entity_tag(stored) == sent


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "Mon, 23 Nov 2026 08:00:00 EST",
        "Mon, 23 Nov 2026 25:00:00 GMT",
        "Mon, 99 Nov 2026 08:00:00 GMT",
        "23 Nov 2026 08:00:00 GMT",
        "Mon, 23 Nov 2026 08:00:00 GMT ",
        "Mon, 23 Xyz 2026 08:00:00 GMT",
        "1700000000",
    ],
)
def test_invalid_date_returns_none(text: str) -> None:
    """Only the date forms of RFC 9110, section 5.6.7, are parsed."""
    assert http_date(text) is None


@pytest.mark.parametrize(
    ("value", "tag"),
    [(' "a" ', '"a"'), ('W/"a"', None), ('"a", "b"', None), ("*", None), ("", None), (None, None)],
)
def test_single_strong_tag_rejects_lists_and_weak_etags(
    value: str | None, tag: str | None
) -> None:
    """`single_strong_tag` returns one strong ETag, or None for anything else."""
    assert single_strong_tag(value) == tag
