"""Routes that match exactly one path, and parsers for the numbers and keys in a path.

Starlette's int convertor answers 500 to a number of 4301 digits and 200 to "5%0A"; its str
convertor accepts "..", NUL and non-ASCII text.
"""

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from starlette.routing import Route

from ..download.scope import DownloadScope, Handler
from ..errors import NotFound, SizeTooLarge
from ..sources.s3.names import ObjectRoot, check_key
from .problems import refusal

# A 64-bit integer has no more digits.
MAX_DIGITS = 19


class ExactRoute(Route):
    """A GET and HEAD route for exactly `path`; Starlette's Route also accepts a final newline.

    With a `source` ("s3", "http"), the handler serves downloads and runs in a DownloadScope.
    """

    def __init__(
        self, path: str, handler: Handler, *, name: str | None = None, source: str | None = None
    ) -> None:
        super().__init__(path, handler, methods=["GET", "HEAD"], name=name)
        self.app = DownloadScope(handler, source=source, refuse=refusal) if source else self.app
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")
        self.path = self.path_format  # /objects/{key}, not /objects/{key:path}


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
    if not (text.isascii() and text.isdigit()):
        raise NotFound("the task id or size in the path is not a number")
    return text.lstrip("0") or "0"


def parse_object_path(
    path: str, raw_path: bytes | None, roots: Mapping[str, ObjectRoot]
) -> tuple[str | None, str]:
    """Return the bucket (None: the settings' bucket) and the key for a path below `/objects/`.

    `path` is percent-decoded; `raw_path` is the whole path of the request as it was sent. Raises
    NotFound.
    """
    if "\ufffd" in path:  # Servers decode an invalid byte to this character, which a key may have.
        try:
            unquote_to_bytes(raw_path or b"%ff").decode()
        except UnicodeDecodeError:
            raise NotFound("the key in the path is not UTF-8") from None
    root = roots.get("")
    if root is None:
        name, _, path = path.partition("/")
        root = roots.get(name)
    if root is None or not path:
        raise NotFound("the path names no object")
    return root.bucket, require_valid_key(root.prefix + path)


def require_valid_key(key: str) -> str:
    """Return the key of an object; raise NotFound if S3 or a URL can't have it."""
    try:
        check_key(key)
    except ValueError as error:
        raise NotFound(f"key {error}") from error
    return key
