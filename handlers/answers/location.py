"""Where the object of a task is, where a host says that and not the settings' template."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import TypeAlias

from ..access.hooks import run_hook
from ..errors import NotFound

MAX_KEY_BYTES = 1024  # of S3 itself
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")

Location: TypeAlias = str | tuple[str, str] | None
"""A key in the settings' bucket; a bucket and a key; None where there is no object."""

Locate: TypeAlias = Callable[[int], Location | Awaitable[Location]]
"""Return where the object of a task is; a plain function is called in a thread."""


async def resolve_location(
    locate: Locate, task_id: int, threads: Executor
) -> tuple[str | None, str]:
    """Return the bucket (None: the settings') and the key of a task.

    Raises NotFound, ValueError.
    """
    location = await run_hook(locate, threads, task_id)
    if location is None:
        raise NotFound("the host knows of no object")
    bucket, key = (None, location) if isinstance(location, str) else location
    check_key(key)
    return bucket, key


def check_key(key: str) -> None:
    """Raise ValueError where a key is none, or could name another bucket.

    Path-style, ".." would do that to a store, or something before it, that normalises paths.
    """
    size = len(key.encode())  # UnicodeEncodeError is a ValueError.
    if not 0 < size <= MAX_KEY_BYTES:
        raise ValueError(f"a key of {size} bytes")
    if {".", ".."} & set(key.split("/")) or _CONTROLS.search(key):
        raise ValueError("a key with '.' or '..' as a segment, or control characters")
