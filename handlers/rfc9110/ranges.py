"""Byte ranges (RFC 9110, section 14): from a Range header to the parts to send."""

import re
from dataclasses import dataclass
from decimal import Decimal

# Larger than any object. RFC 9110, 14.1.1 requires a server to accept numerals of any length: a
# larger number in a Range header counts as HUGE.
HUGE = 10**18

# Maximum parts in a response, and ranges in a Range header. Readers of archives and video request
# fewer. A request for more gets the whole object, which section 14.2 allows.
MAX_PARTS = 32
MAX_SPECS = 256

_HEADER = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_SPEC = re.compile(r"([0-9]+)-([0-9]*)|-([0-9]+)")


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """The bytes `first` to `last` of an object, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """The number of bytes in this part."""
        return self.last - self.first + 1

    @property
    def spec(self) -> "Spec":
        """The range to request from an upstream in order to get exactly this part."""
        return Spec(self.first, self.last)

    def content_range(self, length: int) -> str:
        """Return the Content-Range of this part of an object of `length` bytes."""
        return f"bytes {self.first}-{self.last}/{length}"


@dataclass(frozen=True, slots=True)
class Spec:
    """A requested range: `first` to `last` (None: to the end), or the last `suffix` bytes."""

    first: int | None
    last: int | None
    suffix: int | None = None

    def __str__(self) -> str:
        if self.suffix is not None:
            return f"-{self.suffix}"
        return f"{self.first}-{'' if self.last is None else self.last}"

    def within(self, length: int) -> Part | None:
        """Return the part of an object of `length` bytes in this range; None if there is none."""
        first = (self.first or 0) if self.suffix is None else max(length - self.suffix, 0)
        last = length - 1 if self.last is None else min(self.last, length - 1)
        return Part(first, last) if first <= last else None


def parse_range(values: list[str]) -> list[Spec] | None:
    """Parse the Range headers of a request; return None if the client gets the whole object.

    That is the case for a unit other than bytes, an invalid range, more than MAX_SPECS ranges or
    a repeated header. Section 14.2 also allows an error, but the client can use a whole object.
    """
    if len(values) != 1 or not (header := _HEADER.fullmatch(values[0].strip(" \t"))):
        return None
    texts = [text.strip(" \t") for text in header[1].split(",", MAX_SPECS)]
    specs = [_parse_spec(text) for text in texts if text]
    valid = [spec for spec in specs if spec is not None]
    return valid if valid and len(valid) == len(specs) and len(texts) <= MAX_SPECS else None


def _parse_spec(text: str) -> Spec | None:
    found = _SPEC.fullmatch(text)
    if found is None:
        return None
    # Decimal reads numerals of any length; int() raises for thousands of digits.
    numbers = [Decimal(digits) if digits else None for digits in found.groups()]
    first, last, _ = numbers
    if first is not None and last is not None and last < first:
        return None
    return Spec(*(one if one is None else int(one) if one < HUGE else HUGE for one in numbers))


def resolve_ranges(specs: list[Spec], length: int) -> list[Part] | None:
    """Return the parts to send, in the requested order, or None to send the whole object.

    An empty list means that no range is satisfiable (416). Overlapping and adjacent parts are
    merged into the first of them (15.3.7.2). The whole is sent for more than MAX_PARTS parts, for
    ranges longer than the object, and for an empty object: it has no valid Content-Range.
    """
    if length == 0:
        return None
    requested = [part for spec in specs if (part := spec.within(length))]
    if len(requested) > 1 and sum(part.length for part in requested) > length:
        return None
    parts: list[Part] = []
    for part in requested:
        parts = _merge(parts, part)
    return parts if len(parts) <= MAX_PARTS else None


def _merge(parts: list[Part], new: Part) -> list[Part]:
    touching = [p for p in parts if p.first <= new.last + 1 and new.first <= p.last + 1]
    index = parts.index(touching[0]) if touching else len(parts)
    union = Part(min([new, *touching]).first, max(p.last for p in [new, *touching]))
    return [*parts[:index], union, *(p for p in parts[index:] if p not in touching)]


def parse_content_range(text: str) -> tuple[Part, int | None] | None:
    """Parse a Content-Range: the part and the object's length (None for "*"); None if invalid."""
    found = _CONTENT_RANGE.fullmatch(text)
    if found is None:
        return None
    part = Part(int(found[1]), int(found[2]))
    length = None if found[3] == "*" else int(found[3])
    is_valid = part.first <= part.last and (length is None or part.last < length)
    return (part, length) if is_valid else None
