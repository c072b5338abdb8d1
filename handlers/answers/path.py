"""Routes that match whole paths, and the numbers in paths.

Starlette's int convertor answers 500 to 4301 digits and 200 to "5%0A"; its str convertor accepts
"..", NUL and non-ASCII text.
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
    """A GET and HEAD route that ends where the path ends; Starlette's allows a newline there.

    Its handler runs in a download scope if `source` names the upstream of its downloads.
    """

    def __init__(
        self, path: str, handler: Handler, *, name: str | None = None, source: str | None = None
    ) -> None:
        scope = [Middleware(DownloadScope, source=source, refuse=refusal)] if source else None
        super().__init__(path, handler, methods=["GET", "HEAD"], name=name, middleware=scope)
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")


def parse_task_id(digits: str) -> int:
    """Return the number of a task; raises NotFound for any other text."""
    digits = _significant_digits(digits)
    if len(digits) > MAX_DIGITS:
        raise NotFound("task id too long")
    return int(digits)


def parse_size(digits: str, *, limit: int) -> int:
    """Return a size in bytes. Raises NotFound for any other text, SizeTooLarge above `limit`.

    A size of thousands of digits is too large; it is never converted to an int.
    """
    digits = _significant_digits(digits)
    if len(digits) > MAX_DIGITS or int(digits) > limit:
        raise SizeTooLarge(f"more than {limit}")
    return int(digits)


def _significant_digits(text: str) -> str:
    """Return an ASCII number without leading zeros; raises NotFound."""
    if not re.fullmatch(r"[0-9]+", text):
        raise NotFound("not a number")
    return text.lstrip("0") or "0"
