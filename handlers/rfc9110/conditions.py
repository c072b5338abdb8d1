"""Conditional requests (RFC 9110, section 13): pure functions over validators and headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import Enum

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ONE_TAG = re.compile(_TAG)
# Possessive, so that a long list leaves nothing to go back to.
_TAGS = re.compile(rf"[ \t,]*+{_TAG}(?:[ \t]*+,[ \t,]*+{_TAG})*+[ \t,]*+")

# No store's tag is longer; one that is matches nothing and need not be sent anywhere.
MAX_TAG = 1024
MAX_TAGS = 4096

# The three forms of section 5.6.7: the one that all send today, and the obsolete ones, of which
# email.utils alone would also take "1 Jan 26 00:00 EST".
_TIME = "([0-9]{2}):([0-9]{2}):([0-9]{2})"
_HTTP_DATE = re.compile(
    rf"[A-Z][a-z]{{2}}, ([0-9]{{2}}) ([A-Z][a-z]{{2}}) ([0-9]{{4}}) {_TIME} GMT"
)
_OBSOLETE_DATE = re.compile(
    rf"[A-Z][a-z]+day, [0-9]{{2}}-[A-Z][a-z]{{2}}-[0-9]{{2}} {_TIME} GMT"
    rf"|[A-Z][a-z]{{2}} [A-Z][a-z]{{2}} [ 0-9][0-9] {_TIME} [0-9]{{4}}"
)
_MONTHS = {
    "Jan": 1,
    "Feb": 2,
    "Mar": 3,
    "Apr": 4,
    "May": 5,
    "Jun": 6,
    "Jul": 7,
    "Aug": 8,
    "Sep": 9,
    "Oct": 10,
    "Nov": 11,
    "Dec": 12,
}

CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


class Verdict(Enum):
    """What the conditions of a request make of it."""

    PROCEED = "proceed"
    NOT_MODIFIED = "304"
    FAILED = "412"


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one version of an object from another; either may be unknown."""

    etag: str | None
    last_modified: str | None

    @property
    def strong_etag(self) -> str | None:
        """The entity tag, where it is a strong one."""
        return _if_strong(self.etag)


def entity_tag(stored: str) -> str | None:
    """Return a stored entity tag as it has to be written; None where it can't be one.

    Some stores leave out its quotes.
    """
    for tag in (stored, f'"{stored}"'):
        if stored and _ONE_TAG.fullmatch(tag) and tag.isascii():
            return tag
    return None


def strong_etag(stored: Mapping[str, str]) -> str | None:
    """Return the entity tag among stored headers, where it is a strong one."""
    return _if_strong(entity_tag(stored.get("etag", "")))


def _if_strong(tag: str | None) -> str | None:
    return tag if tag and not tag.startswith("W/") else None


def read_validators(stored: Mapping[str, str]) -> Validators:
    """Return the validators among stored headers, where they are such."""
    modified = stored.get("last-modified", "")
    return Validators(
        etag=entity_tag(stored.get("etag", "")),
        last_modified=modified if http_date(modified) else None,
    )


def http_date(text: str) -> datetime | None:
    """Return the moment that an HTTP-date names; None where it is none."""
    found = _HTTP_DATE.fullmatch(text)
    if found is None and not _OBSOLETE_DATE.fullmatch(text):
        return None
    try:
        if found is None:
            return parsedate_to_datetime(text).replace(tzinfo=UTC)
        day, month, year, hour, minute, second = found.groups()
        # Most of a date's time would be email.utils', and each answer has two of them.
        return datetime(
            int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except (ValueError, TypeError, KeyError):
        return None


def evaluate_conditions(headers: Mapping[str, str], current: Validators) -> Verdict:
    """Return what the conditions in `headers` say of an object that exists (section 13.2.2).

    A date that is none and a list of tags that is none are no condition.
    """
    if (wanted := headers.get("if-match")) is not None:
        if not _matches(wanted, current.etag, strong=True):
            return Verdict.FAILED
    elif _changed_since(headers.get("if-unmodified-since"), current):
        return Verdict.FAILED
    if (known := headers.get("if-none-match")) is not None:
        if _matches(known, current.etag, strong=False):
            return Verdict.NOT_MODIFIED
    elif _unchanged_since(headers.get("if-modified-since"), current):
        return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def if_range_holds(value: str, current: Validators, *, now: datetime | None) -> bool:
    """Return whether a part of the object as it is now fits what the client has (13.1.5).

    A date of this very second is no strong validator: the object may change once more within it
    (8.8.2.2). `now` is the Date of the answer that `current` is from.
    """
    value = value.strip(" \t")
    if _ONE_TAG.fullmatch(value):
        return value == current.strong_etag
    date = http_date(value)
    if date is None or date != http_date(current.last_modified or ""):
        return False
    return now is None or now - date >= timedelta(seconds=1)


def single_strong_tag(value: str | None) -> str | None:
    """Return the tag where the header is just one strong entity tag, in ASCII."""
    value = (value or "").strip(" \t")
    found = _ONE_TAG.fullmatch(value)
    plain = value.isascii() and len(value) <= MAX_TAG and not value.startswith("W/")
    return value if found and plain else None


def forwardable_conditions(conditions: Mapping[str, str]) -> dict[str, str]:
    """Return those conditions that any server can be asked; the others are none.

    An If-Match that can't be asked is one that nothing matches.
    """
    passable: dict[str, str] = {}
    for name, value in conditions.items():
        if name.endswith("-since"):
            is_sane = http_date(value) is not None
        else:
            tags = value.strip(" \t")
            is_sane = tags == "*" or bool(
                len(tags) <= MAX_TAGS and tags.isascii() and _TAGS.fullmatch(tags)
            )
        if is_sane:
            passable[name] = value
        elif name == "if-match":
            passable[name] = '"none"'
    return passable


def _matches(header: str, etag: str | None, *, strong: bool) -> bool:
    header = header.strip(" \t")
    if header == "*":
        return True
    if etag is None or not _TAGS.fullmatch(header):
        return False
    tags = (found[0] for found in _ONE_TAG.finditer(header))
    if strong:
        return not etag.startswith("W/") and etag in tags
    return etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in tags)


def _changed_since(header: str | None, current: Validators) -> bool:
    date, modified = http_date(header or ""), http_date(current.last_modified or "")
    return date is not None and modified is not None and modified > date


def _unchanged_since(header: str | None, current: Validators) -> bool:
    date, modified = http_date(header or ""), http_date(current.last_modified or "")
    return date is not None and modified is not None and modified <= date
