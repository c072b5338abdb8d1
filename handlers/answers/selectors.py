"""What a request asks of an object: which bytes, and on which conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request

from ..errors import HeaderTooLarge
from ..rfc9110.conditions import CONDITIONS, single_strong_tag
from ..rfc9110.ranges import Spec, parse_range

# More than any client sends; uvicorn itself has no bound.
MAX_HEADER = 64 * 1024

_SELECTING = {name.encode(): name for name in ("range", "if-range", *CONDITIONS)}


@dataclass(kw_only=True, slots=True)
class RequestSelectors:
    """The parts of a request that choose among the possible answers."""

    specs: list[Spec] | None
    """The ranges asked for; None where the whole is, and for HEAD (RFC 9110, 14.2)."""

    if_range: str | None
    conditions: Mapping[str, str]
    """The conditional headers of the request, by their names in lower case."""

    @property
    def lone_if_match(self) -> str | None:
        """The tag of If-Match, where that is the one condition and one strong tag."""
        if set(self.conditions) != {"if-match"}:
            return None
        return single_strong_tag(self.conditions["if-match"])


def parse_selectors(method: str, headers: Headers) -> RequestSelectors:
    """Return what a request of these headers asks for; raises HeaderTooLarge."""
    sent: dict[str, list[str]] = {}
    for raw_name, value in headers.raw:  # Once: each look into them goes through all.
        if name := _SELECTING.get(raw_name):
            sent.setdefault(name, []).append(value.decode("latin-1"))
    for name, values in sent.items():
        if sum(map(len, values)) > MAX_HEADER:
            raise HeaderTooLarge(name)
    specs = parse_range(sent.get("range", [])) if method == "GET" else None
    if_ranges = sent.get("if-range")
    return RequestSelectors(
        specs=specs,
        # Without a Range there is nothing that it could be a condition of (13.1.5); several of
        # them are none, and hold for no version.
        if_range=", ".join(if_ranges) if specs and if_ranges else None,
        # A list may be spread over several headers; two dates make none.
        conditions={name: ", ".join(sent[name]) for name in CONDITIONS if name in sent},
    )


def requested_filename(request: Request) -> str | None:
    """Return the name that the query asks the file to be saved by; None where it asks for none."""
    if not request.scope["query_string"]:
        return None
    return request.query_params.get("download")
