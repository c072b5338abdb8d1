"""What a request selects: which bytes of an object, on which conditions."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers

from ..errors import HeaderTooLarge
from ..rfc9110.conditions import CONDITIONS, single_strong_tag
from ..rfc9110.ranges import Spec, parse_range

# No client sends more; uvicorn itself has no limit.
MAX_HEADER = 64 * 1024

_SELECTING = {name.encode(): name for name in ("range", "if-range", *CONDITIONS)}


@dataclass(kw_only=True, slots=True)
class RequestSelectors:
    """The parts of a request that choose among the possible answers."""

    specs: list[Spec] | None
    """The ranges of the Range header; None without one, and for HEAD (RFC 9110, 14.2)."""

    if_range: str | None
    conditions: Mapping[str, str]
    """The conditional headers of the request; names in lower case."""

    @property
    def sole_tag(self) -> str | None:
        """The strong entity tag of If-Match or If-Range, where that is the only condition."""
        conditions = {**self.conditions, **({"if-range": self.if_range} if self.if_range else {})}
        if conditions.keys() not in ({"if-match"}, {"if-range"}):
            return None
        return single_strong_tag(*conditions.values())

    @property
    def is_plain(self) -> bool:
        """Whether one request to a store answers it, in a way that all stores agree on."""
        if (self.conditions or self.if_range is not None) and self.sole_tag is None:
            return False
        return self.specs is None or (len(self.specs) == 1 and self.specs[0].suffix != 0)


def parse_selectors(method: str, headers: Headers) -> RequestSelectors:
    """Return the selectors of a request; raises HeaderTooLarge."""
    sent: dict[str, list[str]] = {}
    for raw_name, value in headers.raw:  # One pass: each look-up would go through all headers.
        if name := _SELECTING.get(raw_name):
            sent.setdefault(name, []).append(value.decode("latin-1"))
    for name, values in sent.items():
        if sum(map(len, values)) > MAX_HEADER:
            raise HeaderTooLarge(name)
    specs = parse_range(sent.get("range", [])) if method == "GET" else None
    if_ranges = sent.get("if-range")
    return RequestSelectors(
        specs=specs,
        # If-Range counts only together with Range (13.1.5). Several of them match no version.
        if_range=", ".join(if_ranges) if specs and if_ranges else None,
        # A list of tags may be spread over several headers; two dates are no date.
        conditions={name: ", ".join(sent[name]) for name in CONDITIONS if name in sent},
    )
