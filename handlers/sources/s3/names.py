"""Names of buckets and keys, checked."""

import re

MAX_KEY_BYTES = 1024  # of S3 itself
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def check_key(key: str) -> None:
    """Raise ValueError where a key is none, or could name another bucket.

    In a path-style request ".." would do that to a store that normalises paths.
    """
    size = len(key.encode())  # UnicodeEncodeError is a ValueError.
    if not 0 < size <= MAX_KEY_BYTES:
        raise ValueError(f"a key of {size} bytes")
    if {".", ".."} & set(key.split("/")) or _CONTROLS.search(key):
        raise ValueError("a key with '.' or '..' as a segment, or control characters")
