"""Numbers in paths, parsed by hand.

Starlette's int convertor answers 500 to 4301 digits and 200 to "5%0A"; its str convertor lets
through "..", NUL and what is not ASCII.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.routing import Route

from ..errors import NotFound, SizeTooLarge

# As many digits as any 64-bit integer has.
MAX_DIGITS = 19


class ExactRoute(Route):
    """A route whose pattern ends where the path ends; Starlette's lets one newline follow."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")


def parse_task_id(request: Request) -> int:
    """Return the task's number from the path; raises NotFound where it is none."""
    digits = _digits(request.path_params["task_id"])
    if len(digits) > MAX_DIGITS:
        raise NotFound("task id too long")
    return int(digits)


def parse_size(request: Request, *, most: int) -> int:
    """Return the size from the path; raises NotFound where it is none, SizeTooLarge over `most`.

    A size of thousands of digits is a number like any other: too large, and never parsed.
    """
    digits = _digits(request.path_params["size"])
    if len(digits) > MAX_DIGITS or int(digits) > most:
        raise SizeTooLarge(f"more than {most}")
    return int(digits)


def _digits(text: str) -> str:
    """Return the digits of a number in ASCII without its leading zeros; raises NotFound."""
    if not re.fullmatch(r"[0-9]+", text):
        raise NotFound("not a number")
    return text.lstrip("0") or "0"
