"""What a request asks for: Range, If-Range, conditions, and a file name in `?download`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request

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

    def single_get(self) -> tuple[Spec | None, str | None] | None:
        """Return the range and If-Match of a single GET that all stores evaluate alike.

        Return None if the request needs a HEAD first, before the service decides by itself.
        """
        specs: Sequence[Spec | None] = self.specs or [None]
        if len(specs) > 1 or (specs[0] and specs[0].suffix == 0):
            return None
        given = [*self.conditions, *([] if self.if_range is None else ["if-range"])]
        if not given:
            return specs[0], None
        tag = single_strong_tag(self.conditions.get("if-match", self.if_range))
        return (specs[0], tag) if tag and given in (["if-match"], ["if-range"]) else None


def download_name(request: Request) -> str | None:
    """Return `download` in the query, or None; without a query, spare Starlette's slow parser."""
    return request.query_params.get("download") if request.scope["query_string"] else None


def parse_selectors(request: Request) -> RequestSelectors:
    """Return the selectors of a request; raise HeaderTooLarge above MAX_HEADER."""
    sent: dict[str, list[str]] = {}
    for raw_name, value in request.scope["headers"]:  # One pass; each headers.get() makes one.
        if name := _SELECTING.get(raw_name):
            sent.setdefault(name, []).append(value.decode("latin-1"))
    for name, values in sent.items():
        if sum(map(len, values)) > MAX_HEADER:
            raise HeaderTooLarge(name)
    specs = parse_range(sent.get("range", [])) if request.method == "GET" else None
    if_ranges = sent.get("if-range")
    return RequestSelectors(
        specs=specs,
        # If-Range is ignored without Range (13.1.5). Several If-Range headers match no version.
        if_range=", ".join(if_ranges) if specs and if_ranges else None,
        # Repeated lists of tags form one list; repeated dates form an invalid one, to be ignored.
        conditions={name: ", ".join(sent[name]) for name in CONDITIONS if name in sent},
    )
