"""The headers of a request that select bytes of an object: Range, If-Range and conditions."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers

from ..errors import HeaderTooLarge
from ..rfc9110.conditions import CONDITIONS, single_strong_tag
from ..rfc9110.ranges import Spec, parse_range

# Maximum characters of the values of one such header. uvicorn has no limit of its own.
MAX_HEADER = 64 * 1024

_SELECTING = {name.encode(): name for name in ("range", "if-range", *CONDITIONS)}


@dataclass(kw_only=True, slots=True)
class RequestSelectors:
    """The Range, If-Range and conditional headers of one request."""

    specs: list[Spec] | None
    """The requested ranges; None without a valid Range, and for HEAD (RFC 9110, 14.2)."""

    if_range: str | None
    conditions: Mapping[str, str]
    """The conditional headers of the request; names in lower case."""

    @property
    def sole_tag(self) -> str | None:
        """The strong entity tag of If-Match or If-Range, if the request has no other condition."""
        conditions = {**self.conditions, **({"if-range": self.if_range} if self.if_range else {})}
        if conditions.keys() not in ({"if-match"}, {"if-range"}):
            return None
        return single_strong_tag(*conditions.values())

    @property
    def is_plain(self) -> bool:
        """Whether a single GET to the store suffices, because all stores evaluate it alike."""
        if (self.conditions or self.if_range is not None) and self.sole_tag is None:
            return False
        return self.specs is None or (len(self.specs) == 1 and self.specs[0].suffix != 0)


def parse_selectors(method: str, headers: Headers) -> RequestSelectors:
    """Return the selectors of a request; raise HeaderTooLarge above MAX_HEADER."""
    sent: dict[str, list[str]] = {}
    for raw_name, value in headers.raw:  # One pass; each headers.get() makes one.
        if name := _SELECTING.get(raw_name):
            sent.setdefault(name, []).append(value.decode("latin-1"))
    for name, values in sent.items():
        if sum(map(len, values)) > MAX_HEADER:
            raise HeaderTooLarge(name)
    specs = parse_range(sent.get("range", [])) if method == "GET" else None
    if_ranges = sent.get("if-range")
    return RequestSelectors(
        specs=specs,
        # If-Range is ignored without Range (13.1.5). Several If-Range headers match no version.
        if_range=", ".join(if_ranges) if specs and if_ranges else None,
        # Repeated lists of tags form one list; repeated dates form an invalid one, to be ignored.
        conditions={name: ", ".join(sent[name]) for name in CONDITIONS if name in sent},
    )
