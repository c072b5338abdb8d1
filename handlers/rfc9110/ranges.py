"""Ranges of bytes (RFC 9110, section 14): pure functions, from a header to what to send."""

from __future__ import annotations

import re
from dataclasses import dataclass

# No object has more bytes than a 63-bit number counts; RFC 9110, 14.1.1 wants larger numerals
# foreseen, and a longer one than this is larger than any object all the same.
MAX_DIGITS = 18
HUGE = 10**MAX_DIGITS

# More parts than any reader of archives or video asks for at once; a request for more is
# answered with the whole, as section 14.2 advises for many small or overlapping ranges.
MAX_PARTS = 32
MAX_SPECS = 256

_HEADER = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_SPEC = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)")


@dataclass(frozen=True, slots=True)
class Spec:
    """One range as it was asked for: `first` to `last`, or the last `suffix` bytes."""

    first: int | None
    last: int | None
    suffix: int | None = None

    def __str__(self) -> str:
        if self.suffix is not None:
            return f"-{self.suffix}"
        return f"{self.first}-{'' if self.last is None else self.last}"

    def within(self, length: int) -> Part | None:
        """Return the part of `length` bytes that this is; None where it is not satisfiable."""
        if self.suffix is not None:
            first, last = max(length - self.suffix, 0), length - 1
        else:
            first = self.first or 0
            last = length - 1 if self.last is None else min(self.last, length - 1)
        return Part(first, last) if first <= last else None


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Bytes `first` to `last` of an object, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return self.last - self.first + 1

    def content_range(self, length: int) -> str:
        """Return the Content-Range of this part of an object of `length` bytes."""
        return f"bytes {self.first}-{self.last}/{length}"


def parse_range(values: list[str]) -> list[Spec] | None:
    """Return the ranges that Range headers ask for; None where they are to be ignored.

    Ignored is what is no set of byte ranges: another unit, a last byte before its first, no
    numbers, several headers. Section 14.2 would also allow to refuse it, but the client that is
    given the whole has what it needs.
    """
    if len(values) != 1 or not (header := _HEADER.fullmatch(values[0].strip(" \t"))):
        return None
    texts = [text.strip(" \t") for text in header[1].split(",", MAX_SPECS)]
    specs = [_parse_spec(text) for text in texts if text]
    if not specs or len(texts) > MAX_SPECS:
        return None
    valid = [spec for spec in specs if spec is not None]
    return valid if len(valid) == len(specs) else None


def _parse_spec(text: str) -> Spec | None:
    found = _SPEC.fullmatch(text)
    if found is None:
        return None
    if found[3]:
        return Spec(None, None, _number(found[3]))
    first, last = _number(found[1]), _number(found[2]) if found[2] else None
    return None if last is not None and _before(found[2], found[1]) else Spec(first, last)


def _number(digits: str) -> int:
    """Return the number, or HUGE for one so large that int() might refuse its digits."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= MAX_DIGITS else HUGE


def _before(digits: str, others: str) -> bool:
    digits, others = digits.lstrip("0"), others.lstrip("0")
    return (len(digits), digits) < (len(others), others)


def resolve_ranges(specs: list[Spec], length: int) -> list[Part] | None:
    """Return the parts to send, in the order asked for, or None for the whole.

    No part at all means that the ranges are unsatisfiable (416).
    Overlapping and adjacent parts become one (section 15.3.7.2), which then stands where the
    first of them was asked for. An empty object is sent whole: no part of it can be expressed.
    """
    if length == 0:
        return None
    asked = [part for spec in specs if (part := spec.within(length))]
    if len(asked) > 1 and sum(part.length for part in asked) > length:
        return None
    parts: list[Part] = []
    for part in asked:
        parts = _merged(parts, part)
    return parts if len(parts) <= MAX_PARTS else None


def _merged(parts: list[Part], new: Part) -> list[Part]:
    touching = [p for p in parts if p.first <= new.last + 1 and new.first <= p.last + 1]
    if not touching:
        return [*parts, new]
    place = parts.index(touching[0])
    together = [*touching, new]
    union = Part(min(p.first for p in together), max(p.last for p in together))
    others = [p for p in parts if p not in touching]
    return [*others[:place], union, *others[place:]]


def parse_content_range(text: str) -> tuple[Part, int | None] | None:
    """Return the part and the whole's length of a Content-Range; None where it makes no sense.

    The length is None where it is not told ("*").
    """
    found = _CONTENT_RANGE.fullmatch(text)
    if found is None:
        return None
    part = Part(int(found[1]), int(found[2]))
    length = None if found[3] == "*" else int(found[3])
    sensible = part.first <= part.last and (length is None or part.last < length)
    return (part, length) if sensible else None
