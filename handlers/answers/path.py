"""Routes that match exactly one path, and parsers for the numbers in a path.

Starlette's int convertor answers 500 to a number of 4301 digits and 200 to "5%0A"; its str
convertor accepts "..", NUL and non-ASCII text.
"""

import re
from collections.abc import Awaitable, Callable

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..download.scope import DownloadScope
from ..errors import NotFound, SizeTooLarge
from .problems import refusal

# A 64-bit integer has no more digits.
MAX_DIGITS = 19

Handler = Callable[[Request], Awaitable[Response]]


class ExactRoute(Route):
    """A GET and HEAD route for exactly `path`; Starlette's Route also accepts a final newline.

    With a `source` ("s3", "http"), the handler serves downloads and runs in a DownloadScope.
    """

    def __init__(
        self, path: str, handler: Handler, *, name: str | None = None, source: str | None = None
    ) -> None:
        scope = [Middleware(DownloadScope, source=source, refuse=refusal)] if source else None
        super().__init__(path, handler, methods=["GET", "HEAD"], name=name, middleware=scope)
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")


def parse_task_id(digits: str) -> int:
    """Return a task id; raise NotFound if `digits` is no number of at most 19 digits."""
    digits = _significant_digits(digits)
    if len(digits) > MAX_DIGITS:
        raise NotFound(f"task id has more than {MAX_DIGITS} digits")
    return int(digits)


def parse_size(digits: str, *, limit: int) -> int:
    """Return a size in bytes; raise NotFound if not a number, SizeTooLarge above `limit`."""
    digits = _significant_digits(digits)
    if len(digits) > MAX_DIGITS or int(digits) > limit:
        raise SizeTooLarge(f"the size in the path is larger than {limit} bytes")
    return int(digits)


def _significant_digits(text: str) -> str:
    """Return a number without leading zeros; raise NotFound if `text` is not ASCII digits."""
    if not re.fullmatch(r"[0-9]+", text):
        raise NotFound("the task id or size in the path is not a number")
    return text.lstrip("0") or "0"
