"""Conditional requests (RFC 9110, section 13): validators, entity tags and conditions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from http import HTTPStatus
from typing import Self

from .dates import http_date

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ONE_TAG = re.compile(_TAG)
# The quantifiers are possessive, so that a long list can't make the match backtrack.
_TAGS = re.compile(rf"[ \t,]*+{_TAG}(?:[ \t]*+,[ \t,]*+{_TAG})*+[ \t,]*+")

# Maximum characters of a tag and of a list of tags that are forwarded; no store has longer tags.
MAX_TAG = 1024
MAX_TAGS = 4096

CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


@dataclass(frozen=True, slots=True)
class Validators:
    """The entity tag and modification date of one version of an object; None if unknown."""

    etag: str | None
    last_modified: str | None

    @classmethod
    @lru_cache(maxsize=256)  # Many requests for one object get the same two headers.
    def parse(cls, etag: str, last_modified: str) -> Self:
        """Return the validators in an upstream's headers; an invalid or empty one becomes None."""
        return cls(entity_tag(etag), last_modified if http_date(last_modified) else None)

    @property
    def strong_etag(self) -> str | None:
        """The entity tag if it is strong, else None."""
        return None if self.etag and self.etag.startswith("W/") else self.etag


def entity_tag(stored: str) -> str | None:
    """Return an upstream's ETag, with quotes if the upstream omits them; None if invalid."""
    for tag in (stored, f'"{stored}"'):
        if stored and _ONE_TAG.fullmatch(tag) and tag.isascii():
            return tag
    return None


def evaluate_conditions(headers: Mapping[str, str], current: Validators) -> HTTPStatus | None:
    """Return 304 or 412 if a condition in `headers` is false for an existing object (13.2.2).

    Otherwise return None. An invalid date is ignored; an invalid list of entity tags matches none.
    """
    if (wanted := headers.get("if-match")) is not None:
        if not _matches(wanted, current.etag, strong=True):
            return HTTPStatus.PRECONDITION_FAILED
    elif _is_modified_since(headers.get("if-unmodified-since"), current) is True:
        return HTTPStatus.PRECONDITION_FAILED
    if (known := headers.get("if-none-match")) is not None:
        if _matches(known, current.etag, strong=False):
            return HTTPStatus.NOT_MODIFIED
    elif _is_modified_since(headers.get("if-modified-since"), current) is False:
        return HTTPStatus.NOT_MODIFIED
    return None


def if_range_holds(value: str, current: Validators, *, now: datetime | None) -> bool:
    """Return whether an If-Range header allows a 206: its validator is the current one (13.1.5).

    `current` and `now` are the validators and the Date of one response. A Last-Modified less than
    a second before `now` is too weak, since the object may change again within that second
    (8.8.2.2). If `now` is None, that check is skipped.
    """
    value = value.strip(" \t")
    if _ONE_TAG.fullmatch(value):
        return value == current.strong_etag
    date = http_date(value)
    if date is None or date != http_date(current.last_modified or ""):
        return False
    return now is None or now - date >= timedelta(seconds=1)


def single_strong_tag(value: str | None) -> str | None:
    """Return the entity tag of a header that has exactly one, strong and ASCII; else None."""
    value = (value or "").strip(" \t")
    is_plain = value.isascii() and len(value) <= MAX_TAG and not value.startswith("W/")
    return value if is_plain and _ONE_TAG.fullmatch(value) else None


def forwardable_conditions(conditions: Mapping[str, str]) -> dict[str, str]:
    """Return the valid conditional headers, which every upstream evaluates alike.

    An invalid If-Match becomes a tag that no object has; other invalid conditions are dropped.
    """
    forwardable = {name: value for name, value in conditions.items() if _is_valid(name, value)}
    if "if-match" in conditions:
        forwardable.setdefault("if-match", '"none"')
    return forwardable


def _is_valid(name: str, value: str) -> bool:
    if name.endswith("-since"):
        return http_date(value) is not None
    tags = value.strip(" \t")
    is_short = len(tags) <= MAX_TAGS and tags.isascii()
    return tags == "*" or (is_short and _TAGS.fullmatch(tags) is not None)


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


def _is_modified_since(header: str | None, current: Validators) -> bool | None:
    """Return whether Last-Modified is after the date in `header`; None without two valid dates."""
    date, modified = http_date(header or ""), http_date(current.last_modified or "")
    return None if date is None or modified is None else modified > date
